use super::*;
use proptest::prelude::*;

fn decode_all(reply_kind: ReplyKind, wire: &[u8]) -> Result<Vec<Reply>, ProtocolError> {
    decode_split(reply_kind, wire, std::iter::repeat(wire.len()))
}

/// Decodes `wire`, received in pieces of the given sizes.
///
/// Decodes it twice, because the bytes of a large value may arrive in the input or in the value's own buffer.
fn decode_split(
    reply_kind: ReplyKind,
    wire: &[u8],
    sizes: impl IntoIterator<Item = usize> + Clone,
) -> Result<Vec<Reply>, ProtocolError> {
    let from_input = decode_pieces(reply_kind, wire, sizes.clone(), false);
    assert_eq!(from_input, decode_pieces(reply_kind, wire, sizes, true));
    from_input
}

fn decode_pieces(
    reply_kind: ReplyKind,
    wire: &[u8],
    sizes: impl IntoIterator<Item = usize>,
    into_large_values: bool,
) -> Result<Vec<Reply>, ProtocolError> {
    let (mut decoder, mut input, mut replies) = (Decoder::new(1 << 20), BytesMut::new(), Vec::new());
    let (mut rest, mut sizes) = (wire, sizes.into_iter());
    loop {
        while let Some(reply) = decoder.decode(reply_kind, &mut input, |_| true)? {
            replies.push(reply);
        }
        assert!(!decoder.has_complete_large_value());
        if rest.is_empty() {
            return Ok(replies);
        }
        let size = sizes.next().unwrap_or(1).clamp(1, rest.len());
        let (piece, after) = match decoder.large_value_buffer().filter(|_| into_large_values) {
            Some(buffer) => {
                let (piece, after) = rest.split_at(size.min(buffer.capacity() - buffer.len()));
                buffer.extend_from_slice(piece);
                assert!(input.is_empty());
                (piece, after)
            }
            None => {
                let (piece, after) = rest.split_at(size);
                input.extend_from_slice(piece);
                (piece, after)
            }
        };
        assert!(!piece.is_empty());
        rest = after;
    }
}

fn whole(text: &str) -> Body {
    Body::Whole(Bytes::copy_from_slice(text.as_bytes()))
}

#[test]
fn values_are_byte_exact() {
    let wire = b"VALUE k 7 16\r\nEND\r\nflush_all\r\n\r\nVALUE l 4294967295 0 9\r\n\r\nEND\r\n";
    let replies = decode_all(ReplyKind::Values, wire).unwrap();
    let first = Value { flags: 7, cas: None, body: whole("END\r\nflush_all\r\n") };
    let second = Value { flags: u32::MAX, cas: Some(9), body: whole("") };
    assert_eq!(replies, [Reply::Value(first), Reply::Value(second), Reply::End]);
}

#[test]
fn decode_value_fast_agrees_with_decode() {
    let long = format!("VALUE k 1 {COPY_BELOW}\r\n{}\r\n", "x".repeat(COPY_BELOW));
    let decoded_fast = ["VALUE k 7 3\r\nabc\r\n", "VALUE k 0 0 12\r\n\r\nEND\r\n", "VALUE k 4294967295 2\r\n\r\n\r\nx"];
    let left_to_decode = [
        "",
        "END\r\n",
        "VALUE l 7 3\r\nabc\r\n",
        "VALUE kk 7 3\r\nabc\r\n",
        "VALUE k 7 3\r\nabcd\r\n",
        "VALUE k 7 3\r\nabc\r",
        "VALUE k 7 3 \r\nabc\r\n",
        "VALUE k 7 3 1 \r\nabc\r\n",
        "VALUE k 7 3 1 2\r\nabc\r\n",
        "VALUE k 7 3\nabc\r\n",
        "VALUE k  3\r\nabc\r\n",
        "VALUE k 7 \r\n\r\n",
        "VALUE k 4294967296 3\r\nabc\r\n",
        "VALUE k 7 18446744073709551616\r\nabc\r\n",
        "VALUE k 7 11\r\n01234567890\r\n",
        &long,
    ];
    let cases = decoded_fast.map(|wire| (wire, true)).into_iter().chain(left_to_decode.map(|wire| (wire, false)));
    for (wire, is_fast) in cases {
        let mut decoder = Decoder::new(if wire.len() > 100 { 1 << 20 } else { 10 });
        let next = decoder.decode_value_fast(wire.as_bytes(), b"k");
        assert_eq!(next.is_some(), is_fast, "{wire}");
        if let Some((value, len)) = next {
            let mut input = BytesMut::from(wire);
            let decoded = decoder.decode(ReplyKind::Values, &mut input, |key| key == b"k");
            assert_eq!(decoded, Ok(Some(Reply::Value(value))));
            assert_eq!(input.len(), wire.len() - len);
        }
    }
}

#[test]
fn small_values_share_allocations_and_keep_their_bytes() {
    let mut decoder = Decoder::new(1 << 20);
    let values: Vec<Bytes> = (0..100u8).map(|n| decoder.copy(&vec![n; usize::from(n) * 3])).collect();
    for (n, value) in (0..).zip(&values) {
        assert_eq!(*value, vec![n; usize::from(n) * 3]);
    }
    let adjacent = values.windows(2).filter(|two| two[0].as_ptr_range().end == two[1].as_ptr()).count();
    assert!(adjacent > 50, "{adjacent}");
}

#[test]
fn decode_word_fast_takes_only_a_complete_line() {
    let mut decoder = Decoder::new(1 << 20);
    assert_eq!(decoder.decode_word_fast(b"END\r\nEND\r\n", "END"), Some(5));
    for other in ["", "END", "END\r", "END\n", "ENDS\r\n", "STORED\r\n"] {
        assert_eq!(decoder.decode_word_fast(other.as_bytes(), "END"), None, "{other:?}");
    }
}

#[test]
fn writing_to_a_shared_value_changes_no_other() {
    let mut decoder = Decoder::new(1 << 20);
    let bodies: Vec<Vec<u8>> = (0..200_u8).map(|n| vec![n; usize::from(n) % 60 + 1]).collect();
    let values: Vec<Bytes> = bodies.iter().map(|body| decoder.copy(body)).collect();
    assert!(decoder.chunk.capacity() <= SHARED_CHUNK);
    assert!(values.iter().zip(&bodies).all(|(value, body)| value == body));
    let unshared = [decoder.copy(&[1; LARGEST_SHARED + 1]), decoder.copy(b"")];
    assert!(unshared.iter().all(|value| value.is_unique() || value.is_empty()));
    // The sole owner of a value can write to it.
    drop(decoder);
    let mut values = values.into_iter();
    let (first, second) = (values.next().unwrap(), values.next().unwrap());
    let mut first = BytesMut::from(first);
    first.fill(0xff);
    assert_eq!((second, values.next().unwrap()), (bodies[1].clone().into(), bodies[2].clone().into()));
}

#[test]
fn the_fast_path_takes_nothing_inside_a_value() {
    let mut decoder = Decoder::new(1 << 20);
    let mut input = BytesMut::from("VALUE k 0 26\r\n");
    assert_eq!(decoder.decode(ReplyKind::Values, &mut input, |_| true), Ok(None));
    input.extend_from_slice(b"VALUE k 0 5\r\nVALUE\r\n");
    assert_eq!(decoder.decode_value_fast(&input, b"k"), None);
    assert_eq!(decoder.decode_word_fast(b"END\r\n", "END"), None);
}

#[test]
fn each_reply_is_accepted_only_for_requests_it_can_answer() {
    use ReplyKind::*;
    let cases = [
        ("STORED", Reply::Stored, vec![Stored, Swapped]),
        ("EXISTS", Reply::Exists, vec![Swapped]),
        ("NOT_STORED", Reply::NotStored, vec![Stored]),
        ("DELETED", Reply::Deleted, vec![Deleted]),
        ("TOUCHED", Reply::Touched, vec![Touched]),
        ("NOT_FOUND", Reply::NotFound, vec![Swapped, Deleted, Touched, Number]),
        ("18446744073709551615", Reply::Number(u64::MAX), vec![Number]),
        ("5  ", Reply::Number(5), vec![Number]),
        ("VERSION 1.6.18", Reply::Version("1.6.18".into()), vec![Version]),
        ("OK", Reply::Ok, vec![Ok, Memlimit]),
        (
            "MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m",
            Reply::ErrorLine(ErrorLine("MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m".into())),
            vec![Memlimit],
        ),
        ("END", Reply::End, vec![Values, End]),
    ];
    for (line, reply, accepted_by) in cases {
        for reply_kind in [Values, End, Stored, Swapped, Deleted, Touched, Number, Version, Ok, Memlimit] {
            let decoded = decode_all(reply_kind, format!("{line}\r\n").as_bytes());
            if accepted_by.contains(&reply_kind) {
                assert_eq!(decoded.as_deref(), Result::Ok(&[reply.clone()][..]), "{line} for {reply_kind:?}");
            } else {
                assert!(decoded.is_err(), "{line} for {reply_kind:?}");
            }
        }
    }
}

#[test]
fn malformed_lines_are_errors() {
    let long = format!("VALUE {}", "x".repeat(MAX_LINE));
    for line in [
        "",
        "STORED ",
        " STORED",
        "STORE",
        "END\rx",
        "VALUE",
        "VALUE k",
        "VALUE k 0",
        "VALUE k 0 x",
        "VALUE k 0 -1",
        "VALUE k 0 +1",
        "VALUE k 4294967296 1",
        "VALUE k 0 1 2 3",
        "VALUE k 0 1 ",
        "VALUE k  0 1",
        "VALUE k 0 1073741825",
        "VALUE k 0 18446744073709551616",
        "VALUE k 0 1 x",
        "value k 0 1",
        "ERRORS",
        "12x",
        "12\r",
        "12 \t",
        "-1",
        &long,
    ] {
        for reply_kind in
            [ReplyKind::Values, ReplyKind::Stored, ReplyKind::Swapped, ReplyKind::Number, ReplyKind::Memlimit]
        {
            let decoded = decode_all(reply_kind, format!("{line}\r\n").as_bytes());
            assert!(decoded.is_err(), "{line:?} for {reply_kind:?}: {decoded:?}");
        }
    }
    assert_eq!(decode_all(ReplyKind::Stored, b"STORED\n"), Err(ProtocolError::Malformed));
    assert_eq!(decode_all(ReplyKind::Values, b"VALUE k 0 1\r\nab\r\n"), Err(ProtocolError::MissingTerminator));
    assert_eq!(decode_all(ReplyKind::Values, &[b'x'; MAX_LINE + 1]), Err(ProtocolError::LineTooLong));
}

#[test]
fn a_key_not_requested_is_an_error_before_its_value_arrives() {
    let mut input = BytesMut::from("VALUE other 0 1000\r\n");
    let decoded = Decoder::new(1 << 20).decode(ReplyKind::Values, &mut input, |key| key == b"requested");
    assert_eq!(decoded, Err(ProtocolError::WrongKey));
}

#[test]
fn no_byte_of_a_line_is_searched_twice() {
    let mut decoder = Decoder::new(1000);
    let mut input = BytesMut::new();
    for (at, byte) in b"VALUE k 0 1".iter().enumerate() {
        input.extend_from_slice(&[*byte]);
        assert_eq!(decoder.decode(ReplyKind::Values, &mut input, |_| true), Ok(None));
        assert!(matches!(decoder.state, State::Line { scanned } if scanned == at + 1));
    }
}

#[test]
fn a_value_over_the_limit_is_not_allocated() {
    let mut decoder = Decoder::new(1000);
    let mut input = BytesMut::from("VALUE k 0 1001\r\n");
    assert_eq!(decoder.decode(ReplyKind::Values, &mut input, |_| true), Ok(None));
    assert!(input.capacity() < 1000);
    for _ in 0..1001 {
        input.extend_from_slice(b"v");
        assert_eq!(decoder.decode(ReplyKind::Values, &mut input, |_| true), Ok(None));
    }
    assert!(input.capacity() < 1000, "the value is dropped as it arrives");
    input.extend_from_slice(b"\r\nEND\r\n");
    let skipped = Value { flags: 0, cas: None, body: Body::TooLarge { len: 1001 } };
    assert_eq!(decoder.decode(ReplyKind::Values, &mut input, |_| true), Ok(Some(Reply::Value(skipped))));
    assert_eq!(decoder.decode(ReplyKind::Values, &mut input, |_| true), Ok(Some(Reply::End)));
}

#[test]
fn error_lines_that_end_the_connection() {
    let survives = |reply_kind: ReplyKind, line: &str| {
        let replies = decode_all(reply_kind, format!("{line}\r\n").as_bytes()).unwrap();
        let [Reply::ErrorLine(error_line)] = &replies[..] else { panic!("{line}: {replies:?}") };
        reply_kind.keeps_connection_after(error_line)
    };
    for line in ["ERROR", "CLIENT_ERROR line too long", "SERVER_ERROR out of memory writing get response"] {
        assert!(!survives(ReplyKind::Values, line));
        assert!(
            survives(ReplyKind::Number, line) && survives(ReplyKind::Ok, line) && survives(ReplyKind::Memlimit, line)
        );
        assert!(!survives(ReplyKind::Stored, line) && !survives(ReplyKind::Swapped, line));
    }
    for reply_kind in [ReplyKind::Stored, ReplyKind::Swapped] {
        assert!(survives(reply_kind, "SERVER_ERROR object too large for cache"));
        assert!(survives(reply_kind, "SERVER_ERROR out of memory storing object"));
        assert!(!survives(reply_kind, "CLIENT_ERROR bad data chunk"));
    }
    for line in ["unauthenticated", "authentication failure", "bad authentication token format"] {
        for reply_kind in [ReplyKind::Number, ReplyKind::Stored, ReplyKind::Ok, ReplyKind::Values] {
            assert!(!survives(reply_kind, &format!("CLIENT_ERROR {line}")), "{line}");
        }
    }
}

fn any_wire() -> impl Strategy<Value = Vec<u8>> {
    let large = prop_oneof![COPY_BELOW - 2..COPY_BELOW + 3, 0..4 * COPY_BELOW];
    let large = (large, any::<u8>()).prop_map(|(len, first)| (first..=255).chain(0..250).cycle().take(len).collect());
    let body = prop_oneof![2 => prop::collection::vec(any::<u8>(), 0..600), 1 => large];
    let value = (body, any::<u32>(), prop::option::of(any::<u64>()));
    prop::collection::vec(value, 0..8).prop_map(|values| {
        let mut wire = Vec::new();
        for (body, flags, cas) in values {
            let cas = cas.map(|cas| format!(" {cas}")).unwrap_or_default();
            wire.extend_from_slice(format!("VALUE k {flags} {}{cas}\r\n", body.len()).as_bytes());
            wire.extend_from_slice(&body);
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(b"END\r\n");
        wire
    })
}

fn piece_sizes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![1usize..300, 1..3 * COPY_BELOW], 0..50)
}

proptest! {
    #[test]
    fn any_split_gives_the_same_replies(wire in any_wire(), sizes in piece_sizes()) {
        let whole = decode_all(ReplyKind::Values, &wire);
        prop_assert!(whole.is_ok());
        prop_assert_eq!(&decode_split(ReplyKind::Values, &wire, sizes), &whole);
        prop_assert_eq!(&decode_split(ReplyKind::Values, &wire, []), &whole);
    }

    #[test]
    fn no_bytes_cause_a_panic(wire in prop::collection::vec(any::<u8>(), 0..400), cut in 0usize..400) {
        use ReplyKind::*;
        for reply_kind in [Values, Swapped, Number, Version, Memlimit] {
            let whole = decode_all(reply_kind, &wire);
            let split = decode_split(reply_kind, &wire, [cut.max(1)]);
            prop_assert_eq!(whole.is_ok(), split.is_ok());
        }
    }
}
