//! Parses decimal numbers.

use super::LARGEST_ITEM;

/// Parses a decimal number of 1 to 20 digits: no sign, no spaces, no overflow.
pub(super) fn parse(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 20 {
        return None;
    }
    digits.iter().try_fold(0u64, |sum, byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        sum.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// Parses the number at the front of `text`; returns it and the rest, which is not empty.
///
/// Returns `None` for more than 19 digits, because fewer cannot overflow. [`parse`] handles longer numbers.
#[inline]
pub(super) fn parse_prefix(text: &[u8]) -> Option<(u64, &[u8])> {
    let (mut sum, mut at) = (0, 0);
    loop {
        let digit = text.get(at)?.wrapping_sub(b'0');
        if digit > 9 {
            return (at > 0).then_some((sum, &text[at..]));
        }
        if at == 19 {
            return None;
        }
        sum = sum * 10 + u64::from(digit);
        at += 1;
    }
}

/// Parses the declared length of a data block, at most [`LARGEST_ITEM`].
pub(super) fn parse_len(digits: &[u8]) -> Option<usize> {
    usize::try_from(parse(digits)?).ok().filter(|&len| len <= LARGEST_ITEM)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_at_the_limits() {
        assert_eq!(parse(b"0"), Some(0));
        assert_eq!(parse(b"18446744073709551615"), Some(u64::MAX));
        for bad in ["", "18446744073709551616", "99999999999999999999", "000000000000000000001", "+1", "-1", " 1", "1 "]
        {
            assert_eq!(parse(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn a_leading_number_ends_before_the_first_other_byte() {
        assert_eq!(parse_prefix(b"12 x"), Some((12, &b" x"[..])));
        assert_eq!(parse_prefix(b"9999999999999999999\r"), Some((9_999_999_999_999_999_999, &b"\r"[..])));
        for rejected in ["", "x", "12", " 12 ", "+1 ", "00000000000000000001 ", "18446744073709551616 "] {
            assert_eq!(parse_prefix(rejected.as_bytes()), None, "{rejected:?}");
        }
    }

    proptest! {
        #[test]
        fn parse_agrees_with_the_standard_library(text in "[0-9+\\- a]{0,22}") {
            let is_valid = text.len() <= 20 && text.bytes().all(|byte| byte.is_ascii_digit());
            prop_assert_eq!(parse(text.as_bytes()), text.parse().ok().filter(|_| is_valid));
        }
    }
}
