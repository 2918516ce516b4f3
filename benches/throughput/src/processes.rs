//! What can only be measured in a process where nobody else is: this program, started once more by a hidden argument.

use std::env;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::Outcome;
use crate::cells::Threads;
use crate::contenders::{Contender, Kind};
use crate::data::Dataset;
use crate::key_choice::KeyChoice;
use crate::meter::{self, Latencies};
use crate::rounds::runtime;
use crate::workload::{Op, Until, Work};

/// The hidden arguments that make a process one of those.
pub(crate) const MEMORY: &str = "--be-memory";
pub(crate) const IDLE: &str = "--be-idle";

/// The memory one contender adds to a process.
#[derive(Debug)]
pub(crate) struct Footprint {
    pub(crate) kind: Kind,
    pub(crate) window: usize,
    /// In bytes.
    pub(crate) added: u64,
}

const WINDOW: usize = 1024;

/// How much memory each adds, with 1,024 callers. The servers must have the values of 100 bytes.
pub(crate) fn memory(kinds: impl IntoIterator<Item = Kind>, nodes: &[SocketAddr]) -> Outcome<Vec<Footprint>> {
    let of = |kind: Kind| Ok(Footprint { kind, window: WINDOW, added: child(&[MEMORY, kind.name()], nodes)? as u64 });
    kinds.into_iter().map(of).collect()
}

/// The share of a processor that memring takes with these nodes connected and nothing to do.
pub(crate) fn idle(nodes: &[SocketAddr]) -> Outcome<f64> {
    child(&[IDLE], nodes)
}

/// The number a child says.
fn child(arguments: &[&str], nodes: &[SocketAddr]) -> Outcome<f64> {
    let mut command = Command::new(env::current_exe()?);
    command.args(arguments).args(nodes.iter().map(SocketAddr::to_string));
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("{} ended with {}", arguments.join(" "), output.status).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().parse()?)
}

/// Says how many bytes it grew by at the most.
pub(crate) fn be_memory(kind: Kind, nodes: &[SocketAddr]) -> Outcome<()> {
    let data = Arc::new(Dataset::new(100, KeyChoice::default()));
    let latencies = Arc::new(Latencies::new()?);
    let runtime = runtime(Threads::One)?;
    let before = meter::resident()?;
    let mut contender = Contender::connect(kind, nodes, &runtime)?;
    let watch = thread::spawn(|| -> Outcome<u64> {
        let mut most = 0;
        for _ in 0..20 {
            thread::sleep(Duration::from_millis(50));
            most = most.max(meter::resident()?);
        }
        Ok(most)
    });
    let until = Until::Elapsed(Duration::from_millis(1_200));
    contender.run(&Work { op: Op::Get, data, window: WINDOW, until, latencies }, &runtime)?;
    let most = watch.join().map_err(|_| "the watch has panicked")??;
    println!("{}", most.saturating_sub(before));
    Ok(())
}

/// Says which share of a processor it took.
pub(crate) fn be_idle(nodes: &[SocketAddr]) -> Outcome<()> {
    const SETTLE: Duration = Duration::from_secs(1);
    const WATCHED: Duration = Duration::from_secs(5);
    let runtime = runtime(Threads::One)?;
    let _contender = Contender::connect(Kind::Memring, nodes, &runtime)?;
    runtime.block_on(async { tokio::time::sleep(SETTLE).await });
    let before = meter::cpu()?;
    runtime.block_on(async { tokio::time::sleep(WATCHED).await });
    println!("{}", (meter::cpu()?.saturating_sub(before)).as_secs_f64() / WATCHED.as_secs_f64());
    Ok(())
}
