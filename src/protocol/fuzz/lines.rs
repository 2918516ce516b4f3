//! Fuzz test of the parsers for statistics and item lists.

use proptest::prelude::*;

use super::corpus::{recorded, wire};
use crate::protocol::{
    DumpLine, ErrorLine, ServerVersion, StatLine, parse_dump_line, parse_stat_line, unsolicited_error_line,
};

fn lines(responses: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let lines = responses.iter().flat_map(|response| response.split(|&byte| byte == b'\n'));
    lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line).to_vec()).collect()
}

fn assert_printable(error_line: &ErrorLine) {
    assert!(error_line.line().len() <= 160 && error_line.line().bytes().all(|byte| (b' '..=b'~').contains(&byte)));
}

/// Returns the value of the last field with this name.
fn field<'a>(line: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut fields =
        line.trim_ascii_end().split(|&byte| byte == b' ').filter_map(|word| word.strip_prefix(name.as_bytes()));
    fields.next_back()
}

fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let mut pieces = text.split(|&byte| byte == b'%');
    let mut bytes = pieces.next().unwrap().to_vec();
    for piece in pieces {
        bytes.push(u8::from_str_radix(std::str::from_utf8(&piece[..2]).unwrap(), 16).unwrap());
        bytes.extend_from_slice(&piece[2..]);
    }
    bytes
}

fn check(line: &[u8]) {
    match parse_stat_line(line) {
        StatLine::Stat { name, value } => {
            let pair = line.strip_prefix(b"STAT ").unwrap();
            assert!(!name.is_empty() && !name.contains(' '));
            if let Ok(pair) = std::str::from_utf8(pair) {
                assert!(pair == format!("{name} {value}") || (pair == &*name && value.is_empty()));
            }
        }
        StatLine::End => assert_eq!(line, b"END"),
        StatLine::Reset => assert_eq!(line, b"RESET"),
        StatLine::ErrorLine(error_line) => assert_printable(&error_line),
        StatLine::Other => {}
    }
    match parse_dump_line(line) {
        Ok(DumpLine::Entry(entry)) => {
            assert_eq!(&entry.key[..], &percent_decoded(field(line, "key=").unwrap())[..]);
            assert_eq!(entry.exp.is_none(), field(line, "exp=") == Some(b"-1"));
            let cas = std::str::from_utf8(field(line, "cas=").unwrap()).unwrap();
            assert_eq!(entry.cas, cas.parse::<u64>().unwrap());
            assert_eq!(entry.fetched, field(line, "fetch=") == Some(b"yes"));
            assert_eq!(entry.size.is_some(), field(line, "size=").is_some());
        }
        Ok(DumpLine::Ok) => assert_eq!(line.trim_ascii_end(), b"OK"),
        Ok(DumpLine::End) => assert_eq!(line.trim_ascii_end(), b"END"),
        Ok(DumpLine::ErrorLine(error_line)) => assert_printable(&error_line),
        Err(_) => {}
    }
}

#[test]
fn every_recorded_line_is_parsed() {
    let (stats, items) = (recorded(|kind| kind == "Stats"), recorded(|kind| kind == "Dump"));
    assert!(stats.len() > 20 && items.len() >= 4);
    for line in lines(&stats).iter().filter(|line| !line.is_empty()) {
        assert!(!matches!(parse_stat_line(line), StatLine::Other | StatLine::ErrorLine(_)), "{}", line.escape_ascii());
        check(line);
    }
    for line in lines(&items).iter().filter(|line| !line.is_empty()) {
        assert!(!matches!(parse_dump_line(line), Err(_) | Ok(DumpLine::ErrorLine(_))), "{}", line.escape_ascii());
        check(line);
    }
}

proptest! {
    #[test]
    fn any_line(
        line in prop_oneof![
            1 => wire(lines(&recorded(|kind| kind == "Stats"))),
            3 => wire(lines(&recorded(|kind| kind == "Dump"))),
        ],
    ) {
        check(&line);
        if let Some(error_line) = unsolicited_error_line(&line) {
            let shown = error_line.line();
            prop_assert!(shown.contains("ERROR") && !shown.contains(['\r', '\n']));
        }
        if let Some(version) = ServerVersion::parse(&String::from_utf8_lossy(&line)) {
            prop_assert!(version.to_string().split('.').count() == 3);
        }
    }
}
