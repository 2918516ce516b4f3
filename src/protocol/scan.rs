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

    proptest! {
        #[test]
        fn agrees_with_std(text in "[0-9+\\- a]{0,22}") {
            let plain = text.len() <= 20 && text.bytes().all(|byte| byte.is_ascii_digit());
            prop_assert_eq!(number(text.as_bytes()), text.parse().ok().filter(|_| plain));
        }
    }
}
