//! Fuzz test of the option builders: any calls give one command with exactly those flags, or an error.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::select;

use super::{Arithmetic, Delete, Get, Mode, Options, Set};
use crate::item::Cas;
use crate::key::MetaKey;
use crate::protocol::fuzz::grammar::Command;
use crate::protocol::fuzz::requests::{key, read_back, value};
use crate::protocol::{MetaVerb, Request};

/// A call of a builder's method.
#[derive(Debug, Clone)]
enum OptionCall {
    /// The method for this flag. Methods without an argument ignore the number.
    Flag(u8, u64),
    Opaque(String),
    /// `flag`, with a letter and a token.
    OtherFlag(char, String),
}

/// The flags that a builder has a method for: without a token, with a number, with a TTL.
type FlagLetters = (&'static str, &'static str, &'static str);
const GET_FLAGS: FlagLetters = ("vfctshluk", "REC", "TN");
const SET_FLAGS: FlagLetters = ("Icsk", "FMEC", "N");
const DELETE_FLAGS: FlagLetters = ("Ixk", "EC", "T");
const ARITHMETIC_FLAGS: FlagLetters = ("ctk", "EC", "T");

const MAX_TTL: u64 = 30 * 86_400;

fn option_calls(letters: FlagLetters) -> impl Strategy<Value = Vec<OptionCall>> {
    let letters = [letters.0, letters.1, letters.2].concat().into_bytes();
    let number = prop_oneof![any::<u64>(), 0..=MAX_TTL];
    let token = prop_oneof![
        4 => "[!-~]{1,31}",
        1 => "[!-~]{32,70}",
        1 => select(&["", " ", "a b", "a\r\nflush_all", "\u{e9}", "\0"][..]).prop_map(str::to_owned),
    ];
    let letter = prop_oneof![8 => prop::char::ranges(vec!['a'..='z', 'A'..='Z'].into()), 1 => any::<char>()];
    let call = prop_oneof![
        6 => (select(letters), number).prop_map(|(letter, number)| OptionCall::Flag(letter, number)),
        1 => token.clone().prop_map(OptionCall::Opaque),
        2 => (letter, token).prop_map(|(letter, token)| OptionCall::OtherFlag(letter, token)),
    ];
    prop::collection::vec(call, 0..20)
}

/// The flags that must be on the wire, computed independently of the builders.
#[derive(Debug, Default)]
struct ExpectedFlags {
    flags: BTreeMap<u8, Vec<u8>>,
    opaque: Option<String>,
    is_invalid: bool,
}

impl ExpectedFlags {
    fn apply(&mut self, call: &OptionCall, letters: FlagLetters) {
        let is_token = |text: &str| text.bytes().all(|byte| (b'!'..=b'~').contains(&byte));
        match call {
            OptionCall::Flag(letter, number) => {
                let token = match char::from(*letter) {
                    'M' => ["S", "E", "R", "A", "P"][mode_of(*number)].to_owned(),
                    'F' => (number % (1 << 32)).to_string(),
                    'R' => (*number).min(MAX_TTL).to_string(),
                    letter if letters.2.contains(letter) => ttl_of(*number).as_secs().to_string(),
                    letter if letters.1.contains(letter) => number.to_string(),
                    _ => String::new(),
                };
                self.flags.insert(*letter, token.into_bytes());
            }
            OptionCall::Opaque(token) if is_token(token) && (1..=31).contains(&token.len()) => {
                self.opaque = Some(token.clone())
            }
            OptionCall::OtherFlag(letter, token)
                if letter.is_ascii_alphabetic()
                    && !"bOq".contains(*letter)
                    && !self.flags.contains_key(&(*letter as u8))
                    && is_token(token)
                    && token.len() <= 64 =>
            {
                self.flags.insert(*letter as u8, token.clone().into_bytes());
            }
            _ => self.is_invalid = true,
        }
    }
}

fn mode_of(number: u64) -> usize {
    (number % 5) as usize
}

/// Returns a TTL short enough to be relative on the wire.
fn ttl_of(number: u64) -> Duration {
    Duration::from_secs(number % MAX_TTL + 1)
}

macro_rules! apply_calls {
    ($options:expr, $calls:expr, { $($letter:pat => |$it:ident, $number:ident| $call:expr),* $(,)? }) => {{
        let mut options = $options;
        for call in $calls {
            options = match call {
                OptionCall::Flag(b'k', _) => options.key(),
                OptionCall::Flag(b'E', number) => options.new_cas(Cas::new(*number)),
                OptionCall::Opaque(token) => options.opaque(token),
                OptionCall::OtherFlag(letter, token) => options.flag(*letter, token),
                $(OptionCall::Flag($letter, number) => {
                    let ($it, $number) = (options, *number);
                    let _ = $number;
                    $call
                })*
                other => unreachable!("{other:?}"),
            };
        }
        Options::from(options)
    }};
}

fn get(calls: &[OptionCall]) -> Options {
    apply_calls!(Get::new(), calls, {
        b'v' => |it, n| it.value(), b'f' => |it, n| it.flags(), b'c' => |it, n| it.cas(), b't' => |it, n| it.ttl_left(),
        b's' => |it, n| it.size(), b'h' => |it, n| it.hit_before(), b'l' => |it, n| it.last_access(),
        b'u' => |it, n| it.no_bump(), b'T' => |it, n| it.touch(ttl_of(n)), b'N' => |it, n| it.vivify(ttl_of(n)),
        b'R' => |it, n| it.recache_within(Duration::from_secs(n)), b'C' => |it, n| it.unless_cas(Cas::new(n)),
    })
}

fn set(calls: &[OptionCall]) -> Options {
    let modes = [Mode::Set, Mode::Add, Mode::Replace, Mode::Append, Mode::Prepend];
    apply_calls!(Set::new(ttl_of(0)), calls, {
        b'F' => |it, n| it.flags((n % (1 << 32)) as u32), b'M' => |it, n| it.mode(modes[mode_of(n)]),
        b'C' => |it, n| it.compare(Cas::new(n)), b'I' => |it, n| it.invalidate(),
        b'N' => |it, n| it.vivify(ttl_of(n)), b'c' => |it, n| it.return_cas(), b's' => |it, n| it.return_size(),
    })
}

fn delete(calls: &[OptionCall]) -> Options {
    apply_calls!(Delete::new(), calls, {
        b'C' => |it, n| it.compare(Cas::new(n)), b'I' => |it, n| it.mark_stale(), b'T' => |it, n| it.ttl(ttl_of(n)),
        b'x' => |it, n| it.drop_value(),
    })
}

fn arithmetic(calls: &[OptionCall]) -> Options {
    apply_calls!(Arithmetic::incr(3).create(4, ttl_of(0)), calls, {
        b'T' => |it, n| it.touch(ttl_of(n)), b'C' => |it, n| it.compare(Cas::new(n)), b'c' => |it, n| it.return_cas(),
        b't' => |it, n| it.ttl_left(),
    })
}

fn meta_key() -> impl Strategy<Value = MetaKey> {
    let binary = prop::collection::vec(any::<u8>(), 1..=186).prop_map(|key| MetaKey::binary(&key).unwrap());
    prop_oneof![key().prop_map(MetaKey::from), binary]
}

fn check(verb: MetaVerb, expected: &ExpectedFlags, options: Options, key: &MetaKey, value: &[u8], serial: u64) {
    let words = if verb == MetaVerb::Set { 3 } else { 2 };
    // The opaque token and the line end; the `b` of a base64 key; the `q` that a get may have.
    let client_words = 2 + usize::from(key.is_base64()) + usize::from(verb == MetaVerb::Get);
    let fits = words + expected.flags.len() + client_words <= 20;
    let run_options = options.clone();
    let Ok(request) = options.into_request(verb, key.clone(), value.to_vec().into()) else {
        assert!(expected.is_invalid || !fits, "rejected: {expected:?}");
        return;
    };
    assert!(!expected.is_invalid && fits, "accepted: {expected:?}");
    let opaque = |serial: u64| expected.opaque.clone().unwrap_or_else(|| serial.to_string()).into_bytes();
    let wire_flags = |serial: u64, quiet: bool| {
        let mut flags = expected.flags.clone();
        flags.insert(b'O', opaque(serial));
        if key.is_base64() {
            flags.insert(b'b', Vec::new());
            // A server may return such a key raw, line ends included, so the client does not request it.
            flags.remove(&b'k');
        }
        if quiet {
            flags.insert(b'q', Vec::new());
        }
        flags
    };
    let commands = read_back(&Request::Meta(Box::new(request)), serial);
    let [command] = &commands[..] else { panic!("not one command: {commands:?}") };
    assert_eq!(command.verb(), ["mg", "ms", "md", "ma"][verb as usize]);
    assert_eq!((command.key(), command.flags()), (key.as_bytes().to_vec(), wire_flags(serial, false)));
    assert_eq!(command.body.as_deref(), (verb == MetaVerb::Set).then_some(value));
    if verb == MetaVerb::Get {
        let request = || run_options.clone().into_request(verb, key.clone(), Default::default()).unwrap();
        let commands = read_back(&Request::MetaRun(vec![request(), request()]), serial);
        let [first, second, end] = &commands[..] else { panic!("not a run of two: {commands:?}") };
        assert_eq!((first.flags(), second.flags()), (wire_flags(serial, true), wire_flags(serial + 1, true)));
        assert_eq!((first.key(), &end.words[..]), (second.key(), &[b"mn".to_vec()][..]));
    }
}

fn expected_flags(calls: &[OptionCall], letters: FlagLetters, initial: &[(u8, &str)]) -> ExpectedFlags {
    let mut expected = ExpectedFlags::default();
    expected.flags.extend(initial.iter().map(|(letter, token)| (*letter, token.as_bytes().to_vec())));
    calls.iter().for_each(|call| expected.apply(call, letters));
    expected
}

proptest! {
    #[test]
    fn option_builders(
        (get_calls, set_calls) in (option_calls(GET_FLAGS), option_calls(SET_FLAGS)),
        (delete_calls, arithmetic_calls) in (option_calls(DELETE_FLAGS), option_calls(ARITHMETIC_FLAGS)),
        (key, value, serial) in (meta_key(), value(), 0..u64::MAX - 1),
    ) {
        let expected = expected_flags(&get_calls, GET_FLAGS, &[]);
        check(MetaVerb::Get, &expected, get(&get_calls), &key, b"", serial);
        let expected = expected_flags(&set_calls, SET_FLAGS, &[(b'T', "1")]);
        check(MetaVerb::Set, &expected, set(&set_calls), &key, &value, serial);
        let expected = expected_flags(&delete_calls, DELETE_FLAGS, &[]);
        check(MetaVerb::Delete, &expected, delete(&delete_calls), &key, b"", serial);
        let initial = [(b'v', ""), (b'M', "I"), (b'D', "3"), (b'N', "1"), (b'J', "4")];
        let expected = expected_flags(&arithmetic_calls, ARITHMETIC_FLAGS, &initial);
        check(MetaVerb::Arithmetic, &expected, arithmetic(&arithmetic_calls), &key, b"", serial);
        let debug = Options::default().into_request(MetaVerb::Debug, key.clone(), Default::default()).unwrap();
        let commands = read_back(&Request::Meta(Box::new(debug)), serial);
        let [command @ Command { body: None, .. }] = &commands[..] else { panic!("not one command: {commands:?}") };
        prop_assert_eq!((command.verb(), command.key()), ("me", key.as_bytes().to_vec()));
    }
}
