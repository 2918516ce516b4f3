//! The items that all contenders read and write: keys of 17 bytes, and values that begin with their key.

use arrayvec::ArrayString;
use bytes::Bytes;

use crate::key_choice::KeyChoice;

/// The number of items, unless the command line chooses one.
const ITEMS: usize = 10_000;

/// Limits on the bytes of all values. Larger values have fewer items.
const DEFAULT_VALUE_BYTES: usize = 16 << 20;
const CHOSEN_VALUE_BYTES: usize = 128 << 20;

/// The number of bytes compared at each end of a large value.
const COMPARED: usize = 512;

/// A key, stored inline: a service has its key at hand, so a client must not wait until it arrives from elsewhere in
/// memory.
pub(crate) type Key = ArrayString<24>;

/// The items of one value size. Different sizes have different keys.
#[derive(Debug)]
pub(crate) struct Dataset {
    pub(crate) size: usize,
    pub(crate) keys: Vec<Key>,
    /// The items that single-key operations take, in this order.
    pub(crate) picks: Vec<Pick>,
    /// Keys of the same length that are never stored.
    pub(crate) missing: Vec<Key>,
    pub(crate) values: Vec<Bytes>,
    filler: Bytes,
}

/// An item's key and index.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pick {
    pub(crate) key: Key,
    pub(crate) item: u32,
}

impl Dataset {
    pub(crate) fn new(size: usize, choice: KeyChoice) -> Self {
        let count = match choice.items {
            Some(items) => (CHOSEN_VALUE_BYTES / size).clamp(16, items.max(16)),
            None => (DEFAULT_VALUE_BYTES / size).clamp(16, ITEMS),
        };
        let keys = |mark: u8| -> Vec<Key> { (0..count).map(|index| key(size, mark, index)).collect() };
        let (keys, missing) = (keys(b':'), keys(b'-'));
        let filler: Bytes = (0..size).map(|at| b'a' + (at % 26) as u8).collect::<Vec<_>>().into();
        let value = |key: &Key| {
            let mut value = filler.to_vec();
            value[..key.len()].copy_from_slice(key.as_bytes());
            Bytes::from(value)
        };
        let values = keys.iter().map(value).collect();
        let pick = |item: u32| Pick { key: keys[item as usize], item };
        let picks = choice.order.indices(count).into_iter().map(pick).collect();
        Self { size, picks, missing, values, keys, filler }
    }

    /// Whether this is the value stored under the key. Compares the length and every byte, or both ends of a large
    /// value.
    pub(crate) fn is_value_of(&self, key: &str, value: &[u8]) -> bool {
        let (size, head) = (self.size, key.len());
        if value.len() != size || !value.starts_with(key.as_bytes()) {
            return false;
        }
        let ends =
            if size <= 2 * COMPARED { [head..size, size..size] } else { [head..COMPARED, size - COMPARED..size] };
        ends.into_iter().all(|end| value[end.clone()] == self.filler[end])
    }
}

/// Returns a key of 17 bytes. Avoids the formatting machinery, which is slow for a million keys.
fn key(size: usize, mark: u8, index: usize) -> Key {
    let digits = |mut number: usize, into: &mut [u8]| {
        for digit in into.iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
    };
    let mut bytes = [mark; 17];
    digits(size, &mut bytes[..7]);
    digits(index, &mut bytes[8..]);
    // ASCII, and shorter than the capacity.
    Key::from(std::str::from_utf8(&bytes).unwrap_or_default()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::Dataset;
    use crate::key_choice::{KeyChoice, KeyOrder};

    #[test]
    fn only_the_value_of_a_key_passes_the_check() {
        for size in [100, 1024, 16 << 10] {
            let data = Dataset::new(size, KeyChoice::default());
            assert!(data.is_value_of(&data.keys[3], &data.values[3]));
            assert!(!data.is_value_of(&data.keys[3], &data.values[4]));
            assert!(!data.is_value_of(&data.keys[3], &data.values[3][1..]));
            let mut wrong = data.values[3].to_vec();
            wrong[size - 1] ^= 1;
            assert!(!data.is_value_of(&data.keys[3], &wrong));
            assert_eq!((data.keys[3].len(), data.missing[3].len()), (17, 17));
            assert_ne!(data.keys[3], data.missing[3]);
            assert_eq!(&*data.keys[3], format!("{size:07}:000000003"));
        }
    }

    #[test]
    fn the_number_of_items_can_be_chosen_up_to_a_limit_on_bytes() {
        let items = |size, items| {
            let data = Dataset::new(size, KeyChoice { order: KeyOrder::Zipf, items });
            assert!(data.picks.iter().all(|pick| pick.key == data.keys[pick.item as usize]));
            (data.keys.len(), data.missing.len(), data.values.len())
        };
        assert_eq!(items(100, None), (10_000, 10_000, 10_000));
        assert_eq!(items(100, Some(20_000)), (20_000, 20_000, 20_000));
        assert_eq!(items(1_000_000, None), (16, 16, 16));
        assert_eq!(items(1_000_000, Some(20_000)), (134, 134, 134));
    }
}
