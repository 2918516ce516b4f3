//! The points and the hash of memring's own placement: the numbers of the contract in the documentation of `Ring`.

use xxhash_rust::xxh3::xxh3_64;

/// The number of points a node has per unit of weight.
///
/// Chosen once, by the load of the fullest node over the mean (exact shares of the circle; medians over 200 sets of pod
/// names, `cargo bench --bench ring_balance`). At 10 and 100 nodes this load is 1.13 and 1.20 with 160 points, 1.10 and
/// 1.16 with 256, 1.08 and 1.12 with 400, and 1.07 and 1.11 with 512. The bucket index makes a lookup cost nearly the
/// same with all of them, so the price is time to build, 15 to 40 ns a point, and memory, 8 to 10 bytes a point.
pub(super) const POINTS_PER_WEIGHT: u32 = 512;

/// Returns the position of a key or of a point's name on the circle.
#[inline]
pub(super) fn position(bytes: &[u8]) -> u32 {
    (xxh3_64(bytes) >> 32) as u32
}

/// Returns the points of a node in the order of their index.
///
/// The index is appended to the label, not used as the seed of XXH3. XXH3 only xors an input of up to three bytes with
/// a sum that contains the seed, so labels that differ in one bit have the same points at adjacent indices: `mc0`
/// and `mc1` would share 510 of 512 points, and one of the two would own almost nothing. For long labels both ways are
/// equally good.
pub(super) fn points(label: &str, weight: u32) -> impl Iterator<Item = u32> + use<> {
    let label_len = label.len();
    let mut input = [label.as_bytes(), &[0; 4]].concat();
    (0..weight * POINTS_PER_WEIGHT).map(move |index| {
        input[label_len..].copy_from_slice(&index.to_le_bytes());
        position(&input)
    })
}
