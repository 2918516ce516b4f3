//! Pods: memcached processes, each on its own address and all on the service's port.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::process::{Process, loopback, wait_until};

pub(crate) const PORT: u16 = 11211;

#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) ordinal: usize,
    pub(crate) addr: SocketAddr,
    pub(crate) process: Process,
}

impl Pod {
    pub(crate) fn start(ordinal: usize) -> Self {
        Self::start_at(ordinal, loopback(PORT).unwrap())
    }

    pub(crate) fn start_at(ordinal: usize, addr: SocketAddr) -> Self {
        let program = std::env::var_os("MEMCACHED").filter(|path| !path.is_empty());
        let mut command = Command::new(program.unwrap_or_else(|| "memcached".into()));
        // memcached refuses to run as root without `-u root`, and ignores the option for other users.
        command.args(["-U", "0", "-t", "1", "-m", "64", "-u", "root"]);
        command.args(["-l", &addr.ip().to_string(), "-p", &PORT.to_string()]);
        let mut process = Process::spawn(&mut command);
        process.wait_until_ready("memcached listens", || TcpStream::connect(addr).is_ok());
        Self { ordinal, addr, process }
    }

    /// Returns the host name that a StatefulSet gives to the pod.
    pub(crate) fn host(&self) -> String {
        format!("memcached-{}.memcached.default.svc.cluster.local", self.ordinal)
    }

    /// Returns the node ID that the client must derive.
    pub(crate) fn id(&self) -> String {
        format!("{}:{PORT}", self.host())
    }

    /// Waits until the pod's statistics count a get and a set, and returns when they did.
    pub(crate) fn wait_until_it_serves(&self, limit: Duration) -> Instant {
        wait_until(limit, &format!("{} to serve", self.id()), || {
            let stats = self.stats();
            let has_any = |name: &str| stats.iter().any(|line| line.starts_with(name) && !line.ends_with(" 0"));
            has_any("STAT cmd_get ") && has_any("STAT cmd_set ")
        })
    }

    fn stats(&self) -> Vec<String> {
        let mut stream = TcpStream::connect(self.addr).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(b"stats\r\n").unwrap();
        BufReader::new(stream).lines().map(Result::unwrap).take_while(|line| line != "END").collect()
    }
}
