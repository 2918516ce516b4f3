//! The ceiling on one thread: an epoll loop that follows every read with an immediate write.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Instant;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::script::Cursor;
use super::{Budget, Form, SILENCE_TIMEOUT, plan};
use crate::Outcome;
use crate::workload::Work;

pub(crate) struct Epoll {
    poll: Poll,
    events: Events,
    streams: Vec<TcpStream>,
    buffer: Vec<u8>,
}

struct Connection {
    cursor: Cursor,
    share: usize,
    /// When requests were sent, and how many of them are in flight.
    in_flight: VecDeque<(Instant, usize)>,
}

impl Epoll {
    pub(crate) fn connect(nodes: &[SocketAddr]) -> Outcome<Self> {
        let poll = Poll::new()?;
        let mut streams = Vec::new();
        for (at, &node) in nodes.iter().enumerate() {
            let stream = std::net::TcpStream::connect(node)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(at), Interest::READABLE | Interest::WRITABLE)?;
            streams.push(stream);
        }
        Ok(Self { poll, events: Events::with_capacity(64), streams, buffer: vec![0; 256 << 10] })
    }

    /// Runs the workload. Returns the number of operations.
    pub(crate) fn run(&mut self, work: &Work, form: Form) -> Outcome<u64> {
        let plan = plan(work, form, self.streams.len());
        let keys = plan[0].0.keys_per_request();
        let mut connections: Vec<_> =
            plan.into_iter().map(|(cursor, share)| Connection { cursor, share, in_flight: VecDeque::new() }).collect();
        // With fewer requests than connections, the connections take turns.
        let take_turns = connections.iter().any(|connection| connection.share == 0);
        let mut budget = Budget::new(work, keys);
        let now = Instant::now();
        for (connection, stream) in connections.iter_mut().zip(&mut self.streams) {
            connection.send(budget.take(connection.share, now), now, stream)?;
        }
        let mut requests = 0;
        while connections.iter().any(|connection| connection.cursor.in_flight > 0) {
            self.poll.poll(&mut self.events, Some(SILENCE_TIMEOUT)).or_else(unless_interrupted)?;
            if self.events.is_empty() {
                return Err("a server does not respond".into());
            }
            for event in &self.events {
                let at = event.token().0;
                if event.is_writable() {
                    connections[at].flush(&mut self.streams[at])?;
                }
                while event.is_readable() {
                    let Some(read) = read(&mut self.streams[at], &mut self.buffer)? else { break };
                    let responses = connections[at].cursor.receive(read).ok_or("more responses than requests")?;
                    if responses > 0 {
                        let now = Instant::now();
                        requests += responses;
                        connections[at].record(responses, now, work);
                        let next = if take_turns { (at + 1) % connections.len() } else { at };
                        connections[next].send(budget.take(responses, now), now, &mut self.streams[next])?;
                    }
                    // A read that does not fill the buffer has emptied the socket.
                    if read < self.buffer.len() {
                        break;
                    }
                }
            }
        }
        Ok((requests * keys / work.op.keys()) as u64)
    }
}

impl Connection {
    fn send(&mut self, requests: usize, now: Instant, stream: &mut TcpStream) -> io::Result<()> {
        if requests == 0 {
            return Ok(());
        }
        self.cursor.request(requests);
        self.in_flight.push_back((now, requests));
        self.flush(stream)
    }

    fn flush(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        while !self.cursor.unwritten().is_empty() {
            match stream.write(self.cursor.unwritten()) {
                Ok(bytes) => self.cursor.advance(bytes),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => unless_interrupted(error)?,
            }
        }
        Ok(())
    }

    /// Records the latency of responses, unless an operation has several requests.
    fn record(&mut self, mut responses: usize, now: Instant, work: &Work) {
        while let Some((sent, open)) = self.in_flight.front_mut().filter(|_| responses > 0) {
            let completed = responses.min(*open);
            if work.op.keys() == 1 {
                work.latencies.record(now - *sent, completed);
            }
            responses -= completed;
            *open -= completed;
            if *open == 0 {
                self.in_flight.pop_front();
            }
        }
    }
}

/// Reads once. Returns `None` if no bytes are available.
fn read(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    loop {
        match stream.read(buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => return Ok(Some(read)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => unless_interrupted(error)?,
        }
    }
}

fn unless_interrupted(error: io::Error) -> io::Result<()> {
    if error.kind() == ErrorKind::Interrupted { Ok(()) } else { Err(error) }
}
