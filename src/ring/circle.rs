//! Points on a circle of 2^32 positions, and who owns the arcs between them. Knows no hash and no label.

use std::sync::Arc;

/// The positions of the circle.
pub(super) const POSITIONS: u64 = 1 << 32;

/// A place on the circle, and the node that owns the arc ending there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point {
    pub(super) at: u32,
    pub(super) node: u16,
}

/// The points in order, with an index that leads to within a point or so of any position.
///
/// The index costs a look-up one read, where a binary search costs a dozen. What it does cost is cache, so everything
/// is small: positions and nodes stand in lists of their own, since an array of pairs would be a third padding.
#[derive(Clone)]
pub(super) struct Circle {
    /// Where the points are, sorted. Behind the last stands a sentinel, the first point again at the last position: it
    /// ends every scan and makes the wrap-around a look-up like any other.
    positions: Arc<[u32]>,
    /// Whose the points are.
    nodes: Arc<[u16]>,
    /// For each value of a position's top bits, how many points come before the positions that begin with it.
    buckets: Arc<[u32]>,
    /// How far to the right a position's top bits are.
    shift: u32,
}

impl Circle {
    /// Puts the points in order. Of points at the same place the one given first comes first, and owns.
    pub(super) fn new(points: &[Point]) -> Self {
        // At least two buckets, for no shift is by 32. Otherwise one or two a point: measured, with half as many the
        // scans, and with twice as many the misses, cost more than is saved.
        let bits = points.len().next_power_of_two().ilog2().max(1);
        let shift = u32::BITS - bits;
        let bucket_of = |point: &Point| (point.at >> shift) as usize;

        // A counting sort by bucket, whose counts become the index: first how many points a bucket has, then where they
        // end, and once they are put in place from the last to the first (so that equal ones keep their order), where
        // they begin.
        let mut buckets = vec![0_u32; 1 << bits];
        for point in points {
            buckets[bucket_of(point)] += 1;
        }
        let mut end = 0;
        for bucket in &mut buckets {
            end += *bucket;
            *bucket = end;
        }
        let mut sorted = points.to_vec();
        for point in points.iter().rev() {
            let place = &mut buckets[bucket_of(point)];
            *place -= 1;
            sorted[*place as usize] = *point;
        }
        for bucket in sorted.chunk_by_mut(|a, b| bucket_of(a) == bucket_of(b)) {
            bucket.sort_by_key(|point| point.at);
        }
        let sentinel = sorted.first().map(|first| Point { at: u32::MAX, node: first.node });
        sorted.extend(sentinel);

        let (positions, nodes): (Vec<_>, Vec<_>) = sorted.iter().map(|point| (point.at, point.node)).unzip();
        Self { positions: positions.into(), nodes: nodes.into(), buckets: buckets.into(), shift }
    }

    /// How many points there are.
    pub(super) fn len(&self) -> usize {
        self.positions.len().saturating_sub(1)
    }

    /// The node of the first point at or after a position; `None` if there are no points.
    #[inline]
    pub(super) fn owner(&self, at: u32) -> Option<usize> {
        self.nodes.get(self.first_from(at)?).map(|&node| usize::from(node))
    }

    /// The nodes of all points in order, from the first at or after a position once around.
    pub(super) fn walk(&self, at: u32) -> impl Iterator<Item = usize> {
        let points = &self.nodes[..self.len()];
        let (before, after) = points.split_at(self.first_from(at).unwrap_or(0));
        after.iter().chain(before).map(|&node| usize::from(node))
    }

    /// The first point, or the sentinel, at or after a position.
    #[inline]
    fn first_from(&self, at: u32) -> Option<usize> {
        let start = *self.buckets.get((at >> self.shift) as usize)? as usize;
        let step = self.positions[start..].iter().position(|&point| point >= at)?;
        Some(start + step)
    }

    /// The arcs, from position 0 on: the node that owns one, and how many positions it holds. An arc across position 0
    /// comes in two pieces; one that ends where another did is empty.
    pub(super) fn arcs(&self) -> impl Iterator<Item = (usize, u64)> {
        let mut from = 0;
        self.positions.iter().zip(self.nodes.iter()).map(move |(&at, &node)| {
            let end = u64::from(at) + 1;
            (usize::from(node), end - std::mem::replace(&mut from, end))
        })
    }

    /// Goes around this circle and another at once: for every stretch, its owner here, its owner there, and how many
    /// positions it holds.
    pub(super) fn overlay(&self, other: &Self, mut stretch: impl FnMut(usize, usize, u64)) {
        let (mut ours, mut theirs) = (self.arcs(), other.arcs());
        let (mut our, mut their) = (ours.next(), theirs.next());
        while let (Some((us, our_len)), Some((them, their_len))) = (our, their) {
            let len = our_len.min(their_len);
            stretch(us, them, len);
            our = if our_len == len { ours.next() } else { Some((us, our_len - len)) };
            their = if their_len == len { theirs.next() } else { Some((them, their_len - len)) };
        }
    }
}

impl Default for Circle {
    fn default() -> Self {
        Self::new(&[])
    }
}
