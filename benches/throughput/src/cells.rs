//! The cells of a measurement. In each cell all contenders run the same workload.

use std::fmt;

use crate::contenders::Kind;
use crate::options::Options;
use crate::workload::Op;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Threads {
    /// A current_thread runtime, or no runtime.
    One,
    /// A multi_thread runtime with two workers.
    Two,
}

impl fmt::Display for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::One => "1 thread",
            Self::Two => "2 workers",
        })
    }
}

/// Which servers a contender uses, and by which path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Route {
    Direct,
    /// Through the delaying relay.
    Relayed,
    /// The servers of `--against`.
    Against,
}

/// A contender and its route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Entrant {
    pub(crate) kind: Kind,
    pub(crate) route: Route,
}

impl fmt::Display for Entrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffix = if self.route == Route::Against { " (other server)" } else { "" };
        write!(f, "{}{suffix}", self.kind.name())
    }
}

/// A part of the benchmark that `--only` can select.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    Get,
    /// Gets of larger values, and sets of large ones.
    Sizes,
    Miss,
    Set,
    Mixed,
    GetMany,
    SetMany,
    Relay,
    Against,
    Memory,
    Idle,
}

impl Part {
    pub(crate) const ALL: [(Self, &str); 11] = [
        (Self::Get, "get"),
        (Self::Sizes, "sizes"),
        (Self::Miss, "miss"),
        (Self::Set, "set"),
        (Self::Mixed, "mixed"),
        (Self::GetMany, "get_many"),
        (Self::SetMany, "set_many"),
        (Self::Relay, "relay"),
        (Self::Against, "against"),
        (Self::Memory, "memory"),
        (Self::Idle, "idle"),
    ];
}

/// A comparison of several contenders in one workload.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    pub(crate) part: Part,
    pub(crate) op: Op,
    pub(crate) size: usize,
    pub(crate) window: usize,
    pub(crate) threads: Threads,
    /// The first one is the base of all ratios.
    pub(crate) entrants: Vec<Entrant>,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let link = match self.part {
            Part::Relay => ", 1 ms round trip",
            Part::Against => ", on another server",
            _ => "",
        };
        write!(f, "{} {}, window {}, {}{link}", self.op, format_size(self.size), self.window, self.threads)
    }
}

/// Formats the size of a value.
pub(crate) fn format_size(bytes: usize) -> String {
    match bytes {
        1_000_000 => "1 MB".to_owned(),
        bytes if bytes >= 1024 && bytes.is_multiple_of(1024) => format!("{} KiB", bytes / 1024),
        bytes => format!("{bytes} B"),
    }
}

pub(crate) const SMALL: usize = 100;
/// The largest round number below memcached's default item limit.
pub(crate) const LARGEST: usize = 1_000_000;

/// Returns the cells that the options select, with those on one thread first.
pub(crate) fn cells(options: &Options) -> Vec<Cell> {
    let mut cells = Vec::new();
    for &threads in &options.threads {
        let for_all: &[(Part, Op, usize, &[usize])] = &[
            (
                Part::Get,
                Op::Get,
                SMALL,
                if options.quick { &[1, 16, 64, 256, 1024] } else { &[1, 4, 16, 64, 256, 1024] },
            ),
            (Part::Miss, Op::Miss, SMALL, if options.quick { &[] } else { &[64] }),
            (Part::Set, Op::Set, SMALL, if options.quick { &[64] } else { &[64, 1024] }),
            (Part::Mixed, Op::Mixed, SMALL, if options.quick { &[64] } else { &[64, 1024] }),
            (Part::GetMany, Op::GetMany, SMALL, &[16]),
            (Part::SetMany, Op::SetMany, SMALL, if options.quick { &[] } else { &[16] }),
        ];
        let for_one_thread: &[(Part, Op, usize, &[usize])] = &[
            (Part::Sizes, Op::Get, 1 << 10, if options.quick { &[] } else { &[1, 16, 64, 256, 1024] }),
            (Part::Sizes, Op::Get, 16 << 10, if options.quick { &[64] } else { &[16, 64, 256] }),
            (Part::Sizes, Op::Get, 256 << 10, if options.quick { &[] } else { &[16] }),
            (Part::Sizes, Op::Get, LARGEST, if options.quick { &[] } else { &[16] }),
            (Part::Sizes, Op::Set, 16 << 10, if options.quick { &[] } else { &[64] }),
            (Part::Sizes, Op::Set, 256 << 10, if options.quick { &[] } else { &[16] }),
            (Part::Sizes, Op::Set, LARGEST, if options.quick { &[] } else { &[16] }),
            (Part::Relay, Op::Get, SMALL, &[1024]),
            (Part::Against, Op::Get, SMALL, &[64, 1024]),
        ];
        let for_one_thread = if threads == Threads::One { for_one_thread } else { &[] };
        for &(part, op, size, windows) in for_all
            .iter()
            .chain(for_one_thread)
            .filter(|(part, _, size, _)| options.wants(*part) && options.wants_size(*size))
        {
            if windows.is_empty() || (options.quick && threads == Threads::Two && part == Part::GetMany) {
                continue;
            }
            for &window in options.windows.as_deref().unwrap_or(windows) {
                if window == 1 && options.quick && threads == Threads::Two {
                    continue;
                }
                let entrants = entrants(options, part, op, window, threads);
                cells.push(Cell { part, op, size, window, threads, entrants });
            }
        }
    }
    cells
}

fn entrants(options: &Options, part: Part, op: Op, window: usize, threads: Threads) -> Vec<Entrant> {
    if part == Part::Against {
        return [Route::Direct, Route::Against].map(|route| Entrant { kind: Kind::Memring, route }).into();
    }
    let base = if threads == Threads::One { Kind::RawEpoll } else { Kind::RawTokio };
    let is_eligible = |kind: Kind| match kind {
        // A smaller window leaves too few gets per connection to share a line.
        Kind::RawEpollMerged => window >= 16 && threads == Threads::One,
        Kind::RawEpoll => threads == Threads::One,
        _ => true,
    };
    let others =
        options.contenders.iter().copied().filter(|&kind| kind != base && is_eligible(kind) && kind.supports(op));
    let route = if part == Part::Relay { Route::Relayed } else { Route::Direct };
    [base].into_iter().chain(others).map(|kind| Entrant { kind, route }).collect()
}
