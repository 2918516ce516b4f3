<?php
// php-memcached's side of scripts/interop: CONFIG write|read|owners FILE SERVER..., or version. CONFIG may
// name a hash: modula:md5.

if (!class_exists('Memcached')) {
    exit(77);
}
if ($argv[1] === 'version') {
    ob_start();
    phpinfo(INFO_MODULES);
    preg_match('/libmemcached(?: library)? version => (\S+)/', ob_get_clean(), $found);
    echo phpversion('memcached'), ', libmemcached ', $found[1] ?? '?', "\n";
    exit(0);
}

[, $config, $action, $file] = $argv;
$client = new Memcached();
[$config, $hash] = explode(':', "$config:");
if ($config === 'consistent') {
    $client->setOption(Memcached::OPT_DISTRIBUTION, Memcached::DISTRIBUTION_CONSISTENT);
} elseif ($config === 'libketama' || $config === 'libketama_binary') {
    $client->setOption(Memcached::OPT_LIBKETAMA_COMPATIBLE, true);
}
if ($hash !== '') {
    $client->setOption(Memcached::OPT_HASH, constant('Memcached::HASH_' . strtoupper($hash)));
}
// By the text protocol it refuses keys that are not ASCII.
$client->setOption(Memcached::OPT_BINARY_PROTOCOL, $config === 'libketama_binary');
foreach (array_slice($argv, 4) as $server) {
    preg_match('/^(.+):(\d+)(?:=(\d+))?$/', $server, $parts);
    $client->addServer($parts[1], (int) $parts[2], (int) ($parts[3] ?? 1));
}
foreach (file($file, FILE_IGNORE_NEW_LINES) as $line) {
    [$key, $value] = explode("\t", $line);
    if ($action === 'owners') {
        $server = $client->getServerByKey($key);
        echo $server['host'], ':', $server['port'], "\n";
    } elseif ($action === 'write' ? !$client->set($key, $value) : $client->get($key) !== $value) {
        fwrite(STDERR, "$key: " . $client->getResultMessage() . "\n");
        exit(1);
    }
}
