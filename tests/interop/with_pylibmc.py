"""pylibmc's side of scripts/interop: CONFIG write|read FILE SERVER..., or version."""

import sys

try:
    import pylibmc
except ImportError:
    sys.exit(77)

BEHAVIORS = {
    "modula": {},
    "ketama": {"ketama": True},
    "ketama_weighted": {"ketama_weighted": True},
}

if sys.argv[1] == "version":
    print(f"{pylibmc.__version__}, libmemcached {pylibmc.libmemcached_version}")
    sys.exit()

config, action, file, *servers = sys.argv[1:]
servers = [server.split("=")[0] for server in servers]
client = pylibmc.Client(servers, behaviors=BEHAVIORS[config])
for line in open(file, encoding="utf-8"):
    key, value = line.rstrip("\n").split("\t")
    if action == "write":
        assert client.set(key, value), key
    else:
        assert client.get(key) == value, key
