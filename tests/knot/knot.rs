//! The cluster's DNS: Knot, with a headless service's records in its zone file.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Instant;
use std::{env, fs};

use crate::pod::{PORT, Pod};
use crate::process::{PATIENCE, Process, loopback};

#[derive(Debug)]
pub(crate) struct Knot {
    process: Option<Process>,
    programs: Programs,
    dir: PathBuf,
    addr: SocketAddr,
    serial: u32,
}

#[derive(Debug)]
pub(crate) struct Programs {
    knotd: PathBuf,
    knotc: PathBuf,
}

impl Programs {
    /// Otherwise what it is that is not there.
    pub(crate) fn find() -> Result<Self, &'static str> {
        let path = env::var_os("PATH").unwrap_or_default();
        // Where systems keep servers, which is not on everybody's path.
        let places = || env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
        let find = |name: &str| places().map(|place| place.join(name)).find(|program| program.is_file());
        loopback(0).ok_or("127.0.0.1 is the only loopback address")?;
        let knotd = find("knotd").ok_or("there is no knotd (package knot)")?;
        Ok(Self { knotd, knotc: find("knotc").ok_or("there is no knotc (package knot)")? })
    }
}

impl Knot {
    pub(crate) fn start(programs: Programs, pods: &[Pod]) -> Self {
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
        let mut knot = Self { process: None, programs, dir, addr, serial: 0 };
        knot.write_zone(pods);
        knot.run();
        knot
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns once it serves the zone.
    pub(crate) fn run(&mut self) {
        let mut process = Process::spawn(Command::new(&self.programs.knotd).arg("-c").arg(self.dir.join("conf")));
        process.ready("knotd serves its zone", || self.control(&["zone-read", "cluster.local"]).status.success());
        self.process = Some(process);
    }

    pub(crate) fn stop(&mut self) {
        let mut process = self.process.take().unwrap();
        process.signal("-TERM");
        process.ended(PATIENCE);
    }

    /// Lists these pods and no others; since when it does.
    pub(crate) fn publish(&mut self, pods: &[Pod]) -> Instant {
        self.write_zone(pods);
        let output = self.control(&["-b", "zone-reload", "cluster.local"]);
        let published = Instant::now();
        assert!(output.status.success(), "{output:?}");
        let zone = String::from_utf8(self.control(&["zone-read", "cluster.local"]).stdout).unwrap();
        let listed = |pod: &Pod| zone.contains(&format!("{}. 1 A {}\n", pod.host(), pod.addr.ip()));
        assert!(pods.iter().all(listed) && zone.matches(" SRV ").count() == pods.len(), "{zone}");
        published
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

    fn control(&self, arguments: &[&str]) -> Output {
        Command::new(&self.programs.knotc).arg("-c").arg(self.dir.join("conf")).args(arguments).output().unwrap()
    }
}

impl Drop for Knot {
    fn drop(&mut self) {
        // Before its files.
        self.process = None;
        let _ = fs::remove_dir_all(&self.dir);
    }
}
