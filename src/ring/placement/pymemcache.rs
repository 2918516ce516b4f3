//! pymemcache's rendezvous hash: Murmur3 of the server and of the key in its Python representation. No allocation.

use super::PythonKeys;
use crate::ring::hash::murmur3;

impl PythonKeys {
    /// Returns the score of a key on a server. `prefix` is the part of the hashed text that precedes the key.
    pub(super) fn score(self, prefix: &[u8], key: &[u8]) -> u32 {
        let prefix = prefix.iter().copied();
        match self {
            Self::Str => murmur3(prefix.chain(low_bytes(key)), 0),
            Self::Bytes => murmur3(prefix.chain(bytes_literal(key)), 0),
        }
    }
}

/// Returns the low eight bits of each character. A byte that is not UTF-8 counts as a character.
fn low_bytes(text: &[u8]) -> impl Iterator<Item = u8> {
    text.utf8_chunks().flat_map(|chunk| {
        let valid = chunk.valid().chars().map(|char| char as u32 as u8);
        valid.chain(chunk.invalid().iter().copied())
    })
}

/// Returns the bytes as Python prints them: `b'…'`.
fn bytes_literal(key: &[u8]) -> impl Iterator<Item = u8> {
    let quote = if key.contains(&b'\'') && !key.contains(&b'"') { b'"' } else { b'\'' };
    let escaped = move |&byte: &u8| {
        let (text, len) = match byte {
            b'\t' => ([b'\\', b't', 0, 0], 2),
            b'\n' => ([b'\\', b'n', 0, 0], 2),
            b'\r' => ([b'\\', b'r', 0, 0], 2),
            b'\\' => ([b'\\', b'\\', 0, 0], 2),
            _ if byte == quote => ([b'\\', quote, 0, 0], 2),
            b' '..=b'~' => ([byte, 0, 0, 0], 1),
            _ => ([b'\\', b'x', hex_digit(byte >> 4), hex_digit(byte & 0xf)], 4),
        };
        text.into_iter().take(len)
    };
    [b'b', quote].into_iter().chain(key.iter().flat_map(escaped)).chain([quote])
}

fn hex_digit(half: u8) -> u8 {
    if half < 10 { b'0' + half } else { b'a' + half - 10 }
}
