//! Commands and reply lines for statistics and for the list of a server's items.
//!
//! Their responses have many lines, so each is read on its own connection.

use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::decode::error_line;
use super::{ErrorLine, ProtocolError, number};
use crate::inspect::{MetadumpEntry, StatsKind};

/// The command that lists every item.
///
/// `hash` instead of `all` would miss fewer items, but holds item locks while it waits for the reader.
pub(crate) const METADUMP_COMMAND: &str = "lru_crawler metadump all\r\n";

/// The command that resets the statistics.
pub(crate) const RESET_STATS_COMMAND: &str = "stats reset\r\n";

/// Returns the command that asks for statistics.
pub(crate) fn stats_command(kind: StatsKind) -> &'static str {
    match kind {
        StatsKind::General => "stats\r\n",
        StatsKind::Items => "stats items\r\n",
        StatsKind::Slabs => "stats slabs\r\n",
        StatsKind::Sizes => "stats sizes\r\n",
        StatsKind::Conns => "stats conns\r\n",
        StatsKind::Settings => "stats settings\r\n",
    }
}

/// A line of a `stats` response, without its `\r\n`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StatLine {
    Stat {
        name: Box<str>,
        value: Box<str>,
    },
    End,
    Reset,
    ErrorLine(ErrorLine),
    /// A line of unknown form.
    Other,
}

/// Parses a line of a `stats` response.
pub(crate) fn parse_stat_line(line: &[u8]) -> StatLine {
    match line {
        b"END" => StatLine::End,
        b"RESET" => StatLine::Reset,
        _ => match line.strip_prefix(b"STAT ") {
            Some(pair) => {
                let (name, value) = split_at_byte(pair, b' ');
                if name.is_empty() {
                    return StatLine::Other;
                }
                StatLine::Stat { name: lossy(name), value: lossy(value.unwrap_or_default()) }
            }
            None => error_line(line).map_or(StatLine::Other, StatLine::ErrorLine),
        },
    }
}

/// A line of a `metadump` response, without its `\r\n`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DumpLine {
    Entry(MetadumpEntry),
    /// The start of the list. Only the newest servers send it.
    Ok,
    End,
    ErrorLine(ErrorLine),
}

/// Parses a line of a `metadump` response.
pub(crate) fn parse_dump_line(line: &[u8]) -> Result<DumpLine, ProtocolError> {
    match line.trim_ascii_end() {
        b"OK" => Ok(DumpLine::Ok),
        b"END" => Ok(DumpLine::End),
        line if line.starts_with(b"key=") => parse_entry(line).map(DumpLine::Entry).ok_or(ProtocolError::Malformed),
        line => {
            let busy = line.starts_with(b"BUSY").then(|| ErrorLine::new(line));
            error_line(line).or(busy).map(DumpLine::ErrorLine).ok_or(ProtocolError::Malformed)
        }
    }
}

fn parse_entry(line: &[u8]) -> Option<MetadumpEntry> {
    let (mut key, mut exp, mut last_access, mut cas, mut fetched) = (None, None, None, None, None);
    let (mut slab_class, mut size, mut flags) = (None, None, None);
    for field in line.split(|&byte| byte == b' ') {
        let (name, Some(value)) = split_at_byte(field, b'=') else { continue };
        match name {
            b"key" => key = Some(percent_decoded(value)?),
            b"exp" => exp = Some(if value == b"-1" { None } else { Some(parse_time(value)?) }),
            b"la" => last_access = Some(parse_time(value)?),
            b"cas" => cas = Some(number::parse(value)?),
            b"fetch" => fetched = Some(parse_yes_no(value)?),
            b"cls" => slab_class = Some(u32::try_from(number::parse(value)?).ok()?),
            b"size" => size = Some(number::parse(value)?),
            b"flags" => flags = Some(u32::try_from(number::parse(value)?).ok()?),
            _ => {}
        }
    }
    Some(MetadumpEntry {
        key: key?,
        exp: exp?,
        last_access: last_access?,
        cas: cas?,
        fetched: fetched?,
        slab_class,
        size,
        flags,
    })
}

/// Splits at the first `at`, which is in neither part.
fn split_at_byte(bytes: &[u8], at: u8) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(at, bytes) {
        Some(end) => (&bytes[..end], Some(&bytes[end + 1..])),
        None => (bytes, None),
    }
}

/// Parses a Unix time in seconds. Negative times come from servers whose clock is wrong.
fn parse_time(digits: &[u8]) -> Option<SystemTime> {
    match digits.strip_prefix(b"-") {
        Some(digits) => SystemTime::UNIX_EPOCH.checked_sub(Duration::from_secs(number::parse(digits)?)),
        None => SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(number::parse(digits)?)),
    }
}

fn parse_yes_no(word: &[u8]) -> Option<bool> {
    match word {
        b"yes" => Some(true),
        b"no" => Some(false),
        _ => None,
    }
}

fn percent_decoded(text: &[u8]) -> Option<Bytes> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let (&[high, low], after) = rest.split_first_chunk()?;
            decoded.push(u8::try_from(digit(high)? * 16 + digit(low)?).ok()?);
            rest = after;
        } else {
            decoded.push(byte);
        }
    }
    (!decoded.is_empty()).then(|| decoded.into())
}

fn lossy(bytes: &[u8]) -> Box<str> {
    String::from_utf8_lossy(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stat(name: &str, value: &str) -> StatLine {
        StatLine::Stat { name: name.into(), value: value.into() }
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn entry_of(line: &str) -> MetadumpEntry {
        match parse_dump_line(line.as_bytes()) {
            Ok(DumpLine::Entry(entry)) => entry,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn statistics_keep_spaces_and_may_have_no_value() {
        assert_eq!(parse_stat_line(b"STAT pid 17"), stat("pid", "17"));
        assert_eq!(parse_stat_line(b"STAT libevent 2.1.12 stable  "), stat("libevent", "2.1.12 stable  "));
        assert_eq!(parse_stat_line(b"STAT stat_key_prefix "), stat("stat_key_prefix", ""));
        assert_eq!(parse_stat_line(b"STAT x"), stat("x", ""));
        assert_eq!(parse_stat_line(b"STAT 26:addr tcp6:[::1]:11211"), stat("26:addr", "tcp6:[::1]:11211"));
        assert_eq!(parse_stat_line(b"END"), StatLine::End);
        assert_eq!(parse_stat_line(b"RESET"), StatLine::Reset);
        for line in [&b""[..], b"STAT", b"STAT ", b"STAT  x", b"96 2", b"END ", b"\xff\0"] {
            assert_eq!(parse_stat_line(line), StatLine::Other, "{line:?}");
        }
        assert!(matches!(parse_stat_line(b"SERVER_ERROR out of memory"), StatLine::ErrorLine(_)));
    }

    #[test]
    fn entries_of_old_and_new_servers_are_parsed() {
        let old = entry_of("key=a exp=-1 la=1795464173 cas=1 fetch=yes");
        assert_eq!((&old.key[..], old.exp, old.last_access), (&b"a"[..], None, at(1_795_464_173)));
        assert_eq!((old.cas, old.fetched), (1, true));
        assert_eq!((old.slab_class, old.size, old.flags), (None, None, None));
        let newest =
            "key=%2520b%2F%C3%a9%01 exp=1795464305 la=0 cas=18446744073709551615 fetch=no cls=1 size=68 flags=5 ";
        let newest = entry_of(newest);
        assert_eq!(&newest.key[..], b"%20b/\xc3\xa9\x01");
        assert_eq!((newest.exp, newest.cas, newest.fetched), (Some(at(1_795_464_305)), u64::MAX, false));
        assert_eq!((newest.slab_class, newest.size, newest.flags), (Some(1), Some(68), Some(5)));
        // Fields of future servers.
        let unknown = entry_of("key=a ttl=never exp=-1 stale la=1 x= cas=1 fetch=no =");
        assert_eq!(unknown.last_access, at(1));
    }

    #[test]
    fn a_line_that_is_no_entry_is_malformed() {
        for line in [
            "",
            "key",
            "key=",
            "VALUE a 0 1",
            "mg a",
            "key= exp=-1 la=1 cas=1 fetch=no",
            "key=a exp=-1 la=1 cas=1",
            "key=a exp=-1 la=1 fetch=no",
            "key=a exp= la=1 cas=1 fetch=no",
            "key=a exp=x la=1 cas=1 fetch=no",
            "key=a exp=18446744073709551615 la=1 cas=1 fetch=no",
            "key=a exp=-1 la=1 cas=-1 fetch=no",
            "key=a exp=-1 la=1 cas=1 fetch=maybe",
            "key=a% exp=-1 la=1 cas=1 fetch=no",
            "key=a%2 exp=-1 la=1 cas=1 fetch=no",
            "key=a%+1 exp=-1 la=1 cas=1 fetch=no",
            "key=a exp=-1 la=1 cas=1 fetch=no flags=4294967296",
        ] {
            assert_eq!(parse_dump_line(line.as_bytes()), Err(ProtocolError::Malformed), "{line:?}");
        }
    }

    #[test]
    fn start_end_and_error_lines_are_recognized() {
        assert_eq!(parse_dump_line(b"OK"), Ok(DumpLine::Ok));
        assert_eq!(parse_dump_line(b"END"), Ok(DumpLine::End));
        for line in ["BUSY currently processing crawler request", "ERROR", "CLIENT_ERROR lru crawler disabled"] {
            let Ok(DumpLine::ErrorLine(error_line)) = parse_dump_line(line.as_bytes()) else { panic!("{line}") };
            assert_eq!(error_line.line(), line);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_cause_a_panic(line in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_stat_line(&line);
            let _ = parse_dump_line(&line);
            let _ = parse_dump_line(&[b"key=", &line[..]].concat());
        }

        #[test]
        fn any_key_is_decoded(key in prop::collection::vec(any::<u8>(), 1..=250), plain in any::<bool>()) {
            let encoded: String = key
                .iter()
                .map(|byte| match byte {
                    b'a'..=b'z' if plain => char::from(*byte).to_string(),
                    _ => format!("%{byte:02X}"),
                })
                .collect();
            let entry = entry_of(&format!("key={encoded} exp=1 la=1 cas=1 fetch=no"));
            prop_assert_eq!(&entry.key[..], &key[..]);
        }

        #[test]
        fn any_statistic_is_parsed(name in "[!-~]{1,40}", value in "[ -~]{0,80}") {
            let line = format!("STAT {name} {value}");
            prop_assert_eq!(parse_stat_line(line.as_bytes()), stat(&name, &value));
        }
    }
}
