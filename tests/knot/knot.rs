//! Knot as the cluster's DNS server, with the records of a headless service in its zone file.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs, io};

use crate::pod::{PORT, Pod};
use crate::process::{Process, loopback};

#[derive(Debug)]
pub(crate) struct Knot {
    process: Option<Process>,
    program: PathBuf,
    dir: PathBuf,
    addr: SocketAddr,
    serial: u32,
}

impl Knot {
    /// Returns the path of `knotd`, or what this machine lacks.
    pub(crate) fn program() -> Result<PathBuf, &'static str> {
        loopback(0).ok_or("127.0.0.1 is the only loopback address")?;
        let path = env::var_os("PATH").unwrap_or_default();
        // The directories for servers, which not every user has on the path.
        let mut places = env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
        let program = places.find_map(|place| Some(place.join("knotd")).filter(|program| program.is_file()));
        program.ok_or("knotd is not installed (package knot)")
    }

    pub(crate) fn start(program: PathBuf, pods: &[Pod]) -> Self {
        // Short, because it holds a Unix socket, whose path has a length limit.
        let dir = env::temp_dir().join(format!("memring-knot-{:08x}", fastrand::u32(..)));
        fs::create_dir(&dir).unwrap();
        let addr = loopback(0).unwrap();
        let (ip, port, at) = (addr.ip(), addr.port(), dir.display());
        let conf = format!(
            "server:\n  rundir: \"{at}\"\n  listen: {ip}@{port}\ndatabase:\n  storage: \"{at}\"\n\
             log:\n- target: stderr\n  any: error\n\
             zone:\n- domain: cluster.local\n  storage: \"{at}\"\n  file: zone\n  \
             zonefile-load: whole\n  zonefile-sync: -1\n  journal-content: none\n"
        );
        fs::write(dir.join("conf"), conf).unwrap();
        // Its bytes occur nowhere else in a response, so `wait` can search for them.
        let mut knot = Self { process: None, program, dir, addr, serial: 0x7a5b_3c00 };
        knot.write_zone(pods);
        knot.run();
        knot
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn run(&mut self) {
        self.process = Some(Process::spawn(Command::new(&self.program).arg("-c").arg(self.dir.join("conf"))));
        self.wait();
    }

    pub(crate) fn stop(&mut self) {
        self.process = None;
    }

    /// Replaces the listed pods. Returns when the new zone was served.
    pub(crate) fn publish(&mut self, pods: &[Pod]) -> Instant {
        self.write_zone(pods);
        self.process.as_ref().unwrap().signal("-HUP");
        self.wait();
        Instant::now()
    }

    /// Waits until it serves the zone last written.
    fn wait(&mut self) {
        let (addr, serial) = (self.addr, self.serial.to_be_bytes());
        let serves = || query_soa(addr).is_ok_and(|response| response.windows(4).any(|bytes| bytes == serial));
        self.process.as_mut().unwrap().wait_until_ready("knotd serves its zone", serves);
    }

    fn write_zone(&mut self, pods: &[Pod]) {
        self.serial += 1;
        let mut zone = format!("$TTL 1\n@ SOA ns.dns hostmaster {} 7200 1800 86400 1\n@ NS ns.dns\n", self.serial);
        writeln!(zone, "ns.dns A {}", self.addr.ip()).unwrap();
        for pod in pods {
            let (host, ip) = (pod.host(), pod.addr.ip());
            writeln!(zone, "memcached.default.svc SRV 0 33 {PORT} {host}.\n{host}. A {ip}").unwrap();
        }
        fs::write(self.dir.join("zone"), zone).unwrap();
    }
}

/// Queries the SOA record, which contains the zone's serial number.
fn query_soa(addr: SocketAddr) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(addr)?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    socket.send(b"\0\x01\0\0\0\x01\0\0\0\0\0\0\x07cluster\x05local\0\0\x06\0\x01")?;
    let mut response = vec![0; 512];
    let length = socket.recv(&mut response)?;
    response.truncate(length);
    Ok(response)
}

impl Drop for Knot {
    fn drop(&mut self) {
        // The process ends before its files go.
        self.process = None;
        let _ = fs::remove_dir_all(&self.dir);
    }
}
