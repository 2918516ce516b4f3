//! Finds a key that stands in a batch already.

use xxhash_rust::xxh3::xxh3_64;

/// The most keys a batch is searched for at a time: it bounds the memory, at 48 KB a connection. Of a larger batch some
/// keys may be asked for twice.
const MOST_SLOTS: usize = 2048;

/// How far a key is looked for. Whoever chooses keys so that they collide has some asked for twice, and gains nothing.
const PROBES: usize = 8;

/// A hash table that is emptied by counting up.
#[derive(Debug, Default)]
pub(super) struct KeyDedup {
    slots: Vec<Slot>,
    /// How many of the slots are used, less one: few for a small batch, so that they stay in the processor's cache.
    mask: usize,
    round: u32,
    is_needed: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    /// What it holds is of this round.
    round: u32,
    hash: u32,
    place: Place,
    number: u64,
}

/// Where a key stands: which of the debts, and which of its call's keys.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Place {
    pub(super) owed: u32,
    pub(super) index: u32,
}

/// Where a key that was looked for and not found can be noted.
#[derive(Debug)]
pub(super) struct FreeSlot {
    slot: usize,
    hash: u32,
}

impl KeyDedup {
    /// Forgets everything, and makes room for so many keys; one has nothing to be compared with.
    pub(super) fn begin(&mut self, keys: usize) {
        self.is_needed = keys > 1;
        if !self.is_needed {
            return;
        }
        let wanted = (keys * 2).next_power_of_two().clamp(16, MOST_SLOTS);
        if self.slots.len() < wanted || self.round == u32::MAX {
            self.slots = vec![Slot::default(); wanted.max(self.slots.len())];
            self.round = 0;
        }
        self.round += 1;
        self.mask = wanted - 1;
    }

    /// Where to note a key, if there is room, or else the number of an equal one that stands there already.
    #[inline]
    pub(super) fn find(&self, key: &[u8], is_equal: impl Fn(Place) -> bool) -> Result<Option<FreeSlot>, u64> {
        if !self.is_needed {
            return Ok(None);
        }
        let hash = xxh3_64(key) as u32;
        for probe in 0..PROBES {
            let slot = (hash as usize).wrapping_add(probe) & self.mask;
            match self.slots.get(slot) {
                Some(known) if known.round == self.round => {
                    if known.hash == hash && is_equal(known.place) {
                        return Err(known.number);
                    }
                }
                Some(_) => return Ok(Some(FreeSlot { slot, hash })),
                None => break,
            }
        }
        Ok(None)
    }

    #[inline]
    pub(super) fn note(&mut self, vacancy: Option<FreeSlot>, place: Place, number: u64) {
        if let Some(vacancy) = vacancy
            && let Some(slot) = self.slots.get_mut(vacancy.slot)
        {
            *slot = Slot { round: self.round, hash: vacancy.hash, place, number };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of the keys are found to stand there already, by the place of the first.
    fn repeats(seen: &mut KeyDedup, keys: &[&str]) -> Vec<Option<u64>> {
        seen.begin(keys.len());
        let mut found = Vec::new();
        for (place, key) in keys.iter().enumerate() {
            found.push(match seen.find(key.as_bytes(), |known| keys[known.owed as usize] == *key) {
                Err(number) => Some(number),
                Ok(vacancy) => {
                    assert!(vacancy.is_some());
                    seen.note(vacancy, Place { owed: place as u32, index: 0 }, place as u64);
                    None
                }
            });
        }
        found
    }

    #[test]
    fn a_key_is_found_again_within_its_round_only() {
        let mut seen = KeyDedup::default();
        assert_eq!(repeats(&mut seen, &["a", "b", "a", "c", "b", "a"]), [None, None, Some(0), None, Some(1), Some(0)]);
        assert_eq!(repeats(&mut seen, &["b", "a"]), [None, None]);
        assert_eq!(repeats(&mut seen, &["b", "a"]), [None, None]);
        seen.round = u32::MAX;
        assert_eq!(repeats(&mut seen, &["b", "a", "b"]), [None, None, Some(0)]);
    }

    #[test]
    fn equal_hashes_are_not_equal_keys() {
        let mut seen = KeyDedup::default();
        seen.begin(2);
        let vacancy = seen.find(b"a", |_| true).unwrap();
        seen.note(vacancy, Place::default(), 7);
        assert_eq!(seen.find(b"a", |_| true).unwrap_err(), 7);
        assert!(seen.find(b"a", |_| false).is_ok());
    }

    #[test]
    fn there_is_room_for_all_of_a_batch_after_one_of_any_size() {
        let mut seen = KeyDedup::default();
        let keys: Vec<String> = (0..300).map(|n| n.to_string()).collect();
        for count in [3, 300, 20, 100, 300, 2] {
            let keys: Vec<&str> = keys[..count].iter().chain(&keys[..count]).map(String::as_str).collect();
            let again = repeats(&mut seen, &keys);
            let all = (0..count as u64).map(Some);
            assert!(again.into_iter().eq(std::iter::repeat_n(None, count).chain(all)), "{count}");
        }
    }

    #[test]
    fn its_memory_is_bounded() {
        let mut seen = KeyDedup::default();
        let keys: Vec<String> = (0..5000).map(|n| n.to_string()).collect();
        seen.begin(keys.len());
        let mut unnoted = 0;
        for (number, key) in keys.iter().enumerate() {
            match seen.find(key.as_bytes(), |_| false) {
                Ok(Some(vacancy)) => seen.note(Some(vacancy), Place::default(), number as u64),
                _ => unnoted += 1,
            }
        }
        assert!(unnoted > 2900, "{unnoted}");
        assert_eq!(seen.slots.len(), MOST_SLOTS);
        assert!(size_of::<Slot>() * MOST_SLOTS <= 48 * 1024);
    }
}
