//! Finds equal keys within a batch, so that each is encoded once.
//!
//! An open-addressing hash table of the keys encoded so far. It holds no keys, but places where [`InFlight`] has them.
//! A key that finds no free slot is not recorded, and may be encoded again: that costs bytes, and changes no response.
//!
//! [`InFlight`]: super::in_flight::InFlight

use xxhash_rust::xxh3::xxh3_64;

/// The most slots. Bounds the memory, at 48 KB a connection. Some keys of a larger batch may be encoded twice.
const MOST_SLOTS: usize = 2048;

/// How many slots are searched for a key. A caller that chooses keys whose hashes collide has some of them encoded
/// twice, and gains nothing.
const PROBES: usize = 8;

#[derive(Debug, Default)]
pub(super) struct KeyDedup {
    slots: Vec<Slot>,
    /// How many slots this batch uses, less one. A small batch uses few, so that they stay in the processor's cache.
    mask: usize,
    /// The number of this batch. A slot with another number is free, so that no slot is cleared between batches.
    round: u32,
    is_needed: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    round: u32,
    hash: u32,
    place: KeyPlace,
    number: u64,
}

/// Where [`InFlight`](super::in_flight::InFlight) has a key.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct KeyPlace {
    /// The index of the pending element.
    pub(super) pending: u32,
    /// The index in the keys of its call.
    pub(super) index: u32,
}

/// Where a key that was not found can be recorded.
#[derive(Debug)]
pub(super) struct FreeSlot {
    slot: usize,
    hash: u32,
}

impl KeyDedup {
    /// Starts a batch with this many keys, and forgets those of the batch before. A single key is not looked up.
    pub(super) fn begin(&mut self, key_count: usize) {
        // The benchmark measures what this is worth by a build without it.
        self.is_needed = key_count > 1 && !cfg!(memring_no_merging);
        if !self.is_needed {
            return;
        }
        let wanted = (key_count * 2).next_power_of_two().clamp(16, MOST_SLOTS);
        if self.slots.len() < wanted || self.round == u32::MAX {
            self.slots = vec![Slot::default(); wanted.max(self.slots.len())];
            self.round = 0;
        }
        self.round += 1;
        self.mask = wanted - 1;
    }

    /// Looks up a key. Returns where to record it, if a slot is free, or else `Err` with the number of an equal key of
    /// this batch. `is_equal` compares the key with the one at a place.
    #[inline]
    pub(super) fn find(&self, key: &[u8], is_equal: impl Fn(KeyPlace) -> bool) -> Result<Option<FreeSlot>, u64> {
        if !self.is_needed {
            return Ok(None);
        }
        let hash = xxh3_64(key) as u32;
        for probe in 0..PROBES {
            let slot = (hash as usize).wrapping_add(probe) & self.mask;
            match self.slots.get(slot) {
                Some(used) if used.round == self.round => {
                    if used.hash == hash && is_equal(used.place) {
                        return Err(used.number);
                    }
                }
                Some(_) => return Ok(Some(FreeSlot { slot, hash })),
                None => break,
            }
        }
        Ok(None)
    }

    /// Records a key that was not found.
    #[inline]
    pub(super) fn insert(&mut self, free_slot: Option<FreeSlot>, place: KeyPlace, number: u64) {
        if let Some(FreeSlot { slot, hash }) = free_slot
            && let Some(slot) = self.slots.get_mut(slot)
        {
            *slot = Slot { round: self.round, hash, place, number };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks up each of the keys, and records those not found. Returns the index of the equal key, where one was found.
    fn find_repeats(dedup: &mut KeyDedup, keys: &[&str]) -> Vec<Option<u64>> {
        dedup.begin(keys.len());
        let mut found = Vec::new();
        for (at, key) in keys.iter().enumerate() {
            found.push(match dedup.find(key.as_bytes(), |place| keys[place.pending as usize] == *key) {
                Err(number) => Some(number),
                Ok(free_slot) => {
                    assert!(free_slot.is_some());
                    dedup.insert(free_slot, KeyPlace { pending: at as u32, index: 0 }, at as u64);
                    None
                }
            });
        }
        found
    }

    #[test]
    fn a_key_is_found_within_its_batch_only() {
        let mut dedup = KeyDedup::default();
        let found = find_repeats(&mut dedup, &["a", "b", "a", "c", "b", "a"]);
        assert_eq!(found, [None, None, Some(0), None, Some(1), Some(0)]);
        assert_eq!(find_repeats(&mut dedup, &["b", "a"]), [None, None]);
        assert_eq!(find_repeats(&mut dedup, &["b", "a"]), [None, None]);
        dedup.round = u32::MAX;
        assert_eq!(find_repeats(&mut dedup, &["b", "a", "b"]), [None, None, Some(0)]);
    }

    #[test]
    fn equal_hashes_are_not_equal_keys() {
        let mut dedup = KeyDedup::default();
        dedup.begin(2);
        let free_slot = dedup.find(b"a", |_| true).unwrap();
        dedup.insert(free_slot, KeyPlace::default(), 7);
        assert_eq!(dedup.find(b"a", |_| true).unwrap_err(), 7);
        assert!(dedup.find(b"a", |_| false).is_ok());
    }

    #[test]
    fn every_key_of_a_batch_is_recorded_after_a_batch_of_any_size() {
        let mut dedup = KeyDedup::default();
        let keys: Vec<String> = (0..300).map(|n| n.to_string()).collect();
        for count in [3, 300, 20, 100, 300, 2] {
            let keys: Vec<&str> = keys[..count].iter().chain(&keys[..count]).map(String::as_str).collect();
            let found = find_repeats(&mut dedup, &keys);
            let all = (0..count as u64).map(Some);
            assert!(found.into_iter().eq(std::iter::repeat_n(None, count).chain(all)), "{count}");
        }
    }

    #[test]
    fn memory_is_bounded() {
        let mut dedup = KeyDedup::default();
        let keys: Vec<String> = (0..5000).map(|n| n.to_string()).collect();
        dedup.begin(keys.len());
        let mut unrecorded = 0;
        for (number, key) in keys.iter().enumerate() {
            match dedup.find(key.as_bytes(), |_| false) {
                Ok(Some(free_slot)) => dedup.insert(Some(free_slot), KeyPlace::default(), number as u64),
                _ => unrecorded += 1,
            }
        }
        assert!(unrecorded > 2900, "{unrecorded}");
        assert_eq!(dedup.slots.len(), MOST_SLOTS);
        assert!(size_of::<Slot>() * MOST_SLOTS <= 48 * 1024);
    }
}
