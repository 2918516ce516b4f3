//! DNS servers of other projects, which serve the records of a headless service.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs, io};

use crate::process::{Process, loopback};

pub(crate) const SERVICE: &str = "memcached.default.svc.cluster.local";
/// A CNAME of the service, in every zone.
pub(crate) const ALIAS: &str = "cache.shop.svc.cluster.local";

/// Set by `scripts/test` if the machine can run these tests.
const REQUIRE: &str = "MEMRING_REQUIRE_DNS_SERVERS";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Software {
    /// Authoritative. Sends glue, and over TCP as much of it as fits.
    Knot,
    /// Authoritative. Sends glue with short answers only: with a dozen pods, but not with twenty.
    Bind,
    /// A cache in front of Knot. Never sends glue.
    Unbound,
    /// A forwarder in front of Knot. Sends glue, but not with answers from its cache.
    Dnsmasq,
}

impl Software {
    fn program_name(self) -> &'static str {
        match self {
            Self::Knot => "knotd",
            Self::Bind => "named",
            Self::Unbound => "unbound",
            Self::Dnsmasq => "dnsmasq",
        }
    }

    /// Returns the path of the program, or what this machine lacks.
    fn program(self) -> Result<PathBuf, String> {
        loopback(0).ok_or("127.0.0.1 is the only loopback address")?;
        let path = env::var_os("PATH").unwrap_or_default();
        // The directories for servers, which not every user has on the path.
        let mut places = env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
        let name = self.program_name();
        let program = places.find_map(|place| Some(place.join(name)).filter(|program| program.is_file()));
        program.ok_or_else(|| format!("{name} is not installed"))
    }

    /// Returns the command that runs the server in the foreground.
    fn command(self, program: &Path, conf: &Path) -> Command {
        let mut command = Command::new(program);
        match self {
            Self::Knot => command.arg("-c").arg(conf),
            // One thread, because by default there are several for each core.
            Self::Bind => command.args(["-f", "-n", "1", "-c"]).arg(conf),
            Self::Unbound => command.args(["-d", "-c"]).arg(conf),
            Self::Dnsmasq => command.arg("--keep-in-foreground").arg(format!("--conf-file={}", conf.display())),
        };
        command
    }

    fn conf(self, dir: &Path, addr: SocketAddr, upstream: Option<SocketAddr>) -> String {
        let (dir, ip, port) = (dir.display(), addr.ip(), addr.port());
        let upstream = |separator: char| upstream.map(|addr| format!("{}{separator}{}", addr.ip(), addr.port()));
        match self {
            Self::Knot => format!(
                "server:\n  rundir: \"{dir}\"\n  listen: {ip}@{port}\ndatabase:\n  storage: \"{dir}\"\n\
                 log:\n- target: stderr\n  any: error\n\
                 zone:\n- domain: cluster.local\n  storage: \"{dir}\"\n  file: zone\n  \
                 zonefile-load: whole\n  zonefile-sync: -1\n  journal-content: none\n"
            ),
            // Without the option for records, it refuses a zone with more than 100 pods.
            Self::Bind => format!(
                "options {{ directory \"{dir}\"; pid-file none; session-keyfile none; max-records-per-type 0;\n\
                 listen-on port {port} {{ {ip}; }}; listen-on-v6 {{ none; }}; recursion no; notify no;\n\
                 dnssec-validation no; }};\ncontrols {{ }};\n\
                 logging {{ channel all {{ stderr; severity error; }}; category default {{ all; }}; }};\n\
                 zone \"cluster.local\" {{ type primary; file \"zone\"; }};\n"
            ),
            Self::Unbound => format!(
                "server:\n  interface: {ip}@{port}\n  port: {port}\n  access-control: 127.0.0.0/8 allow\n  \
                 do-daemonize: no\n  directory: \"{dir}\"\n  chroot: \"\"\n  username: \"\"\n  pidfile: \"\"\n  \
                 use-syslog: no\n  verbosity: 0\n  module-config: iterator\n  do-not-query-localhost: no\n\
                 forward-zone:\n  name: cluster.local\n  forward-addr: {}\n",
                upstream('@').unwrap()
            ),
            Self::Dnsmasq => format!(
                "listen-address={ip}\nport={port}\nbind-interfaces\nno-resolv\nno-hosts\npid-file=\nuser=\n\
                 log-facility={dir}/log\nserver=/cluster.local/{}\n",
                upstream('#').unwrap()
            ),
        }
    }

    fn is_cache(self) -> bool {
        matches!(self, Self::Unbound | Self::Dnsmasq)
    }

    /// Returns an address that is free for UDP and TCP.
    fn free_addr(self) -> SocketAddr {
        // BIND listens only at addresses that the system lists, which is one of all loopback addresses.
        let ip = if self == Self::Bind { Ipv4Addr::LOCALHOST.into() } else { loopback(0).unwrap().ip() };
        // Below the ports that the system gives to clients.
        let mut candidates = std::iter::repeat_with(|| SocketAddr::new(ip, fastrand::u16(10_000..32_000)));
        candidates.find(|addr| UdpSocket::bind(addr).is_ok() && TcpListener::bind(addr).is_ok()).unwrap()
    }
}

/// A pod that DNS lists: its host name and address.
pub(crate) type Listed = (String, SocketAddr);

/// A running server with its files. A cache also has the server behind it.
#[derive(Debug)]
pub(crate) struct DnsServer {
    software: Software,
    program: PathBuf,
    process: Option<Process>,
    dir: PathBuf,
    addr: SocketAddr,
    upstream: Option<Box<Self>>,
    serial: u32,
}

impl DnsServer {
    /// Starts a server that lists these pods. Without the program the test is skipped, or fails if it is required.
    pub(crate) fn start_or_skip(software: Software, pods: &[Listed]) -> Option<Self> {
        match Self::start(software, pods) {
            Ok(server) => Some(server),
            Err(reason) => {
                assert!(env::var_os(REQUIRE).is_none(), "{reason}");
                eprintln!("SKIPPED: memring against {software:?}: {reason}");
                None
            }
        }
    }

    fn start(software: Software, pods: &[Listed]) -> Result<Self, String> {
        let program = software.program()?;
        let upstream = software.is_cache().then(|| Self::start(Software::Knot, pods)).transpose()?;
        // Short, because it may hold a Unix socket, whose path has a length limit.
        let dir = env::temp_dir().join(format!("memring-dns-{:08x}", fastrand::u32(..)));
        fs::create_dir(&dir).unwrap();
        let addr = software.free_addr();
        let conf = software.conf(&dir, addr, upstream.as_ref().map(Self::addr));
        fs::write(dir.join("conf"), conf).unwrap();
        let program = unconfined(program);
        // Its bytes occur nowhere else in a response, so `wait` can search for them.
        let serial = 0x7a5b_3c00;
        let upstream = upstream.map(Box::new);
        let mut server = Self { software, program, process: None, dir, addr, upstream, serial };
        server.write_zone(pods);
        server.run();
        Ok(server)
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn run(&mut self) {
        self.process = Some(Process::spawn(&mut self.software.command(&self.program, &self.dir.join("conf"))));
        self.wait();
    }

    pub(crate) fn stop(&mut self) {
        self.process = None;
    }

    /// Replaces the listed pods. Returns when the new zone was served.
    pub(crate) fn publish(&mut self, pods: &[Listed]) -> Instant {
        match &mut self.upstream {
            Some(upstream) => drop(upstream.publish(pods)),
            None => {
                self.write_zone(pods);
                self.process.as_ref().unwrap().signal("-HUP");
            }
        }
        self.wait();
        Instant::now()
    }

    /// Waits until it serves the zone last written.
    fn wait(&mut self) {
        let serial = self.upstream.as_ref().map_or(self.serial, |upstream| upstream.serial);
        let (addr, serial) = (self.addr, serial.to_be_bytes());
        let serves = || query_soa(addr).is_ok_and(|response| response.windows(4).any(|bytes| bytes == serial));
        let what = format!("{:?} serves its zone", self.software);
        self.process.as_mut().unwrap().wait_until_ready(&what, serves);
    }

    fn write_zone(&mut self, pods: &[Listed]) {
        self.serial += 1;
        let mut zone = format!("$TTL 1\n@ SOA ns.dns hostmaster {} 7200 1800 86400 1\n@ NS ns.dns\n", self.serial);
        writeln!(zone, "ns.dns A {}\n{ALIAS}. CNAME {SERVICE}.", self.addr.ip()).unwrap();
        for (host, addr) in pods {
            writeln!(zone, "{SERVICE}. SRV 0 33 {} {host}.\n{host}. A {}", addr.port(), addr.ip()).unwrap();
        }
        // Renamed, so that the server never reads a part.
        fs::write(self.dir.join("zone.new"), zone).unwrap();
        fs::rename(self.dir.join("zone.new"), self.dir.join("zone")).unwrap();
    }
}

/// Returns a copy of the program if AppArmor is on: it keeps a DNS server from its files unless they are in `/etc`.
fn unconfined(program: PathBuf) -> PathBuf {
    let is_on = fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'));
    if !is_on {
        return program;
    }
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join(program.file_name().unwrap());
    let part = copy.with_extension(format!("{:08x}", fastrand::u32(..)));
    // Not by this process: a program that another thread starts meanwhile would inherit the file, open for writing.
    assert!(Command::new("cp").args([&program, &part]).status().unwrap().success());
    fs::rename(part, &copy).unwrap();
    copy
}

/// Queries the SOA record, which contains the zone's serial number.
fn query_soa(addr: SocketAddr) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(addr)?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    socket.send(b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x07cluster\x05local\0\0\x06\0\x01")?;
    let mut response = vec![0; 512];
    let length = socket.recv(&mut response)?;
    response.truncate(length);
    Ok(response)
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        // The process ends before its files go.
        self.process = None;
        let _ = fs::remove_dir_all(&self.dir);
    }
}
