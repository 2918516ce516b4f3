//! The choice of the item for each single-key operation.

use std::fmt;
use std::str::FromStr;

/// The number of draws before a random order repeats. It is far larger than the number of callers, so that two callers
/// rarely start at the same draw.
const DRAWS: usize = 1 << 20;

/// YCSB's default exponent.
const ZIPF_EXPONENT: f64 = 0.99;

/// The order of the keys, and the number of items.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct KeyChoice {
    pub(crate) order: KeyOrder,
    /// `None` derives the number from the size of the values.
    pub(crate) items: Option<usize>,
}

impl fmt::Display for KeyChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.items {
            Some(items) => write!(f, "{} {}", items, self.order),
            None => self.order.fmt(f),
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum KeyOrder {
    /// One item after the other.
    Sequential,
    /// Each item with the same probability.
    #[default]
    Uniform,
    /// The item of rank r with a probability proportional to r^-0.99.
    Zipf,
}

impl KeyOrder {
    const ALL: [Self; 3] = [Self::Sequential, Self::Uniform, Self::Zipf];

    /// Returns indices below `items`, drawn beforehand so that a measured loop only reads them. They are the same in
    /// every run.
    pub(crate) fn indices(self, items: usize) -> Vec<u32> {
        let mut rng = fastrand::Rng::with_seed(items as u64);
        let items = items as u32;
        match self {
            Self::Sequential => (0..items).collect(),
            Self::Uniform => (0..DRAWS).map(|_| rng.u32(..items)).collect(),
            Self::Zipf => {
                let mut total = 0.0;
                let weight = |rank: u32| f64::from(rank).powf(-ZIPF_EXPONENT);
                let sums: Vec<f64> = (1..=items)
                    .map(|rank| {
                        total += weight(rank);
                        total
                    })
                    .collect();
                let mut draw = || {
                    let point = rng.f64() * total;
                    sums.partition_point(|&sum| sum <= point).min(sums.len() - 1) as u32
                };
                (0..DRAWS).map(|_| draw()).collect()
            }
        }
    }
}

impl fmt::Display for KeyOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Sequential => "sequential",
            Self::Uniform => "uniform",
            Self::Zipf => "zipf",
        })
    }
}

impl FromStr for KeyOrder {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|order| order.to_string() == text);
        found.ok_or_else(|| format!("unknown key order {text:?}: use sequential, uniform or zipf"))
    }
}

#[cfg(test)]
mod tests {
    use super::{DRAWS, KeyOrder};

    fn counts(order: KeyOrder, items: usize) -> Vec<usize> {
        let mut counts = vec![0; items];
        for index in order.indices(items) {
            counts[index as usize] += 1;
        }
        counts
    }

    #[test]
    fn sequential_keys_visit_every_item_once() {
        assert_eq!(counts(KeyOrder::Sequential, 150), [1; 150]);
    }

    #[test]
    fn uniform_keys_visit_all_items_alike() {
        let counts = counts(KeyOrder::Uniform, 100);
        assert_eq!(counts.iter().sum::<usize>(), DRAWS);
        let expected = DRAWS / 100;
        assert!(counts.iter().all(|count| count.abs_diff(expected) < expected / 10), "{counts:?}");
    }

    #[test]
    fn zipf_keys_follow_the_power_law() {
        let items = 10_000;
        let counts = counts(KeyOrder::Zipf, items);
        assert_eq!(counts.iter().sum::<usize>(), DRAWS);
        let harmonic: f64 = (1..=items).map(|rank| (rank as f64).powf(-0.99)).sum();
        for rank in [1, 2, 10, 100] {
            let expected = (rank as f64).powf(-0.99) / harmonic * DRAWS as f64;
            let difference = (counts[rank - 1] as f64 - expected).abs() / expected;
            assert!(difference < 0.15, "rank {rank}: {} draws, {expected:.0} expected", counts[rank - 1]);
        }
    }

    #[test]
    fn the_order_is_the_same_in_every_run() {
        for order in [KeyOrder::Uniform, KeyOrder::Zipf] {
            assert_eq!(order.indices(1_000), order.indices(1_000));
        }
    }
}
