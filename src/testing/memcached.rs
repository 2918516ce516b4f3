//! Real `memcached` child processes.

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

/// How long a child may take to accept its first connection. On a loaded machine that is more than one would think.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// One real `memcached` process on a loopback address of its own, killed when this is dropped.
///
/// The program is the one the environment variable `MEMCACHED` names, or else `memcached` on the `PATH`. It runs with
/// `-U 0 -t 1 -m 64`, on port 11211 wherever that port can be had.
///
/// If this process itself dies without running destructors (`SIGKILL`, `abort`), the child lives on.
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
    /// Starts one, and waits until it answers.
    ///
    /// # Errors
    /// If the program cannot be run, or ends or stays silent instead of listening.
    pub async fn start() -> io::Result<Self> {
        Self::start_with([] as [&str; 0]).await
    }

    /// As [`start`](Self::start), with more arguments for the program, such as `["-I", "4m"]`.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_with(args: impl IntoIterator<Item = impl Into<OsString>> + Send) -> io::Result<Self> {
        let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
        let (program, loopback) = (program(), Loopback::probe());
        let mut attempt = 1;
        loop {
            match Self::spawn(&program, &args, loopback.pick(None)?).await {
                // Someone took the port since it was picked.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempt < ATTEMPTS => attempt += 1,
                done => return done,
            }
        }
    }

    pub(super) async fn spawn(program: &Path, args: &[OsString], addr: SocketAddr) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.args(["-U", "0", "-t", "1", "-m", "64", "-l"]).arg(addr.ip().to_string());
        command.arg("-p").arg(addr.port().to_string());
        if is_root().await {
            // It refuses to run as root unless told to.
            command.args(["-u", "root"]);
        }
        // What it has to complain of goes where our own errors go; a pipe nobody reads would block it.
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        let child = command.spawn().map_err(|error| {
            let program = program.display();
            io::Error::new(error.kind(), format!("`{program}` (MEMCACHED names another) cannot be run: {error}"))
        })?;
        let mut server = Self { child, addr };
        server.wait_until_it_answers().await?;
        Ok(server)
    }

    async fn wait_until_it_answers(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                // If the address is still to be had, it is the arguments that were wrong, and another would not help.
                let kind =
                    std::net::TcpListener::bind(self.addr).map_or_else(|error| error.kind(), |_| io::ErrorKind::Other);
                let problem = format!("memcached ended with {status} before it listened on {}", self.addr);
                return Err(io::Error::new(kind, problem));
            }
            if timeout(Duration::from_secs(1), self.is_the_one_that_answers()).await.is_ok_and(|answer| answer.is_ok())
            {
                return Ok(());
            }
            sleep(Duration::from_millis(5)).await;
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("memcached does not answer on {}", self.addr)))
    }

    /// Another process may have taken the address first, in which case our child is about to end.
    async fn is_the_one_that_answers(&self) -> io::Result<()> {
        let mut stream = TcpStream::connect(self.addr).await?;
        stream.write_all(b"stats\r\n").await?;
        let mut reply = [0; 64];
        let read = stream.read(&mut reply).await?;
        let reply = String::from_utf8_lossy(&reply[..read]);
        match reply.strip_prefix("STAT pid ").and_then(|rest| rest.split_once('\r')) {
            Some((pid, _)) if Some(pid) != self.pid().map(|pid| pid.to_string()).as_deref() => {
                Err(io::ErrorKind::AddrInUse.into())
            }
            // With authentication on there are no statistics to be had.
            _ => Ok(()),
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its process id; `None` once it has been killed.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Stops it in its tracks (`SIGSTOP`): the kernel still accepts connections and bytes for it, nothing answers.
    ///
    /// # Errors
    /// If it is not running, or there is no program `kill` to do it with.
    pub async fn pause(&self) -> io::Result<()> {
        self.signal("-STOP").await?;
        // The signal has been sent, which is not to say that it has arrived.
        for _ in 0..100 {
            match self.is_stopped() {
                Some(false) => sleep(Duration::from_millis(1)).await,
                Some(true) | None => break,
            }
        }
        Ok(())
    }

    /// Asks Linux; `None` elsewhere.
    fn is_stopped(&self) -> Option<bool> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()?)).ok()?;
        // "pid (name) state ...", and the name may hold anything.
        let (_, state) = stat.rsplit_once(") ")?;
        Some(state.starts_with('T'))
    }

    /// Lets it go on after [`pause`](Self::pause).
    ///
    /// # Errors
    /// As [`pause`](Self::pause).
    pub async fn resume(&self) -> io::Result<()> {
        self.signal("-CONT").await
    }

    /// Kills it (`SIGKILL`), paused or not, and waits until it is gone and its sockets are closed.
    ///
    /// # Errors
    /// If the system will not.
    pub async fn kill(&mut self) -> io::Result<()> {
        match self.pid() {
            Some(_) => self.child.kill().await,
            None => Ok(()),
        }
    }

    /// By way of the program `kill`, for sending a signal ourselves would take `unsafe` code.
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

/// The program to run unless the caller names one.
pub(super) fn program() -> PathBuf {
    std::env::var_os("MEMCACHED").filter(|path| !path.is_empty()).unwrap_or_else(|| "memcached".into()).into()
}

async fn is_root() -> bool {
    let Ok(output) = Command::new("id").arg("-u").output().await else { return false };
    output.stdout.trim_ascii() == b"0"
}
