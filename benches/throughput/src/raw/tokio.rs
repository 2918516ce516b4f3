//! The same on tokio: one task per connection, every read answered by an immediate write.

use std::collections::VecDeque;
use std::mem;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::script::Cursor;
use super::{Budget, Form, PATIENCE, plan};
use crate::Outcome;
use crate::workload::Work;

pub(crate) struct Tokio {
    connections: Vec<(TcpStream, Vec<u8>)>,
}

impl Tokio {
    pub(crate) async fn connect(nodes: &[SocketAddr]) -> Outcome<Self> {
        let mut connections = Vec::new();
        for node in nodes {
            let stream = TcpStream::connect(node).await?;
            stream.set_nodelay(true)?;
            connections.push((stream, vec![0; 256 << 10]));
        }
        Ok(Self { connections })
    }

    /// How many operations were done. With fewer requests than connections, some have nothing to do.
    pub(crate) async fn run(&mut self, work: &Work, form: Form) -> Outcome<u64> {
        let plan = plan(work, form, self.connections.len());
        let keys = plan[0].0.keys_per_request();
        let budget = Arc::new(Mutex::new(Budget::new(work, keys)));
        let tasks: Vec<_> = mem::take(&mut self.connections)
            .into_iter()
            .zip(plan)
            .map(|(connection, (cursor, share))| {
                let (work, budget) = (work.clone(), Arc::clone(&budget));
                tokio::spawn(async move { exchange(connection, cursor, share, &work, &budget).await })
            })
            .collect();
        let mut requests = 0;
        for task in tasks {
            let (connection, answered) = task.await??;
            self.connections.push(connection);
            requests += answered;
        }
        Ok((requests * keys / work.op.keys()) as u64)
    }
}

async fn exchange(
    (mut stream, mut buffer): (TcpStream, Vec<u8>),
    mut cursor: Cursor,
    share: usize,
    work: &Work,
    budget: &Mutex<Budget>,
) -> Outcome<((TcpStream, Vec<u8>), usize)> {
    let take = |wanted, now| budget.lock().unwrap_or_else(PoisonError::into_inner).take(wanted, now);
    let mut asked = VecDeque::new();
    let mut requests = 0;
    let mut now = Instant::now();
    let mut next = take(share, now);
    loop {
        if next > 0 {
            cursor.ask(next);
            asked.push_back((now, next));
            while !cursor.unwritten().is_empty() {
                let written = stream.write(cursor.unwritten()).await?;
                cursor.wrote(written);
            }
        }
        if cursor.owed == 0 {
            return Ok(((stream, buffer), requests));
        }
        let read = timeout(PATIENCE, stream.read(&mut buffer)).await??;
        if read == 0 {
            return Err("a server has closed a connection".into());
        }
        let mut answered = cursor.read(read).ok_or("more replies than requests")?;
        now = Instant::now();
        requests += answered;
        next = take(answered, now);
        while let Some((at, open)) = asked.front_mut().filter(|_| answered > 0) {
            let some = answered.min(*open);
            if work.op.keys() == 1 {
                work.latencies.record(now - *at, some);
            }
            answered -= some;
            *open -= some;
            if *open == 0 {
                asked.pop_front();
            }
        }
    }
}
