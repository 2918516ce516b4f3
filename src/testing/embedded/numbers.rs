//! Parses numbers as the C library's `strtol` family does, because memcached's replies depend on it.
//!
//! Leading white space, a sign and trailing white space are accepted. A number too wide for its field keeps its low
//! bits.

/// Parses the magnitude and whether the number is negative.
///
/// `None` if there are no digits, if the magnitude exceeds 64 bits, or if other bytes follow the digits.
fn parse(token: &[u8]) -> Option<(u64, bool)> {
    // C's `isspace` includes the vertical tab, Rust's `is_ascii_whitespace` does not.
    let is_space = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0x0b;
    let start = token.iter().position(|byte| !is_space(byte))?;
    let (negative, digits) = match &token[start..] {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let end = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    // A C string ends at the first zero byte.
    if end == 0 || digits.get(end).is_some_and(|byte| !is_space(byte) && *byte != 0) {
        return None;
    }
    let magnitude = digits[..end].iter().try_fold(0u64, |number, digit| {
        number.checked_mul(10).and_then(|number| number.checked_add(u64::from(digit - b'0')))
    })?;
    Some((magnitude, negative))
}

/// Parses an expiry time or a length: the low 32 bits of a number that must fit 64 bits.
pub(super) fn signed(token: &[u8]) -> Option<i32> {
    let (magnitude, negative) = parse(token)?;
    let number = i128::from(magnitude) * if negative { -1 } else { 1 };
    let number = i64::try_from(number).ok()?;
    #[expect(clippy::cast_possible_truncation, reason = "as the real server truncates")]
    Some(number as i32)
}

/// Parses a counter or the delta of `incr` and `decr`.
///
/// A negative number is refused unless it wraps around to a small positive one, as C's `strtoull` lets it.
pub(super) fn unsigned(token: &[u8]) -> Option<u64> {
    let (magnitude, negative) = parse(token)?;
    let number = if negative { magnitude.wrapping_neg() } else { magnitude };
    (!negative || number <= i64::MAX as u64).then_some(number)
}

/// Parses client flags: the low 32 bits of an [`unsigned`] number.
pub(super) fn flags(token: &[u8]) -> Option<u32> {
    #[expect(clippy::cast_possible_truncation, reason = "as the real server truncates")]
    unsigned(token).map(|number| number as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_parsed_as_the_c_library_parses_them() {
        for (token, number) in
            [("0", 0), ("-7", -7), ("+7", 7), ("\t 7 ", 7), ("4294967301", 5), ("2147483648", i32::MIN)]
        {
            assert_eq!(signed(token.as_bytes()), Some(number), "{token:?}");
        }
        for token in ["", "x", "7x", "-", "+-7", "9223372036854775808", "0x10", "1.5"] {
            assert_eq!(signed(token.as_bytes()), None, "{token:?}");
        }
        assert_eq!(signed(b"-9223372036854775808"), Some(0));
        assert_eq!(unsigned(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(unsigned(b"18446744073709551616"), None);
        assert_eq!(unsigned(b"-1"), None);
        assert_eq!(unsigned(b"-0"), Some(0));
        assert_eq!(unsigned(b"-18446744073709551615"), Some(1));
        assert_eq!(unsigned(b"5\0x"), Some(5));
        assert_eq!(flags(b"4294967295"), Some(u32::MAX));
        assert_eq!(flags(b"4294967296"), Some(0));
    }
}
