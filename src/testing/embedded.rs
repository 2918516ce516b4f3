//! A small memcached in this process, so that pods need no installed program.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use self::session::{Next, Session};
use self::store::Store;

mod numbers;
mod session;
mod store;

/// The memory limit of one pod in bytes, as the real server's `-m 64`.
const CAPACITY: usize = 64 * 1024 * 1024;

/// The buffer space reserved before each read from a socket, in bytes.
const READ_SIZE: usize = 16 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RunState {
    Running,
    Paused,
    Killed,
}

/// A listener, its connections and their shared store. All of them end when this is dropped.
#[derive(Debug)]
pub(super) struct Embedded {
    run_state: watch::Sender<RunState>,
    task: JoinHandle<()>,
}

impl Embedded {
    pub(super) async fn start(addr: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let (run_state, watched) = watch::channel(RunState::Running);
        Ok(Self { run_state, task: tokio::spawn(listen(listener, watched)) })
    }

    /// Stops accepting, reading and answering. The kernel still accepts connections and buffers bytes.
    pub(super) fn pause(&self) {
        self.run_state.send_replace(RunState::Paused);
    }

    pub(super) fn resume(&self) {
        self.run_state.send_replace(RunState::Running);
    }

    /// Closes every socket and returns when all are closed.
    pub(super) async fn kill(mut self) {
        self.run_state.send_replace(RunState::Killed);
        // An error means that the task has already ended, which closed the sockets.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(listener: TcpListener, mut run_state: watch::Receiver<RunState>) {
    let store = Arc::new(Mutex::new(Store::new(CAPACITY)));
    let mut connections = JoinSet::new();
    loop {
        let current = *run_state.borrow_and_update();
        if current == RunState::Killed {
            break;
        }
        tokio::select! {
            // `Embedded` aborts this task before it drops the sender, so the error does not occur in practice.
            changed = run_state.changed() => if changed.is_err() { break },
            accepted = listener.accept(), if current == RunState::Running => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, Arc::clone(&store), run_state.clone()));
                }
                // Most likely out of file descriptors, which become free when other connections close.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    connections.shutdown().await;
}

/// Serves one connection until the client closes it or the task is aborted.
async fn serve(mut stream: TcpStream, store: Arc<Mutex<Store>>, mut run_state: watch::Receiver<RunState>) {
    // Replies are written whole, so Nagle's algorithm only delays them.
    let _ = stream.set_nodelay(true);
    let mut session = Session::default();
    let mut input = BytesMut::new();
    let mut out = Vec::new();
    loop {
        if run_state.wait_for(|state| *state == RunState::Running).await.is_err() {
            return;
        }
        input.reserve(READ_SIZE);
        tokio::select! {
            biased;
            _ = run_state.changed() => continue,
            read = stream.read_buf(&mut input) => match read {
                Ok(1..) => {}
                Ok(0) | Err(_) => return,
            },
        }
        loop {
            let next = {
                let mut store = store.lock().unwrap_or_else(PoisonError::into_inner);
                session.receive(&mut input, &mut store, unix_now(), &mut out)
            };
            if stream.write_all(&out).await.is_err() {
                return;
            }
            out.clear();
            match next {
                Next::Read => break,
                Next::Continue => {}
                Next::Close => return,
            }
        }
    }
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
