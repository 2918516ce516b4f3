#!/usr/bin/env python3
"""Prints test vectors for memring's native ring, from a second implementation.

It follows the contract in the documentation of `Ring`, not the Rust code. XXH3 comes from the reference C
implementation through the `xxhash` package.

    pip install xxhash
    python3 scripts/ring_vectors.py > tests/data/ring-native.tsv
"""

import struct
import sys

import xxhash

POINTS_PER_WEIGHT = 512


def h(data):
    return xxhash.xxh3_64_intdigest(data) >> 32


def points(label, weight):
    return [h(label.encode() + struct.pack("<I", i)) for i in range(POINTS_PER_WEIGHT * weight)]


class Ring:
    def __init__(self, nodes):
        self.nodes = nodes
        self.points = sorted((at, label.encode()) for label, weight in nodes for at in points(label, weight))

    def successors(self, key):
        """Returns every node in ring order, found by a walk over all points."""
        at = h(key)
        ahead = [label for point, label in self.points if point >= at]
        behind = [label for point, label in self.points if point < at]
        found = []
        for label in ahead + behind:
            if label not in found:
                found.append(label)
                if len(found) == len(self.nodes):
                    break
        return [label.decode() for label in found]

    def shares(self):
        """Returns how many of the 2^32 positions each node owns."""
        owned = dict.fromkeys((label for label, _ in self.nodes), 0)
        before = self.points[-1][0] - 2**32
        for at, label in self.points:
            owned[label.decode()] += at - before
            before = at
        return owned


def pods(numbers):
    return [(f"memcached-{i}.memcached.default.svc.cluster.local:11211", 1) for i in numbers]


def tie():
    """Returns two labels with a point at the same position, and a key on the arc that ends there."""
    seen = {}
    for i in range(10_000):
        label = f"tie-{i}:11211"
        for at in points(label, 1):
            other = seen.setdefault(at, label)
            if other != label:
                pair = Ring([(label, 1), (other, 1)])
                before = max((point for point, _ in pair.points if point < at), default=None)
                if before is None:
                    continue
                key = next(k for k in (b"tie:%d" % j for j in range(10**8)) if before < h(k) <= at)
                return pair.nodes, key
    raise SystemExit("no tie found")


TIE_NODES, TIE_KEY = tie()

RINGS = {
    "one": pods([0]),
    "three": pods(range(3)),
    "ten": pods(range(10)),
    "twelve, shuffled": pods([7, 11, 0, 3, 10, 1, 9, 5, 2, 8, 4, 6]),
    "fifty": pods(range(50)),
    "weights": [("a:11211", 1), ("b:11211", 2), ("c:11211", 3), ("d:11211", 7), ("e:11211", 100)],
    "addresses": [("10.0.0.1:11211", 1), ("10.0.0.2:11211", 1), ("[::1]:11211", 1), ("[2001:db8::1]:11211", 1)],
    "ports": [("127.0.0.1:11211", 1), ("127.0.0.1:11212", 1), ("127.0.0.1:11213", 1)],
    # XXH3 hashes inputs of different lengths in different ways; these labels use all of them.
    "lengths": [("x" * length, 1) for length in (1, 2, 3, 4, 5, 8, 9, 12, 13, 16, 17, 124, 125, 128, 236, 237, 300)],
    "short": [("mc0", 1), ("mc1", 1), ("mc2", 1)],
    "other bytes": [("naïve", 1), ("naive", 1), ("Naive", 1), (" ", 1)],
    "tie": TIE_NODES,
}

KEYS = [b"user:%d" % i for i in range(20)] + [b"", b"\x00", b"\xff" * 9, b"two words", "naïve".encode()]
# Keys of the lengths at which XXH3 changes its algorithm. One ring is enough for them.
LONG_KEYS = [bytes(i % 256 for i in range(n)) for n in (1, 3, 4, 8, 9, 16, 17, 128, 129, 240, 241, 250, 1024, 1025)]


def main():
    out = sys.stdout
    title = "Keys in hex; shares in positions of 2^32; successors end after five."
    print(f"# Made by scripts/ring_vectors.py. {title}", file=out)
    for name, nodes in RINGS.items():
        print("ring", name, sep="\t", file=out)
        for label, weight in nodes:
            print("node", label, weight, sep="\t", file=out)
        ring = Ring(nodes)
        for label, weight in nodes[:6]:
            for i in (0, 1, 2, POINTS_PER_WEIGHT * weight - 1):
                print("point", label, i, f"{h(label.encode() + struct.pack('<I', i)):08x}", sep="\t", file=out)
        for label, owned in ring.shares().items():
            print("share", label, owned, sep="\t", file=out)
        keys = KEYS + {"three": LONG_KEYS, "tie": [TIE_KEY]}.get(name, [])
        for key in keys:
            print("key", key.hex(), f"{h(key):08x}", *ring.successors(key)[:5], sep="\t", file=out)


if __name__ == "__main__":
    main()
