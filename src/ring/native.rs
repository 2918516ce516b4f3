//! The points and the hash of memring's own placement: the part of the contract with numbers in it.

use xxhash_rust::xxh3::xxh3_64;

/// The points of a node, per unit of weight.
///
/// Chosen once, by the load of the fullest node over the mean (exact shares of the circle; medians over 200 sets of pod
/// names, `cargo bench --bench ring_balance`): at 10 and 100 nodes 1.13 and 1.20 with 160 points, 1.10 and 1.16 with
/// 256, 1.08 and 1.12 with 400, 1.07 and 1.11 with 512. The bucket index makes a look-up cost nearly the same with all
/// of them, so the price is time to build, 15 to 40 ns a point, and memory, 8 to 10 bytes a point.
pub(super) const POINTS_PER_WEIGHT: u32 = 512;

/// Where bytes lie on the circle.
#[inline]
pub(super) fn position(bytes: &[u8]) -> u32 {
    (xxh3_64(bytes) >> 32) as u32
}

/// The points of a node, in the order of their index.
///
/// The index is appended to the label rather than given as XXH3's seed. Of inputs up to three bytes long XXH3 only xors
/// the input with a sum that holds the seed, so that labels which differ in a bit have the same points at neighbouring
/// indices: `mc0` and `mc1` would share 510 of 512, and one of the two own nearly nothing. For long names both are
/// equally good.
pub(super) fn points(label: &str, weight: u32) -> impl Iterator<Item = u32> + use<> {
    let at = label.len();
    let mut input = [label.as_bytes(), &[0; 4]].concat();
    (0..weight * POINTS_PER_WEIGHT).map(move |index| {
        input[at..].copy_from_slice(&index.to_le_bytes());
        position(&input)
    })
}
