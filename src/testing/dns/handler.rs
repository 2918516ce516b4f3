//! Connects the DNS library and the zone: reads the query, applies the fault, sends the reply.

use std::sync::{Arc, Mutex, PoisonError};

use hickory_server::net::runtime::Time;
use hickory_server::net::xfer::Protocol;
use hickory_server::proto::op::{Edns, Header, HeaderCounts, Metadata, OpCode, ResponseCode};
use hickory_server::proto::rr::{DNSClass, RecordType};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;

use super::DnsFault;
use super::zone::{Answer, Zone};

/// The largest UDP reply in bytes, even if the client accepts more. CoreDNS has the same default.
const MAX_UDP_REPLY: u16 = 4096;

#[derive(Debug)]
pub(super) struct Handler {
    pub(super) zone: Arc<Mutex<Zone>>,
}

/// The reaction to a query.
enum Reaction {
    Reply(Answer),
    /// A part of the answer, flagged as truncated.
    TruncatedReply(Answer),
    NoReply,
}

impl Handler {
    /// Counts the query and decides how to react to it.
    fn react(&self, request: &Request) -> Reaction {
        let mut zone = self.zone.lock().unwrap_or_else(PoisonError::into_inner);
        let error = |code| Reaction::Reply(Answer { code, ..Answer::default() });
        let Ok(info) = request.request_info() else { return error(ResponseCode::FormErr) };
        if info.metadata.op_code != OpCode::Query {
            return error(ResponseCode::NotImp);
        }
        if info.query.query_class() != DNSClass::IN {
            return error(ResponseCode::Refused);
        }
        // The original spelling, because resolvers may randomize the case and compare it with the reply.
        let (owner, kind) = (info.query.original().name(), info.query.query_type());
        let over_tcp = info.protocol != Protocol::Udp;
        zone.queries.total += 1;
        zone.queries.tcp += u64::from(over_tcp);
        *match kind {
            RecordType::SRV => &mut zone.queries.srv,
            RecordType::A => &mut zone.queries.a,
            RecordType::AAAA => &mut zone.queries.aaaa,
            _ => &mut zone.queries.other,
        } += 1;
        match zone.fault {
            None => Reaction::Reply(zone.answer(owner, kind)),
            Some(DnsFault::ServFail) => error(ResponseCode::ServFail),
            Some(DnsFault::Refused) => error(ResponseCode::Refused),
            Some(DnsFault::NxDomain) => Reaction::Reply(zone.no_records(owner, ResponseCode::NXDomain)),
            Some(DnsFault::NoData) => Reaction::Reply(zone.no_records(owner, ResponseCode::NoError)),
            Some(DnsFault::Silent) => Reaction::NoReply,
            Some(DnsFault::TruncatedWithoutTcp) if over_tcp => Reaction::NoReply,
            Some(DnsFault::Truncated) if over_tcp => Reaction::Reply(zone.answer(owner, kind)),
            Some(DnsFault::Truncated | DnsFault::TruncatedWithoutTcp) => {
                let mut answer = zone.answer(owner, kind);
                // Half of the records, which a client that ignores the flag takes for the whole answer.
                answer.answers.truncate(answer.answers.len().div_ceil(2));
                answer.glue.clear();
                Reaction::TruncatedReply(answer)
            }
        }
    }
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut responder: R) -> ResponseInfo {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        let answer = match self.react(request) {
            Reaction::Reply(answer) => answer,
            Reaction::TruncatedReply(answer) => {
                metadata.truncation = true;
                answer
            }
            Reaction::NoReply => return response_info(metadata),
        };
        metadata.authoritative = true;
        metadata.response_code = answer.code;
        let mut edns = Edns::new();
        edns.set_max_payload(request.max_payload().min(MAX_UDP_REPLY));
        let mut builder = MessageResponseBuilder::from_message_request(request);
        // Without EDNS, the library truncates UDP replies at 512 bytes, which is right only for clients without EDNS.
        if request.edns.is_some() {
            builder.edns(&edns);
        }
        let response = builder.build(metadata, &answer.answers, [], &answer.soa, &answer.glue);
        // Sending fails only if the client has closed its connection.
        responder.send_response(response).await.unwrap_or_else(|_| response_info(metadata))
    }
}

/// Returns the response summary that the library logs.
fn response_info(metadata: Metadata) -> ResponseInfo {
    Header { metadata, counts: HeaderCounts::default() }.into()
}
