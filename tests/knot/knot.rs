//! The cluster's DNS: Knot, with a headless service's records in its zone file.

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
    /// The program to start it with; otherwise what it is that is not there.
    pub(crate) fn program() -> Result<PathBuf, &'static str> {
        loopback(0).ok_or("127.0.0.1 is the only loopback address")?;
        let path = env::var_os("PATH").unwrap_or_default();
        // Where systems keep servers, which is not on everybody's path.
        let mut places = env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
        let program = places.find_map(|place| Some(place.join("knotd")).filter(|program| program.is_file()));
        program.ok_or("there is no knotd (package knot)")
    }

    pub(crate) fn start(program: PathBuf, pods: &[Pod]) -> Self {
        // Short, for there is a socket in it.
        let dir = env::temp_dir().join(format!("memring-knot-{:08x}", fastrand::u32(..)));
        fs::create_dir(&dir).unwrap();
        let addr = loopback(0).unwrap();
        let (ip, port, at) = (addr.ip(), addr.port(), dir.display());
        let conf = format!(
            "server:\n  rundir: \"{at}\"\n  listen: {ip}@{port}\ndatabase:\n  storage: \"{at}\"\n\
             log:\n- target: stderr\n  any: error\nzone:\n- domain: cluster.local\n  storage: \"{at}\"\n  file: zone\n  \
             zonefile-load: whole\n  zonefile-sync: -1\n  journal-content: none\n"
        );
        fs::write(dir.join("conf"), conf).unwrap();
        // A number whose bytes are not to be met anywhere else in an answer.
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

    /// Lists these pods and no others; since when it does.
    pub(crate) fn publish(&mut self, pods: &[Pod]) -> Instant {
        self.write_zone(pods);
        self.process.as_ref().unwrap().signal("-HUP");
        self.wait();
        Instant::now()
    }

    /// Returns once it answers out of the zone last written.
    fn wait(&mut self) {
        let (addr, serial) = (self.addr, self.serial.to_be_bytes());
        let answers = || ask_for_soa(addr).is_ok_and(|answer| answer.windows(4).any(|bytes| bytes == serial));
        self.process.as_mut().unwrap().ready("knotd serves its zone", answers);
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

/// The SOA record holds the zone's serial number.
fn ask_for_soa(addr: SocketAddr) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(addr)?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    socket.send(b"\0\x01\0\0\0\x01\0\0\0\0\0\0\x07cluster\x05local\0\0\x06\0\x01")?;
    let mut answer = vec![0; 512];
    let length = socket.recv(&mut answer)?;
    answer.truncate(length);
    Ok(answer)
}

impl Drop for Knot {
    fn drop(&mut self) {
        // Before its files.
        self.process = None;
        let _ = fs::remove_dir_all(&self.dir);
    }
}
