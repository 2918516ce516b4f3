//! SpookyHash V2 by Bob Jenkins, in the public domain: burtleburtle.net/bob/hash/spooky.html.

use super::Joined;

/// The length from which on the long form of the hash is used.
const LONG: usize = 192;
const BLOCK: usize = 96;
/// Fills the state where neither the seed nor the input does: `sc_const` of the original.
const FILLER: u64 = 0xdead_beef_dead_beef;

/// `Hash32` of SpookyHash V2: the lower half of the first of its two numbers. Both numbers have the same seed.
pub(in crate::ring) fn spooky(bytes: Joined<'_>, seed: u32) -> u32 {
    let seed = u64::from(seed);
    (if bytes.len() < LONG { short(bytes, seed) } else { long(bytes, seed) }) as u32
}

fn short(bytes: Joined<'_>, seed: u64) -> u64 {
    let mut state = [seed, seed, FILLER, FILLER];
    let (mut at, len) = (0, bytes.len());
    while len - at >= 16 {
        state[2] = state[2].wrapping_add(bytes.word(at));
        state[3] = state[3].wrapping_add(bytes.word(at + 8));
        mix(&mut state);
        at += 16;
        if len - at >= 16 {
            state[0] = state[0].wrapping_add(bytes.word(at));
            state[1] = state[1].wrapping_add(bytes.word(at + 8));
            at += 16;
        }
    }
    state[3] = state[3].wrapping_add((len as u64) << 56);
    let (c, d) = if at == len { (FILLER, FILLER) } else { (bytes.word(at), bytes.word(at + 8)) };
    state[2] = state[2].wrapping_add(c);
    state[3] = state[3].wrapping_add(d);
    // Each number in turn absorbs the one before it.
    for (turn, rotation) in [15, 52, 26, 51, 28, 9, 47, 54, 32, 25, 63].into_iter().enumerate() {
        let (to, from) = ((turn + 3) % 4, (turn + 2) % 4);
        state[to] ^= state[from];
        state[from] = state[from].rotate_left(rotation);
        state[to] = state[to].wrapping_add(state[from]);
    }
    state[0]
}

fn mix(state: &mut [u64; 4]) {
    for (turn, rotation) in [50, 52, 30, 41, 54, 48, 38, 37, 62, 34, 5, 36].into_iter().enumerate() {
        let (this, next, after) = ((turn + 2) % 4, (turn + 3) % 4, turn % 4);
        state[this] = state[this].rotate_left(rotation).wrapping_add(state[next]);
        state[after] ^= state[this];
    }
}

fn long(bytes: Joined<'_>, seed: u64) -> u64 {
    const MIX: [u32; 12] = [11, 32, 43, 31, 17, 28, 39, 57, 55, 54, 22, 46];
    const END: [u32; 12] = [44, 15, 34, 21, 38, 33, 10, 13, 38, 53, 42, 54];
    let mut state = [seed, seed, FILLER, seed, seed, FILLER, seed, seed, FILLER, seed, seed, FILLER];
    let whole = bytes.len() / BLOCK * BLOCK;
    for block in (0..whole).step_by(BLOCK) {
        for (at, rotation) in MIX.into_iter().enumerate() {
            state[at] = state[at].wrapping_add(bytes.word(block + 8 * at));
            state[(at + 2) % 12] ^= state[(at + 10) % 12];
            state[(at + 11) % 12] ^= state[at];
            state[at] = state[at].rotate_left(rotation);
            state[(at + 11) % 12] = state[(at + 11) % 12].wrapping_add(state[(at + 1) % 12]);
        }
    }
    // The rest of the input, padded with zeros, with its length in the last byte.
    for (at, number) in state.iter_mut().enumerate() {
        *number = number.wrapping_add(bytes.word(whole + 8 * at));
    }
    state[11] = state[11].wrapping_add(((bytes.len() - whole) as u64) << 56);
    for (turn, rotation) in END.into_iter().cycle().take(3 * 12).enumerate() {
        let (last, next, after) = ((turn + 11) % 12, (turn + 1) % 12, (turn + 2) % 12);
        state[last] = state[last].wrapping_add(state[next]);
        state[after] ^= state[last];
        state[next] = state[next].rotate_left(rotation);
    }
    state[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values from SpookyHash's own test: the bytes 128, 129, … in each length from 0 to 511, with seed 0.
    #[test]
    fn hashes_match_the_values_of_the_original() {
        let bytes: Vec<u8> = (0..512_u32).map(|at| (at + 128) as u8).collect();
        for (len, value) in [
            (0, 0x6bf5_0919),
            (1, 0x70de_1d26),
            (2, 0xa2b3_7298),
            (3, 0x35bc_5fbf),
            (15, 0x83ec_01f9),
            (16, 0xf274_736c),
            (17, 0x7e9a_c0df),
            (31, 0x027b_ca7c),
            (32, 0xe5cf_c8b6),
            (33, 0xce01_d9d7),
            (63, 0x09c1_afb4),
            (64, 0x069c_8bb7),
            (189, 0x0394_c3b2),
            (190, 0x11ef_bbae),
            (191, 0xe13d_9e19),
            (192, 0x77e0_12bd),
            (193, 0x2d05_114c),
            (255, 0x2f40_ee0b),
            (256, 0x38ce_bf03),
            (287, 0xc22c_642d),
            (288, 0x4788_0140),
            (289, 0xfbff_3bec),
            (511, 0xcc1c_8250),
        ] {
            assert_eq!(spooky(Joined::from(&bytes[..len]), 0), value, "{len} bytes");
            // Two pieces hash like one.
            for cut in [0, len / 3, len.saturating_sub(2), len] {
                assert_eq!(spooky(Joined(&bytes[..cut], &bytes[cut..len]), 0), value, "{len} bytes, cut at {cut}");
            }
        }
    }
}
