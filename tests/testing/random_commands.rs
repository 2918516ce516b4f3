//! Random commands, well-formed and malformed, for the differential tests.

use proptest::prelude::*;

/// A placeholder in commands for the newest CAS unique of the server.
pub(crate) const NEWEST_UNIQUE: &str = "<newest unique>";

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => (0..4u8).prop_map(|key| format!("key{key}")),
        1 => Just("k".repeat(250)),
        1 => Just("k".repeat(251)),
        1 => Just("noreply".to_owned()),
    ]
}

fn number() -> impl Strategy<Value = String> {
    let odd = [
        "-1",
        "x",
        "",
        "1x",
        "+5",
        "0x10",
        "4294967295",
        "4294967296",
        "4294967301",
        "2147483648",
        "2592001",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "-9223372036854775808",
    ];
    prop_oneof![
        4 => (0..200u64).prop_map(|number| number.to_string()),
        1 => Just("0".to_owned()),
        1 => any::<i64>().prop_map(|number| number.to_string()),
        2 => prop::sample::select(odd.to_vec()).prop_map(str::to_owned),
    ]
}

/// Whether a number is at least 2^`bits`.
///
/// When it counts a value from 2^63 on, the real server searches for a minus sign past the end of the value. Values and
/// deltas are therefore kept below.
fn has_more_bits(number: &str, bits: u32) -> bool {
    number.trim().parse::<u64>().is_ok_and(|number| number >> bits > 0)
}

/// A value without long lines, because the server runs the value of a refused command as commands, and closes the
/// connection on a long line.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let number = || number().prop_filter("too large", |number| !has_more_bits(number, 62));
    prop_oneof![
        3 => number().prop_map(String::into_bytes),
        1 => number().prop_map(|number| format!(" {number}  ").into_bytes()),
        2 => prop::collection::vec(any::<u8>(), 0..40),
        1 => Just(b"get key0\r\nincr key1 1".to_vec()),
        1 => (0..700usize).prop_map(|lines| b"many lines\n".repeat(lines)),
    ]
    .prop_filter("only white space: to count it, the real server reads past its end", |value| {
        value.is_empty() || !value.iter().all(|byte| matches!(byte, b'\t'..=b'\r' | b' '))
    })
}

fn suffix() -> impl Strategy<Value = &'static str> {
    prop_oneof![6 => Just(""), 2 => Just(" noreply"), 1 => Just("  "), 1 => Just(" x")]
}

/// One command with its data block. A malformed command keeps the framing, or loses it on both servers.
pub(crate) fn command() -> impl Strategy<Value = Vec<u8>> {
    let zero_or = |number: BoxedStrategy<String>| prop_oneof![3 => Just("0".to_owned()), 1 => number];
    let storage = (
        prop::sample::select(vec!["set", "set", "set", "add", "replace", "append", "prepend", "cas"]),
        key(),
        zero_or(number().boxed()),
        zero_or(number().boxed()),
        value(),
        suffix(),
        prop::bool::weighted(0.1),
    );
    let storage = storage.prop_map(|(verb, key, flags, exptime, value, suffix, is_broken)| {
        let unique = if verb == "cas" { format!(" {NEWEST_UNIQUE}") } else { String::new() };
        let line = format!("{verb} {key} {flags} {exptime} {}{unique}{suffix}\r\n", value.len());
        [line.as_bytes(), &value, if is_broken { b"\n\n" } else { b"\r\n" }].concat()
    });
    let get = (prop::bool::ANY, prop::collection::vec(key(), 1..30), suffix());
    let get = get.prop_map(|(cas, keys, suffix)| {
        format!("{} {}{suffix}\r\n", if cas { "gets" } else { "get" }, keys.join(" ")).into_bytes()
    });
    let gat = (prop::bool::ANY, number(), prop::collection::vec(key(), 0..5), suffix());
    let gat = gat.prop_map(|(cas, exptime, keys, suffix)| {
        format!("{} {exptime} {}{suffix}\r\n", if cas { "gats" } else { "gat" }, keys.join(" ")).into_bytes()
    });
    let delta = number().prop_filter("too large", |number| !has_more_bits(number, 55));
    let count = (prop::sample::select(vec!["incr", "decr", "touch"]), key(), delta, suffix());
    let count = count.prop_map(|(verb, key, number, suffix)| format!("{verb} {key} {number}{suffix}\r\n").into_bytes());
    let delete = (key(), prop::sample::select(vec!["", " 0", " noreply", " 0 noreply"]));
    let delete = delete.prop_map(|(key, suffix)| format!("delete {key}{suffix}\r\n").into_bytes());
    let other = [
        "flush_all\r\n",
        "flush_all noreply\r\n",
        "flush_all -1\r\n",
        "version\r\n",
        "bogus\r\n",
        "\r\n",
        "get\r\n",
        "touch key0\r\n",
        "incr key1\r\n",
        "set key2 0 0\r\n",
        "cas key2 0 0 1 x\r\n",
        "verbosity 0\r\n",
        "  get   key0  key1\n",
    ];
    let other = prop::sample::select(other.to_vec()).prop_map(|line| line.as_bytes().to_vec());
    prop_oneof![6 => storage, 4 => get, 2 => gat, 4 => count, 2 => delete, 1 => other]
}
