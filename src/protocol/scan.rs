//! Numbers, checked.

use super::LARGEST_ITEM;

/// Reads a decimal number of 1 to 20 digits: no sign, no spaces, no overflow.
pub(super) fn number(digits: &[u8]) -> Option<u64> {
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

/// Reads the number `text` begins with, and gives what follows it. None if there is none, or none of up to 19 digits,
/// which cannot overflow: whoever meets a longer one has [`number`] to judge it.
#[inline]
pub(super) fn leading_number(text: &[u8]) -> Option<(u64, &[u8])> {
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

/// Reads the declared length of a data block.
pub(super) fn length(digits: &[u8]) -> Option<usize> {
    usize::try_from(number(digits)?).ok().filter(|&len| len <= LARGEST_ITEM)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn edges() {
        assert_eq!(number(b"0"), Some(0));
        assert_eq!(number(b"18446744073709551615"), Some(u64::MAX));
        for bad in ["", "18446744073709551616", "99999999999999999999", "000000000000000000001", "+1", "-1", " 1", "1 "]
        {
            assert_eq!(number(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn a_leading_number_ends_at_what_is_no_digit() {
        assert_eq!(leading_number(b"12 x"), Some((12, &b" x"[..])));
        assert_eq!(leading_number(b"9999999999999999999\r"), Some((9_999_999_999_999_999_999, &b"\r"[..])));
        for none in ["", "x", "12", " 12 ", "+1 ", "00000000000000000001 ", "18446744073709551616 "] {
            assert_eq!(leading_number(none.as_bytes()), None, "{none:?}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_std(text in "[0-9+\\- a]{0,22}") {
            let plain = text.len() <= 20 && text.bytes().all(|byte| byte.is_ascii_digit());
            prop_assert_eq!(number(text.as_bytes()), text.parse().ok().filter(|_| plain));
        }
    }
}
