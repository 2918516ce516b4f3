//! The items everybody reads and writes: keys of 17 bytes, and values that begin with their key.

use arrayvec::ArrayString;
use bytes::Bytes;

use crate::key_choice::KeyChoice;

/// The number of items, unless the command line chooses one.
const ITEMS: usize = 10_000;

/// Limits on the bytes of all values. Larger values have fewer items.
const DEFAULT_VALUE_BYTES: usize = 16 << 20;
const CHOSEN_VALUE_BYTES: usize = 128 << 20;

/// How much of a large value is compared at either end.
const COMPARED: usize = 512;

/// In the list itself: a service has its key at hand, and a client is not to wait for it to come from some other place in
/// memory.
pub(crate) type Key = ArrayString<24>;

/// The items of one value size. The keys of different sizes differ.
#[derive(Debug)]
pub(crate) struct Dataset {
    pub(crate) size: usize,
    pub(crate) keys: Vec<Key>,
    /// What single-key operations take, one after the other.
    pub(crate) picks: Vec<Pick>,
    /// Of the same length; nobody ever stores these.
    pub(crate) missing: Vec<Key>,
    pub(crate) values: Vec<Bytes>,
    filler: Bytes,
}

/// An item, with its key at hand.
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

    /// Whether this is what was stored under the key: its length, and every byte of it, or of a large value those at both
    /// ends.
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

/// Returns a key of 17 bytes. Written without the formatting machinery, which a million keys would wait for.
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
    fn values_are_told_apart() {
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
    fn the_number_of_items_can_be_chosen_up_to_a_limit_in_bytes() {
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
