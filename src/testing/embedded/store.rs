//! The items of an embedded pod: a map with expiry, counters and a memory limit. The caller passes the time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use super::numbers;

/// The largest expiry time that is relative to now, in seconds. A larger one is a Unix timestamp.
const MAX_RELATIVE_EXPTIME: i32 = 60 * 60 * 24 * 30;

/// The largest item the real server accepts by default (`-I 1m`), including its header, in bytes.
const ITEM_SIZE_MAX: usize = 1024 * 1024;

/// The bytes the real server adds to key and value: its header, the CAS unique, and the terminators of key and value.
const ITEM_HEADER: usize = 59;

/// The bytes the real server adds if the client flags are not 0.
const ITEM_FLAGS: usize = 4;

/// The bytes counted for the maps, for each item, in addition to its key and value.
const ITEM_OVERHEAD: usize = 128;

/// The condition and effect of a storage command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Set,
    Add,
    Replace,
    Append,
    Prepend,
    /// Stores only if the item has this CAS unique.
    Cas(u64),
}

/// The outcome of a storage command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StoreOutcome {
    Stored,
    NotStored,
    /// A `cas` found another unique.
    Exists,
    /// A `cas` found no item.
    NotFound,
}

/// The outcome of `incr` or `decr`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CountOutcome {
    NotFound,
    NotANumber,
    Value(u64),
}

#[derive(Debug)]
pub(super) struct Item {
    pub(super) value: Bytes,
    pub(super) flags: u32,
    /// Unique among all writes of this pod, and the item's place in the eviction order.
    pub(super) cas: u64,
    /// The first second in which the item is a miss; `None` means never.
    expires: Option<u64>,
    written: u64,
}

/// The items of one pod. Times are seconds since the Unix epoch.
#[derive(Debug)]
pub(super) struct Store {
    items: HashMap<Arc<[u8]>, Item>,
    /// The keys, oldest write first.
    eviction_order: BTreeMap<u64, Arc<[u8]>>,
    bytes: usize,
    capacity: usize,
    last_cas: u64,
    /// The number of stores since the last reset of the statistics.
    total_items: u64,
    /// The second in which a delayed flush takes effect. It expires every item written up to then.
    flush: Option<u64>,
}

impl Store {
    /// Creates a store of `capacity` bytes, counting keys, values and 128 bytes an item. When full, it evicts the item
    /// with the oldest write.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            items: HashMap::new(),
            eviction_order: BTreeMap::new(),
            bytes: 0,
            capacity,
            last_cas: 0,
            total_items: 0,
            flush: None,
        }
    }

    /// Whether the real server refuses an item of this size at its default limit.
    pub(super) fn is_too_large(key: &[u8], flags: u32, len: usize) -> bool {
        let header = ITEM_HEADER + if flags == 0 { 0 } else { ITEM_FLAGS };
        header + key.len() + len > ITEM_SIZE_MAX
    }

    /// Returns the item, after setting a new expiry time if `touch` has one. An expiry time in the past still returns
    /// it.
    pub(super) fn get(&mut self, key: &[u8], touch: Option<i32>, now: u64) -> Option<&Item> {
        self.live_item(key, now)?;
        let item = self.items.get_mut(key)?;
        if let Some(exptime) = touch {
            item.expires = expiry(exptime, now);
        }
        Some(item)
    }

    /// Returns the item unless it is expired or flushed, in which case it is removed.
    fn live_item(&mut self, key: &[u8], now: u64) -> Option<&Item> {
        let item = self.items.get(key)?;
        let is_expired = item.expires.is_some_and(|expires| expires <= now);
        let is_flushed = self.flush.is_some_and(|flush| flush <= now && item.written <= flush);
        if is_expired || is_flushed {
            self.remove(key);
            return None;
        }
        self.items.get(key)
    }

    pub(super) fn store(
        &mut self,
        mode: Mode,
        key: &[u8],
        flags: u32,
        exptime: i32,
        value: Bytes,
        now: u64,
    ) -> StoreOutcome {
        let new = Item { value, flags, cas: 0, expires: expiry(exptime, now), written: now };
        let new = match (mode, self.live_item(key, now)) {
            (Mode::Set, _) | (Mode::Add, None) | (Mode::Replace, Some(_)) => new,
            (Mode::Append | Mode::Prepend, Some(old)) => {
                let parts = if mode == Mode::Append { [&old.value, &new.value] } else { [&new.value, &old.value] };
                let value = Bytes::from(parts.map(|part| &part[..]).concat());
                if Self::is_too_large(key, old.flags, value.len()) {
                    return StoreOutcome::NotStored;
                }
                Item { value, flags: old.flags, expires: old.expires, ..new }
            }
            (Mode::Cas(unique), Some(old)) if old.cas == unique => new,
            (Mode::Cas(_), Some(_)) => return StoreOutcome::Exists,
            (Mode::Cas(_), None) => return StoreOutcome::NotFound,
            (Mode::Add, Some(_)) | (Mode::Replace | Mode::Append | Mode::Prepend, None) => {
                return StoreOutcome::NotStored;
            }
        };
        self.remove(key);
        self.total_items += 1;
        let cas = self.next_cas();
        let key: Arc<[u8]> = key.into();
        self.bytes += key.len() + new.value.len() + ITEM_OVERHEAD;
        self.eviction_order.insert(cas, Arc::clone(&key));
        self.items.insert(key, Item { cas, ..new });
        while self.bytes > self.capacity {
            let Some((_, oldest)) = self.eviction_order.first_key_value() else { break };
            let oldest = Arc::clone(oldest);
            self.remove(&oldest);
        }
        StoreOutcome::Stored
    }

    pub(super) fn delete(&mut self, key: &[u8], now: u64) -> bool {
        self.live_item(key, now).is_some() && self.remove(key)
    }

    pub(super) fn touch(&mut self, key: &[u8], exptime: i32, now: u64) -> bool {
        self.get(key, Some(exptime), now).is_some()
    }

    /// Adds to the value, wrapping at 2^64, or subtracts from it, stopping at 0.
    pub(super) fn count(&mut self, key: &[u8], up: bool, delta: u64, now: u64) -> CountOutcome {
        let Some(item) = self.live_item(key, now) else { return CountOutcome::NotFound };
        let Some(number) = numbers::unsigned(&item.value) else { return CountOutcome::NotANumber };
        let number = if up { number.wrapping_add(delta) } else { number.saturating_sub(delta) };
        // The real server writes a shorter number in place and pads it with spaces to the old length.
        let text = format!("{number:<width$}", width = item.value.len());
        let cas = self.next_cas();
        if let Some(item) = self.items.get_mut(key) {
            self.bytes = self.bytes + text.len() - item.value.len();
            item.value = Bytes::from(text);
            if let Some(key) = self.eviction_order.remove(&item.cas) {
                self.eviction_order.insert(cas, key);
            }
            item.cas = cas;
        }
        CountOutcome::Value(number)
    }

    /// Removes every item: at once if the delay is 0 or negative, otherwise when the delay has passed.
    pub(super) fn flush(&mut self, delay: i32, now: u64) {
        if delay > 0 {
            // The real server counts whole seconds and includes the current one.
            self.flush = expiry(delay, now).map(|at| at.saturating_sub(1));
        } else {
            *self = Self { last_cas: self.last_cas, total_items: self.total_items, ..Self::new(self.capacity) };
        }
    }

    /// Returns the statistics under the real server's names.
    pub(super) fn stats(&self) -> [(&'static str, u64); 4] {
        let as_number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        [
            ("limit_maxbytes", as_number(self.capacity)),
            ("bytes", as_number(self.bytes)),
            ("curr_items", as_number(self.items.len())),
            ("total_items", self.total_items),
        ]
    }

    /// Resets the counters among the statistics to 0.
    pub(super) fn reset_stats(&mut self) {
        self.total_items = 0;
    }

    /// Removes an item, expired or not. Returns whether it was there.
    pub(super) fn remove(&mut self, key: &[u8]) -> bool {
        let Some((key, item)) = self.items.remove_entry(key) else { return false };
        self.eviction_order.remove(&item.cas);
        self.bytes -= key.len() + item.value.len() + ITEM_OVERHEAD;
        true
    }

    fn next_cas(&mut self) -> u64 {
        self.last_cas += 1;
        self.last_cas
    }
}

/// Converts an expiry time of the protocol to the second in which the item expires; `None` means never.
fn expiry(exptime: i32, now: u64) -> Option<u64> {
    match exptime {
        0 => None,
        // A negative time is in the past.
        ..0 => Some(0),
        1..=MAX_RELATIVE_EXPTIME => Some(now + u64::from(exptime.unsigned_abs())),
        _ => Some(u64::from(exptime.unsigned_abs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn store_with(key: &str, value: &str) -> Store {
        let mut store = Store::new(1 << 20);
        store.store(Mode::Set, key.as_bytes(), 0, 0, Bytes::copy_from_slice(value.as_bytes()), NOW);
        store
    }

    fn value(store: &mut Store, key: &str, now: u64) -> Option<String> {
        store.get(key.as_bytes(), None, now).map(|item| String::from_utf8(item.value.to_vec()).unwrap())
    }

    #[test]
    fn an_expiry_time_is_relative_absolute_or_in_the_past() {
        for (exptime, last_hit) in [
            (10, Some(NOW + 9)),
            (MAX_RELATIVE_EXPTIME, Some(NOW + 2_591_999)),
            (1_800_000_005, Some(NOW + 4)),
            (-1, None),
        ] {
            let mut store = Store::new(1 << 20);
            store.store(Mode::Set, b"k", 0, exptime, Bytes::from_static(b"v"), NOW);
            assert_eq!(store.get(b"k", None, last_hit.unwrap_or(NOW)).is_some(), last_hit.is_some(), "{exptime}");
            assert!(store.get(b"k", None, last_hit.unwrap_or(NOW) + 1).is_none(), "{exptime}");
        }
        // A client that means 31 days from now but sends the number of seconds names a day in 1970.
        let mut store = Store::new(1 << 20);
        store.store(Mode::Set, b"k", 0, MAX_RELATIVE_EXPTIME + 1, Bytes::from_static(b"v"), NOW);
        assert!(store.get(b"k", None, NOW).is_none());
    }

    #[test]
    fn incr_wraps_decr_stops_at_zero_and_shorter_numbers_are_padded() {
        let mut store = store_with("n", "10");
        assert_eq!(store.count(b"n", false, 1, NOW), CountOutcome::Value(9));
        assert_eq!(value(&mut store, "n", NOW).unwrap(), "9 ");
        assert_eq!(store.count(b"n", true, 991, NOW), CountOutcome::Value(1000));
        assert_eq!(store.count(b"n", false, 5000, NOW), CountOutcome::Value(0));
        assert_eq!(store.count(b"n", true, u64::MAX, NOW), CountOutcome::Value(u64::MAX));
        assert_eq!(store.count(b"n", true, 2, NOW), CountOutcome::Value(1));
        assert_eq!(store.count(b"m", true, 2, NOW), CountOutcome::NotFound);
        assert_eq!(store_with("n", "").count(b"n", true, 1, NOW), CountOutcome::NotANumber);
        assert_eq!(store_with("n", "1x").count(b"n", true, 1, NOW), CountOutcome::NotANumber);
    }

    #[test]
    fn append_and_prepend_keep_flags_and_expiry_and_change_the_cas_unique() {
        let mut store = Store::new(4 << 20);
        let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
        assert_eq!(store.store(Mode::Append, b"k", 0, 0, bytes("x"), NOW), StoreOutcome::NotStored);
        store.store(Mode::Set, b"k", 7, 10, bytes("b"), NOW);
        let unique = store.get(b"k", None, NOW).unwrap().cas;
        assert_eq!(store.store(Mode::Append, b"k", 9, -1, bytes("c"), NOW), StoreOutcome::Stored);
        assert_eq!(store.store(Mode::Prepend, b"k", 9, 0, bytes("a"), NOW), StoreOutcome::Stored);
        let item = store.get(b"k", None, NOW + 9).unwrap();
        assert_eq!((&item.value[..], item.flags), (&b"abc"[..], 7));
        assert!(item.cas > unique);
        assert!(store.get(b"k", None, NOW + 10).is_none());
        // Two pieces make the largest possible item, and one more byte is too much.
        store.store(Mode::Set, b"k", 0, 0, Bytes::from(vec![b'x'; 1_000_000]), NOW);
        let rest = Bytes::from(vec![b'y'; 1_048_576 - ITEM_HEADER - 1 - 1_000_000]);
        assert_eq!(store.store(Mode::Append, b"k", 0, 0, rest, NOW), StoreOutcome::Stored);
        assert_eq!(store.store(Mode::Prepend, b"k", 0, 0, bytes("z"), NOW), StoreOutcome::NotStored);
        assert_eq!(store.get(b"k", None, NOW).unwrap().value[0], b'x');
    }

    #[test]
    fn cas_stores_only_with_the_current_cas_unique() {
        let mut store = store_with("k", "1");
        let unique = store.get(b"k", Some(100), NOW).unwrap().cas;
        let two = Bytes::from_static(b"2");
        assert_eq!(store.store(Mode::Cas(unique + 1), b"k", 0, 0, two.clone(), NOW), StoreOutcome::Exists);
        assert_eq!(store.store(Mode::Cas(unique), b"k", 0, 0, two.clone(), NOW), StoreOutcome::Stored);
        assert_eq!(store.store(Mode::Cas(unique), b"k", 0, 0, two.clone(), NOW), StoreOutcome::Exists);
        assert_eq!(store.store(Mode::Cas(unique), b"absent", 0, 0, two, NOW), StoreOutcome::NotFound);
        assert_eq!(value(&mut store, "k", NOW).unwrap(), "2");
    }

    #[test]
    fn a_touching_get_with_a_past_expiry_time_returns_the_item_once_more() {
        let mut store = store_with("k", "1");
        assert!(store.get(b"k", Some(-1), NOW).is_some());
        assert!(store.get(b"k", Some(0), NOW).is_none());
    }

    #[test]
    fn a_delayed_flush_keeps_items_written_after_it() {
        let mut store = store_with("old", "1");
        store.flush(10, NOW);
        assert!(value(&mut store, "old", NOW + 8).is_some());
        assert!(value(&mut store, "old", NOW + 9).is_none());
        store.store(Mode::Set, b"new", 0, 0, Bytes::from_static(b"v"), NOW + 10);
        assert!(value(&mut store, "new", NOW + 10).is_some());
        store.flush(0, NOW + 10);
        assert!(value(&mut store, "new", NOW + 10).is_none());
    }

    #[test]
    fn a_full_store_evicts_the_oldest_writes() {
        let mut store = Store::new(10 * (ITEM_OVERHEAD + 2));
        for key in 0..20u8 {
            store.store(Mode::Set, &[key], 0, 0, Bytes::from_static(b"v"), NOW);
        }
        assert_eq!((store.items.len(), store.eviction_order.len()), (10, 10));
        assert!(store.get(&[9], None, NOW).is_none() && store.get(&[10], None, NOW).is_some());
        for key in 0..20u8 {
            store.delete(&[key], NOW);
        }
        assert_eq!((store.bytes, store.eviction_order.len()), (0, 0));
    }

    #[test]
    fn the_item_size_limit_equals_the_real_servers() {
        // Measured on memcached 1.6.18.
        for (key, flags, largest) in [(3, 0, 1_048_514), (3, 1, 1_048_510), (250, 0, 1_048_267)] {
            let key = vec![b'k'; key];
            assert!(!Store::is_too_large(&key, flags, largest) && Store::is_too_large(&key, flags, largest + 1));
        }
    }
}
