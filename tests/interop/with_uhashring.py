"""uhashring's side of scripts/interop, which is no client, but what meta-memcache-py places keys by: CONFIG
write|read|owners FILE SERVER..., or version."""

import socket
import sys

try:
    from uhashring import HashRing
except ImportError:
    sys.exit(77)

if sys.argv[1] == "version":
    from importlib.metadata import version

    print(version("uhashring"))
    sys.exit()

_, action, file, *servers = sys.argv[1:]
ring = HashRing(nodes=servers)
if action == "owners":
    for line in open(file, encoding="utf-8"):
        print(ring.get_node(line.rstrip("\n").split("\t")[0]))
    sys.exit()
sockets = {}
for server in servers:
    host, port = server.rsplit(":", 1)
    sockets[server] = socket.create_connection((host, int(port)), timeout=10).makefile("rwb")
for line in open(file, encoding="utf-8"):
    key, value = line.rstrip("\n").split("\t")
    value = value.encode()
    node = sockets[ring.get_node(key)]
    write = b"set %s 0 600 %d\r\n%s" % (key.encode(), len(value), value)
    command = write if action == "write" else b"get " + key.encode()
    node.write(command + b"\r\n")
    node.flush()
    if action == "write":
        assert node.readline() == b"STORED\r\n", key
    else:
        assert node.readline() != b"END\r\n", key
        assert node.readline() == value + b"\r\n", key
        assert node.readline() == b"END\r\n", key
