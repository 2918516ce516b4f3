use hickory_resolver::proto::op::OpCode;
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, SOA, SRV};
use proptest::prelude::*;

use super::*;

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

/// Parses a record: `owner ttl SRV target`, or CNAME, A or AAAA with a last byte, or SOA with a minimum.
fn record(text: &str) -> Record {
    let words: Vec<_> = text.split(' ').collect();
    let [owner, ttl, kind, value] = words[..] else { panic!("{text}") };
    let data = match kind {
        "SRV" => RData::SRV(SRV::new(0, 0, 11211, name(value))),
        "CNAME" => RData::CNAME(CNAME(name(value))),
        "A" => RData::A(A::new(10, 0, 0, value.parse().unwrap())),
        "AAAA" => RData::AAAA(AAAA::new(0xfd00, 0, 0, 0, 0, 0, 0, value.parse().unwrap())),
        "SOA" => RData::SOA(SOA::new(name("ns."), name("m."), 1, 2, 3, 4, value.parse().unwrap())),
        _ => panic!("{text}"),
    };
    Record::from_rdata(name(owner), ttl.parse().unwrap(), data)
}

fn response(code: ResponseCode, answers: &[&str], authorities: &[&str], additionals: &[&str]) -> Message {
    let mut message = Message::response(1, OpCode::Query);
    message.metadata.response_code = code;
    message.answers = answers.iter().map(|text| record(text)).collect();
    message.authorities = authorities.iter().map(|text| record(text)).collect();
    message.additionals = additionals.iter().map(|text| record(text)).collect();
    message
}

fn read(kind: RecordType, message: Message) -> (RecordLookup, Result<Option<Found>, DiscoveryError>) {
    let mut lookup = RecordLookup::new(&name("mc.svc."), kind);
    let outcome = lookup.read(message);
    (lookup, outcome)
}

fn found(kind: RecordType, answers: &[&str]) -> Found {
    read(kind, response(ResponseCode::NoError, answers, &[], &[])).1.unwrap().unwrap()
}

fn targets(answer: &SrvAnswer) -> Vec<&str> {
    answer.records.iter().map(|record| record.target.as_str()).collect()
}

fn seconds(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

/// docs/discovery.md, rows 47 and 51: also if the alias comes after the records, or in other letters.
#[test]
fn only_records_of_the_name_and_its_aliases_are_used() {
    for (answers, expected, ttl) in [
        (&["mc.svc. 9 SRV a.", "MC.SVC. 7 SRV b.", "x.svc. 1 SRV c."][..], &["a.", "b."][..], 7),
        (&["mc.svc. 7 SRV a.", "mc.svc. 9 SRV b."], &["a.", "b."], 7),
        (&["x. 9 SRV a.", "mc.svc. 4 CNAME x."], &["a."], 4),
        (&["y. 30 SRV a.", "mc.svc. 9 CNAME x.", "mc. 1 SRV c.", "x. 8 CNAME y."], &["a."], 8),
        (&["mc.svc. 9 SRV a.", "a. 1 CNAME x.", "x. 1 SRV b."], &["a."], 9),
        (&["mc.svc. 2147483648 SRV a."], &["a."], 0),
    ] {
        let answer = found(RecordType::SRV, answers).into_srv();
        assert_eq!((targets(&answer), answer.ttl), (expected.to_vec(), Duration::from_secs(ttl)), "{answers:?}");
    }
}

/// docs/discovery.md, row 51: glue counts only for the targets, and so does its TTL.
#[test]
fn glue_of_other_names_is_ignored() {
    let glue = ["A. 3 A 1", "a. 4 AAAA 1", "x. 1 A 9", "mc.svc. 1 A 8"];
    let message = response(ResponseCode::NoError, &["mc.svc. 9 SRV a.", "x. 1 SRV x."], &[], &glue);
    let answer = read(RecordType::SRV, message).1.unwrap().unwrap().into_srv();
    assert_eq!(answer.glue.len(), 2, "{answer:?}");
    assert_eq!(answer.ttl, Duration::from_secs(3));
}

/// docs/discovery.md, row 47: whatever the code, because a server may know only the alias.
#[test]
fn an_alias_without_records_is_asked_for() {
    for code in [ResponseCode::NoError, ResponseCode::NXDomain] {
        let message = response(code, &["mc.svc. 4 CNAME x.", "x. 3 CNAME y."], &[". 9 SOA 9"], &[]);
        let (mut lookup, outcome) = read(RecordType::SRV, message);
        assert!(outcome.unwrap().is_none());
        assert_eq!(*lookup.name(), name("y."));
        let answer = lookup.read(response(code, &["y. 9 SRV a.", "mc.svc. 1 SRV b."], &[], &[])).unwrap().unwrap();
        let answer = answer.into_srv();
        assert_eq!((targets(&answer), answer.ttl), (vec!["a."], Duration::from_secs(3)));
        assert_eq!(answer.names, ["mc.svc.", "x.", "y."]);
    }
}

/// docs/discovery.md, row 47: a service has far fewer than eight.
#[test]
fn long_chains_of_aliases_are_errors() {
    for (aliases, is_found) in [(8, true), (9, false)] {
        let mut answers = vec!["mc.svc. 9 CNAME n0.".to_owned()];
        answers.extend((1..aliases).map(|n| format!("n{}. 9 CNAME n{n}.", n - 1)));
        answers.push(format!("n{}. 9 SRV a.", aliases - 1));
        let texts: Vec<_> = answers.iter().map(String::as_str).collect();
        let outcome = read(RecordType::SRV, response(ResponseCode::NoError, &texts, &[], &[])).1;
        assert_eq!(outcome.is_ok(), is_found, "{outcome:?}");
    }
}

/// docs/discovery.md, rows 37 and 52.
#[test]
fn an_answer_without_records_has_the_negative_ttl_of_its_zone() {
    for (authorities, ttl) in
        [(&["svc. 9 SOA 4"][..], seconds(4)), (&["svc. 3 SOA 4"], seconds(3)), (&["other. 3 SOA 4"], None), (&[], None)]
    {
        for (code, is_nxdomain) in [(ResponseCode::NoError, false), (ResponseCode::NXDomain, true)] {
            let outcome = read(RecordType::A, response(code, &["x. 1 A 1"], authorities, &[])).1;
            let empty = DiscoveryError::empty(is_nxdomain, ttl);
            assert_eq!(outcome.unwrap_err(), empty, "{authorities:?}");
        }
    }
}

/// docs/discovery.md, row 52.
#[test]
fn the_families_of_a_host_are_joined() {
    let v4 = || Some(Ok(found(RecordType::A, &["mc.svc. 9 A 1", "mc.svc. 8 A 2"])));
    let v6 = || Some(Ok(found(RecordType::AAAA, &["mc.svc. 7 AAAA 3"])));
    let failed = || Some(Err(DiscoveryError::ServerFailure("SERVFAIL".into())));
    let empty = |nxdomain, ttl| Some(Err(DiscoveryError::empty(nxdomain, ttl)));
    for (v4, v6, expected) in [
        (v4(), v6(), Ok((3, 7))),
        (v4(), empty(false, seconds(1)), Ok((2, 8))),
        (v4(), empty(true, seconds(1)), Ok((2, 8))),
        (v4(), failed(), Ok((2, 8))),
        (v4(), None, Ok((2, 8))),
        (failed(), v6(), Ok((1, 7))),
        (empty(false, None), v6(), Ok((1, 7))),
        (empty(true, seconds(9)), None, Err(DiscoveryError::empty(true, seconds(9)))),
        (empty(false, seconds(9)), empty(true, seconds(4)), Err(DiscoveryError::empty(true, seconds(4)))),
        (empty(false, None), empty(false, seconds(4)), Err(DiscoveryError::empty(false, seconds(4)))),
        (empty(false, seconds(9)), failed(), Err(DiscoveryError::ServerFailure("SERVFAIL".into()))),
        (failed(), empty(true, None), Err(DiscoveryError::empty(true, None))),
        (failed(), failed(), Err(DiscoveryError::ServerFailure("SERVFAIL".into()))),
    ] {
        let outcome = host_addresses(v4, v6);
        assert!(outcome.iter().all(|found| found.addresses().is_sorted_by_key(IpAddr::is_ipv6)), "{outcome:?}");
        let outcome = outcome.map(|found| (found.addresses().len(), found.ttl().unwrap().as_secs()));
        assert_eq!(outcome, expected);
    }
}

proptest! {
    /// docs/discovery.md, rows 47 and 51: whatever servers answer, a lookup ends, and what it finds is its own.
    #[test]
    fn any_responses_end_a_lookup_and_give_only_its_records(
        responses in prop::collection::vec(
            prop::collection::vec((0..6_u8, 0..3_u8, 0..6_u8, 0..20_u32), 0..8),
            12,
        ),
    ) {
        let mut lookup = RecordLookup::new(&name("n0."), RecordType::SRV);
        let mut asked = vec![name("n0.")];
        for response in &responses {
            let records: Vec<_> = response.iter().map(|(owner, kind, value, ttl)| match kind {
                0 => format!("n{owner}. {ttl} SRV t{owner}."),
                1 => format!("n{owner}. {ttl} CNAME n{value}."),
                _ => format!("n{owner}. {ttl} A {value}"),
            }).collect();
            let texts: Vec<_> = records.iter().map(String::as_str).collect();
            match lookup.read(self::response(ResponseCode::NoError, &texts, &[], &[])) {
                Ok(None) => {
                    prop_assert!(!asked.contains(lookup.name()));
                    asked.push(lookup.name().clone());
                }
                Ok(Some(found)) => {
                    let owner = lookup.name().to_ascii();
                    let answer = found.into_srv();
                    let target = owner.replace('n', "t");
                    prop_assert!(!answer.records.is_empty());
                    prop_assert!(answer.records.iter().all(|record| record.target == target));
                    return Ok(());
                }
                Err(_) => return Ok(()),
            }
        }
        prop_assert!(false, "the lookup did not end");
    }
}
