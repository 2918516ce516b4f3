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
/// The index costs a look-up one read, where a binary search costs a dozen, each waiting for the one before. From there it
/// looks at [`SCAN`] points at once, without asking which: a loop that stops at the right one would stop somewhere else
/// for every key, and a branch that cannot be foretold costs more than all the rest. What a look-up does cost is cache,
/// so everything is small: positions and nodes stand in lists of their own, since an array of pairs would be a third
/// padding.
///
/// A circle is made anew for every change of nodes, not changed: that takes a millisecond for 100 nodes, off the way of
/// all look-ups, and the lists and counts would have to be copied anyway, since look-ups go on in the old ones.
#[derive(Clone)]
pub(super) struct Circle {
    /// Where the points are, in order; then, unless there are none, sentinels at the last position.
    positions: Arc<[u32]>,
    /// Whose the points are. The sentinels are the first point's node's: they make the wrap-around a look-up like any
    /// other.
    nodes: Arc<[u16]>,
    /// For each value of a position's top bits, how many points come before the positions that begin with it.
    buckets: Arc<[u32]>,
    /// How far to the right a position's top bits are.
    shift: u32,
}

/// How many points a look-up sees at once, and how many sentinels there are.
const SCAN: usize = 4;

impl Circle {
    /// Puts the points in order. Of points at the same place the one given first comes first, and owns.
    pub(super) fn new(points: &[Point]) -> Self {
        // At least two buckets, for no shift is by 32. Otherwise one for one or two points, of which one in a hundred
        // or so holds more before the key than are seen at once. Measured: with twice as many the misses cost more than
        // is saved.
        let bits = points.len().checked_ilog2().unwrap_or(0).max(1);
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
        if let Some(first) = sorted.first().copied() {
            sorted.resize(sorted.len() + SCAN, Point { at: u32::MAX, node: first.node });
        }

        let (positions, nodes): (Vec<_>, Vec<_>) = sorted.iter().map(|point| (point.at, point.node)).unzip();
        Self { positions: positions.into(), nodes: nodes.into(), buckets: buckets.into(), shift }
    }

    /// How many points there are.
    pub(super) fn len(&self) -> usize {
        self.positions.len().saturating_sub(SCAN)
    }

    /// The node of the first point at or after a position; `None` if there are no points.
    #[inline]
    pub(super) fn owner(&self, at: u32) -> Option<usize> {
        let start = *self.buckets.get((at >> self.shift) as usize)? as usize;
        let positions: &[u32; SCAN] = self.positions.get(start..start + SCAN)?.try_into().ok()?;
        let nodes: &[u16; SCAN] = self.nodes.get(start..start + SCAN)?.try_into().ok()?;
        let before: usize = positions.iter().map(|&point| usize::from(point < at)).sum();
        if before == SCAN {
            return self.owner_further_on(at);
        }
        // The nodes as one number: they are read while the positions are, and none of them has to wait for `before`.
        let nodes = nodes.iter().rev().fold(0, |nodes, &node| nodes << u16::BITS | u64::from(node));
        Some(usize::from((nodes >> (u16::BITS as usize * before)) as u16))
    }

    /// The node of the first point beyond a position, if that is seen at once and no point lies at the position itself.
    #[cfg(feature = "placements")]
    #[inline]
    pub(super) fn owner_beyond(&self, at: u32) -> Option<usize> {
        let start = *self.buckets.get((at >> self.shift) as usize)? as usize;
        let positions = self.positions.get(start..start + SCAN)?;
        let next = start + positions.iter().map(|&point| usize::from(point < at)).sum::<usize>();
        let is_seen = next < start + SCAN && self.positions[next] != at;
        is_seen.then(|| usize::from(self.nodes[next]))
    }

    /// The [owner](Self::owner) where more points of a bucket come before than are seen at once.
    #[cold]
    fn owner_further_on(&self, at: u32) -> Option<usize> {
        self.nodes.get(self.first_from(at)).map(|&node| usize::from(node))
    }

    /// The nodes of all points in order, from the first at or after a position once around.
    pub(super) fn walk(&self, at: u32) -> impl Iterator<Item = usize> {
        let points = &self.nodes[..self.len()];
        let (before, after) = points.split_at(self.first_from(at));
        after.iter().chain(before).map(|&node| usize::from(node))
    }

    /// The index of the first point at or after a position, or [`len`](Self::len) if there is none. However crowded a
    /// bucket is, as some clients' hashes make it, this takes a few steps.
    pub(super) fn first_from(&self, at: u32) -> usize {
        let bucket = (at >> self.shift) as usize;
        let bound = |bucket: usize| self.buckets.get(bucket).map_or(self.len(), |&bound| bound as usize);
        let (start, end) = (bound(bucket), bound(bucket + 1));
        start + self.positions[start..end].partition_point(|&point| point < at)
    }

    /// The arcs, from position 0 on: the node that owns one, and how many it holds of the first `within` positions, for not
    /// every hash has values as high as the circle. An arc across position 0 comes in two pieces; one that ends where
    /// another did is empty.
    pub(super) fn arcs(&self, within: u64) -> impl Iterator<Item = (usize, u64)> {
        let mut from = 0;
        // With the first sentinel, which stands for what lies beyond the last point.
        let ends = self.positions.iter().zip(self.nodes.iter()).take(self.len() + 1);
        ends.map(move |(&at, &node)| {
            let end = within.min(u64::from(at) + 1);
            (usize::from(node), end - std::mem::replace(&mut from, end))
        })
    }

    /// Goes along the first `within` positions of this circle and another at once: for every stretch, its owner here, its
    /// owner there, and how many positions it holds.
    pub(super) fn overlay(&self, other: &Self, within: u64, mut stretch: impl FnMut(usize, usize, u64)) {
        let (mut ours, mut theirs) = (self.arcs(within), other.arcs(within));
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
