//! What a server tells of itself and of its items: plain data.

use std::fmt;
use std::time::SystemTime;

use bytes::Bytes;

/// Which of a server's statistics to ask for. What each holds differs from version to version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum StatsKind {
    /// Counters and sizes of the whole server: `curr_items`, `get_hits`, `evictions`, `uptime`, …
    #[default]
    General,
    /// Items by slab class: `items:1:number`, `items:1:age`, …
    Items,
    /// Memory by slab class: `1:chunk_size`, `1:used_chunks`, …
    Slabs,
    /// How many items there are of each size, in steps of 32 bytes, if the server was told to keep count
    /// (`-o track_sizes`); else `sizes_status` says `disabled`. Servers before 1.4.27 stand still while they count.
    Sizes,
    /// The server's connections: `26:addr`, `26:state`, …
    Conns,
    /// How the server is set up: `maxbytes`, `maxconns`, …
    Settings,
}

/// A server's statistics: names and values as it sent them, in its order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stats {
    pairs: Vec<(Box<str>, Box<str>)>,
}

impl Stats {
    pub(crate) fn push(&mut self, name: Box<str>, value: Box<str>) {
        self.pairs.push((name, value));
    }

    /// The value of this name, which may be empty; the first, if there are several.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find_map(|(known, value)| (known == name).then_some(value))
    }

    /// The value of this name, if there is one and it is a whole number that fits.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }

    /// Names and values in the server's order. A name may come more than once.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(name, value)| (&**name, &**value))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether the server had nothing to tell, as an empty one has of its items.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }
}

/// What a server tells of one of its items: everything but the value.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MetadumpEntry {
    /// The key.
    pub key: Bytes,
    /// When the item ends; `None` is never. To about two seconds, for the server's clock counts from its own start.
    pub exp: Option<SystemTime>,
    /// When it was last read or written, as far as the server keeps account: to the minute or so.
    pub last_access: SystemTime,
    /// Its version, as a number; 0 on servers told to keep none.
    pub cas: u64,
    /// Whether it was read since it was written.
    pub fetched: bool,
    /// The slab class it is kept in; `None` if the server does not say.
    pub slab_class: Option<u32>,
    /// What it takes of the server's memory, in bytes: key, value, and the server's own; `None` if the server does not say.
    pub size: Option<u64>,
    /// The 32 bits kept beside the value; `None` if the server does not say, as only the newest do.
    pub flags: Option<u32>,
}

impl fmt::Debug for MetadumpEntry {
    /// Prints the key's length only: keys may carry what does not belong in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetadumpEntry")
            .field("key", &format_args!("{} bytes", self.key.len()))
            .field("exp", &self.exp)
            .field("last_access", &self.last_access)
            .field("cas", &self.cas)
            .field("fetched", &self.fetched)
            .field("slab_class", &self.slab_class)
            .field("size", &self.size)
            .field("flags", &self.flags)
            .finish()
    }
}
