<?php
// php-memcached's side of scripts/interop: CONFIG write|read FILE SERVER..., or version.

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
if ($config === 'consistent') {
    $client->setOption(Memcached::OPT_DISTRIBUTION, Memcached::DISTRIBUTION_CONSISTENT);
} elseif ($config === 'libketama' || $config === 'libketama_binary') {
    $client->setOption(Memcached::OPT_LIBKETAMA_COMPATIBLE, true);
}
// By the text protocol it refuses keys that are not ASCII.
$client->setOption(Memcached::OPT_BINARY_PROTOCOL, $config === 'libketama_binary');
foreach (array_slice($argv, 4) as $server) {
    preg_match('/^(.+):(\d+)(?:=(\d+))?$/', $server, $parts);
    $client->addServer($parts[1], (int) $parts[2], (int) ($parts[3] ?? 1));
}
foreach (file($file, FILE_IGNORE_NEW_LINES) as $line) {
    [$key, $value] = explode("\t", $line);
    if ($action === 'write' ? !$client->set($key, $value) : $client->get($key) !== $value) {
        fwrite(STDERR, "$key: " . $client->getResultMessage() . "\n");
        exit(1);
    }
}
