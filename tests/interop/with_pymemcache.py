"""pymemcache's side of scripts/interop: CONFIG write|read|owners FILE SERVER..., or version."""

import sys

try:
    import pymemcache
    from pymemcache.client.hash import HashClient
    from pymemcache.serde import pickle_serde
except ImportError:
    sys.exit(77)

if sys.argv[1] == "version":
    print(pymemcache.__version__)
    sys.exit()

config, action, file, *servers = sys.argv[1:]
servers = [server.split("=")[0].rsplit(":", 1) for server in servers]
client = HashClient(
    [(host, int(port)) for host, port in servers],
    allow_unicode_keys=True,
    encoding="utf-8",
    serde=pickle_serde if config == "pickle_serde" else None,
)
for line in open(file, encoding="utf-8"):
    key, value = line.rstrip("\n").split("\t")
    if config == "bytes":
        key = key.encode()
    # Without a serde values are bytes, whatever they were.
    expected = value if config == "pickle_serde" else value.encode()
    if action == "owners":
        print("%s:%d" % client._get_client(key).server)
    elif action == "write":
        assert client.set(key, value, noreply=False), key
    else:
        assert client.get(key) == expected, key
