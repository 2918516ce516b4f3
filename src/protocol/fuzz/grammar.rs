//! A strict parser of requests, written from the server's grammar and independent of the encoder.

use std::collections::BTreeMap;

/// A command as a server reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) words: Vec<Vec<u8>>,
    pub(crate) body: Option<Vec<u8>>,
}

/// The most words, with the line end counted as one, that servers of every version read in a meta command.
const MAX_WORDS: usize = 20;
/// Servers close a connection after this many bytes without a line end, unless the line begins with `get` or `gets`.
const MAX_LINE: usize = 2048;
/// The same limit for servers up to 1.5, which know only the classic commands.
const MAX_CLASSIC_LINE: usize = 1024;

/// Parses all commands in `wire`; panics where a server would read another command than the client meant.
pub(crate) fn read_all(mut wire: &[u8]) -> Vec<Command> {
    let mut commands = Vec::new();
    while !wire.is_empty() {
        let end = wire.iter().position(|&byte| byte == b'\n').expect("a line without an end");
        let line = wire[..end].strip_suffix(b"\r").expect("a line that ends without \\r");
        wire = &wire[end + 1..];
        let mut command = Command { words: line.split(|&byte| byte == b' ').map(<[u8]>::to_vec).collect(), body: None };
        if let Some(len) = check_line(&command, line) {
            let (body, rest) = wire.split_at(len);
            command.body = Some(body.to_vec());
            wire = rest.strip_prefix(b"\r\n").expect("a data block that does not end at its length");
        }
        commands.push(command);
    }
    commands
}

/// Validates a command line; returns the length of its data block, if it has one.
fn check_line(command: &Command, line: &[u8]) -> Option<usize> {
    let words: Vec<&[u8]> = command.words.iter().map(Vec::as_slice).collect();
    assert!(words.iter().all(|word| !word.is_empty()), "an empty word: {}", line.escape_ascii());
    let word_count = |allowed: std::ops::RangeInclusive<usize>| {
        assert!(allowed.contains(&words.len()), "{} words: {}", words.len(), line.escape_ascii());
    };
    let verb = std::str::from_utf8(words[0]).expect("no verb");
    match verb {
        "get" | "gets" => {
            word_count(2..=101);
            words[1..].iter().for_each(|key| check_key(key));
            return None;
        }
        "gat" | "gats" => {
            word_count(3..=102);
            number(words[1]);
            words[2..].iter().for_each(|key| check_key(key));
        }
        "set" | "add" | "replace" | "append" | "prepend" | "cas" => {
            word_count(if verb == "cas" { 6..=6 } else { 5..=5 });
            check_key(words[1]);
            assert!(number(words[2]) <= u32::MAX.into());
            for word in &words[3..] {
                number(word);
            }
        }
        "delete" => {
            word_count(2..=3);
            check_key(words[1]);
            assert!(words.len() == 2 || words[2] == b"0");
        }
        "touch" | "incr" | "decr" => {
            word_count(3..=3);
            check_key(words[1]);
            number(words[2]);
        }
        "mg" | "md" | "ma" | "ms" => {
            word_count(2..=MAX_WORDS - 1);
            command.flags();
        }
        "me" => {
            word_count(2..=3);
            assert!(words.len() == 2 || words[2..] == [&b"b"[..]]);
        }
        "mn" | "version" => word_count(1..=1),
        "flush_all" => word_count(1..=2),
        "verbosity" | "cache_memlimit" => {
            word_count(2..=2);
            number(words[1]);
        }
        _ => panic!("an unknown command: {}", line.escape_ascii()),
    }
    let is_meta = verb.len() == 2;
    let max_len = if is_meta { MAX_LINE } else { MAX_CLASSIC_LINE };
    assert!(line.len() + 2 <= max_len, "{} bytes in a line", line.len());
    // `noreply` as the last word suppresses the reply. Some servers accept it also for commands that do not have it in
    // the protocol, but never among the keys of a retrieval.
    let can_be_noreply = !is_meta && words[0].first() != Some(&b'g');
    assert!(!can_be_noreply || words.last() != Some(&&b"noreply"[..]), "a command without a reply");
    match verb {
        "set" | "add" | "replace" | "append" | "prepend" | "cas" => Some(number(words[4])),
        "ms" => Some(number(words[2])),
        _ => None,
    }
    .map(|len| usize::try_from(len).unwrap())
}

fn number(word: &[u8]) -> u64 {
    assert!(word.iter().all(u8::is_ascii_digit) && (word == b"0" || word[0] != b'0'), "{}", word.escape_ascii());
    std::str::from_utf8(word).unwrap().parse().unwrap()
}

fn check_key(key: &[u8]) {
    assert!((1..=250).contains(&key.len()), "{} bytes in a key", key.len());
    assert!(key.iter().all(|&byte| byte > b' ' && byte != 0x7f), "{}", key.escape_ascii());
}

impl Command {
    pub(crate) fn verb(&self) -> &str {
        std::str::from_utf8(&self.words[0]).unwrap()
    }

    /// Returns the flags of a meta command by letter; panics if one occurs twice.
    pub(crate) fn flags(&self) -> BTreeMap<u8, Vec<u8>> {
        let mut flags = BTreeMap::new();
        for word in &self.words[if self.verb() == "ms" { 3 } else { 2 }..] {
            assert!(word[0].is_ascii_alphabetic() && word.iter().all(u8::is_ascii_graphic));
            assert_eq!(flags.insert(word[0], word[1..].to_vec()), None, "a duplicate flag: {}", char::from(word[0]));
        }
        check_key(&self.words[1]);
        assert!(flags.get(&b'O').is_none_or(|token| (1..=31).contains(&token.len())));
        flags
    }

    /// Returns the key as a server stores it.
    pub(crate) fn key(&self) -> Vec<u8> {
        let is_base64 = match self.verb() {
            "me" => self.words.len() == 3,
            verb => verb.len() == 2 && self.flags().contains_key(&b'b'),
        };
        if is_base64 { from_base64(&self.words[1]) } else { self.words[1].clone() }
    }
}

fn from_base64(text: &[u8]) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::new();
    for group in text.chunks(4) {
        assert_eq!(group.len(), 4, "base64 is in groups of four");
        let padding = group.iter().rev().take_while(|&&byte| byte == b'=').count();
        let bits = group.iter().fold(0, |bits: usize, digit| {
            bits << 6 | if *digit == b'=' { 0 } else { ALPHABET.iter().position(|known| known == digit).unwrap() }
        });
        bytes.extend_from_slice(&bits.to_be_bytes()[size_of::<usize>() - 3..][..3 - padding]);
    }
    bytes
}
