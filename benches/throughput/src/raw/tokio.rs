//! The ceiling on tokio: one task per connection, which follows every read with an immediate write.

use std::collections::VecDeque;
use std::mem;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::script::Cursor;
use super::{Budget, Form, SILENCE_TIMEOUT, plan};
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

    /// Runs the workload. Returns the number of operations. With fewer requests than connections, some connections
    /// idle.
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
            let (connection, responses) = task.await??;
            self.connections.push(connection);
            requests += responses;
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
    let mut in_flight = VecDeque::new();
    let mut requests = 0;
    let mut now = Instant::now();
    let mut next = take(share, now);
    loop {
        if next > 0 {
            cursor.request(next);
            in_flight.push_back((now, next));
            while !cursor.unwritten().is_empty() {
                let written = stream.write(cursor.unwritten()).await?;
                cursor.advance(written);
            }
        }
        if cursor.in_flight == 0 {
            return Ok(((stream, buffer), requests));
        }
        let read = timeout(SILENCE_TIMEOUT, stream.read(&mut buffer)).await??;
        if read == 0 {
            return Err("a server closed the connection".into());
        }
        let mut responses = cursor.receive(read).ok_or("more responses than requests")?;
        now = Instant::now();
        requests += responses;
        next = take(responses, now);
        while let Some((sent, open)) = in_flight.front_mut().filter(|_| responses > 0) {
            let completed = responses.min(*open);
            if work.op.keys() == 1 {
                work.latencies.record(now - *sent, completed);
            }
            responses -= completed;
            *open -= completed;
            if *open == 0 {
                in_flight.pop_front();
            }
        }
    }
}
