//! A link with latency: a process that forwards every byte after half a millisecond, in both directions, without a
//! limit on bandwidth.

use std::env;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::Outcome;

/// The delay in each direction.
const DELAY: Duration = Duration::from_micros(500);

/// The number of reads in transit. A reader then waits, as the sender into a full pipe does.
const MAX_IN_TRANSIT: usize = 4_096;

/// The hidden argument that makes a process a relay.
pub(crate) const ARGUMENT: &str = "--child-relay";

#[derive(Debug)]
pub(crate) struct Relay {
    process: Child,
    addrs: Vec<SocketAddr>,
}

impl Relay {
    pub(crate) fn start(targets: &[SocketAddr]) -> Outcome<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.arg(ARGUMENT).args(targets.iter().map(SocketAddr::to_string));
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut lines =
            process.stdout.take().map(|out| BufReader::new(out).lines()).ok_or("the relay has no output")?;
        let addrs = targets
            .iter()
            .map(|_| Ok(lines.next().ok_or("the relay printed no address")??.parse()?))
            .collect::<Outcome<_>>()?;
        Ok(Self { process, addrs })
    }

    pub(crate) fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// Runs a relay to the targets, and prints the address of each, until the end of input.
pub(crate) fn run(targets: &[SocketAddr]) -> Outcome<()> {
    for &target in targets {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        println!("{}", listener.local_addr()?);
        thread::spawn(move || {
            for client in listener.incoming() {
                if let Err(error) = client.and_then(|client| link(&client, target)) {
                    eprintln!("relay: {error}");
                }
            }
        });
    }
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn link(client: &TcpStream, target: SocketAddr) -> io::Result<()> {
    let server = TcpStream::connect(target)?;
    for (from, to) in [(client, &server), (&server, client)] {
        let (mut from, to) = (from.try_clone()?, to.try_clone()?);
        to.set_nodelay(true)?;
        let (sender, receiver) = sync_channel(MAX_IN_TRANSIT);
        thread::spawn(move || receive(&mut from, &sender));
        thread::spawn(move || forward(to, &receiver));
    }
    Ok(())
}

fn receive(from: &mut TcpStream, sender: &SyncSender<(Instant, Vec<u8>)>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if sender.send((Instant::now(), buffer[..read].to_vec())).is_err() {
            return;
        }
    }
}

fn forward(mut to: TcpStream, receiver: &Receiver<(Instant, Vec<u8>)>) {
    for (received, bytes) in receiver {
        thread::sleep((received + DELAY).saturating_duration_since(Instant::now()));
        if to.write_all(&bytes).is_err() {
            return;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
