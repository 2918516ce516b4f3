//! The memcached processes everybody is measured against. They end when this process does, however it ends.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::data::Dataset;

pub(crate) const NODES: usize = 4;

/// Waits for the end of its input, which comes when this process is no more, and takes the server along. A process group
/// of its own keeps Ctrl-C from ending this before the server.
const KEEPER: &str = r#"[ "$(id -u)" = 0 ] && set -- "$@" -u root
"$0" "$@" >/dev/null & echo $!
read -r _
kill $! && wait $!"#;

const START_TIMEOUT: Duration = Duration::from_secs(10);

/// Some servers of one kind.
#[derive(Debug)]
pub(crate) struct Servers {
    servers: Vec<Server>,
}

#[derive(Debug)]
struct Server {
    keeper: Child,
    addrs: Vec<SocketAddr>,
}

impl Servers {
    /// Four of them.
    pub(crate) fn start(program: &str) -> Outcome<Self> {
        Self::start_with(program, &[IpAddr::V4(Ipv4Addr::LOCALHOST); NODES].map(|ip| vec![ip]))
    }

    /// Four of them that listen on 25 addresses each.
    pub(crate) fn start_as_many(program: &str) -> Outcome<Self> {
        let ip = |server: u8, node: u8| IpAddr::V4(Ipv4Addr::new(127, 77, server, node));
        let ips = |server| (1..=25).map(|node| ip(server, node)).collect();
        Self::start_with(program, &(0..NODES as u8).map(ips).collect::<Vec<_>>())
    }

    fn start_with(program: &str, servers: &[Vec<IpAddr>]) -> Outcome<Self> {
        // Better told now than by nobody answering.
        let version = Command::new(program).arg("-V").stdout(Stdio::null()).status();
        version.map_err(|error| format!("`{program}` cannot be run: {error}"))?;
        let servers = servers.iter().map(|ips| Server::start(program, ips)).collect::<Outcome<_>>()?;
        Ok(Self { servers })
    }

    pub(crate) fn addrs(&self) -> Vec<SocketAddr> {
        self.servers.iter().flat_map(|server| server.addrs.iter().copied()).collect()
    }

    /// What they say they are.
    pub(crate) fn version(&self) -> Outcome<String> {
        let reply = ask(self.servers[0].addrs[0], b"version\r\n")?;
        Ok(reply.trim_start_matches("VERSION ").trim().to_owned())
    }

    /// Stores the items on every server, for each client places keys in its own way.
    pub(crate) fn fill(&self, data: &Dataset) -> Outcome<()> {
        for addr in self.addrs() {
            fill(addr, data)?;
        }
        Ok(())
    }
}

impl Server {
    fn start(program: &str, ips: &[IpAddr]) -> Outcome<Self> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match Self::try_start(program, ips) {
                // Somebody may have taken the port since it was found free.
                Err(_) if attempt < 3 => {}
                done => return done,
            }
        }
    }

    fn try_start(program: &str, ips: &[IpAddr]) -> Outcome<Self> {
        let port = TcpListener::bind((ips[0], 0))?.local_addr()?.port();
        let addrs: Vec<_> = ips.iter().map(|&ip| SocketAddr::new(ip, port)).collect();
        let listen = ips.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",");
        let mut command = Command::new("sh");
        command.args(["-c", KEEPER, program, "-t", "1", "-U", "0", "-m", "1024", "-c", "8192", "-l", &listen]);
        command.args(["-p", &port.to_string()]).process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut keeper = command.spawn()?;
        let mut pid = String::new();
        if let Some(out) = keeper.stdout.take() {
            BufReader::new(out).read_line(&mut pid)?;
        }
        let server = Self { keeper, addrs };
        let deadline = Instant::now() + START_TIMEOUT;
        for &addr in &server.addrs {
            loop {
                match ask(addr, b"stats\r\n") {
                    Ok(reply) if reply.starts_with(&format!("STAT pid {}\r", pid.trim())) => break,
                    Ok(_) => return Err(format!("{addr} is somebody else's").into()),
                    Err(error) if Instant::now() > deadline => {
                        return Err(format!("`{program}` does not answer on {addr}: {error}").into());
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(5)),
                }
            }
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// The beginning of the answer, at least.
fn ask(addr: SocketAddr, request: &[u8]) -> io::Result<String> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(request)?;
    let mut reply = [0; 512];
    let length = stream.read(&mut reply)?;
    Ok(String::from_utf8_lossy(&reply[..length]).into_owned())
}

/// By classic commands, which every server knows.
fn fill(addr: SocketAddr, data: &Dataset) -> Outcome<()> {
    /// How much is sent before its answers are waited for: they have room in the socket's buffers meanwhile.
    const AT_ONCE: usize = 1_000;
    let mut stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let items: Vec<_> = data.keys.iter().zip(&data.values).collect();
    for items in items.chunks(AT_ONCE) {
        let mut requests = Vec::new();
        for (key, value) in items {
            requests.extend_from_slice(format!("set {key} 0 0 {}\r\n", value.len()).as_bytes());
            requests.extend_from_slice(value);
            requests.extend_from_slice(b"\r\n");
        }
        stream.write_all(&requests)?;
        let mut replies = vec![0; items.len() * STORED.len()];
        stream.read_exact(&mut replies)?;
        if !replies.chunks(STORED.len()).all(|reply| reply == STORED) {
            return Err(format!("{addr} did not store values of {} bytes", data.size).into());
        }
    }
    Ok(())
}

const STORED: &[u8] = b"STORED\r\n";
