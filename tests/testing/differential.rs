//! Differential tests: an embedded pod must reply to the same bytes with the same bytes as a real memcached.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, SystemTime};

use memring::testing::{Memcached, Service};
use proptest::prelude::*;
use tokio::runtime::Runtime;

use crate::TEST_TIMEOUT;
use crate::random_commands::{NEWEST_UNIQUE, command};

/// A malformed command that keeps the framing. No other command in these tests has its reply, which therefore marks the
/// end of the replies before it.
const MARKER: &[u8] = b"delete mark mark\r\n";
const MARKER_REPLY: &[u8] = b"CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n";

/// An embedded and a real server. The runtime serves the embedded one while the tests block.
struct ServerPair {
    embedded: SocketAddr,
    real: SocketAddr,
    _servers: (Service, Memcached),
    _runtime: Runtime,
}

impl ServerPair {
    fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let service = runtime.block_on(Service::start(1)).unwrap();
        // With the segmented LRU, an item that is fetched twice may be referenced for a moment, and `decr` does not pad
        // a referenced item. The padding would depend on the timing.
        let memcached = runtime.block_on(Memcached::start_with(["-o", "no_lru_maintainer"]));
        let memcached = memcached.expect("these tests need a memcached: set MEMCACHED to its path, or install it");
        let (embedded, real) = (service.pods()[0].addr, memcached.addr());
        Self { embedded, real, _servers: (service, memcached), _runtime: runtime }
    }

    fn connect(&self) -> [TcpStream; 2] {
        [self.embedded, self.real].map(|addr| {
            let stream = TcpStream::connect(addr).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(TEST_TIMEOUT)).unwrap();
            stream
        })
    }

    /// Sends the input to both servers, and reads until they close the connection.
    fn replies_to(&self, input: &[u8]) -> [Vec<u8>; 2] {
        self.connect().map(|mut stream| {
            stream.write_all(b"flush_all\r\n").unwrap();
            stream.read_exact(&mut [0; b"OK\r\n".len()]).unwrap();
            let mut output = Vec::new();
            let mut writer = stream.try_clone().unwrap();
            // The test reads while it writes, or both sides could wait with full socket buffers.
            std::thread::scope(|scope| {
                // Writing may fail after a `quit`.
                scope.spawn(move || writer.write_all(input));
                match stream.read_to_end(&mut output) {
                    // The server has closed the connection with unread input, such as a line without an end.
                    Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
                    result => drop(result.unwrap()),
                }
            });
            output
        })
    }
}

/// Sends one command and returns the replies to it.
fn exchange(stream: &mut TcpStream, command: &[u8]) -> Vec<u8> {
    stream.write_all(&[command, MARKER].concat()).unwrap();
    let mut output = Vec::new();
    let mut buffer = vec![0; 65_536];
    while !output.ends_with(MARKER_REPLY) {
        match stream.read(&mut buffer) {
            Ok(0) => panic!("closed after {:?} to {:?}", text(&output), text(command)),
            Ok(count) => output.extend_from_slice(&buffer[..count]),
            Err(error) => panic!("{error} after {:?} to {:?}", text(&output), text(command)),
        }
    }
    output.truncate(output.len() - MARKER_REPLY.len());
    output
}

/// Replaces what may differ between the servers: a CAS unique by the order of its first appearance, and the version by
/// a fixed word.
fn normalize(output: &[u8], uniques: &mut HashMap<Vec<u8>, usize>) -> Vec<u8> {
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
                    let next = uniques.len();
                    let order = *uniques.entry(cas.to_vec()).or_insert(next);
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

fn with_newest_unique(command: &[u8], uniques: &HashMap<Vec<u8>, usize>) -> Vec<u8> {
    let placeholder = NEWEST_UNIQUE.as_bytes();
    let Some(at) = command.windows(placeholder.len()).position(|window| window == placeholder) else {
        return command.to_vec();
    };
    let newest = uniques.iter().max_by_key(|(_, order)| **order);
    let newest = newest.map_or(&b"18446744073709551615"[..], |(unique, _)| unique);
    [&command[..at], newest, &command[at + placeholder.len()..]].concat()
}

/// Formats bytes for a failure message, cut to a readable length.
fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    match text.char_indices().nth(600) {
        Some((end, _)) => format!("{}... ({} bytes)", &text[..end], bytes.len()),
        None => text.into_owned(),
    }
}

#[track_caller]
fn assert_same(embedded: &[u8], real: &[u8], input: &[u8]) {
    let [embedded, real] = [embedded, real].map(|output| normalize(output, &mut HashMap::new()));
    assert!(embedded == real, "to {:?}\nembedded: {:?}\nreal:     {:?}", text(input), text(&embedded), text(&real));
}

#[test]
fn replies_to_scripts_equal_the_real_servers() {
    let too_long = "k".repeat(251);
    let longest = "k".repeat(250);
    let many_keys: String = (0..3000).map(|key| format!(" key{key}")).collect();
    let timestamp = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() + 1000;
    let scripts = [
        // Counting. First, because for a number from 2^63 on the real server searches for a minus sign past the value.
        "set n 0 0 20\r\n18446744073709551615\r\nincr n 2\r\nset n 0 0 2\r\n10\r\nincr n 9999\r\nincr n -1\r\n\
         incr n x\r\nincr n\r\nincr n 18446744073709551616\r\ndecr n 18446744073709551615\r\nincr m 1\r\ndecr m 1\r\n\
         incr n 1 what\r\n"
            .to_owned(),
        // Lines.
        "\r\n\n \r\nx\r\nget\r\nget  \r\n get a\r\nget a\nGET a\r\nversion\r\nversion 1 2\r\nversio\r\nset\r\n\
         bogus noreply\r\n"
            .to_owned(),
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
         set a 18446744073709551615 0 1\r\nx\r\nget a\r\nset a -18446744073709551615 0 1\r\nx\r\nget a\r\n"
            .to_owned(),
        "set a 0 0 -1\r\nset a 0 0 2147483646\r\nset a 0 0 4294967299\r\nabc\r\nget a\r\n\
         set a 0 0 +3\r\nabc\r\nget a\r\n"
            .to_owned(),
        format!(
            "set a 0 -1 1\r\nx\r\nget a\r\nset a 0 4294967301 1\r\nx\r\nget a\r\n\
             set a 0 2147483648 1\r\nx\r\nget a\r\nset a 0 2592001 1\r\nx\r\nget a\r\n\
             set a 0 {timestamp} 1\r\nx\r\nget a\r\ntouch a -5\r\nget a\r\n"
        ),
        // Keys.
        format!(
            "set {longest} 0 0 1\r\nx\r\nget {longest}\r\nset {too_long} 0 0 1\r\nx\r\n\
             delete {too_long}\r\nincr {too_long} 1\r\ntouch {too_long} 1\r\n"
        ),
        format!("get a {too_long} b\r\n"),
        format!("get{many_keys}\r\nset key7 1 0 1\r\nx\r\nset key2999 2 0 1\r\ny\r\nget{many_keys}\r\n"),
        "set a 0 0 1\r\nx\r\ngets a a b a\r\nget a noreply\r\n".to_owned(),
        // Touching gets.
        format!(
            "set a 7 0 1\r\nx\r\ngat\r\ngat 10\r\ngat a\r\ngats\r\ngat x a\r\ngat 10 a b a\r\ngats 0 a b\r\n\
             gets a\r\ngat 10 a noreply\r\ngat 4294967301 a\r\ngat 2147483648 a\r\nget a\r\nset a 0 0 1\r\nx\r\n\
             gat -1 a a\r\nget a\r\ngat 10 {longest}\r\ngat x {too_long}\r\n"
        ),
        format!("gat 10{many_keys}\r\nset key7 1 0 1\r\nx\r\nset key2999 2 0 1\r\ny\r\ngats 10{many_keys}\r\n"),
        format!("gat 10 {}", "a ".repeat(2000)),
        // In a script of its own, because the real server drops the replies in its output buffer.
        format!("gat 10 a {too_long} a\r\n"),
        // Appending and prepending.
        format!(
            "append a 0 0 1\r\nx\r\nprepend a 0 0 1\r\nx\r\nset a 7 0 1\r\nx\r\nappend a 9 -1 2\r\nyz\r\n\
             prepend a 1 0 1\r\nw\r\ngets a\r\nappend a 0 0 0\r\n\r\ngets a\r\nappend a 0 0 1 noreply\r\n1\r\n\
             prepend b 0 0 1 noreply\r\n1\r\nappend a 0 0 1 what\r\n2\r\nget a b\r\nappend a x 0 1\r\n3\r\n\
             prepend a 0 0\r\nappend\r\nappend {too_long} 0 0 1\r\nx\r\nprepend a 0 0 3\r\nabcde\r\nget a\r\n\
             set n 0 0 1\r\n5\r\nappend n 0 0 1\r\n0\r\nincr n 1\r\nget n\r\n"
        ),
        // CAS uniques that no item has, and invalid ones.
        format!(
            "cas a 0 0 1 1\r\nx\r\nset a 0 0 1\r\nx\r\ncas a 0 0 1 18446744073709551615\r\ny\r\n\
             cas a 0 0 1 0\r\ny\r\ncas b 0 0 1 0\r\ny\r\ncas a 0 0 1 99999999999 noreply\r\ny\r\n\
             cas a 0 0 1 99999999999 what\r\ny\r\ncas a 0 0 1 x\r\ny\r\ncas a 0 0 1 -1\r\ny\r\ncas a 0 0 1\r\n\
             cas a 0 0 noreply 1\r\ncas a 0 0 1 noreply\r\ncas a 0 0 1 1 2 3\r\ncas a 0 0 1 18446744073709551616\r\n\
             cas a 0 0 -1 1\r\ncas\r\ncas {too_long} 0 0 1 1\r\ny\r\nget a\r\n"
        ),
        // Verbosity.
        "verbosity\r\nverbosity 0\r\nverbosity x\r\nverbosity -1\r\nverbosity 0 0\r\nverbosity 0 0 0\r\n\
         verbosity 0 noreply\r\nverbosity noreply\r\nverbosity 4294967296\r\nverbosity 18446744073709551616\r\n\
         verbosity x noreply\r\n"
            .to_owned(),
        // Data blocks.
        "set a 0 0 3\r\nabcdef\r\nset a 0 0 3\r\nabcde\r\nset a 0 0 3\nabc\r\nget a\nset a 0 0 2\r\nhi\n\
         get a\r\n"
            .to_owned(),
        "set a 0 0 10\r\nabc\r\nget a\r\nversion\r\n".to_owned(),
        "set a 0 0 3 noreply\r\nabcd\r\nget a\r\nset a 0 0 3 what\r\nabc\r\nget a\r\nset a 0 0 noreply\r\n\
         version\r\n"
            .to_owned(),
        "set a 0 0 8\r\nx\r\ny\r\nz\n\r\nget a\r\n".to_owned(),
        // `noreply`, which suppresses replies and errors.
        format!(
            "set a 0 0 1 noreply\r\nx\r\nadd a 0 0 1 noreply\r\ny\r\ndelete b noreply\r\nincr a 1 noreply\r\n\
             touch b 0 noreply\r\nflush_all noreply\r\ntouch a x noreply\r\ndelete a 1 noreply\r\n\
             delete {too_long} noreply\r\nset {too_long} 0 0 1 noreply\r\n\
             flush_all x noreply\r\nincr a x noreply\r\nget a\r\n"
        ),
        // Deletes and flushes.
        "set a 0 0 1\r\nx\r\ndelete a 0\r\ndelete a 0 noreply\r\ndelete a 1\r\ndelete a 0 0\r\ndelete a b c d\r\n\
         delete\r\n"
            .to_owned(),
        "flush_all\r\nflush_all 0\r\nflush_all -1\r\nflush_all x\r\nflush_all 0 0\r\nflush_all noreply 0\r\n\
         flush_all 1 2 3\r\n"
            .to_owned(),
        "set a 0 0 1\r\nx\r\nflush_all\r\nget a\r\nset a 0 0 1\r\ny\r\nget a\r\nreplace b 0 0 1\r\nz\r\n\
         add a 0 0 1\r\nz\r\n"
            .to_owned(),
        // Counting values with spaces, signs and leading zeros.
        "set n 0 0 5\r\n 12 3\r\nincr n 1\r\nget n\r\nset m 0 0 5\r\n-12 3\r\nincr m 1\r\n\
         set o 0 0 0\r\n\r\nincr o 1\r\nset p 0 0 25\r\n0000000000000000000000005\r\ndecr p 1\r\nget p\r\n\
         set q 0 0 2\r\n5x\r\ndecr q 1\r\n"
            .to_owned(),
    ];
    let pair = ServerPair::start();
    for script in scripts {
        let input = [script.as_bytes(), b"\r\nquit\r\n"].concat();
        let [embedded, real] = pair.replies_to(&input);
        assert_same(&embedded, &real, &input);
    }
}

#[test]
fn the_item_size_limit_equals_the_real_servers() {
    let pair = ServerPair::start();
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
        let [embedded, real] = pair.replies_to(&input);
        assert_same(&embedded, &real, key.as_bytes());
    }
}

#[test]
fn items_expire_and_are_flushed_as_on_the_real_server() {
    let pair = ServerPair::start();
    let mut streams = pair.connect();
    let mut both = |command: &str| {
        let [embedded, real] = streams.each_mut().map(|stream| exchange(stream, command.as_bytes()));
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

    // A refused touching get has touched the keys before the bad one.
    both("set passed 0 0 1\r\nx\r\n");
    both(&format!("gat -1 passed {}\r\n", "k".repeat(251)));
    assert_eq!(both("get passed\r\n"), "END\r\n");

    both("flush_all 3\r\n");
    assert!(both("get long spared\r\n").starts_with("VALUE long"));
    std::thread::sleep(Duration::from_millis(4300));
    assert_eq!(both("get long spared brief\r\n"), "END\r\n");
    both("set new 0 0 1\r\nx\r\nget new\r\n");
}

#[test]
fn replies_to_random_commands_equal_the_real_servers() {
    let pair = ServerPair::start();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 200,
        max_shrink_iters: 500,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let commands = prop::collection::vec(command(), 1..40);
    let result = runner.run(&commands, |commands| {
        let mut streams = pair.connect();
        let mut uniques = [HashMap::new(), HashMap::new()];
        for stream in &mut streams {
            exchange(stream, b"flush_all\r\n");
        }
        for (at, command) in commands.iter().enumerate() {
            let [embedded, real] =
                [0, 1].map(|server| exchange(&mut streams[server], &with_newest_unique(command, &uniques[server])));
            let embedded = normalize(&embedded, &mut uniques[0]);
            let real = normalize(&real, &mut uniques[1]);
            let history: String = commands[..=at].iter().map(|command| format!("\n{:?}", text(command))).collect();
            let (embedded, real) = (text(&embedded), text(&real));
            prop_assert!(embedded == real, "commands: {history}\nembedded: {embedded:?}\nreal:     {real:?}");
        }
        Ok(())
    });
    if let Err(proptest::test_runner::TestError::Fail(reason, _)) = result {
        panic!("{reason}");
    }
}
