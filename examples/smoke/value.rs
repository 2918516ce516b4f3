//! The values written to each key, and the check of the values read back.
//!
//! Every value contains its key and the sequence number of its write, which exposes a value that is swapped, truncated
//! or corrupt. Only one worker uses a key, one operation at a time, so the set of valid values is known exactly.

use memring::{Delivery, NodeId};

/// A key and the state of its writes.
#[derive(Debug)]
pub(crate) struct Entry {
    key: Box<str>,
    size: usize,
    /// The sequence number of the last write attempt. The number of an unsent write is never used again.
    attempted: u64,
    /// The newest write that a server may have received.
    newest: u64,
    /// The newest write that a server has acknowledged.
    acked: u64,
    /// The owner at that acknowledgement, and the number of address changes by then.
    acked_by: Option<NodeId>,
    acked_at_epoch: u64,
    /// Several nodes acknowledged writes, so a former owner that owns the key again may hold an older value.
    owner_changed: bool,
    /// The outcome of a write is unknown. A server may still apply it at any later time.
    has_unknown_write: bool,
    /// The outcome of the last operation.
    pub(crate) last: Outcome,
}

/// The outcome of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// No operation yet.
    None,
    /// The value of the last acknowledged write, or of a later write that may have been applied.
    Fresh,
    /// An older value. It is `explained` if the owner changed or the outcome of a write is unknown.
    Stale {
        explained: bool,
    },
    /// Another key's value, or a value that was never written.
    Wrong,
    Missing,
    Stored,
    Failed,
}

impl Entry {
    pub(crate) fn new(key: String, size: usize) -> Self {
        Self {
            key: key.into(),
            size,
            attempted: 0,
            newest: 0,
            acked: 0,
            acked_by: None,
            acked_at_epoch: 0,
            owner_changed: false,
            has_unknown_write: false,
            last: Outcome::None,
        }
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// Returns the value of the next write.
    pub(crate) fn next_value(&mut self) -> Vec<u8> {
        self.attempted += 1;
        value(&self.key, self.attempted, self.size)
    }

    /// Records an acknowledged write. `owners` are the owners before and after it, and either may have served it.
    pub(crate) fn acknowledged(&mut self, owners: [Option<NodeId>; 2], epoch: u64) {
        let [before, after] = owners;
        self.owner_changed |= before != after || self.acked_by.is_some() && self.acked_by != after;
        self.newest = self.attempted;
        self.acked = self.attempted;
        self.acked_by = after;
        self.acked_at_epoch = epoch;
        self.last = Outcome::Stored;
    }

    /// Records a failed write. A server may apply it later, unless it was not sent.
    pub(crate) fn failed(&mut self, delivery: Delivery) {
        if delivery != Delivery::NotSent {
            self.newest = self.attempted;
            self.has_unknown_write = true;
        }
        self.last = Outcome::Failed;
    }

    /// Checks a value that was read, and records the outcome.
    pub(crate) fn check(&mut self, found: &[u8], epoch: u64) -> Outcome {
        self.last = match self.sequence_of(found) {
            Some(seq) if seq > self.newest => Outcome::Wrong,
            Some(seq) if seq >= self.acked => Outcome::Fresh,
            Some(_) => {
                let explained = self.owner_changed || self.has_unknown_write || epoch != self.acked_at_epoch;
                Outcome::Stale { explained }
            }
            None => Outcome::Wrong,
        };
        self.last
    }

    /// Returns the sequence number of the write that made this value, or `None` if no write to this key did.
    fn sequence_of(&self, found: &[u8]) -> Option<u64> {
        let rest = found.strip_prefix(self.key.as_bytes())?.strip_prefix(b"#")?;
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let seq: u64 = std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()?;
        let head = head(&self.key, seq);
        // A value that starts with the head and equals itself shifted by the head's length consists of heads only.
        let is_valid = seq > 0
            && found.len() == self.size.max(head.len())
            && found.starts_with(head.as_bytes())
            && found[head.len()..] == found[..found.len() - head.len()];
        is_valid.then_some(seq)
    }
}

/// Returns the head repeated up to the size, so that every part of a value identifies its write.
fn value(key: &str, seq: u64, size: usize) -> Vec<u8> {
    let head = head(key, seq);
    let size = size.max(head.len());
    head.bytes().cycle().take(size).collect()
}

fn head(key: &str, seq: u64) -> String {
    format!("{key}#{seq};")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> Option<NodeId> {
        Some(name.parse().unwrap())
    }

    fn written(entry: &mut Entry, by: &str) -> Vec<u8> {
        let value = entry.next_value();
        entry.acknowledged([node(by), node(by)], 0);
        value
    }

    #[test]
    fn only_values_written_to_the_key_are_valid() {
        let mut entry = Entry::new("k:1".to_owned(), 40);
        let value = written(&mut entry, "a");
        assert_eq!(value, b"k:1#1;k:1#1;k:1#1;k:1#1;k:1#1;k:1#1;k:1#");
        assert_eq!(entry.check(&value, 0), Outcome::Fresh);

        let mut other = Entry::new("k:12".to_owned(), 40);
        let mut spliced = value.clone();
        spliced[33] = b'2';
        let unwritten = super::value("k:1", 2, 40);
        let zero = super::value("k:1", 0, 40);
        let padded = b"k:1#01;k:1#01;k:1#01;k:1#01;k:1#01;k:1#0";
        for wrong in [&written(&mut other, "a"), &spliced, &unwritten, &zero, &value[..39].to_vec(), &padded.to_vec()] {
            assert_eq!(entry.check(wrong, 0), Outcome::Wrong, "{}", String::from_utf8_lossy(wrong));
        }
        assert_eq!(entry.check(b"", 0), Outcome::Wrong);
    }

    #[test]
    fn a_write_with_unknown_outcome_is_valid_and_an_unsent_write_is_wrong() {
        let mut entry = Entry::new("k".to_owned(), 1);
        let first = written(&mut entry, "a");
        let second = entry.next_value();
        entry.failed(Delivery::NotSent);
        assert_eq!(entry.check(&second, 0), Outcome::Wrong);
        let third = entry.next_value();
        entry.failed(Delivery::Unknown);
        assert_eq!(entry.check(&first, 0), Outcome::Fresh);
        assert_eq!(entry.check(&third, 0), Outcome::Fresh);
        let fourth = written(&mut entry, "a");
        assert_eq!(entry.check(&fourth, 0), Outcome::Fresh);
        assert_eq!(entry.check(&third, 0), Outcome::Stale { explained: true });
    }

    #[test]
    fn a_change_of_owner_or_address_explains_an_older_value() {
        let mut entry = Entry::new("k".to_owned(), 10);
        let first = written(&mut entry, "a");
        written(&mut entry, "a");
        assert_eq!(entry.check(&first, 0), Outcome::Stale { explained: false });
        assert_eq!(entry.check(&first, 1), Outcome::Stale { explained: true });
        written(&mut entry, "b");
        assert_eq!(entry.check(&first, 0), Outcome::Stale { explained: true });
    }
}
