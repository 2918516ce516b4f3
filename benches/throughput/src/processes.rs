//! Measures that need a process of their own: this program, started again with a hidden argument.

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

/// The hidden arguments that select the role of a child process.
pub(crate) const MEMORY: &str = "--child-memory";
pub(crate) const IDLE: &str = "--child-idle";

/// The memory that a contender adds to a process.
#[derive(Debug)]
pub(crate) struct Footprint {
    pub(crate) kind: Kind,
    pub(crate) window: usize,
    /// In bytes.
    pub(crate) added: u64,
}

const WINDOW: usize = 1024;

/// Measures the memory that each contender adds with 1,024 callers. The servers must hold the values of 100 bytes.
pub(crate) fn memory(kinds: impl IntoIterator<Item = Kind>, nodes: &[SocketAddr]) -> Outcome<Vec<Footprint>> {
    let measure = |kind: Kind| {
        let added = run_child(&[MEMORY, kind.name()], nodes)? as u64;
        Ok(Footprint { kind, window: WINDOW, added })
    };
    kinds.into_iter().map(measure).collect()
}

/// Measures the share of a CPU that an idle memring client uses with these nodes connected.
pub(crate) fn idle(nodes: &[SocketAddr]) -> Outcome<f64> {
    run_child(&[IDLE], nodes)
}

/// Runs a child process and returns the number that it prints.
fn run_child(arguments: &[&str], nodes: &[SocketAddr]) -> Outcome<f64> {
    let mut command = Command::new(env::current_exe()?);
    command.args(arguments).args(nodes.iter().map(SocketAddr::to_string));
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("{} failed: {}", arguments.join(" "), output.status).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().parse()?)
}

/// Prints the peak growth of resident memory during a load, in bytes.
pub(crate) fn run_memory(kind: Kind, nodes: &[SocketAddr]) -> Outcome<()> {
    let data = Arc::new(Dataset::new(100, KeyChoice::default()));
    let latencies = Arc::new(Latencies::new()?);
    let runtime = runtime(Threads::One)?;
    let before = meter::resident()?;
    let mut contender = Contender::connect(kind, nodes, &runtime)?;
    let watcher = thread::spawn(|| -> Outcome<u64> {
        let mut peak = 0;
        for _ in 0..20 {
            thread::sleep(Duration::from_millis(50));
            peak = peak.max(meter::resident()?);
        }
        Ok(peak)
    });
    let until = Until::Elapsed(Duration::from_millis(1_200));
    contender.run(&Work { op: Op::Get, data, window: WINDOW, until, latencies }, &runtime)?;
    let peak = watcher.join().map_err(|_| "the memory watcher panicked")??;
    println!("{}", peak.saturating_sub(before));
    Ok(())
}

/// Prints the share of a CPU that an idle client uses.
pub(crate) fn run_idle(nodes: &[SocketAddr]) -> Outcome<()> {
    const SETTLE: Duration = Duration::from_secs(1);
    const MEASURED: Duration = Duration::from_secs(5);
    let runtime = runtime(Threads::One)?;
    let _contender = Contender::connect(Kind::Memring, nodes, &runtime)?;
    runtime.block_on(async { tokio::time::sleep(SETTLE).await });
    let before = meter::cpu()?;
    runtime.block_on(async { tokio::time::sleep(MEASURED).await });
    println!("{}", (meter::cpu()?.saturating_sub(before)).as_secs_f64() / MEASURED.as_secs_f64());
    Ok(())
}
