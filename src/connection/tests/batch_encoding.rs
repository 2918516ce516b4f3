//! Encoded batches, parsed again by the server's grammar: no request is lost, added or run together with another.

use std::collections::{HashSet, VecDeque};

use proptest::prelude::*;

use super::super::pipeline::Pipeline;
use super::test_call::new_call;
use super::*;
use crate::key::Key;
use crate::protocol::fuzz::grammar::{Command, read_all};
use crate::protocol::fuzz::requests::{classic, key};
use crate::protocol::{Keys, WriteBuffer};

fn requests() -> impl Strategy<Value = Vec<(Request, Option<Command>)>> {
    let many = (prop::collection::vec(key(), 1..150), any::<bool>(), prop::option::of(0u32..3));
    let many = many.prop_map(|(keys, cas, touch)| (Request::Get { keys: Keys::Many(keys), cas, touch }, None));
    let one = classic().prop_map(|(request, command)| (request, Some(command)));
    prop::collection::vec(prop_oneof![6 => one, 1 => many], 1..20)
}

/// The keys of a retrieval, and the expiry time that it sets.
fn keys_of(command: &Command) -> Option<(Option<u32>, &[Vec<u8>])> {
    match command.verb() {
        "get" | "gets" => Some((None, &command.words[1..])),
        "gat" | "gats" => {
            let exptime = std::str::from_utf8(&command.words[1]).unwrap().parse().unwrap();
            Some((Some(exptime), &command.words[2..]))
        }
        _ => None,
    }
}

proptest! {
    #[test]
    fn a_batch_encodes_every_request_and_nothing_else(requests in requests()) {
        let deadline = Instant::now() + DEADLINE;
        let (mut plain, mut touching, mut stores, mut others) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut batch = VecDeque::new();
        for (request, command) in requests {
            if let Request::Get { keys, cas, touch } = &request {
                let kind = if touch.is_some() { &mut touching } else { &mut plain };
                kind.extend(keys.as_slice().iter().map(|key: &Key| (*cas, *touch, key.as_bytes().to_vec())));
            } else if matches!(request, Request::Store { .. }) {
                stores.extend(command);
            } else {
                others.extend(command);
            }
            batch.push_back(new_call(request, deadline));
        }
        let wants_cas = plain.iter().any(|(cas, ..)| *cas);
        // Equal keys are encoded once.
        let mut seen = HashSet::new();
        plain.retain(|(_, _, key)| seen.insert(key.clone()));
        plain.iter_mut().for_each(|(cas, ..)| *cas = wants_cas);
        let mut out = WriteBuffer::default();
        Pipeline::new(node(), MAX_VALUE).submit(&mut batch, &mut out);
        let commands = read_all(&out.to_vec());
        prop_assert!(commands.len() >= stores.len());
        let (stored, commands) = commands.split_at(stores.len());
        prop_assert_eq!(stored, &stores[..]);
        let retrievals = commands.iter().take_while(|command| keys_of(command).is_some()).count();
        prop_assert_eq!(&commands[retrievals..], &others[..]);
        let mut read: Vec<_> = commands[..retrievals]
            .iter()
            .flat_map(|command| {
                let (touch, keys) = keys_of(command).unwrap();
                keys.iter().map(move |key| (command.verb().ends_with('s'), touch, key.clone()))
            })
            .collect();
        // A key whose slots for its hash are taken may be encoded again.
        let mut seen = HashSet::new();
        read.retain(|(_, touch, key)| touch.is_some() || seen.insert(key.clone()));
        prop_assert_eq!(read, [plain, touching].concat());
    }
}
