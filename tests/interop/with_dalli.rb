# Dalli's side of scripts/interop: CONFIG write|read|owners FILE SERVER..., or version.

begin
  require 'dalli'
rescue LoadError
  exit 77
end

if ARGV[0] == 'version'
  puts Dalli::VERSION
  exit
end

config, action, file, *servers = ARGV
servers = servers.map { |server| server.sub('=', ':') }
client = Dalli::Client.new(servers, config == 'namespace' ? { namespace: 'ns' } : {})
if action == 'owners'
  ring = client.send(:ring)
  # No server listens there.
  ring.servers.each { |server| server.define_singleton_method(:alive?) { true } }
end
File.foreach(file, encoding: 'UTF-8', chomp: true) do |line|
  key, value = line.split("\t")
  if action == 'owners'
    puts ring.server_for_key(key).name
  elsif action == 'write'
    # Without raw it would be Ruby's Marshal format, which other languages cannot read.
    client.set(key, value, 600, raw: true) or abort "#{key}: not stored"
  else
    found = client.get(key)
    found && found.b == value.b or abort "#{key}: #{found.inspect}"
  end
end
