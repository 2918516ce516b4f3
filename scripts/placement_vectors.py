#!/usr/bin/env python3
"""placement_vectors.py [--seed NUMBER] [--sets NUMBER] [--keys NUMBER] FOLDER

Records the owners that clients of other languages compute for random servers, weights and keys, in files like those of
tests/data/placements.

The same seed produces the same servers, weights and keys. A client that is not installed is skipped with a warning;
scripts/interop --install installs the clients that Debian has. The files of tests/data/placements/further were recorded
with --seed 20260729 --sets 3.
"""

import argparse
import json
import pathlib
import random
import subprocess
import sys

PROGRAMS = pathlib.Path(__file__).resolve().parent.parent / "tests" / "interop"
HASHES = ["default", "md5", "crc", "fnv1_64", "fnv1a_64", "fnv1_32", "fnv1a_32"]
PHP_HASHES = [
    (f"{option}:{hash}", {"distribution": distribution, "hash": hash})
    for option, distribution in [("modula", "modula"), ("consistent", "ketama"), ("libketama", "ketama_weighted")]
    for hash in HASHES
]

# For each client: its program, whether it has weights, and its configurations as the program and as the files name
# them.
CLIENTS = [
    (
        "dalli",
        ["ruby", "with_dalli.rb"],
        True,
        [("default", {"distribution": "dalli_ring", "points": "sha1", "hash": "crc32"})],
    ),
    ("php-memcached", ["php", "with_php.php"], True, PHP_HASHES),
    (
        "pecl-memcache",
        ["php", "with_pecl.php"],
        True,
        [(name, {"distribution": name, "hash": "crc32"}) for name in ["standard", "consistent"]],
    ),
    (
        "pymemcache",
        ["python3", "with_pymemcache.py"],
        False,
        [(kind, {"distribution": "rendezvous", "hash": "murmur3_32", "key_type": kind}) for kind in ["str", "bytes"]],
    ),
    ("uhashring", ["python3", "with_uhashring.py"], False, [("default", {"distribution": "ring", "hash": "md5"})]),
]


def servers(choose, weighted):
    """Returns a random list of servers."""
    count = choose.choice([1, 2, 2, 3, 3, 4, 5, 6, 7, 8, 9, 11, 13, 16, 25])
    network = choose.choice(
        [
            lambda: f"cache-{choose.randrange(40)}.cache",
            lambda: f"mc{choose.randrange(40)}.{choose.choice(['eu', 'us'])}.example.com",
            lambda: f"10.{choose.randrange(4)}.{choose.randrange(256)}.{choose.randrange(1, 255)}",
        ]
    )
    ports = choose.choice([[11211], [11211, 11212], list(range(11211, 11251)), [1, 22122, 65535]])
    weights = choose.choice([[1], list(range(1, 5)), list(range(1, 101))]) if weighted else [1]
    found = {}
    while len(found) < count:
        found[network(), choose.choice(ports)] = choose.choice(weights)
    return [{"host": host, "port": port, "weight": weight} for (host, port), weight in found.items()]


def keys(choose, count):
    """Returns distinct random keys: short and long, ASCII and not, some with quotes and backslashes."""
    printable = [chr(code) for code in range(0x21, 0x7F)]
    letters = "abcdefghijklmnopqrstuvwxyz0123456789:_-./"
    wide = "äßéñçøżλжщ中日本語한ไ😀\u00a0\u2028"
    found = {}
    while len(found) < count:
        alphabet = choose.choice([printable, letters, letters, letters + wide])
        length = choose.choice([1, 2, 3, 4, 5, 7, 8, 9, 11, 12, 13, 15, 16, 17, 20, 24, 31, 33, 60])
        key = "".join(choose.choice(alphabet) for _ in range(length))
        if len(key.encode()) <= 250:
            found[key] = None
    return list(found)


def run(command, *arguments, **options):
    return subprocess.run(
        [command[0], PROGRAMS / command[1], *arguments],
        check=True,
        stdout=subprocess.PIPE,
        timeout=60,
        text=True,
        **options,
    ).stdout


def installed(command):
    """Returns the command and the version of a client, or `None` for both if it is not installed.

    Also tries the system's interpreter, because Debian installs Python packages there.
    """
    interpreter, program = command
    for interpreter in [interpreter, f"/usr/bin/{interpreter}"]:
        try:
            return [interpreter, program], run([interpreter, program], "version", stderr=subprocess.DEVNULL).strip()
        except (OSError, subprocess.CalledProcessError):
            pass
    return None, None


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--sets", type=int, default=1, help="files per configuration")
    parser.add_argument("--keys", type=int, default=60, help="keys per file")
    parser.add_argument("folder", type=pathlib.Path)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    print(f"seed {options.seed}")
    input_file = options.folder / "asked"
    for client, command, weighted, configurations in CLIENTS:
        command, version = installed(command)
        if command is None:
            print(f"!! SKIPPED: {client} is not installed", file=sys.stderr)
            continue
        # A seed per client, so the files do not depend on which other clients are installed.
        choose = random.Random(f"{options.seed} {client}")
        for number in range(options.sets):
            for name, config in configurations:
                nodes, words = servers(choose, weighted), keys(choose, options.keys)
                input_file.write_text("".join(f"{word}\t\n" for word in words), encoding="utf-8")
                names = [f"{node['host']}:{node['port']}" for node in nodes]
                arguments = [f"{text}={node['weight']}" if weighted else text for text, node in zip(names, nodes)]
                owners = run(command, name, "owners", input_file, *arguments).splitlines()
                assert len(owners) == len(words), f"{client} {name}: {len(owners)} owners"
                lines = [
                    f'{{"client": {json.dumps(client)}, "version": {json.dumps(version)},',
                    f' "config": {json.dumps(config)},',
                    ' "servers": [\n' + ",\n".join(json.dumps(node, separators=(",", ":")) for node in nodes) + "],",
                    ' "keys": [\n' + ",\n".join(json.dumps(word, ensure_ascii=False) for word in words) + "],",
                    f' "owner": {json.dumps([names.index(owner) for owner in owners], separators=(",", ":"))}}}',
                ]
                file = options.folder / f"{client}-{name.replace(':', '-')}-{number}.json"
                file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    input_file.unlink(missing_ok=True)


main()
