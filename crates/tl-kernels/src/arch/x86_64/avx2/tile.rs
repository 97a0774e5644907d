//! Tiles by AVX2, with or without AVX-VNNI: a chunk of 32 rows is four registers of eight rows.
//!
//! ```text
//! AVX-VNNI     dpbusd: four products of a dword of codes and a dword of activations, added to a 32-bit lane
//! AVX2 alone   maddubs: a pair of products is at most 2 * 3 * 127 = 762, and the 32 pairs of two fields 24,384: far
//!              from 32,767, so a block needs two 16-bit sums per lane, and damaged codes cannot overflow them
//! ```

use std::arch::x86_64::*;

use ternary_core::BLOCK;

use super::Avx2;
use super::registers::{FOURS, PAIRS, add_products, row_sums};
use crate::simd::{CHUNKS, TILE, TileBlock, TileSimd, TokenBlock};

impl<const VNNI: bool> TileSimd for Avx2<VNNI> {
    #[inline(always)]
    fn tile_block<const T: usize>(self, block: &TileBlock, tokens: &[TokenBlock<'_>; T], acc: &mut [[f32; TILE]; T]) {
        // SAFETY: `self` is the proof that the machine has the instructions these functions are compiled for.
        unsafe {
            match (VNNI, T) {
                (true, 1) => one_token::<FOURS>(block, &tokens[0], &mut acc[0]),
                (true, _) => some_tokens::<FOURS, T>(block, tokens, acc),
                (false, 1) => one_token::<PAIRS>(block, &tokens[0], &mut acc[0]),
                (false, _) => some_tokens::<PAIRS, T>(block, tokens, acc),
            }
        }
    }

    #[inline(always)]
    fn transpose(self, rows: &[[u8; BLOCK / 4]; TILE], codes: &mut [[u8; 4 * TILE]; CHUNKS]) {
        for (g, rows) in rows.as_chunks::<8>().0.iter().enumerate() {
            // SAFETY: as above.
            unsafe { transpose_eight(rows, codes, 32 * g) };
        }
    }
}

/// The fields of the eight rows from `8 g` on, of chunk `c`, as codes 0..=3.
#[target_feature(enable = "avx2")]
#[inline]
fn fields(block: &TileBlock, c: usize, g: usize) -> [__m256i; 4] {
    let three = _mm256_set1_epi8(3);
    let eight: &[u8] = &block.codes[c][32 * g..32 * g + 32];
    // SAFETY: 32 bytes are read from a slice of 32.
    let all = unsafe { _mm256_loadu_si256(eight.as_ptr().cast()) };
    [
        _mm256_and_si256(all, three),
        _mm256_and_si256(_mm256_srli_epi16::<2>(all), three),
        _mm256_and_si256(_mm256_srli_epi16::<4>(all), three),
        _mm256_and_si256(_mm256_srli_epi16::<6>(all), three),
    ]
}

/// Four activations, in every lane; the four `16 f + c` meet field f of chunk c.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn broadcast(codes: &[i8; BLOCK], quad: usize) -> __m256i {
    let quad = &codes.as_chunks::<4>().0[quad];
    _mm256_set1_epi32(i32::from_le_bytes(quad.map(i8::cast_unsigned)))
}

/// `acc = fma(scale * token.scale, (sums - token.sum) as f32, acc)` for the eight rows from `8 g` on.
#[target_feature(enable = "avx2,f16c,fma")]
#[inline]
pub(super) fn finish(scales: &[[u8; 2]; TILE], g: usize, sums: __m256i, token: &TokenBlock<'_>, acc: &mut [f32; TILE]) {
    let acc = &mut acc[8 * g..8 * g + 8];
    let scales = &scales[8 * g..8 * g + 8];
    let ints = _mm256_cvtepi32_ps(_mm256_sub_epi32(sums, _mm256_set1_epi32(token.sum)));
    // SAFETY: 16 and 32 bytes are read from, and written to, slices of that many.
    unsafe {
        let scales = _mm256_cvtph_ps(_mm_loadu_si128(scales.as_ptr().cast()));
        let scales = _mm256_mul_ps(scales, _mm256_set1_ps(token.scale));
        let sum = _mm256_fmadd_ps(scales, ints, _mm256_loadu_ps(acc.as_ptr()));
        _mm256_storeu_ps(acc.as_mut_ptr(), sum);
    }
}

/// One token. A chunk is read whole, so that memory is read in the order of addresses.
///
/// # Safety
/// As for [`add_products`].
#[target_feature(enable = "avx2,f16c,fma")]
#[inline]
unsafe fn one_token<const FORM: u8>(block: &TileBlock, token: &TokenBlock<'_>, acc: &mut [f32; TILE]) {
    let mut sums = [[_mm256_setzero_si256(); 2]; 4];
    for c in 0..CHUNKS {
        for g in 0..4 {
            let fields = fields(block, c, g);
            for f in 0..4 {
                let acts = broadcast(token.codes, 16 * f + c);
                // SAFETY: as the caller promises.
                sums[g][f / 2] = unsafe { add_products::<FORM>(sums[g][f / 2], fields[f], acts) };
            }
        }
    }
    for g in 0..4 {
        finish(&block.scales, g, row_sums::<FORM>(sums[g]), token, acc);
    }
}

/// Several tokens share unpacked codes: 4 x 2 sums and 4 fields leave four of sixteen registers.
///
/// # Safety
/// As for [`add_products`].
#[target_feature(enable = "avx2,f16c,fma")]
#[inline]
unsafe fn some_tokens<const FORM: u8, const T: usize>(
    block: &TileBlock,
    tokens: &[TokenBlock<'_>; T],
    acc: &mut [[f32; TILE]; T],
) {
    for g in 0..4 {
        let mut sums = [[_mm256_setzero_si256(); 2]; T];
        for c in 0..CHUNKS {
            let fields = fields(block, c, g);
            for j in 0..T {
                for f in 0..4 {
                    let acts = broadcast(tokens[j].codes, 16 * f + c);
                    // SAFETY: as the caller promises.
                    sums[j][f / 2] = unsafe { add_products::<FORM>(sums[j][f / 2], fields[f], acts) };
                }
            }
        }
        for j in 0..T {
            finish(&block.scales, g, row_sums::<FORM>(sums[j]), &tokens[j], &mut acc[j]);
        }
    }
}

/// Eight rows of sixteen dwords, transposed to byte `at` of each chunk.
#[target_feature(enable = "avx2")]
#[inline]
fn transpose_eight(rows: &[[u8; BLOCK / 4]; 8], codes: &mut [[u8; 4 * TILE]; CHUNKS], at: usize) {
    for (half, codes) in codes.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let mut x = [_mm256_setzero_si256(); 8];
        for (x, row) in x.iter_mut().zip(rows) {
            let row: &[u8] = &row[32 * half..32 * half + 32];
            // SAFETY: 32 bytes are read from a slice of 32.
            *x = unsafe { _mm256_loadu_si256(row.as_ptr().cast()) };
        }
        let mut pairs = x;
        for i in 0..4 {
            pairs[2 * i] = _mm256_unpacklo_epi32(x[2 * i], x[2 * i + 1]);
            pairs[2 * i + 1] = _mm256_unpackhi_epi32(x[2 * i], x[2 * i + 1]);
        }
        // quads[4 i + k]: in half h, dword 4 h + k of the rows 4 i .. 4 i + 4.
        let mut quads = pairs;
        for i in 0..2 {
            quads[4 * i] = _mm256_unpacklo_epi64(pairs[4 * i], pairs[4 * i + 2]);
            quads[4 * i + 1] = _mm256_unpackhi_epi64(pairs[4 * i], pairs[4 * i + 2]);
            quads[4 * i + 2] = _mm256_unpacklo_epi64(pairs[4 * i + 1], pairs[4 * i + 3]);
            quads[4 * i + 3] = _mm256_unpackhi_epi64(pairs[4 * i + 1], pairs[4 * i + 3]);
        }
        for k in 0..4 {
            x[k] = _mm256_permute2x128_si256::<0x20>(quads[k], quads[4 + k]);
            x[4 + k] = _mm256_permute2x128_si256::<0x31>(quads[k], quads[4 + k]);
        }
        for (x, chunk) in x.iter().zip(codes) {
            let eight = &mut chunk[at..at + 32];
            // SAFETY: 32 bytes are written to a slice of 32.
            unsafe { _mm256_storeu_si256(eight.as_mut_ptr().cast(), *x) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::instruction_set::InstructionSet;
    use crate::arch::x86_64::avx2::registers::FOURS_EVEX;
    use crate::simd::portable_block;

    /// The body of AVX-VNNI by the other encoding of its instruction, which more machines have.
    #[test]
    #[allow(clippy::print_stdout, reason = "a missing form must be seen in the test's output")]
    fn tiles_by_products_in_fours_equal_the_definition() {
        let evex = is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512vl");
        if Avx2::<false>::detect().is_none() || !evex {
            println!("SKIP tiles of avxvnni: no avx512vnni and avx512vl to try them with");
            return;
        }
        for seed in 0..20usize {
            let codes = std::array::from_fn(|c| std::array::from_fn(|i| (i * 37 + c * 11 + i * c + seed) as u8));
            let scales = std::array::from_fn(|r| half::f16::from_f32(0.5 + (r * seed) as f32 / 64.0).to_le_bytes());
            let block = TileBlock { codes, scales };
            let acts: [[i8; BLOCK]; 4] = std::array::from_fn(|j| {
                std::array::from_fn(|i| if seed == 0 { 127 } else { (i * 89 + j * 7 + seed) as u8 as i8 }.max(-127))
            });
            let tokens = acts.each_ref().map(|codes| TokenBlock { codes, sum: 9, scale: 0.25 });
            let mut expected = [[0.5; TILE]; 4];
            portable_block(&block, &tokens, &mut expected);
            let (mut one, mut four) = ([0.5; TILE], [[0.5; TILE]; 4]);
            // SAFETY: detected above.
            unsafe {
                one_token::<FOURS_EVEX>(&block, &tokens[0], &mut one);
                some_tokens::<FOURS_EVEX, 4>(&block, &tokens, &mut four);
            }
            assert_eq!((one, four), (expected[0], expected));
        }
    }
}
