//! Whatever the builders are told to do: one command with exactly those flags, or an error.

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

/// What a builder is told to do, for those that can.
#[derive(Debug, Clone)]
enum Told {
    /// The method for this flag, with a number for those that take one.
    Flag(u8, u64),
    Opaque(String),
    Own(char, String),
}

/// Flags a builder has a method for: without a token, with a number, with a time.
const OF_GET: (&str, &str, &str) = ("vfctshluk", "REC", "TN");
const OF_SET: (&str, &str, &str) = ("Icsk", "FMEC", "N");
const OF_DELETE: (&str, &str, &str) = ("Ixk", "EC", "T");
const OF_ARITHMETIC: (&str, &str, &str) = ("ctk", "EC", "T");

const LONGEST_TTL: u64 = 30 * 86_400;

fn told(of: (&'static str, &'static str, &'static str)) -> impl Strategy<Value = Vec<Told>> {
    let letters = [of.0, of.1, of.2].concat().into_bytes();
    let number = prop_oneof![any::<u64>(), 0..=LONGEST_TTL];
    let token = prop_oneof![
        4 => "[!-~]{1,31}",
        1 => "[!-~]{32,70}",
        1 => select(&["", " ", "a b", "a\r\nflush_all", "\u{e9}", "\0"][..]).prop_map(str::to_owned),
    ];
    let letter = prop_oneof![8 => prop::char::ranges(vec!['a'..='z', 'A'..='Z'].into()), 1 => any::<char>()];
    let one = prop_oneof![
        6 => (select(letters), number).prop_map(|(letter, number)| Told::Flag(letter, number)),
        1 => token.clone().prop_map(Told::Opaque),
        2 => (letter, token).prop_map(|(letter, token)| Told::Own(letter, token)),
    ];
    prop::collection::vec(one, 0..20)
}

/// The flags that must be on the wire, kept by other means than the builders'.
#[derive(Debug, Default)]
struct Meant {
    flags: BTreeMap<u8, Vec<u8>>,
    opaque: Option<String>,
    is_mistaken: bool,
}

impl Meant {
    fn hears(&mut self, told: &Told, of: (&str, &str, &str)) {
        let is_token = |text: &str| text.bytes().all(|byte| (b'!'..=b'~').contains(&byte));
        match told {
            Told::Flag(letter, number) => {
                let token = match char::from(*letter) {
                    'M' => ["S", "E", "R", "A", "P"][mode_of(*number)].to_owned(),
                    'F' => (number % (1 << 32)).to_string(),
                    'R' => (*number).min(LONGEST_TTL).to_string(),
                    letter if of.2.contains(letter) => ttl_of(*number).as_secs().to_string(),
                    letter if of.1.contains(letter) => number.to_string(),
                    _ => String::new(),
                };
                self.flags.insert(*letter, token.into_bytes());
            }
            Told::Opaque(token) if is_token(token) && (1..=31).contains(&token.len()) => {
                self.opaque = Some(token.clone())
            }
            Told::Own(letter, token)
                if letter.is_ascii_alphabetic()
                    && !"bOq".contains(*letter)
                    && !self.flags.contains_key(&(*letter as u8))
                    && is_token(token)
                    && token.len() <= 64 =>
            {
                self.flags.insert(*letter as u8, token.clone().into_bytes());
            }
            _ => self.is_mistaken = true,
        }
    }
}

fn mode_of(number: u64) -> usize {
    (number % 5) as usize
}

/// So short that it goes over the wire as it is.
fn ttl_of(number: u64) -> Duration {
    Duration::from_secs(number % LONGEST_TTL + 1)
}

macro_rules! tell {
    ($options:expr, $told:expr, { $($letter:pat => |$it:ident, $number:ident| $call:expr),* $(,)? }) => {{
        let mut options = $options;
        for told in $told {
            options = match told {
                Told::Flag(b'k', _) => options.key(),
                Told::Flag(b'E', number) => options.new_cas(Cas::new(*number)),
                Told::Opaque(token) => options.opaque(token),
                Told::Own(letter, token) => options.flag(*letter, token),
                $(Told::Flag($letter, number) => { let ($it, $number) = (options, *number); let _ = $number; $call })*
                other => unreachable!("{other:?}"),
            };
        }
        Options::from(options)
    }};
}

fn get(told: &[Told]) -> Options {
    tell!(Get::new(), told, {
        b'v' => |it, n| it.value(), b'f' => |it, n| it.flags(), b'c' => |it, n| it.cas(), b't' => |it, n| it.ttl_left(),
        b's' => |it, n| it.size(), b'h' => |it, n| it.hit_before(), b'l' => |it, n| it.last_access(),
        b'u' => |it, n| it.no_bump(), b'T' => |it, n| it.touch(ttl_of(n)), b'N' => |it, n| it.vivify(ttl_of(n)),
        b'R' => |it, n| it.recache_within(Duration::from_secs(n)), b'C' => |it, n| it.unless(Cas::new(n)),
    })
}

fn set(told: &[Told]) -> Options {
    let modes = [Mode::Set, Mode::Add, Mode::Replace, Mode::Append, Mode::Prepend];
    tell!(Set::new(ttl_of(0)), told, {
        b'F' => |it, n| it.flags((n % (1 << 32)) as u32), b'M' => |it, n| it.mode(modes[mode_of(n)]),
        b'C' => |it, n| it.compare(Cas::new(n)), b'I' => |it, n| it.invalidate(),
        b'N' => |it, n| it.vivify(ttl_of(n)), b'c' => |it, n| it.return_cas(), b's' => |it, n| it.return_size(),
    })
}

fn delete(told: &[Told]) -> Options {
    tell!(Delete::new(), told, {
        b'C' => |it, n| it.compare(Cas::new(n)), b'I' => |it, n| it.mark_stale(), b'T' => |it, n| it.ttl(ttl_of(n)),
        b'x' => |it, n| it.drop_value(),
    })
}

fn arithmetic(told: &[Told]) -> Options {
    tell!(Arithmetic::incr(3).create(4, ttl_of(0)), told, {
        b'T' => |it, n| it.touch(ttl_of(n)), b'C' => |it, n| it.compare(Cas::new(n)), b'c' => |it, n| it.return_cas(),
        b't' => |it, n| it.ttl_left(),
    })
}

fn meta_key() -> impl Strategy<Value = MetaKey> {
    let binary = prop::collection::vec(any::<u8>(), 1..=186).prop_map(|key| MetaKey::binary(&key).unwrap());
    prop_oneof![key().prop_map(MetaKey::from), binary]
}

fn checked(verb: MetaVerb, meant: &Meant, options: Options, key: &MetaKey, value: &[u8], serial: u64) {
    let words = if verb == MetaVerb::Set { 3 } else { 2 };
    // The opaque token; the `b` of a key in base64; the `q` a get may be given; the line's end.
    let own = 2 + usize::from(key.is_base64()) + usize::from(verb == MetaVerb::Get);
    let fits = words + meant.flags.len() + own <= 20;
    let run_of = options.clone();
    let Ok(request) = options.into_request(verb, key.clone(), value.to_vec().into()) else {
        assert!(meant.is_mistaken || !fits, "refused: {meant:?}");
        return;
    };
    assert!(!meant.is_mistaken && fits, "not refused: {meant:?}");
    let opaque = |serial: u64| meant.opaque.clone().unwrap_or_else(|| serial.to_string()).into_bytes();
    let expected = |serial: u64, quiet: bool| {
        let mut flags = meant.flags.clone();
        flags.insert(b'O', opaque(serial));
        if key.is_base64() {
            flags.insert(b'b', Vec::new());
            // A server may say such a key as it is, line ends and all: it is not asked to.
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
    assert_eq!((command.key(), command.flags()), (key.as_bytes().to_vec(), expected(serial, false)));
    assert_eq!(command.body.as_deref(), (verb == MetaVerb::Set).then_some(value));
    if verb == MetaVerb::Get {
        let one = || run_of.clone().into_request(verb, key.clone(), Default::default()).unwrap();
        let commands = read_back(&Request::MetaRun(vec![one(), one()]), serial);
        let [first, second, end] = &commands[..] else { panic!("not a run of two: {commands:?}") };
        assert_eq!((first.flags(), second.flags()), (expected(serial, true), expected(serial + 1, true)));
        assert_eq!((first.key(), &end.words[..]), (second.key(), &[b"mn".to_vec()][..]));
    }
}

fn all(told: &[Told], of: (&str, &str, &str), first: &[(u8, &str)]) -> Meant {
    let mut meant = Meant::default();
    meant.flags.extend(first.iter().map(|(letter, token)| (*letter, token.as_bytes().to_vec())));
    told.iter().for_each(|told| meant.hears(told, of));
    meant
}

proptest! {
    #[test]
    fn builders(
        (getting, setting) in (told(OF_GET), told(OF_SET)),
        (deleting, counting) in (told(OF_DELETE), told(OF_ARITHMETIC)),
        (key, value, serial) in (meta_key(), value(), 0..u64::MAX - 1),
    ) {
        checked(MetaVerb::Get, &all(&getting, OF_GET, &[]), get(&getting), &key, b"", serial);
        checked(MetaVerb::Set, &all(&setting, OF_SET, &[(b'T', "1")]), set(&setting), &key, &value, serial);
        checked(MetaVerb::Delete, &all(&deleting, OF_DELETE, &[]), delete(&deleting), &key, b"", serial);
        let made = [(b'v', ""), (b'M', "I"), (b'D', "3"), (b'N', "1"), (b'J', "4")];
        checked(MetaVerb::Arithmetic, &all(&counting, OF_ARITHMETIC, &made), arithmetic(&counting), &key, b"", serial);
        let debug = Options::default().into_request(MetaVerb::Debug, key.clone(), Default::default()).unwrap();
        let commands = read_back(&Request::Meta(Box::new(debug)), serial);
        let [command @ Command { body: None, .. }] = &commands[..] else { panic!("not one command: {commands:?}") };
        prop_assert_eq!((command.verb(), command.key()), ("me", key.as_bytes().to_vec()));
    }
}
