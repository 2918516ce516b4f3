#!/usr/bin/env python3
"""Records the replies of real memcached servers. The fuzz tests of the decoders start from them.

    python3 scripts/record_transcripts.py memcached-1.5.22 memcached-1.6.45 > tests/data/transcripts.tsv

One line per exchange, with four columns: the server's version; the reply that the client expects (`ReplyKind` in
src/protocol.rs, or `Stats` or `Dump` for replies of many lines); the request; the reply. Bytes that are not visible
ASCII are written as \\xNN.
"""

import socket
import subprocess
import sys
import time

ADDRESS = ("127.0.0.1", 22122)

CLASSIC = [
    ("Stored", b"set a 7 0 3\r\nabc\r\n"),
    ("Stored", b"set empty 0 0 0\r\n\r\n"),
    ("Stored", b"set framing 4294967295 0 16\r\nEND\r\nflush_all\r\n\r\n"),
    ("Stored", b"set " + b"k" * 250 + b" 0 100 300\r\n" + b"\x00\xff\r\n" * 75 + b"\r\n"),
    ("Stored", b"set n 0 0 2\r\n10\r\n"),
    ("Stored", b"add a 0 0 1\r\nx\r\n"),
    ("Stored", b"replace absent 0 0 1\r\nx\r\n"),
    ("Stored", b"append a 0 0 1\r\nd\r\n"),
    ("Stored", b"prepend absent 0 0 1\r\nd\r\n"),
    ("Stored", b"set large 0 0 1048576\r\n" + b"x" * 1048576 + b"\r\n"),
    ("Swapped", b"cas a 0 0 1 18446744073709551615\r\nx\r\n"),
    ("Swapped", b"cas absent 0 0 1 1\r\nx\r\n"),
    ("Values", b"get a\r\n"),
    ("Values", b"get absent\r\n"),
    ("Values", b"get a absent empty framing " + b"k" * 250 + b"\r\n"),
    ("Values", b"gets a empty framing\r\n"),
    ("Values", b"gat 100 a empty\r\n"),
    ("Values", b"gats 0 a absent\r\n"),
    ("Values", b"get " + b"k" * 251 + b"\r\n"),
    ("Number", b"incr n 5\r\n"),
    ("Number", b"decr n 6\r\n"),
    ("Number", b"incr n 18446744073709551615\r\n"),
    ("Number", b"incr absent 1\r\n"),
    ("Number", b"incr a 1\r\n"),
    ("Number", b"incr n x\r\n"),
    ("Touched", b"touch a 0\r\n"),
    ("Touched", b"touch absent 0\r\n"),
    ("Deleted", b"delete n\r\n"),
    ("Deleted", b"delete n\r\n"),
    ("Version", b"version\r\n"),
    ("Ok", b"verbosity 0\r\n"),
    ("Ok", b"flush_all 1000\r\n"),
    ("Ok", b"nonsense\r\n"),
    ("Memlimit", b"cache_memlimit 64\r\n"),
    ("Memlimit", b"cache_memlimit 1\r\n"),
]

# Meta commands in today's form: 1.6.10 and later.
META = [
    ("Meta", b"mg absent v k O0\r\n"),
    ("Meta", b"mg a v f c t s h l k O1\r\n"),
    ("Meta", b"mg a O2\r\n"),
    ("Meta", b"mg framing v O3\r\n"),
    ("Meta", b"mg empty v O4\r\n"),
    ("Meta", b"mg lease v c t N30 Omine\r\n"),
    ("Meta", b"mg lease v c t N30 Oyours\r\n"),
    ("MetaStored", b"ms AP/+ 8 b c k F9 T100 O5\r\n\r\nMN\r\nVA\r\n"),
    ("Meta", b"mg AP/+ b v k O6\r\n"),
    ("MetaStored", b"ms a 1 ME O7\r\nx\r\n"),
    ("MetaStored", b"ms a 1 C1 O8\r\nx\r\n"),
    ("MetaStored", b"ms absent 1 C1 O9\r\nx\r\n"),
    ("MetaStored", b"ms large 1048576 O10\r\n" + b"x" * 1048576 + b"\r\n"),
    ("Meta", b"ma number N0 J7 v t c O11\r\n"),
    ("Meta", b"ma number MD D9 v O12\r\n"),
    ("Meta", b"ma absent O13\r\n"),
    ("Meta", b"ma a v O14\r\n"),
    ("Meta", b"md a I T30 k O15\r\n"),
    ("Meta", b"mg a v c t R30 k O16\r\n"),
    ("Meta", b"mg a v c t O17\r\n"),
    ("Meta", b"md absent O18\r\n"),
    ("Meta", b"md a C1 O19\r\n"),
    ("Meta", b"mg a ! O20\r\n"),
    ("Meta", b"mg " + b"k" * 251 + b" v O21\r\n"),
    ("MetaDebug", b"me a\r\n"),
    ("MetaDebug", b"me absent\r\n"),
    ("MetaEnd", b"mn\r\n"),
    ("MetaRun", b"mg a v O22 q\r\nmg absent v O23 q\r\nmg framing v k f O24 q\r\nmn\r\n"),
    ("MetaRun", b"mg absent v O25 q\r\nmn\r\n"),
    ("MetaRun", b"mg a O26 q\r\nmg a ! O27 q\r\nmg empty v O28 q\r\nmn\r\n"),
]

LONG = [
    ("Stats", b"stats\r\n"),
    ("Stats", b"stats settings\r\n"),
    ("Stats", b"stats slabs\r\n"),
    ("Stats", b"stats items\r\n"),
    ("Stats", b"stats sizes\r\n"),
    ("Stats", b"stats reset\r\n"),
    ("Dump", b"lru_crawler metadump all\r\n"),
]


def exchange(request, last_bytes):
    """Sends the request on a new connection, and returns what arrives up to and including `last_bytes`."""
    with socket.create_connection(ADDRESS) as connection:
        connection.settimeout(5)
        connection.sendall(request)
        reply = b""
        while not reply.endswith(last_bytes):
            received = connection.recv(65536)
            if not received:
                break
            reply += received
        return reply


def escaped(data):
    """Returns the bytes as text, with all but visible ASCII escaped."""
    return "".join(chr(byte) if 32 < byte < 127 and byte != 92 else f"\\x{byte:02x}" for byte in data)


def wait_for_version():
    """Returns the reply to `version` of a server that is starting."""
    for _ in range(100):
        try:
            return exchange(b"version\r\n", b"\r\n")
        except OSError:
            time.sleep(0.05)
    sys.exit("the server does not start")


def record(version_reply):
    """Prints every exchange with the running server."""
    version = version_reply.split()[1].decode()
    has_meta = tuple(int(number) for number in version.split(".")) >= (1, 6, 10)
    for expect, request in CLASSIC + (META if has_meta else []) + LONG:
        if expect in ("Stats", "Dump"):
            reply = exchange(request, (b"END\r\n", b"RESET\r\n"))
        elif expect == "Version":
            reply = version_reply
        else:
            # The reply to `version` marks the end of the reply before it.
            reply = exchange(request + b"version\r\n", version_reply).removesuffix(version_reply)
        if len(request) > 4096:
            request = request[:64] + b"..."
        print(version, expect, escaped(request), escaped(reply), sep="\t")


def main():
    print("# Made by scripts/record_transcripts.py.")
    for program in sys.argv[1:]:
        host, port = ADDRESS
        server = subprocess.Popen([program, "-U", "0", "-u", "root", "-m", "64", "-l", host, "-p", str(port)])
        try:
            record(wait_for_version())
        finally:
            server.kill()
            server.wait()


if __name__ == "__main__":
    main()
