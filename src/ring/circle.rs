//! Points on a circle of 2^32 positions and the nodes that own the arcs between them. Independent of hashes and labels.

use std::sync::Arc;

/// The number of positions on the circle.
pub(super) const POSITIONS: u64 = 1 << 32;

/// A position on the circle and the node that owns the arc ending there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point {
    pub(super) position: u32,
    pub(super) node: u16,
}

/// Sorted points with a bucket index that leads to within about one point of any position.
///
/// The index costs a lookup one read. A binary search costs a dozen reads, each of which waits for the one before. From
/// the indexed point on, a lookup compares [`SCAN`] points at once, without a branch: a loop that stops at the right
/// point stops at a different place for every key, and a mispredicted branch costs more than all the rest. The cost
/// that remains is cache misses, so the data is small: positions and nodes are separate arrays, because an array of
/// pairs would be one third padding.
///
/// Every change of nodes builds a new circle. This takes one millisecond for 100 nodes, away from the lookups. An
/// update in place would have to copy the arrays anyway, because lookups continue in the old circle.
#[derive(Clone)]
pub(super) struct Circle {
    /// The positions of the points in ascending order, followed by [`SCAN`] sentinels at the last position. Empty if
    /// there are no points.
    positions: Arc<[u32]>,
    /// The nodes of the points. The sentinels belong to the node of the first point, so a lookup that wraps around is a
    /// lookup like any other.
    nodes: Arc<[u16]>,
    /// For each value of a position's top bits, the number of points before the positions that start with these bits.
    buckets: Arc<[u32]>,
    /// The number of bits to the right of a position's top bits.
    shift: u32,
}

/// The number of points a lookup compares at once, and the number of sentinels.
const SCAN: usize = 4;

impl Circle {
    /// Sorts the points. Of points at the same position the one given first comes first, and owns the arc.
    pub(super) fn new(points: &[Point]) -> Self {
        // At least two buckets, because a shift by 32 is not possible. Beyond that, one bucket for one or two points:
        // about one bucket in a hundred then holds more points before the key than a lookup compares at once. Measured:
        // with twice as many buckets the cache misses cost more than this saves.
        let bits = points.len().checked_ilog2().unwrap_or(0).max(1);
        let shift = u32::BITS - bits;
        let bucket_of = |point: &Point| (point.position >> shift) as usize;

        // A counting sort by bucket, whose counts become the index. A bucket's entry is first its number of points,
        // then its end. Placing the points from last to first, which keeps the order of equal points, turns it into its
        // start.
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
            let slot = &mut buckets[bucket_of(point)];
            *slot -= 1;
            sorted[*slot as usize] = *point;
        }
        for bucket in sorted.chunk_by_mut(|a, b| bucket_of(a) == bucket_of(b)) {
            bucket.sort_by_key(|point| point.position);
        }
        if let Some(first) = sorted.first().copied() {
            sorted.resize(sorted.len() + SCAN, Point { position: u32::MAX, node: first.node });
        }

        let (positions, nodes): (Vec<_>, Vec<_>) = sorted.iter().map(|point| (point.position, point.node)).unzip();
        Self { positions: positions.into(), nodes: nodes.into(), buckets: buckets.into(), shift }
    }

    /// Returns the number of points, without the sentinels.
    pub(super) fn len(&self) -> usize {
        self.positions.len().saturating_sub(SCAN)
    }

    /// Returns the node of the first point at or after a position; `None` if there are no points.
    #[inline]
    pub(super) fn owner(&self, position: u32) -> Option<usize> {
        let start = *self.buckets.get((position >> self.shift) as usize)? as usize;
        let positions: &[u32; SCAN] = self.positions.get(start..start + SCAN)?.try_into().ok()?;
        let nodes: &[u16; SCAN] = self.nodes.get(start..start + SCAN)?.try_into().ok()?;
        let before: usize = positions.iter().map(|&point| usize::from(point < position)).sum();
        if before == SCAN {
            return self.owner_by_search(position);
        }
        // The nodes as one number: the processor reads them while it reads the positions, without waiting for `before`.
        let nodes = nodes.iter().rev().fold(0, |nodes, &node| nodes << u16::BITS | u64::from(node));
        Some(usize::from((nodes >> (u16::BITS as usize * before)) as u16))
    }

    /// Returns the [owner](Self::owner) of a position that has [`SCAN`] or more points before it in its bucket.
    #[cold]
    fn owner_by_search(&self, position: u32) -> Option<usize> {
        self.nodes.get(self.first_point_from(position)).map(|&node| usize::from(node))
    }

    /// Returns the owner of a position if the fast path finds it and no point lies at the position itself.
    #[cfg(feature = "placements")]
    #[inline]
    pub(super) fn owner_unless_on_point(&self, position: u32) -> Option<usize> {
        let start = *self.buckets.get((position >> self.shift) as usize)? as usize;
        let positions = self.positions.get(start..start + SCAN)?;
        let next = start + positions.iter().map(|&point| usize::from(point < position)).sum::<usize>();
        let is_clear = next < start + SCAN && self.positions[next] != position;
        is_clear.then(|| usize::from(self.nodes[next]))
    }

    /// Returns the nodes of all points in order, once around from the first point at or after a position.
    pub(super) fn nodes_from(&self, position: u32) -> impl Iterator<Item = usize> {
        let points = &self.nodes[..self.len()];
        let (before, after) = points.split_at(self.first_point_from(position));
        after.iter().chain(before).map(|&node| usize::from(node))
    }

    /// Returns the index of the first point at or after a position, or [`len`](Self::len) if there is none.
    ///
    /// A binary search within the bucket, so it stays fast in the crowded buckets that some clients' hashes produce.
    pub(super) fn first_point_from(&self, position: u32) -> usize {
        let bucket = (position >> self.shift) as usize;
        let bound = |bucket: usize| self.buckets.get(bucket).map_or(self.len(), |&bound| bound as usize);
        let (start, end) = (bound(bucket), bound(bucket + 1));
        start + self.positions[start..end].partition_point(|&point| point < position)
    }

    /// Returns the share of the first `within` positions that each of `nodes` nodes owns.
    ///
    /// Exact if `within` is a power of two: a number up to 2^32 fits in an `f64`, and so does the quotient.
    pub(super) fn shares(&self, within: u64, nodes: usize) -> Vec<f64> {
        let mut positions = vec![0; nodes];
        for (node, len) in self.arcs(within) {
            positions[node] += len;
        }
        positions.into_iter().map(|positions| positions as f64 / within as f64).collect()
    }

    /// Returns the arcs from position 0 on: the owner of each, and how many of the first `within` positions it covers.
    ///
    /// `within` is smaller than the circle for hashes with fewer values. An arc across position 0 comes as two pieces.
    /// An arc that ends at the same position as the one before is empty.
    fn arcs(&self, within: u64) -> impl Iterator<Item = (usize, u64)> {
        let mut start = 0;
        // Includes the first sentinel, which stands for the positions after the last point.
        let ends = self.positions.iter().zip(self.nodes.iter()).take(self.len() + 1);
        ends.map(move |(&position, &node)| {
            let end = within.min(u64::from(position) + 1);
            (usize::from(node), end - std::mem::replace(&mut start, end))
        })
    }

    /// Compares two circles: calls `visit` for every stretch of the first `within` positions with one owner on each.
    ///
    /// `visit` gets the owner here, the owner on the other circle, and the number of positions.
    pub(super) fn for_each_overlap(&self, other: &Self, within: u64, mut visit: impl FnMut(usize, usize, u64)) {
        let (mut our_arcs, mut other_arcs) = (self.arcs(within), other.arcs(within));
        let (mut ours, mut others) = (our_arcs.next(), other_arcs.next());
        while let (Some((our_node, our_len)), Some((other_node, other_len))) = (ours, others) {
            let len = our_len.min(other_len);
            visit(our_node, other_node, len);
            ours = if our_len == len { our_arcs.next() } else { Some((our_node, our_len - len)) };
            others = if other_len == len { other_arcs.next() } else { Some((other_node, other_len - len)) };
        }
    }
}

impl Default for Circle {
    fn default() -> Self {
        Self::new(&[])
    }
}
