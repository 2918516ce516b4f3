//! A small memcached in this process, for pods that need no program installed.

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

/// What one pod holds at most, as the real server's `-m 64`: keys, values, and 128 bytes for each item.
const CAPACITY: usize = 64 * 1024 * 1024;

/// How much is asked of a socket at a time.
const READ: usize = 16 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    Paused,
    Killed,
}

/// A listener, its connections and their shared store. Dropping it ends them all.
#[derive(Debug)]
pub(super) struct Embedded {
    phase: watch::Sender<Phase>,
    task: JoinHandle<()>,
}

impl Embedded {
    pub(super) async fn start(addr: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let (phase, watched) = watch::channel(Phase::Running);
        Ok(Self { phase, task: tokio::spawn(listen(listener, watched)) })
    }

    /// Stops accepting, reading and answering. The kernel goes on taking connections and bytes for it.
    pub(super) fn pause(&self) {
        self.phase.send_replace(Phase::Paused);
    }

    pub(super) fn resume(&self) {
        self.phase.send_replace(Phase::Running);
    }

    /// Closes every socket, and returns when that is done.
    pub(super) async fn kill(mut self) {
        self.phase.send_replace(Phase::Killed);
        // An error would mean that the task has ended another way, and its sockets with it.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(listener: TcpListener, mut phase: watch::Receiver<Phase>) {
    let store = Arc::new(Mutex::new(Store::new(CAPACITY)));
    let mut connections = JoinSet::new();
    loop {
        let now = *phase.borrow_and_update();
        if now == Phase::Killed {
            break;
        }
        tokio::select! {
            // The sender is dropped after this task has been aborted, so there is always one more change to come.
            changed = phase.changed() => if changed.is_err() { break },
            accepted = listener.accept(), if now == Phase::Running => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, Arc::clone(&store), phase.clone()));
                }
                // Out of file descriptors, most likely: they come back as others close.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    connections.shutdown().await;
}

/// Ends when the peer is gone, or when the task is aborted.
async fn serve(mut stream: TcpStream, store: Arc<Mutex<Store>>, mut phase: watch::Receiver<Phase>) {
    // Replies are written whole; waiting for more to send would only slow them down.
    let _ = stream.set_nodelay(true);
    let mut session = Session::default();
    let mut input = BytesMut::new();
    let mut out = Vec::new();
    loop {
        if phase.wait_for(|phase| *phase == Phase::Running).await.is_err() {
            return;
        }
        input.reserve(READ);
        tokio::select! {
            biased;
            _ = phase.changed() => continue,
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
