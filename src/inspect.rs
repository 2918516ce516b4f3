//! Statistics of a server and metadata of its items.

use std::fmt;
use std::time::SystemTime;

use bytes::Bytes;

/// A group of a server's statistics. The names in each group depend on the server's version.
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
    /// Item counts by size, in steps of 32 bytes.
    ///
    /// Needs a server started with `-o track_sizes`; otherwise the only statistic is `sizes_status`, with the value
    /// `disabled`. Servers before 1.4.27 serve nothing else while they count.
    Sizes,
    /// The server's connections: `26:addr`, `26:state`, …
    Conns,
    /// The server's settings: `maxbytes`, `maxconns`, …
    Settings,
}

/// A server's statistics: names and values as the server sent them, in the same order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stats {
    pairs: Vec<(Box<str>, Box<str>)>,
}

impl Stats {
    pub(crate) fn push(&mut self, name: Box<str>, value: Box<str>) {
        self.pairs.push((name, value));
    }

    /// Returns the value of this name, which may be empty. If the name occurs more than once, returns the first.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find_map(|(known, value)| (known == name).then_some(value))
    }

    /// Returns the value of this name as a number; `None` if the name is missing or the value is no `u64`.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }

    /// Returns names and values in the server's order. A name may occur more than once.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Returns how many statistics there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Returns whether there are none. An empty server has no [`Items`](StatsKind::Items), for example.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }
}

/// The metadata of one item, as a server lists it: everything but the value.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MetadumpEntry {
    /// The key.
    pub key: Bytes,
    /// When the item expires; `None` if never. Exact to about two seconds, because the server's clock counts from its
    /// own start.
    pub exp: Option<SystemTime>,
    /// When the item was last read or written. The server updates this about once a minute.
    pub last_access: SystemTime,
    /// The CAS unique as a number; 0 on servers that keep none.
    pub cas: u64,
    /// Whether the item was read since it was written.
    pub fetched: bool,
    /// The slab class of the item; `None` if the server does not report it.
    pub slab_class: Option<u32>,
    /// The item's size in the server's memory in bytes: key, value and overhead; `None` if the server does not report
    /// it.
    pub size: Option<u64>,
    /// The flags stored with the value; `None` if the server does not report them. Only the newest servers do.
    pub flags: Option<u32>,
}

impl fmt::Debug for MetadumpEntry {
    /// Prints the key's length only, because keys may hold data that does not belong in a log.
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
