<?php
// pecl-memcache's side of scripts/interop: CONFIG write|read|owners FILE SERVER..., or version.

if (!class_exists('Memcache')) {
    exit(77);
}
if ($argv[1] === 'version') {
    echo phpversion('memcache'), "\n";
    exit(0);
}

[, $config, $action, $file] = $argv;
ini_set('memcache.hash_strategy', $config);
$client = new Memcache();
foreach (array_slice($argv, 4) as $server) {
    preg_match('/^(.+):(\d+)(?:=(\d+))?$/', $server, $parts);
    $client->addServer($parts[1], (int) $parts[2], true, (int) ($parts[3] ?? 1));
}
foreach (file($file, FILE_IGNORE_NEW_LINES) as $line) {
    [$key, $value] = explode("\t", $line);
    if ($action === 'owners') {
        echo $client->findServer($key), "\n";
    } elseif ($action === 'write' ? !$client->set($key, $value) : $client->get($key) !== $value) {
        fwrite(STDERR, "$key\n");
        exit(1);
    }
}
