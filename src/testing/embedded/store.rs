//! What an embedded pod remembers: a map with expiry, counters, and an upper bound. No clock of its own.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use super::numbers;

/// Up to here an expiry time counts from now, above it is a Unix timestamp.
const MAX_RELATIVE: i32 = 60 * 60 * 24 * 30;

/// The size of an item the real server refuses (`-I 1m`), its own bookkeeping included.
const ITEM_SIZE_MAX: usize = 1024 * 1024;

/// What the real server adds to key and value: its header, the CAS unique, and the ends of key and value.
const ITEM_HEADER: usize = 59;

/// What it adds if the client flags are not 0.
const ITEM_FLAGS: usize = 4;

/// Counted for every item on top of its key and value, for the maps around them.
const OVERHEAD: usize = 128;

/// How a value is to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Set,
    Add,
    Replace,
    Append,
    Prepend,
    /// Only over the item of this unique.
    Cas(u64),
}

/// What came of storing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    Yes,
    No,
    /// A `cas` found another unique.
    Exists,
    /// A `cas` found nothing.
    NotFound,
}

/// What came of counting.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Counted {
    NotFound,
    NotANumber,
    To(u64),
}

/// One stored value.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) value: Bytes,
    pub(super) flags: u32,
    /// Never reused; also the item's place in the order of eviction.
    pub(super) cas: u64,
    /// The second from which it is a miss; `None` is never.
    expires: Option<u64>,
    written: u64,
}

/// The items of one pod. Times are seconds since the Unix epoch.
#[derive(Debug)]
pub(super) struct Store {
    items: HashMap<Arc<[u8]>, Entry>,
    /// The keys, oldest write first.
    by_age: BTreeMap<u64, Arc<[u8]>>,
    bytes: usize,
    capacity: usize,
    last_cas: u64,
    /// How many were ever stored, since that was last forgotten.
    stored: u64,
    /// The second a delayed flush takes effect: what was written up to it is gone once it has come.
    flush: Option<u64>,
}

impl Store {
    /// A store that evicts its oldest items when keys, values and 128 bytes for each item come to more than `capacity`.
    pub(super) fn new(capacity: usize) -> Self {
        Self { items: HashMap::new(), by_age: BTreeMap::new(), bytes: 0, capacity, last_cas: 0, stored: 0, flush: None }
    }

    /// Whether an item is too large for the real server at its defaults.
    pub(super) fn is_too_large(key: &[u8], flags: u32, len: usize) -> bool {
        let header = ITEM_HEADER + if flags == 0 { 0 } else { ITEM_FLAGS };
        header + key.len() + len > ITEM_SIZE_MAX
    }

    /// Gives the item a new expiry time, if there is one; it is given out even if that is in the past.
    pub(super) fn get(&mut self, key: &[u8], touch: Option<i32>, now: u64) -> Option<&Entry> {
        self.peek(key, now)?;
        let entry = self.items.get_mut(key)?;
        if let Some(exptime) = touch {
            entry.expires = expiry(exptime, now);
        }
        Some(entry)
    }

    fn peek(&mut self, key: &[u8], now: u64) -> Option<&Entry> {
        let entry = self.items.get(key)?;
        let is_expired = entry.expires.is_some_and(|expires| expires <= now);
        let is_flushed = self.flush.is_some_and(|flush| flush <= now && entry.written <= flush);
        if is_expired || is_flushed {
            self.remove(key);
            return None;
        }
        self.items.get(key)
    }

    /// Only a `set` never declines.
    pub(super) fn store(&mut self, mode: Mode, key: &[u8], flags: u32, exptime: i32, value: Bytes, now: u64) -> Stored {
        let new = Entry { value, flags, cas: 0, expires: expiry(exptime, now), written: now };
        let new = match (mode, self.peek(key, now)) {
            (Mode::Set, _) | (Mode::Add, None) | (Mode::Replace, Some(_)) => new,
            (Mode::Append | Mode::Prepend, Some(old)) => {
                let parts = if mode == Mode::Append { [&old.value, &new.value] } else { [&new.value, &old.value] };
                let value = Bytes::from(parts.map(|part| &part[..]).concat());
                if Self::is_too_large(key, old.flags, value.len()) {
                    return Stored::No;
                }
                Entry { value, flags: old.flags, expires: old.expires, ..new }
            }
            (Mode::Cas(unique), Some(old)) if old.cas == unique => new,
            (Mode::Cas(_), Some(_)) => return Stored::Exists,
            (Mode::Cas(_), None) => return Stored::NotFound,
            (Mode::Add, Some(_)) | (Mode::Replace | Mode::Append | Mode::Prepend, None) => return Stored::No,
        };
        self.remove(key);
        self.stored += 1;
        let cas = self.next_cas();
        let key: Arc<[u8]> = key.into();
        self.bytes += key.len() + new.value.len() + OVERHEAD;
        self.by_age.insert(cas, Arc::clone(&key));
        self.items.insert(key, Entry { cas, ..new });
        while self.bytes > self.capacity {
            let Some((_, oldest)) = self.by_age.first_key_value() else { break };
            let oldest = Arc::clone(oldest);
            self.remove(&oldest);
        }
        Stored::Yes
    }

    pub(super) fn delete(&mut self, key: &[u8], now: u64) -> bool {
        self.peek(key, now).is_some() && self.remove(key)
    }

    pub(super) fn touch(&mut self, key: &[u8], exptime: i32, now: u64) -> bool {
        self.get(key, Some(exptime), now).is_some()
    }

    /// Counts up (and wraps at 2^64) or down (and stops at 0).
    pub(super) fn count(&mut self, key: &[u8], up: bool, delta: u64, now: u64) -> Counted {
        let Some(entry) = self.peek(key, now) else { return Counted::NotFound };
        let Some(number) = numbers::unsigned(&entry.value) else { return Counted::NotANumber };
        let number = if up { number.wrapping_add(delta) } else { number.saturating_sub(delta) };
        // A value that got shorter keeps its length, padded with spaces: the real server writes it in place.
        let text = format!("{number:<width$}", width = entry.value.len());
        let cas = self.next_cas();
        if let Some(entry) = self.items.get_mut(key) {
            self.bytes = self.bytes + text.len() - entry.value.len();
            entry.value = Bytes::from(text);
            if let Some(key) = self.by_age.remove(&entry.cas) {
                self.by_age.insert(cas, key);
            }
            entry.cas = cas;
        }
        Counted::To(number)
    }

    /// Forgets everything: at once if the delay is 0 or less, else at that time.
    pub(super) fn flush(&mut self, delay: i32, now: u64) {
        if delay > 0 {
            // The real server counts whole seconds, and the one under way is the first of them.
            self.flush = expiry(delay, now).map(|at| at.saturating_sub(1));
        } else {
            *self = Self { last_cas: self.last_cas, stored: self.stored, ..Self::new(self.capacity) };
        }
    }

    /// What there is to tell, by the real server's names.
    pub(super) fn stats(&self) -> [(&'static str, u64); 4] {
        let as_number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        [
            ("limit_maxbytes", as_number(self.capacity)),
            ("bytes", as_number(self.bytes)),
            ("curr_items", as_number(self.items.len())),
            ("total_items", self.stored),
        ]
    }

    /// Counts from zero again what is counted.
    pub(super) fn reset_stats(&mut self) {
        self.stored = 0;
    }

    /// Forgets one item. A set that is refused as too large does so.
    pub(super) fn remove(&mut self, key: &[u8]) -> bool {
        let Some((key, entry)) = self.items.remove_entry(key) else { return false };
        self.by_age.remove(&entry.cas);
        self.bytes -= key.len() + entry.value.len() + OVERHEAD;
        true
    }

    fn next_cas(&mut self) -> u64 {
        self.last_cas += 1;
        self.last_cas
    }
}

/// The second an item expires, of an expiry time off the wire.
fn expiry(exptime: i32, now: u64) -> Option<u64> {
    match exptime {
        0 => None,
        // A negative time is in the past.
        ..0 => Some(0),
        1..=MAX_RELATIVE => Some(now + u64::from(exptime.unsigned_abs())),
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
        store.get(key.as_bytes(), None, now).map(|entry| String::from_utf8(entry.value.to_vec()).unwrap())
    }

    #[test]
    fn expiry_is_relative_absolute_or_past() {
        for (exptime, last_hit) in
            [(10, Some(NOW + 9)), (MAX_RELATIVE, Some(NOW + 2_591_999)), (1_800_000_005, Some(NOW + 4)), (-1, None)]
        {
            let mut store = Store::new(1 << 20);
            store.store(Mode::Set, b"k", 0, exptime, Bytes::from_static(b"v"), NOW);
            assert_eq!(store.get(b"k", None, last_hit.unwrap_or(NOW)).is_some(), last_hit.is_some(), "{exptime}");
            assert!(store.get(b"k", None, last_hit.unwrap_or(NOW) + 1).is_none(), "{exptime}");
        }
        // 31 days from now, as a careless client writes it, is a day in 1970.
        let mut store = Store::new(1 << 20);
        store.store(Mode::Set, b"k", 0, MAX_RELATIVE + 1, Bytes::from_static(b"v"), NOW);
        assert!(store.get(b"k", None, NOW).is_none());
    }

    #[test]
    fn counting_wraps_stops_and_pads() {
        let mut store = store_with("n", "10");
        assert_eq!(store.count(b"n", false, 1, NOW), Counted::To(9));
        assert_eq!(value(&mut store, "n", NOW).unwrap(), "9 ");
        assert_eq!(store.count(b"n", true, 991, NOW), Counted::To(1000));
        assert_eq!(store.count(b"n", false, 5000, NOW), Counted::To(0));
        assert_eq!(store.count(b"n", true, u64::MAX, NOW), Counted::To(u64::MAX));
        assert_eq!(store.count(b"n", true, 2, NOW), Counted::To(1));
        assert_eq!(store.count(b"m", true, 2, NOW), Counted::NotFound);
        assert_eq!(store_with("n", "").count(b"n", true, 1, NOW), Counted::NotANumber);
        assert_eq!(store_with("n", "1x").count(b"n", true, 1, NOW), Counted::NotANumber);
    }

    #[test]
    fn what_is_joined_keeps_flags_and_expiry_but_not_its_unique() {
        let mut store = Store::new(4 << 20);
        let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
        assert_eq!(store.store(Mode::Append, b"k", 0, 0, bytes("x"), NOW), Stored::No);
        store.store(Mode::Set, b"k", 7, 10, bytes("b"), NOW);
        let unique = store.get(b"k", None, NOW).unwrap().cas;
        assert_eq!(store.store(Mode::Append, b"k", 9, -1, bytes("c"), NOW), Stored::Yes);
        assert_eq!(store.store(Mode::Prepend, b"k", 9, 0, bytes("a"), NOW), Stored::Yes);
        let entry = store.get(b"k", None, NOW + 9).unwrap();
        assert_eq!((&entry.value[..], entry.flags), (&b"abc"[..], 7));
        assert!(entry.cas > unique);
        assert!(store.get(b"k", None, NOW + 10).is_none());
        // As long as the largest item, in two pieces; then a byte more.
        store.store(Mode::Set, b"k", 0, 0, Bytes::from(vec![b'x'; 1_000_000]), NOW);
        let rest = Bytes::from(vec![b'y'; 1_048_576 - ITEM_HEADER - 1 - 1_000_000]);
        assert_eq!(store.store(Mode::Append, b"k", 0, 0, rest, NOW), Stored::Yes);
        assert_eq!(store.store(Mode::Prepend, b"k", 0, 0, bytes("z"), NOW), Stored::No);
        assert_eq!(store.get(b"k", None, NOW).unwrap().value[0], b'x');
    }

    #[test]
    fn a_swap_needs_the_unique_of_the_item_there_is() {
        let mut store = store_with("k", "1");
        let unique = store.get(b"k", Some(100), NOW).unwrap().cas;
        let two = Bytes::from_static(b"2");
        assert_eq!(store.store(Mode::Cas(unique + 1), b"k", 0, 0, two.clone(), NOW), Stored::Exists);
        assert_eq!(store.store(Mode::Cas(unique), b"k", 0, 0, two.clone(), NOW), Stored::Yes);
        assert_eq!(store.store(Mode::Cas(unique), b"k", 0, 0, two.clone(), NOW), Stored::Exists);
        assert_eq!(store.store(Mode::Cas(unique), b"absent", 0, 0, two, NOW), Stored::NotFound);
        assert_eq!(value(&mut store, "k", NOW).unwrap(), "2");
    }

    #[test]
    fn touched_into_the_past_an_item_is_given_out_once_more() {
        let mut store = store_with("k", "1");
        assert!(store.get(b"k", Some(-1), NOW).is_some());
        assert!(store.get(b"k", Some(0), NOW).is_none());
    }

    #[test]
    fn a_delayed_flush_spares_what_is_written_after_it() {
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
    fn the_oldest_writes_make_room() {
        let mut store = Store::new(10 * (OVERHEAD + 2));
        for key in 0..20u8 {
            store.store(Mode::Set, &[key], 0, 0, Bytes::from_static(b"v"), NOW);
        }
        assert_eq!((store.items.len(), store.by_age.len()), (10, 10));
        assert!(store.get(&[9], None, NOW).is_none() && store.get(&[10], None, NOW).is_some());
        for key in 0..20u8 {
            store.delete(&[key], NOW);
        }
        assert_eq!((store.bytes, store.by_age.len()), (0, 0));
    }

    #[test]
    fn the_largest_item_is_the_real_servers() {
        // Measured on memcached 1.6.18.
        for (key, flags, largest) in [(3, 0, 1_048_514), (3, 1, 1_048_510), (250, 0, 1_048_267)] {
            let key = vec![b'k'; key];
            assert!(!Store::is_too_large(&key, flags, largest) && Store::is_too_large(&key, flags, largest + 1));
        }
    }
}
