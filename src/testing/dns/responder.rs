//! From the bytes of a query to the bytes of the reply, with the faults that apply to it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hickory_resolver::proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_resolver::proto::rr::DNSClass;
use hickory_resolver::proto::serialize::binary::{BinEncodable, BinEncoder};

use super::fault::{DnsFault, Effect, Faults};
use super::query_log::{DnsQuery, QueryLog};
use super::zone::{Answer, Zone};

/// The largest UDP reply in bytes, even if the client accepts more. CoreDNS has the same default.
const MAX_UDP_REPLY: u16 = 4096;

/// What the sockets of one server share.
#[derive(Debug)]
pub(super) struct Responder {
    zone: Arc<Mutex<Zone>>,
    state: Mutex<State>,
}

/// What a server has of its own. The zone may be another server's too.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) faults: Faults,
    pub(super) queries: QueryLog,
}

/// The reaction to a query.
#[derive(Debug)]
pub(super) enum Reaction {
    Reply { bytes: Vec<u8>, delay: Duration },
    NoReply,
    Close,
}

impl Responder {
    pub(super) fn new(zone: Arc<Mutex<Zone>>) -> Self {
        Self { zone, state: Mutex::default() }
    }

    /// Returns the responder of another server of this zone.
    pub(super) fn with_same_zone(&self) -> Self {
        Self::new(Arc::clone(&self.zone))
    }

    pub(super) fn zone(&self) -> MutexGuard<'_, Zone> {
        self.zone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs the query and decides how to react to it.
    pub(super) fn react(&self, bytes: &[u8], tcp: bool) -> Reaction {
        // A server that replied to anything but a query could be made to talk to itself.
        let Ok(request) = Message::from_vec(bytes) else { return Reaction::NoReply };
        if request.metadata.message_type != MessageType::Query {
            return Reaction::NoReply;
        }
        let query = match supported_query(&request) {
            Ok(query) => query,
            Err(code) => return reply(&request, Answer::error(code), false, tcp, Duration::ZERO),
        };
        let logged = DnsQuery::new(query, tcp);
        let Effect { fault, delay } = {
            let mut state = self.state();
            let effect = state.faults.effect_on(&logged);
            state.queries.push(logged);
            effect
        };
        let mut zone = self.zone();
        // The original spelling, because resolvers may randomize the case and compare it with the reply.
        let (owner, kind) = (query.name(), query.query_type());
        let is_truncated = fault == Some(DnsFault::Truncated) && !tcp;
        let answer = match fault {
            Some(DnsFault::Silent) => return Reaction::NoReply,
            Some(DnsFault::Closed) => return Reaction::Close,
            Some(DnsFault::ServFail) => Answer::error(ResponseCode::ServFail),
            Some(DnsFault::Refused) => Answer::error(ResponseCode::Refused),
            Some(DnsFault::NxDomain) => zone.no_records(owner, ResponseCode::NXDomain),
            Some(DnsFault::NoData) => zone.no_records(owner, ResponseCode::NoError),
            Some(DnsFault::Truncated) if is_truncated => zone.answer(owner, kind).half(),
            None | Some(DnsFault::Truncated | DnsFault::Delayed(_)) => zone.answer(owner, kind),
        };
        reply(&request, answer, is_truncated, tcp, delay)
    }
}

/// Returns the query, or the error code for a request that the server does not support.
fn supported_query(request: &Message) -> Result<&Query, ResponseCode> {
    if request.metadata.op_code != OpCode::Query {
        return Err(ResponseCode::NotImp);
    }
    match &*request.queries {
        [query] if query.query_class() == DNSClass::IN => Ok(query),
        [_] => Err(ResponseCode::Refused),
        _ => Err(ResponseCode::FormErr),
    }
}

fn reply(request: &Message, answer: Answer, is_truncated: bool, tcp: bool, delay: Duration) -> Reaction {
    let mut metadata = Metadata::response_from_request(&request.metadata);
    metadata.authoritative = true;
    metadata.truncation = is_truncated;
    metadata.response_code = answer.code;
    let mut message = Message::response(metadata.id, metadata.op_code);
    message.metadata = metadata;
    message.queries.clone_from(&request.queries);
    (message.answers, message.additionals) = (answer.answers, answer.glue);
    message.authorities.extend(answer.soa);
    let udp_len = request.max_payload().min(MAX_UDP_REPLY);
    if request.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(udp_len);
        message.set_edns(edns);
    }
    // What does not fit is left out, glue first, and the reply is flagged as truncated. CoreDNS does so over TCP too,
    // where a message has at most 65,535 bytes.
    let mut bytes = Vec::new();
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_max_size(if tcp { u16::MAX } else { udp_len });
    match message.emit(&mut encoder) {
        Ok(()) => Reaction::Reply { bytes, delay },
        Err(_) => Reaction::NoReply,
    }
}
