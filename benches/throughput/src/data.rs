//! The items everybody reads and writes: keys of 17 bytes, and values that begin with their key.

use std::fmt::Write;

use arrayvec::ArrayString;
use bytes::Bytes;

/// How many items there are of small values, of larger ones fewer.
const KEYS: usize = 10_000;
const KEYS_BYTES: usize = 16 << 20;

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
    /// Of the same length; nobody ever stores these.
    pub(crate) missing: Vec<Key>,
    pub(crate) values: Vec<Bytes>,
    filler: Bytes,
}

impl Dataset {
    pub(crate) fn new(size: usize) -> Self {
        let count = (KEYS_BYTES / size).clamp(16, KEYS);
        let keys = |mark: char| -> Vec<Key> { (0..count).map(|index| key(size, mark, index)).collect() };
        let (keys, missing) = (keys(':'), keys('-'));
        let filler: Bytes = (0..size).map(|at| b'a' + (at % 26) as u8).collect::<Vec<_>>().into();
        let value = |key: &Key| {
            let mut value = filler.to_vec();
            value[..key.len()].copy_from_slice(key.as_bytes());
            Bytes::from(value)
        };
        Self { size, missing, values: keys.iter().map(value).collect(), keys, filler }
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

/// Of 17 bytes.
fn key(size: usize, mark: char, index: usize) -> Key {
    let mut key = Key::new_const();
    // It has room for them.
    let _ = write!(key, "{size:07}{mark}{index:09}");
    key
}

#[cfg(test)]
mod tests {
    use super::Dataset;

    #[test]
    fn values_are_told_apart() {
        for size in [100, 1024, 16 << 10] {
            let data = Dataset::new(size);
            assert!(data.is_value_of(&data.keys[3], &data.values[3]));
            assert!(!data.is_value_of(&data.keys[3], &data.values[4]));
            assert!(!data.is_value_of(&data.keys[3], &data.values[3][1..]));
            let mut wrong = data.values[3].to_vec();
            wrong[size - 1] ^= 1;
            assert!(!data.is_value_of(&data.keys[3], &wrong));
            assert_eq!((data.keys[3].len(), data.missing[3].len()), (17, 17));
            assert_ne!(data.keys[3], data.missing[3]);
        }
    }
}
