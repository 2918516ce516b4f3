//! Between the DNS library and the zone: reads the question, applies the fault in force, sends the answer.

use std::sync::{Arc, Mutex, PoisonError};

use hickory_server::net::runtime::Time;
use hickory_server::net::xfer::Protocol;
use hickory_server::proto::op::{Edns, Header, HeaderCounts, Metadata, OpCode, ResponseCode};
use hickory_server::proto::rr::{DNSClass, RecordType};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;

use super::DnsFault;
use super::zone::{Answer, Zone};

/// The largest UDP reply, whatever the client would take. CoreDNS has the same limit by default.
const MAX_UDP: u16 = 4096;

#[derive(Debug)]
pub(super) struct Handler {
    pub(super) zone: Arc<Mutex<Zone>>,
}

/// What to do about a question.
enum Verdict {
    Answer(Answer),
    /// Part of the answer, and the word that there is more to be had over TCP.
    Truncated(Answer),
    Silence,
}

impl Handler {
    fn judge(&self, request: &Request) -> Verdict {
        let mut zone = self.zone.lock().unwrap_or_else(PoisonError::into_inner);
        let refusal = |code| Verdict::Answer(Answer { code, ..Answer::default() });
        let Ok(info) = request.request_info() else { return refusal(ResponseCode::FormErr) };
        if info.metadata.op_code != OpCode::Query {
            return refusal(ResponseCode::NotImp);
        }
        if info.query.query_class() != DNSClass::IN {
            return refusal(ResponseCode::Refused);
        }
        // As it was spelled: resolvers may vary the case and insist on getting it back.
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
            None => Verdict::Answer(zone.answer(owner, kind)),
            Some(DnsFault::ServFail) => refusal(ResponseCode::ServFail),
            Some(DnsFault::Refused) => refusal(ResponseCode::Refused),
            Some(DnsFault::NxDomain) => Verdict::Answer(zone.nothing(owner, ResponseCode::NXDomain)),
            Some(DnsFault::NoData) => Verdict::Answer(zone.nothing(owner, ResponseCode::NoError)),
            Some(DnsFault::Silent) => Verdict::Silence,
            Some(DnsFault::TruncatedWithoutTcp) if over_tcp => Verdict::Silence,
            Some(DnsFault::Truncated) if over_tcp => Verdict::Answer(zone.answer(owner, kind)),
            Some(DnsFault::Truncated | DnsFault::TruncatedWithoutTcp) => {
                let mut answer = zone.answer(owner, kind);
                // Enough to be taken for the whole by whoever does not look at the flag.
                answer.answers.truncate(answer.answers.len().div_ceil(2));
                answer.glue.clear();
                Verdict::Truncated(answer)
            }
        }
    }
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut responder: R) -> ResponseInfo {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        let answer = match self.judge(request) {
            Verdict::Answer(answer) => answer,
            Verdict::Truncated(answer) => {
                metadata.truncation = true;
                answer
            }
            Verdict::Silence => return info(metadata),
        };
        metadata.authoritative = true;
        metadata.response_code = answer.code;
        let mut edns = Edns::new();
        edns.set_max_payload(request.max_payload().min(MAX_UDP));
        let mut builder = MessageResponseBuilder::from_message_request(request);
        // Without it the library cuts every UDP reply at 512 bytes, as is right only for those who did not ask for more.
        if request.edns.is_some() {
            builder.edns(&edns);
        }
        let response = builder.build(metadata, &answer.answers, [], &answer.soa, &answer.glue);
        // Sending fails when the client has closed its connection, and then there is nobody to tell.
        responder.send_response(response).await.unwrap_or_else(|_| info(metadata))
    }
}

/// What the library wants to be told for its own records.
fn info(metadata: Metadata) -> ResponseInfo {
    Header { metadata, counts: HeaderCounts::default() }.into()
}
