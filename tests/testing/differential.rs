//! The embedded pod against the real memcached: the same bytes in, the same bytes out.
//!
//! The real server is always the oracle. These tests fail without it.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, SystemTime};

use memring::testing::{Memcached, Service};
use proptest::prelude::*;
use tokio::runtime::Runtime;

use crate::PATIENCE;

/// A malformed line that keeps the framing, and that nothing else in these tests is answered like: what it is answered
/// marks the end of the replies before it.
const MARK: &[u8] = b"delete mark mark\r\n";
const MARKED: &[u8] = b"CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n";

/// The two servers. The runtime serves the embedded one while the tests block.
struct Pair {
    embedded: SocketAddr,
    real: SocketAddr,
    _servers: (Service, Memcached),
    _runtime: Runtime,
}

impl Pair {
    fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let service = runtime.block_on(Service::start(1)).unwrap();
        // With a segmented LRU, fetching an item twice may hold on to it for a moment, and then counting down does not
        // pad it: whether it is padded would be a matter of time.
        let memcached = runtime.block_on(Memcached::start_with(["-o", "no_lru_maintainer"]));
        let memcached = memcached.expect("these tests need a memcached: set MEMCACHED to its path, or install it");
        let (embedded, real) = (service.pods()[0].addr, memcached.addr());
        Self { embedded, real, _servers: (service, memcached), _runtime: runtime }
    }

    fn connect(&self) -> [TcpStream; 2] {
        [self.embedded, self.real].map(|addr| {
            let stream = TcpStream::connect(addr).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream
        })
    }

    /// One conversation, sent in pieces, up to the end the server makes of it.
    fn whole(&self, input: &[u8]) -> [Vec<u8>; 2] {
        self.connect().map(|mut stream| {
            stream.write_all(b"flush_all\r\n").unwrap();
            stream.read_exact(&mut [0; b"OK\r\n".len()]).unwrap();
            let mut output = Vec::new();
            let mut writing = stream.try_clone().unwrap();
            // Read while it is written, or two full sockets would wait for each other.
            std::thread::scope(|scope| {
                // What is sent behind a `quit` may be refused.
                scope.spawn(move || writing.write_all(input));
                match stream.read_to_end(&mut output) {
                    // Closed with our bytes unread, as a line without an end is.
                    Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
                    result => drop(result.unwrap()),
                }
            });
            output
        })
    }
}

/// Sends one step and reads what it is answered.
fn step(stream: &mut TcpStream, command: &[u8]) -> Vec<u8> {
    stream.write_all(&[command, MARK].concat()).unwrap();
    let mut output = Vec::new();
    let mut piece = vec![0; 65_536];
    while !output.ends_with(MARKED) {
        match stream.read(&mut piece) {
            Ok(0) => panic!("closed after {:?} to {:?}", text(&output), text(command)),
            Ok(read) => output.extend_from_slice(&piece[..read]),
            Err(error) => panic!("{error} after {:?} to {:?}", text(&output), text(command)),
        }
    }
    output.truncate(output.len() - MARKED.len());
    output
}

/// CAS uniques become their order of first appearance, and the version a word, for these may differ.
fn normalise(output: &[u8], seen: &mut HashMap<Vec<u8>, usize>) -> Vec<u8> {
    let mut normal = Vec::new();
    let mut rest = output;
    while let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") {
        let (line, tail) = rest.split_at(end + 2);
        rest = tail;
        let words: Vec<&[u8]> = line[..end].split(|byte| *byte == b' ').collect();
        match words[..] {
            [b"VALUE", _, _, len] | [b"VALUE", _, _, len, _] => {
                normal.extend(words[..4].join(&b' '));
                if let Some(cas) = words.get(4) {
                    let next = seen.len();
                    let order = *seen.entry(cas.to_vec()).or_insert(next);
                    normal.extend(format!(" cas{order}").bytes());
                }
                let len: usize = std::str::from_utf8(len).unwrap().parse().unwrap();
                let (value, tail) = rest.split_at(len + 2);
                normal.extend(b"\r\n");
                normal.extend(value);
                rest = tail;
            }
            [b"VERSION", _] => normal.extend(b"VERSION some\r\n"),
            _ => normal.extend(line),
        }
    }
    normal.extend(rest);
    normal
}

/// In a command, stands for the CAS unique that a server was last seen to give.
const LATEST: &str = "<latest>";

fn with_latest(command: &[u8], seen: &HashMap<Vec<u8>, usize>) -> Vec<u8> {
    let Some(at) = command.windows(LATEST.len()).position(|window| window == LATEST.as_bytes()) else {
        return command.to_vec();
    };
    let latest = seen.iter().max_by_key(|(_, order)| **order);
    let latest = latest.map_or(&b"18446744073709551615"[..], |(unique, _)| unique);
    [&command[..at], latest, &command[at + LATEST.len()..]].concat()
}

/// Readable in a failure, however long.
fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    match text.char_indices().nth(600) {
        Some((cut, _)) => format!("{}... ({} bytes)", &text[..cut], bytes.len()),
        None => text.into_owned(),
    }
}

#[track_caller]
fn assert_same(embedded: &[u8], real: &[u8], input: &[u8]) {
    let [embedded, real] = [embedded, real].map(|output| normalise(output, &mut HashMap::new()));
    assert!(embedded == real, "to {:?}\nembedded: {:?}\nreal:     {:?}", text(input), text(&embedded), text(&real));
}

#[test]
fn scripts_read_the_same() {
    let long = "k".repeat(251);
    let fits = "k".repeat(250);
    let many: String = (0..3000).map(|key| format!(" key{key}")).collect();
    let nowhere = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() + 1000;
    let scripts = [
        // Counting. First, because from 2^63 on the real server looks for a minus sign, and looks past the value for it.
        "set n 0 0 20\r\n18446744073709551615\r\nincr n 2\r\nset n 0 0 2\r\n10\r\nincr n 9999\r\nincr n -1\r\nincr n x\r\nincr n\r\n\
         incr n 18446744073709551616\r\ndecr n 18446744073709551615\r\nincr m 1\r\ndecr m 1\r\nincr n 1 what\r\n".to_owned(),
        // Lines.
        "\r\n\n \r\nx\r\nget\r\nget  \r\n get a\r\nget a\nGET a\r\nversion\r\nversion 1 2\r\nversio\r\nset\r\nbogus noreply\r\n".to_owned(),
        "x HTTP/1.1\r\nget HTTP/1.1\r\nzz\0HTTP/1.1\r\nversion\r\n".to_owned(),
        "HTTP/1.1\r\nversion\r\n".to_owned(),
        "POST / HTTP/1.1\r\nversion\r\n".to_owned(),
        format!("{}\r\n{}\r\nversion\r\n", "a".repeat(2047), "a".repeat(2100)),
        "a".repeat(3000),
        format!("get {}", " ".repeat(10)) + &"a".repeat(3000) + " b\r\n",
        format!("set a 0 0 1{}\r\na\r\nget a\r\n", " ".repeat(1000)),
        "quit noreply\r\nversion\r\n".to_owned(),
        "set a\0b 0 0 1\r\nx\r\nget a\tb\r\nset \u{fc} 0 0 1\r\nx\r\nget \u{fc}\r\n".to_owned(),
        // Numbers.
        "set a -1 0 1\r\nx\r\nset a 4294967295 0 1\r\nx\r\nget a\r\nset a 4294967296 0 1\r\nx\r\nget a\r\n\
         set a 18446744073709551615 0 1\r\nx\r\nget a\r\nset a -18446744073709551615 0 1\r\nx\r\nget a\r\n".to_owned(),
        "set a 0 0 -1\r\nset a 0 0 2147483646\r\nset a 0 0 4294967299\r\nabc\r\nget a\r\nset a 0 0 +3\r\nabc\r\nget a\r\n".to_owned(),
        format!("set a 0 -1 1\r\nx\r\nget a\r\nset a 0 4294967301 1\r\nx\r\nget a\r\nset a 0 2147483648 1\r\nx\r\nget a\r\n\
         set a 0 2592001 1\r\nx\r\nget a\r\nset a 0 {nowhere} 1\r\nx\r\nget a\r\ntouch a -5\r\nget a\r\n"),
        // Keys.
        format!("set {fits} 0 0 1\r\nx\r\nget {fits}\r\nset {long} 0 0 1\r\nx\r\ndelete {long}\r\nincr {long} 1\r\ntouch {long} 1\r\n"),
        format!("get a {long} b\r\n"),
        format!("get{many}\r\nset key7 1 0 1\r\nx\r\nset key2999 2 0 1\r\ny\r\nget{many}\r\n"),
        "set a 0 0 1\r\nx\r\ngets a a b a\r\nget a noreply\r\n".to_owned(),
        // Touching gets.
        format!("set a 7 0 1\r\nx\r\ngat\r\ngat 10\r\ngat a\r\ngats\r\ngat x a\r\ngat 10 a b a\r\ngats 0 a b\r\ngets a\r\n\
         gat 10 a noreply\r\ngat 4294967301 a\r\ngat 2147483648 a\r\nget a\r\nset a 0 0 1\r\nx\r\ngat -1 a a\r\nget a\r\n\
         gat 10 {fits}\r\ngat x {long}\r\n"),
        format!("gat 10{many}\r\nset key7 1 0 1\r\nx\r\nset key2999 2 0 1\r\ny\r\ngats 10{many}\r\n"),
        format!("gat 10 {}", "a ".repeat(2000)),
        // Alone, for the real server drops the replies it had ready before it.
        format!("gat 10 a {long} a\r\n"),
        // Joining.
        format!("append a 0 0 1\r\nx\r\nprepend a 0 0 1\r\nx\r\nset a 7 0 1\r\nx\r\nappend a 9 -1 2\r\nyz\r\nprepend a 1 0 1\r\nw\r\n\
         gets a\r\nappend a 0 0 0\r\n\r\ngets a\r\nappend a 0 0 1 noreply\r\n1\r\nprepend b 0 0 1 noreply\r\n1\r\n\
         append a 0 0 1 what\r\n2\r\nget a b\r\nappend a x 0 1\r\n3\r\nprepend a 0 0\r\nappend\r\nappend {long} 0 0 1\r\nx\r\n\
         prepend a 0 0 3\r\nabcde\r\nget a\r\nset n 0 0 1\r\n5\r\nappend n 0 0 1\r\n0\r\nincr n 1\r\nget n\r\n"),
        // Swapping: uniques that no item has, and what is none.
        format!("cas a 0 0 1 1\r\nx\r\nset a 0 0 1\r\nx\r\ncas a 0 0 1 18446744073709551615\r\ny\r\ncas a 0 0 1 0\r\ny\r\n\
         cas b 0 0 1 0\r\ny\r\ncas a 0 0 1 99999999999 noreply\r\ny\r\ncas a 0 0 1 99999999999 what\r\ny\r\n\
         cas a 0 0 1 x\r\ny\r\ncas a 0 0 1 -1\r\ny\r\ncas a 0 0 1\r\ncas a 0 0 noreply 1\r\ncas a 0 0 1 noreply\r\ncas a 0 0 1 1 2 3\r\n\
         cas a 0 0 1 18446744073709551616\r\ncas a 0 0 -1 1\r\ncas\r\ncas {long} 0 0 1 1\r\ny\r\nget a\r\n"),
        // Verbosity.
        "verbosity\r\nverbosity 0\r\nverbosity x\r\nverbosity -1\r\nverbosity 0 0\r\nverbosity 0 0 0\r\nverbosity 0 noreply\r\n\
         verbosity noreply\r\nverbosity 4294967296\r\nverbosity 18446744073709551616\r\nverbosity x noreply\r\n".to_owned(),
        // Bodies.
        "set a 0 0 3\r\nabcdef\r\nset a 0 0 3\r\nabcde\r\nset a 0 0 3\nabc\r\nget a\nset a 0 0 2\r\nhi\nget a\r\n".to_owned(),
        "set a 0 0 10\r\nabc\r\nget a\r\nversion\r\n".to_owned(),
        "set a 0 0 3 noreply\r\nabcd\r\nget a\r\nset a 0 0 3 what\r\nabc\r\nget a\r\nset a 0 0 noreply\r\nversion\r\n".to_owned(),
        "set a 0 0 8\r\nx\r\ny\r\nz\n\r\nget a\r\n".to_owned(),
        // Noreply, and what it keeps quiet.
        format!("set a 0 0 1 noreply\r\nx\r\nadd a 0 0 1 noreply\r\ny\r\ndelete b noreply\r\nincr a 1 noreply\r\ntouch b 0 noreply\r\n\
         flush_all noreply\r\ntouch a x noreply\r\ndelete a 1 noreply\r\ndelete {long} noreply\r\nset {long} 0 0 1 noreply\r\n\
         flush_all x noreply\r\nincr a x noreply\r\nget a\r\n"),
        // Deletes and flushes.
        "set a 0 0 1\r\nx\r\ndelete a 0\r\ndelete a 0 noreply\r\ndelete a 1\r\ndelete a 0 0\r\ndelete a b c d\r\ndelete\r\n".to_owned(),
        "flush_all\r\nflush_all 0\r\nflush_all -1\r\nflush_all x\r\nflush_all 0 0\r\nflush_all noreply 0\r\nflush_all 1 2 3\r\n".to_owned(),
        "set a 0 0 1\r\nx\r\nflush_all\r\nget a\r\nset a 0 0 1\r\ny\r\nget a\r\nreplace b 0 0 1\r\nz\r\nadd a 0 0 1\r\nz\r\n".to_owned(),
        // Counting what has to be parsed first.
        "set n 0 0 5\r\n 12 3\r\nincr n 1\r\nget n\r\nset m 0 0 5\r\n-12 3\r\nincr m 1\r\nset o 0 0 0\r\n\r\nincr o 1\r\n\
         set p 0 0 25\r\n0000000000000000000000005\r\ndecr p 1\r\nget p\r\nset q 0 0 2\r\n5x\r\ndecr q 1\r\n".to_owned(),
    ];
    let pair = Pair::start();
    for script in scripts {
        let input = [script.as_bytes(), b"\r\nquit\r\n"].concat();
        let [embedded, real] = pair.whole(&input);
        assert_same(&embedded, &real, &input);
    }
}

#[test]
fn the_largest_item_is_the_same() {
    let pair = Pair::start();
    for (key, flags) in [("k", "0"), ("k", "9"), (&*"k".repeat(250), "0")] {
        let largest = 1_048_576 - 59 - key.len() - if flags == "0" { 0 } else { 4 };
        let mut input = Vec::new();
        for (verb, len) in [
            ("set", largest - 1000),
            ("append", 999),
            ("prepend", 1),
            ("prepend", 1),
            ("append", 1),
            ("append", largest + 1),
            ("set", largest),
            ("set", 1),
            ("add", largest + 1),
            ("set", largest + 1),
            ("replace", 2_000_000),
            ("append", 2_000_000),
            ("set", 1),
            ("replace", 2_000_000),
        ] {
            input.extend(format!("{verb} {key} {flags} 0 {len}\r\n{}\r\nget {key}\r\n", "v".repeat(len)).bytes());
        }
        input.extend(format!("cas {key} 0 0 2000000 1\r\n{}\r\nget {key}\r\n", "v".repeat(2_000_000)).bytes());
        input.extend(b"set k 0 0 1048577 noreply\r\n");
        input.extend(vec![b'\n'; 1_048_577]);
        input.extend(b"\r\nquit\r\n");
        let [embedded, real] = pair.whole(&input);
        assert_same(&embedded, &real, key.as_bytes());
    }
}

#[test]
fn items_expire_and_are_flushed_alike() {
    let pair = Pair::start();
    let mut streams = pair.connect();
    let mut both = |command: &str| {
        let [embedded, real] = streams.each_mut().map(|stream| step(stream, command.as_bytes()));
        assert_same(&embedded, &real, command.as_bytes());
        text(&real)
    };
    both("flush_all\r\n");
    both("set brief 0 1 1\r\nx\r\nset long 0 100 1\r\nx\r\nset cut 0 100 1\r\nx\r\ntouch cut 1\r\n");
    both("set saved 0 1 1\r\nx\r\ngat 100 saved\r\nset dropped 0 100 1\r\nx\r\ngats 1 dropped\r\n");
    both("set joined 0 1 1\r\nx\r\nappend joined 0 100 1\r\nx\r\n");
    both("set spared 0 1 1\r\nx\r\ntouch spared 0\r\nset n 0 1 1\r\n5\r\nincr n 100\r\n");
    std::thread::sleep(Duration::from_millis(2300));
    assert!(both("get brief long cut spared n\r\n").starts_with("VALUE long 0 1\r\nx\r\nVALUE spared"));
    assert_eq!(both("get saved dropped joined\r\n"), "VALUE saved 0 1\r\nx\r\nEND\r\n");
    both("incr n 1\r\nreplace brief 0 0 1\r\ny\r\ndelete cut\r\ntouch n 1\r\nadd brief 0 0 1\r\nz\r\nget brief\r\n");

    // A touching get that is refused has touched the keys before the bad one.
    both("set passed 0 0 1\r\nx\r\n");
    both(&format!("gat -1 passed {}\r\n", "k".repeat(251)));
    assert_eq!(both("get passed\r\n"), "END\r\n");

    both("flush_all 3\r\n");
    assert!(both("get long spared\r\n").starts_with("VALUE long"));
    std::thread::sleep(Duration::from_millis(4300));
    assert_eq!(both("get long spared brief\r\n"), "END\r\n");
    both("set new 0 0 1\r\nx\r\nget new\r\n");
}

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

/// A number of 2^`bits` and more, up to the largest there is. Counting a value from 2^63 on, the real server looks for a
/// minus sign and does not stop at the value's end; so values and what is added to them are kept below.
fn is_vast(number: &str, bits: u32) -> bool {
    number.trim().parse::<u64>().is_ok_and(|number| number >> bits > 0)
}

/// In lines, for behind a refused command they are run as commands, and a long line would close the connection.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let number = || number().prop_filter("vast", |number| !is_vast(number, 62));
    prop_oneof![
        3 => number().prop_map(String::into_bytes),
        1 => number().prop_map(|number| format!(" {number}  ").into_bytes()),
        2 => prop::collection::vec(any::<u8>(), 0..40),
        1 => Just(b"get key0\r\nincr key1 1".to_vec()),
        1 => (0..700usize).prop_map(|lines| b"many lines\n".repeat(lines)),
    ]
    .prop_filter("of white space only: counting it, the real server reads on past its end", |value| {
        value.is_empty() || !value.iter().all(|byte| matches!(byte, b'\t'..=b'\r' | b' '))
    })
}

fn suffix() -> impl Strategy<Value = &'static str> {
    prop_oneof![6 => Just(""), 2 => Just(" noreply"), 1 => Just("  "), 1 => Just(" x")]
}

/// One command with whatever belongs to it; malformed ones keep the framing, or lose it alike.
fn command() -> impl Strategy<Value = Vec<u8>> {
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
        let unique = if verb == "cas" { format!(" {LATEST}") } else { String::new() };
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
    let delta = number().prop_filter("vast", |number| !is_vast(number, 55));
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

#[test]
fn random_conversations_read_the_same() {
    let pair = Pair::start();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 200,
        max_shrink_iters: 500,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let commands = prop::collection::vec(command(), 1..40);
    let result = runner.run(&commands, |commands| {
        let mut streams = pair.connect();
        let mut seen = [HashMap::new(), HashMap::new()];
        for stream in &mut streams {
            step(stream, b"flush_all\r\n");
        }
        for (at, command) in commands.iter().enumerate() {
            let [embedded, real] = [0, 1].map(|which| step(&mut streams[which], &with_latest(command, &seen[which])));
            let embedded = normalise(&embedded, &mut seen[0]);
            let real = normalise(&real, &mut seen[1]);
            let story: String = commands[..=at].iter().map(|command| format!("\n{:?}", text(command))).collect();
            let (embedded, real) = (text(&embedded), text(&real));
            prop_assert!(embedded == real, "story: {story}\nembedded: {embedded:?}\nreal:     {real:?}");
        }
        Ok(())
    });
    if let Err(proptest::test_runner::TestError::Fail(reason, _)) = result {
        panic!("{reason}");
    }
}
