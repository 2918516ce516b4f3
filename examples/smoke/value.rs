//! What is stored under each key, and what may be read back.
//!
//! Every value names its key and the sequence number of the write that made it, so that a value that was mixed up, cut,
//! or made up shows. A key is only ever used by one worker, one operation at a time: what may be read is known exactly.

use memring::{Delivery, NodeId};

/// A key, and all that was ever done to it.
#[derive(Debug)]
pub(crate) struct Entry {
    key: Box<str>,
    size: usize,
    /// The sequence number last given to a write; a write that was not sent keeps its number to itself.
    tried: u64,
    /// The newest write that may have reached a server.
    newest: u64,
    /// The newest write that a server has acknowledged.
    acked: u64,
    /// Who acknowledged it, as the ring had it, and how often nodes had changed their addresses by then.
    acked_by: Option<NodeId>,
    acked_at_epoch: u64,
    /// Writes were acknowledged by several nodes: an older value may lie on one that owns the key again.
    wandered: bool,
    /// A write's outcome is not known: it may be applied at any later time.
    doubtful: bool,
    /// What the last operation came to.
    pub(crate) last: Outcome,
}

/// What an operation came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// There was none yet.
    None,
    /// The value of the last acknowledged write, or of one that may have come after it.
    Fresh,
    /// An older value. `explained` if the owner changed, or the outcome of a write is not known.
    Stale {
        explained: bool,
    },
    /// Another key's value, or one never written.
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
            tried: 0,
            newest: 0,
            acked: 0,
            acked_by: None,
            acked_at_epoch: 0,
            wandered: false,
            doubtful: false,
            last: Outcome::None,
        }
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// The value to write next.
    pub(crate) fn next_value(&mut self) -> Vec<u8> {
        self.tried += 1;
        value(&self.key, self.tried, self.size)
    }

    /// The write was acknowledged. It was made between two looks at the ring, and served by one owner or the other.
    pub(crate) fn acknowledged(&mut self, owners: [Option<NodeId>; 2], epoch: u64) {
        let [before, after] = owners;
        self.wandered |= before != after || self.acked_by.is_some() && self.acked_by != after;
        self.newest = self.tried;
        self.acked = self.tried;
        self.acked_by = after;
        self.acked_at_epoch = epoch;
        self.last = Outcome::Stored;
    }

    /// The write failed. One that may have been sent may be applied; one that was not is never to be seen.
    pub(crate) fn refused(&mut self, delivery: Delivery) {
        if delivery != Delivery::NotSent {
            self.newest = self.tried;
            self.doubtful = true;
        }
        self.last = Outcome::Failed;
    }

    /// Judges what was read.
    pub(crate) fn judge(&mut self, found: &[u8], epoch: u64) -> Outcome {
        self.last = match self.sequence_of(found) {
            Some(seq) if seq > self.newest => Outcome::Wrong,
            Some(seq) if seq >= self.acked => Outcome::Fresh,
            Some(_) => {
                let explained = self.wandered || self.doubtful || epoch != self.acked_at_epoch;
                Outcome::Stale { explained }
            }
            None => Outcome::Wrong,
        };
        self.last
    }

    /// Which write made this value; `None` if no write to this key could have.
    fn sequence_of(&self, found: &[u8]) -> Option<u64> {
        let rest = found.strip_prefix(self.key.as_bytes())?.strip_prefix(b"#")?;
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let seq: u64 = std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()?;
        let head = head(&self.key, seq);
        // Whoever begins right and repeats with the head's period is right throughout, without a second copy.
        let sound = seq > 0
            && found.len() == self.size.max(head.len())
            && found.starts_with(head.as_bytes())
            && found[head.len()..] == found[..found.len() - head.len()];
        sound.then_some(seq)
    }
}

/// The head as often as it takes to fill the size, so that no part of a value is any other's.
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
    fn only_what_was_written_to_the_key_is_right() {
        let mut entry = Entry::new("k:1".to_owned(), 40);
        let value = written(&mut entry, "a");
        assert_eq!(value, b"k:1#1;k:1#1;k:1#1;k:1#1;k:1#1;k:1#1;k:1#");
        assert_eq!(entry.judge(&value, 0), Outcome::Fresh);

        let mut other = Entry::new("k:12".to_owned(), 40);
        let mut spliced = value.clone();
        spliced[33] = b'2';
        let never = super::value("k:1", 2, 40);
        let zero = super::value("k:1", 0, 40);
        let padded = b"k:1#01;k:1#01;k:1#01;k:1#01;k:1#01;k:1#0";
        for wrong in [&written(&mut other, "a"), &spliced, &never, &zero, &value[..39].to_vec(), &padded.to_vec()] {
            assert_eq!(entry.judge(wrong, 0), Outcome::Wrong, "{}", String::from_utf8_lossy(wrong));
        }
        assert_eq!(entry.judge(b"", 0), Outcome::Wrong);
    }

    #[test]
    fn a_value_of_a_write_in_doubt_is_right_and_one_not_sent_is_wrong() {
        let mut entry = Entry::new("k".to_owned(), 1);
        let first = written(&mut entry, "a");
        let second = entry.next_value();
        entry.refused(Delivery::NotSent);
        assert_eq!(entry.judge(&second, 0), Outcome::Wrong);
        let third = entry.next_value();
        entry.refused(Delivery::Unknown);
        assert_eq!(entry.judge(&first, 0), Outcome::Fresh);
        assert_eq!(entry.judge(&third, 0), Outcome::Fresh);
        let fourth = written(&mut entry, "a");
        assert_eq!(entry.judge(&fourth, 0), Outcome::Fresh);
        assert_eq!(entry.judge(&third, 0), Outcome::Stale { explained: true });
    }

    #[test]
    fn an_older_value_is_explained_by_another_owner_or_address() {
        let mut entry = Entry::new("k".to_owned(), 10);
        let first = written(&mut entry, "a");
        written(&mut entry, "a");
        assert_eq!(entry.judge(&first, 0), Outcome::Stale { explained: false });
        assert_eq!(entry.judge(&first, 1), Outcome::Stale { explained: true });
        written(&mut entry, "b");
        assert_eq!(entry.judge(&first, 0), Outcome::Stale { explained: true });
    }
}
