//! The protocol of one connection, without I/O. The replies equal those of memcached 1.6.18 byte for byte.

use std::borrow::Cow;

use bytes::{Buf, Bytes, BytesMut};

use super::numbers;
use super::store::{CountOutcome, Mode, Store, StoreOutcome};

/// Commands wait while the unsent replies exceed this size, in bytes.
const OUT_HIGH_WATER: usize = 1024 * 1024;

/// The longest command line in bytes, except for `get` and `gets`, which may name many keys.
const MAX_LINE: usize = 2048;

/// The longest `get` or `gets` line in bytes. The real server has no such limit.
const MAX_GET_LINE: usize = 1024 * 1024;

const MAX_KEY: usize = 250;

/// No real server has this version, and it is older than every feature that clients infer from a version.
const VERSION: &str = "VERSION 0.0.0-memring";

/// The longest data block, in bytes. With its line end, its length still fits the real server's `int`.
const MAX_DATA_BLOCK: i32 = i32::MAX - 2;

const BAD_EXPTIME: &str = "CLIENT_ERROR invalid exptime argument";
const BAD_FORMAT: &str = "CLIENT_ERROR bad command line format";

/// The next step of the connection, after it has sent the replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Read more input: every complete command is answered.
    Read,
    /// Call [`Session::receive`] again: the input may hold more complete commands.
    Continue,
    /// Close the connection.
    Close,
}

#[derive(Debug, Default)]
enum State {
    /// Waits for a command line.
    #[default]
    Line,
    /// In the middle of a retrieval: looks up the keys in `rest`.
    Retrieval { rest: Bytes, with_cas: bool, touch: Option<i32> },
    /// Waits for the data block of a storage command.
    DataBlock(StorageCommand),
    /// Discards a refused data block: the number of bytes left.
    Discard(usize),
}

#[derive(Debug)]
struct StorageCommand {
    mode: Mode,
    key: Bytes,
    flags: u32,
    exptime: i32,
    len: usize,
    noreply: bool,
}

/// The protocol state of one connection between two reads.
#[derive(Debug, Default)]
pub(super) struct Session {
    state: State,
}

impl Session {
    /// Takes complete commands from `input`, runs them, and appends their replies to `out`.
    pub(super) fn receive(&mut self, input: &mut BytesMut, store: &mut Store, now: u64, out: &mut Vec<u8>) -> Next {
        loop {
            if out.len() > OUT_HIGH_WATER {
                return Next::Continue;
            }
            match &mut self.state {
                State::Line => {
                    let Some(end) = memchr::memchr(b'\n', input) else {
                        return if is_line_within_limit(input) { Next::Read } else { Next::Close };
                    };
                    let line = input.split_to(end + 1).freeze();
                    let line = line.slice(..end - usize::from(line[..end].ends_with(b"\r")));
                    // The real server handles lines as C strings.
                    let line = line.slice(..memchr::memchr(0, &line).unwrap_or(line.len()));
                    if !self.command(&line, store, now, out) {
                        return Next::Close;
                    }
                }
                State::Retrieval { rest, with_cas, touch } => match next_token(rest) {
                    Some(key) => {
                        if let Some(item) = store.get(&key, *touch, now) {
                            let cas = if *with_cas { format!(" {}", item.cas) } else { String::new() };
                            out.extend_from_slice(b"VALUE ");
                            out.extend_from_slice(&key);
                            out.extend_from_slice(format!(" {} {}{cas}\r\n", item.flags, item.value.len()).as_bytes());
                            out.extend_from_slice(&item.value);
                            out.extend_from_slice(b"\r\n");
                        }
                    }
                    None => {
                        out.extend_from_slice(b"END\r\n");
                        self.state = State::Line;
                    }
                },
                State::DataBlock(command) => {
                    if input.len() < command.len + 2 {
                        return Next::Read;
                    }
                    let block = input.split_to(command.len + 2);
                    let text = match block.strip_suffix(b"\r\n") {
                        // Copied, so that a small value does not keep a whole read buffer alive.
                        Some(value) => {
                            let value = Bytes::copy_from_slice(value);
                            let StorageCommand { mode, ref key, flags, exptime, .. } = *command;
                            match store.store(mode, key, flags, exptime, value, now) {
                                StoreOutcome::Stored => "STORED",
                                StoreOutcome::NotStored => "NOT_STORED",
                                StoreOutcome::Exists => "EXISTS",
                                StoreOutcome::NotFound => "NOT_FOUND",
                            }
                        }
                        None => "CLIENT_ERROR bad data chunk",
                    };
                    reply(out, command.noreply, text);
                    self.state = State::Line;
                }
                State::Discard(left) => {
                    let count = input.len().min(*left);
                    input.advance(count);
                    *left -= count;
                    if *left > 0 {
                        return Next::Read;
                    }
                    self.state = State::Line;
                }
            }
        }
    }

    /// Runs one command line. Returns `false` if the connection must be closed.
    fn command(&mut self, line: &Bytes, store: &mut Store, now: u64, out: &mut Vec<u8>) -> bool {
        let mut rest = line.clone();
        let name = next_token(&mut rest).unwrap_or_default();
        let arguments: Vec<&[u8]> = rest.split(|byte| *byte == b' ').filter(|token| !token.is_empty()).collect();
        // As the only argument, `noreply` is the key of a `delete`.
        let noreply = arguments.last().is_some_and(|last| *last == b"noreply")
            && (arguments.len() > 1 || matches!(&*name, b"flush_all" | b"verbosity"));
        let text: Cow<'static, str> = match (&*name, arguments.len()) {
            (b"get" | b"gets" | b"gat" | b"gats", 1..) => {
                if let Some(error) = self.start_retrieval(&name, rest.clone(), &arguments, store, now) {
                    reply(out, false, error);
                }
                return true;
            }
            (b"set" | b"add" | b"replace" | b"append" | b"prepend", 4 | 5) | (b"cas", 5 | 6) => {
                let mode = match &*name {
                    b"set" => Some(Mode::Set),
                    b"add" => Some(Mode::Add),
                    b"replace" => Some(Mode::Replace),
                    b"append" => Some(Mode::Append),
                    b"prepend" => Some(Mode::Prepend),
                    _ => numbers::unsigned(arguments[4]).map(Mode::Cas),
                };
                match self.start_storage(mode, &rest, &arguments, store) {
                    Some(error) => error.into(),
                    None => return true,
                }
            }
            (b"delete", 1..=3) => delete(&arguments, noreply, store, now).into(),
            (b"touch", 2 | 3) => touch(&arguments, store, now).into(),
            (b"incr" | b"decr", 2 | 3) => count(&arguments, &*name == b"incr", store, now),
            (b"flush_all", 0..=2) => flush_all(&arguments, noreply, store, now).into(),
            (b"verbosity", 1 | 2) => if numbers::flags(arguments[0]).is_some() { "OK" } else { BAD_FORMAT }.into(),
            // `version` and `quit` ignore every argument, `noreply` included.
            (b"version", _) => {
                reply(out, false, VERSION);
                return true;
            }
            (b"stats", 0) => {
                stats(store, now, out);
                return true;
            }
            (b"stats", 1) if arguments[0] == b"reset" => {
                store.reset_stats();
                reply(out, false, "RESET");
                return true;
            }
            (b"quit", _) => return false,
            _ if is_http(&name, &arguments) => return false,
            _ => {
                reply(out, false, "ERROR");
                return true;
            }
        };
        reply(out, noreply, &text);
        true
    }

    /// Starts the lookup of the keys, or returns the error line to reply with.
    fn start_retrieval(
        &mut self,
        name: &[u8],
        mut rest: Bytes,
        arguments: &[&[u8]],
        store: &mut Store,
        now: u64,
    ) -> Option<&'static str> {
        let mut touch = None;
        let mut keys = arguments;
        if name.starts_with(b"gat") {
            next_token(&mut rest);
            keys = &arguments[1..];
            touch = numbers::signed(arguments[0]);
            if touch.is_none() {
                return Some(BAD_EXPTIME);
            }
        }
        if let Some(bad) = keys.iter().position(|key| !is_key(key)) {
            // The keys before the bad one get no reply, but they are touched.
            for key in &keys[..bad] {
                store.get(key, touch, now);
            }
            return Some(BAD_FORMAT);
        }
        self.state = State::Retrieval { rest, with_cas: name.ends_with(b"s"), touch };
        None
    }

    /// Starts the wait for a data block, or returns the error line to reply with.
    ///
    /// A data block that is too large is discarded. The data block of a malformed command is read as command lines.
    fn start_storage(
        &mut self,
        mode: Option<Mode>,
        rest: &Bytes,
        arguments: &[&[u8]],
        store: &mut Store,
    ) -> Option<&'static str> {
        let key = arguments[0];
        let numbers = (numbers::flags(arguments[1]), numbers::signed(arguments[2]), numbers::signed(arguments[3]));
        let (true, Some(mode), (Some(flags), Some(exptime), Some(len @ ..=MAX_DATA_BLOCK))) =
            (is_key(key), mode, numbers)
        else {
            return Some(BAD_FORMAT);
        };
        let Ok(len) = usize::try_from(len) else { return Some(BAD_FORMAT) };
        if Store::is_too_large(key, flags, len) {
            // As on the real server, so that no client reads the value that the set should have replaced.
            if mode == Mode::Set {
                store.remove(key);
            }
            self.state = State::Discard(len + 2);
            return Some("SERVER_ERROR object too large for cache");
        }
        let noreply = arguments.last().is_some_and(|last| *last == b"noreply");
        let key = rest.slice_ref(key);
        self.state = State::DataBlock(StorageCommand { mode, key, flags, exptime, len, noreply });
        None
    }
}

/// Replies with a few of the real server's statistics, in its order and with its meaning.
fn stats(store: &Store, now: u64, out: &mut Vec<u8>) {
    let version = VERSION.trim_start_matches("VERSION ");
    for line in
        [format!("STAT pid {}", std::process::id()), format!("STAT time {now}"), format!("STAT version {version}")]
    {
        reply(out, false, &line);
    }
    for (name, value) in store.stats() {
        reply(out, false, &format!("STAT {name} {value}"));
    }
    reply(out, false, "END");
}

fn touch(arguments: &[&[u8]], store: &mut Store, now: u64) -> &'static str {
    match (is_key(arguments[0]), numbers::signed(arguments[1])) {
        (false, _) => BAD_FORMAT,
        (true, None) => BAD_EXPTIME,
        (true, Some(exptime)) if store.touch(arguments[0], exptime, now) => "TOUCHED",
        _ => "NOT_FOUND",
    }
}

fn count(arguments: &[&[u8]], up: bool, store: &mut Store, now: u64) -> Cow<'static, str> {
    match (is_key(arguments[0]), numbers::unsigned(arguments[1])) {
        (false, _) => BAD_FORMAT.into(),
        (true, None) => "CLIENT_ERROR invalid numeric delta argument".into(),
        (true, Some(delta)) => match store.count(arguments[0], up, delta, now) {
            CountOutcome::Value(number) => number.to_string().into(),
            CountOutcome::NotFound => "NOT_FOUND".into(),
            CountOutcome::NotANumber => "CLIENT_ERROR cannot increment or decrement non-numeric value".into(),
        },
    }
}

fn flush_all(arguments: &[&[u8]], noreply: bool, store: &mut Store, now: u64) -> &'static str {
    let delay = match arguments.first() {
        Some(delay) if arguments.len() > usize::from(noreply) => numbers::signed(delay),
        _ => Some(0),
    };
    let Some(delay) = delay else { return BAD_EXPTIME };
    store.flush(delay, now);
    "OK"
}

fn delete(arguments: &[&[u8]], noreply: bool, store: &mut Store, now: u64) -> &'static str {
    // Old protocol versions had a time argument here, and a 0 is still accepted.
    let is_well_formed = match arguments {
        [_] => true,
        [_, second] => *second == b"0" || noreply,
        [_, second, _] => *second == b"0" && noreply,
        _ => false,
    };
    if !is_well_formed {
        return "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]";
    }
    if !is_key(arguments[0]) {
        return BAD_FORMAT;
    }
    if store.delete(arguments[0], now) { "DELETED" } else { "NOT_FOUND" }
}

/// Whether the line is an HTTP request, which makes the real server close the connection.
///
/// The real server does not check lines whose first letter is that of one of its commands.
fn is_http(name: &[u8], arguments: &[&[u8]]) -> bool {
    let is_checked = name.len() >= 2 && !b"gsacidt".contains(&name[0]) && !(name.len() == 2 && name[0] == b'm');
    is_checked && arguments.last().copied().unwrap_or(name).starts_with(b"HTTP/")
}

fn is_key(token: &[u8]) -> bool {
    token.len() <= MAX_KEY
}

/// Appends a reply line unless `noreply` is set, which suppresses error lines too, as on the real server.
fn reply(out: &mut Vec<u8>, noreply: bool, text: &str) {
    if !noreply {
        out.extend_from_slice(text.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

fn next_token(rest: &mut Bytes) -> Option<Bytes> {
    let start = rest.iter().position(|byte| *byte != b' ')?;
    rest.advance(start);
    let end = memchr::memchr(b' ', rest).unwrap_or(rest.len());
    Some(rest.split_to(end))
}

/// Whether input without a line end is short enough to wait for the rest of the line.
fn is_line_within_limit(input: &[u8]) -> bool {
    let spaces = input.iter().take_while(|byte| **byte == b' ').count();
    let is_get = input[spaces..].starts_with(b"get ") || input[spaces..].starts_with(b"gets ");
    input.len() <= MAX_LINE || (spaces <= 100 && is_get && input.len() <= MAX_GET_LINE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds the input in pieces of `step` bytes. Returns the replies and the last step of the connection.
    fn replies_to(input: &[u8], step: usize) -> (String, Next) {
        let (mut session, mut store, mut out) = (Session::default(), Store::new(64 << 20), Vec::new());
        let mut buffer = BytesMut::new();
        let mut next = Next::Read;
        for piece in input.chunks(step) {
            buffer.extend_from_slice(piece);
            loop {
                let mut batch = Vec::new();
                next = session.receive(&mut buffer, &mut store, 1_800_000_000, &mut batch);
                out.append(&mut batch);
                if next != Next::Continue {
                    break;
                }
            }
            if next == Next::Close {
                break;
            }
        }
        (String::from_utf8(out).unwrap(), next)
    }

    #[test]
    fn replies_do_not_depend_on_how_the_input_is_split() {
        let input =
            b"set a 7 0 3\r\nabc\r\nadd a 0 0 1\r\nx\r\nget a b\r\ngets a\r\nset n 0 0 2 noreply\r\n41\r\nincr n 1\r\n\
            touch n 0\r\ndelete a noreply\r\nget a n\r\nbogus\r\n\
            append n 0 0 1\r\n0\r\nprepend n 0 0 1 noreply\r\n1\r\n\
            gats 10 n b\r\ncas n 0 0 1 9\r\nx\r\ncas n 1 0 1 5\r\nx\r\ncas b 1 0 1 5\r\nx\r\ngat 10 n\r\n\
            verbosity 1\r\nflush_all\r\nget n\r\nversion\r\n";
        let expected = "STORED\r\nNOT_STORED\r\nVALUE a 7 3\r\nabc\r\nEND\r\nVALUE a 7 3 1\r\nabc\r\nEND\r\n42\r\n\
            TOUCHED\r\nVALUE n 0 2\r\n42\r\nEND\r\nERROR\r\n\
            STORED\r\nVALUE n 0 4 5\r\n1420\r\nEND\r\nEXISTS\r\nSTORED\r\n\
            NOT_FOUND\r\nVALUE n 1 1\r\nx\r\nEND\r\nOK\r\nOK\r\nEND\r\nVERSION 0.0.0-memring\r\n";
        for step in [1, 2, 7, 4096] {
            assert_eq!(replies_to(input, step), (expected.to_owned(), Next::Read), "in pieces of {step}");
        }
    }

    #[test]
    fn stats_reports_a_few_statistics_and_stats_reset_resets_the_counters() {
        let input = b"set a 0 0 1\r\nx\r\nset a 0 0 1\r\ny\r\nstats\r\nstats reset\r\nstats\r\nstats items\r\n";
        let (replies, _) = replies_to(input, 4096);
        let stats = |total| {
            let pid = std::process::id();
            format!(
                "STAT pid {pid}\r\nSTAT time 1800000000\r\nSTAT version 0.0.0-memring\r\n\
                 STAT limit_maxbytes 67108864\r\n\
                 STAT bytes 130\r\nSTAT curr_items 1\r\nSTAT total_items {total}\r\nEND\r\n"
            )
        };
        assert_eq!(replies, format!("STORED\r\nSTORED\r\n{}RESET\r\n{}ERROR\r\n", stats(2), stats(0)));
    }

    #[test]
    fn a_data_block_that_is_too_large_is_discarded_and_the_old_value_is_deleted() {
        let mut input = b"set k 0 0 1\r\nx\r\nset k 0 0 1048577\r\n".to_vec();
        input.resize(input.len() + 1_048_577, b'\n');
        input.extend_from_slice(b"\r\nget k\r\n");
        assert_eq!(replies_to(&input, 1000).0, "STORED\r\nSERVER_ERROR object too large for cache\r\nEND\r\n");
    }

    #[test]
    fn a_long_line_without_an_end_closes_the_connection_unless_it_is_a_retrieval() {
        assert_eq!(replies_to(&[b'x'; 2049], 4096), (String::new(), Next::Close));
        let keys = format!("get {}", "key ".repeat(20_000));
        assert_eq!(replies_to(keys.as_bytes(), 4096), (String::new(), Next::Read));
        assert_eq!(replies_to(format!("{keys}\r\n").as_bytes(), 4096), ("END\r\n".to_owned(), Next::Read));
        assert_eq!(replies_to("get ".repeat(300_000).as_bytes(), 65_536).1, Next::Close);
    }

    #[test]
    fn replies_are_returned_in_batches_of_bounded_size() {
        let (mut session, mut store) = (Session::default(), Store::new(64 << 20));
        store.store(Mode::Set, b"k", 0, 0, Bytes::from(vec![b'v'; 1_000_000]), 0);
        let mut input = BytesMut::from(format!("get{}\r\n", " k".repeat(50)).as_bytes());
        let (mut total, mut largest) = (0, 0);
        loop {
            let mut out = Vec::new();
            let next = session.receive(&mut input, &mut store, 0, &mut out);
            (total, largest) = (total + out.len(), largest.max(out.len()));
            if next == Next::Read {
                break;
            }
        }
        assert!(total > 50_000_000 && largest < 3_000_000, "{total} in batches of up to {largest}");
    }
}
