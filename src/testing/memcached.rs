//! Real `memcached` servers as child processes.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::addresses::{ATTEMPTS, Loopback};

/// How long a child may take to accept its first connection. Long, because starting is slow on a loaded machine.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// One real `memcached` process on its own loopback address. Dropping this kills the process.
///
/// The environment variable `MEMCACHED` names the program; otherwise it is `memcached` on the `PATH`. It runs with
/// `-U 0 -t 1 -m 64`, on port 11211 if that port is available.
///
/// If this process dies without running destructors (`SIGKILL`, `abort`), the child process keeps running.
///
/// ```no_run
/// # async fn run() -> std::io::Result<()> {
/// use memring::testing::Memcached;
///
/// let server = Memcached::start().await?;
/// println!("process {:?} listens on {}", server.pid(), server.addr());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Memcached {
    child: Child,
    addr: SocketAddr,
}

impl Memcached {
    /// Starts a server and waits until it answers, for at most 10 seconds.
    ///
    /// # Errors
    /// If the program cannot be run, or if it exits or does not answer in time.
    pub async fn start() -> io::Result<Self> {
        Self::start_with([] as [&str; 0]).await
    }

    /// Starts a server with additional arguments, such as `["-I", "4m"]`, and waits until it answers.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_with(args: impl IntoIterator<Item = impl Into<OsString>> + Send) -> io::Result<Self> {
        let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
        let (program, loopback) = (program(), Loopback::probe());
        let mut attempt = 1;
        loop {
            match Self::spawn(&program, &args, loopback.free_addr(None)?).await {
                // Another process took the address first.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempt < ATTEMPTS => attempt += 1,
                outcome => return outcome,
            }
        }
    }

    pub(super) async fn spawn(program: &Path, args: &[OsString], addr: SocketAddr) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.args(["-U", "0", "-t", "1", "-m", "64", "-l"]).arg(addr.ip().to_string());
        command.arg("-p").arg(addr.port().to_string());
        if is_root().await {
            // memcached refuses to run as root without this option.
            command.args(["-u", "root"]);
        }
        // The child inherits stderr, because a pipe that is not read would block it.
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        let child = command.spawn().map_err(|error| {
            let program = program.display();
            let message = format!("cannot run `{program}` (MEMCACHED can name another program): {error}");
            io::Error::new(error.kind(), message)
        })?;
        let mut server = Self { child, addr };
        server.wait_until_ready().await?;
        Ok(server)
    }

    async fn wait_until_ready(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                // If the address is free, the arguments were wrong, and another address would not help.
                let kind =
                    std::net::TcpListener::bind(self.addr).map_or_else(|error| error.kind(), |_| io::ErrorKind::Other);
                let message = format!("memcached ended with {status} before it listened on {}", self.addr);
                return Err(io::Error::new(kind, message));
            }
            let check = timeout(Duration::from_secs(1), self.check_child_answers()).await;
            if check.is_ok_and(|answer| answer.is_ok()) {
                return Ok(());
            }
            sleep(Duration::from_millis(5)).await;
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("memcached does not answer on {}", self.addr)))
    }

    /// Checks that the child answers at its address, and not another process that took the address first.
    async fn check_child_answers(&self) -> io::Result<()> {
        let mut stream = TcpStream::connect(self.addr).await?;
        stream.write_all(b"stats\r\n").await?;
        let mut reply = [0; 64];
        let read = stream.read(&mut reply).await?;
        let reply = String::from_utf8_lossy(&reply[..read]);
        match reply.strip_prefix("STAT pid ").and_then(|rest| rest.split_once('\r')) {
            Some((pid, _)) if Some(pid) != self.pid().map(|pid| pid.to_string()).as_deref() => {
                Err(io::ErrorKind::AddrInUse.into())
            }
            // A server that requires authentication refuses `stats`.
            _ => Ok(()),
        }
    }

    /// Returns the address the server listens on.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the process id, or `None` after [`kill`](Self::kill).
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Stops the process (`SIGSTOP`). The kernel still accepts connections and buffers bytes, and nothing answers.
    ///
    /// # Errors
    /// If the process has been killed, or the program `kill` cannot be run.
    pub async fn pause(&self) -> io::Result<()> {
        self.signal("-STOP").await?;
        // The signal is sent, but the process may not have stopped yet.
        for _ in 0..100 {
            match self.is_stopped() {
                Some(false) => sleep(Duration::from_millis(1)).await,
                Some(true) | None => break,
            }
        }
        Ok(())
    }

    /// Whether the process is stopped. `None` on systems without `/proc`.
    fn is_stopped(&self) -> Option<bool> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()?)).ok()?;
        // The format is "pid (name) state ...", and the name may contain any byte.
        let (_, state) = stat.rsplit_once(") ")?;
        Some(state.starts_with('T'))
    }

    /// Resumes the process (`SIGCONT`) after [`pause`](Self::pause).
    ///
    /// # Errors
    /// As [`pause`](Self::pause).
    pub async fn resume(&self) -> io::Result<()> {
        self.signal("-CONT").await
    }

    /// Kills the process (`SIGKILL`), paused or not, and waits until it has ended and its sockets are closed.
    ///
    /// Does nothing if it has been killed before.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub async fn kill(&mut self) -> io::Result<()> {
        match self.pid() {
            Some(_) => self.child.kill().await,
            None => Ok(()),
        }
    }

    /// Sends a signal with the program `kill`, because a system call would need `unsafe` code.
    async fn signal(&self, signal: &str) -> io::Result<()> {
        let Some(pid) = self.pid() else {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the process has been killed"));
        };
        let status = Command::new("kill").arg(signal).arg(pid.to_string()).status().await?;
        if status.success() {
            return Ok(());
        }
        Err(io::Error::other(format!("`kill {signal} {pid}` ended with {status}")))
    }
}

/// Returns the program that `MEMCACHED` names, or `memcached`.
pub(super) fn program() -> PathBuf {
    std::env::var_os("MEMCACHED").filter(|path| !path.is_empty()).unwrap_or_else(|| "memcached".into()).into()
}

async fn is_root() -> bool {
    let Ok(output) = Command::new("id").arg("-u").output().await else { return false };
    output.stdout.trim_ascii() == b"0"
}
