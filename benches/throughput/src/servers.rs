//! The memcached processes. They end with this process, however it ends.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::data::Dataset;

pub(crate) const NODES: usize = 4;

/// Starts the server and kills it at the end of its input, which comes when this process ends. It runs in a process
/// group of its own, so that Ctrl-C does not kill it before the server.
const SUPERVISOR: &str = r#"[ "$(id -u)" = 0 ] && set -- "$@" -u root
"$0" "$@" >/dev/null & echo $!
read -r _
kill $! && wait $!"#;

const START_TIMEOUT: Duration = Duration::from_secs(10);

/// Servers of one program.
#[derive(Debug)]
pub(crate) struct Servers {
    servers: Vec<Server>,
}

#[derive(Debug)]
struct Server {
    supervisor: Child,
    addrs: Vec<SocketAddr>,
}

impl Servers {
    /// Starts four servers.
    pub(crate) fn start(program: &str) -> Outcome<Self> {
        Self::start_with(program, &[IpAddr::V4(Ipv4Addr::LOCALHOST); NODES].map(|ip| vec![ip]))
    }

    /// Starts four servers that listen on 25 addresses each.
    pub(crate) fn start_with_100_addresses(program: &str) -> Outcome<Self> {
        let ip = |server: u8, node: u8| IpAddr::V4(Ipv4Addr::new(127, 77, server, node));
        let ips = |server| (1..=25).map(|node| ip(server, node)).collect();
        Self::start_with(program, &(0..NODES as u8).map(ips).collect::<Vec<_>>())
    }

    fn start_with(program: &str, servers: &[Vec<IpAddr>]) -> Outcome<Self> {
        // A clearer error than a timeout of the supervisor.
        let version = Command::new(program).arg("-V").stdout(Stdio::null()).status();
        version.map_err(|error| format!("`{program}` cannot be run: {error}"))?;
        let servers = servers.iter().map(|ips| Server::start(program, ips)).collect::<Outcome<_>>()?;
        Ok(Self { servers })
    }

    pub(crate) fn addrs(&self) -> Vec<SocketAddr> {
        self.servers.iter().flat_map(|server| server.addrs.iter().copied()).collect()
    }

    /// Returns the version of the first server.
    pub(crate) fn version(&self) -> Outcome<String> {
        let reply = query(self.servers[0].addrs[0], b"version\r\n")?;
        Ok(reply.trim_start_matches("VERSION ").trim().to_owned())
    }

    /// Stores the items on every server, because each client places keys in its own way.
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
                // Another process may have taken the port since it was found free.
                Err(_) if attempt < 3 => {}
                result => return result,
            }
        }
    }

    fn try_start(program: &str, ips: &[IpAddr]) -> Outcome<Self> {
        let port = TcpListener::bind((ips[0], 0))?.local_addr()?.port();
        let addrs: Vec<_> = ips.iter().map(|&ip| SocketAddr::new(ip, port)).collect();
        let listen = ips.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",");
        let mut command = Command::new("sh");
        command.args(["-c", SUPERVISOR, program, "-t", "1", "-U", "0", "-m", "1024", "-c", "8192", "-l", &listen]);
        command.args(["-p", &port.to_string()]).process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut supervisor = command.spawn()?;
        let mut pid = String::new();
        if let Some(out) = supervisor.stdout.take() {
            BufReader::new(out).read_line(&mut pid)?;
        }
        let server = Self { supervisor, addrs };
        let deadline = Instant::now() + START_TIMEOUT;
        for &addr in &server.addrs {
            loop {
                match query(addr, b"stats\r\n") {
                    Ok(reply) if reply.starts_with(&format!("STAT pid {}\r", pid.trim())) => break,
                    Ok(_) => return Err(format!("another process listens on {addr}").into()),
                    Err(error) if Instant::now() > deadline => {
                        return Err(format!("`{program}` does not respond on {addr}: {error}").into());
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
        drop(self.supervisor.stdin.take());
        let _ = self.supervisor.wait();
    }
}

/// Sends a request and returns at least the beginning of the response.
fn query(addr: SocketAddr, request: &[u8]) -> io::Result<String> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(request)?;
    let mut reply = [0; 512];
    let length = stream.read(&mut reply)?;
    Ok(String::from_utf8_lossy(&reply[..length]).into_owned())
}

/// Stores the items with classic commands, which every server version has.
fn fill(addr: SocketAddr, data: &Dataset) -> Outcome<()> {
    /// The number of sets per batch. Their responses fit into the socket buffers.
    const BATCH: usize = 1_000;
    let mut stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let items: Vec<_> = data.keys.iter().zip(&data.values).collect();
    for items in items.chunks(BATCH) {
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
            return Err(format!("{addr} did not store all values of {} bytes", data.size).into());
        }
    }
    Ok(())
}

const STORED: &[u8] = b"STORED\r\n";
