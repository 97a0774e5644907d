//! Sizes that all vector code shares, and the orders in which ternary codes stand.

use ternary_core::BLOCK;

/// Floats per vector group: the lanes of `dot16`.
pub(crate) const LANES: usize = 16;

/// Rows that are multiplied side by side, so that one [`Simd::Quad`](super::Simd::Quad) holds their sums.
pub(crate) const QUAD_ROWS: usize = 4;

/// The elements of a block in the order in which the 2-bit fields of a TQ2_0 block come out of 64 bytes.
#[inline(always)]
pub(crate) fn field_order<T: Copy>(natural: &[T; BLOCK]) -> [T; BLOCK] {
    let mut ordered = *natural;
    for n in 0..4 {
        for h in 0..2 {
            ordered[64 * n + 32 * h..][..32].copy_from_slice(&natural[128 * h + 32 * n..][..32]);
        }
    }
    ordered
}

/// The codes of the 52 packed bytes of a TQ1_0 block, in natural order.
#[inline(always)]
pub(crate) fn tq1_codes(packed: &[u8; 52]) -> [u8; BLOCK] {
    let mut codes = [0; BLOCK];
    let (five_by_32, rest) = codes.split_at_mut(160);
    let (five_by_16, four_by_4) = rest.split_at_mut(80);
    spread_trits::<32>(&packed[..32], five_by_32);
    spread_trits::<16>(&packed[32..48], five_by_16);
    spread_trits::<4>(&packed[48..], four_by_4);
    codes
}

/// Writes trit n of each of the `W` bytes to the n-th run of `W` codes, the most significant trit first.
#[inline(always)]
fn spread_trits<const W: usize>(bytes: &[u8], codes: &mut [u8]) {
    let mut fractions = [0u8; W];
    fractions.copy_from_slice(bytes);
    for trits in codes.as_chunks_mut::<W>().0 {
        for (out, fraction) in trits.iter_mut().zip(&mut fractions) {
            // The code is (3 * fraction) >> 8; the rest is the next fraction.
            *out = u8::from(*fraction > 85) + u8::from(*fraction > 170);
            *fraction = fraction.wrapping_mul(3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_order_is_a_permutation() {
        let mut natural = [0u8; BLOCK];
        natural.iter_mut().enumerate().for_each(|(i, v)| *v = i as u8);
        let ordered = field_order(&natural);
        assert_eq!(ordered[64 + 32 + 5], 128 + 32 + 5);
        let mut seen = ordered;
        seen.sort_unstable();
        assert_eq!(seen, natural);
    }
}
