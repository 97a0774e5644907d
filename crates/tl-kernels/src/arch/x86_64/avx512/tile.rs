//! Tiles by AVX-512: a chunk of 32 rows is two registers of sixteen rows.
//!
//! ```text
//! VNNI        dpbusd: four products of a dword of codes and a dword of activations, added to a 32-bit lane
//! BW alone    maddubs: pairs of products in 16-bit lanes, widened once per block
//! ```

use std::arch::x86_64::*;

use ternary_core::BLOCK;

use super::Avx512;
use crate::simd::{CHUNKS, TILE, TileBlock, TileSimd, TileTokens, TokenBlock};

impl<const VNNI: bool> TileSimd for Avx512<VNNI> {
    const TOKENS: TileTokens = if VNNI { TileTokens::Eight } else { TileTokens::Four };

    #[inline(always)]
    fn tile_block<const T: usize>(self, block: &TileBlock, tokens: &[TokenBlock<'_>; T], acc: &mut [[f32; TILE]; T]) {
        // SAFETY: `self` is the proof that the machine has the instructions these functions are compiled for.
        unsafe {
            match (VNNI, T) {
                (true, 1..=3) => few_tokens_vnni(block, tokens, acc),
                (true, _) => tokens_vnni(block, tokens, acc),
                (false, _) => tokens_bw(block, tokens, acc),
            }
        }
    }

    #[inline(always)]
    fn transpose(self, rows: &[[u8; BLOCK / 4]; TILE], codes: &mut [[u8; 4 * TILE]; CHUNKS]) {
        // SAFETY: as above.
        unsafe {
            transpose_half(&rows[..16], codes, 0);
            transpose_half(&rows[16..], codes, 64);
        }
    }
}

/// Four codes of each of sixteen rows, of half `h` of chunk `c`.
#[target_feature(enable = "avx512f")]
#[inline]
fn load(block: &TileBlock, c: usize, h: usize) -> __m512i {
    let half: &[u8] = &block.codes[c][64 * h..64 * h + 64];
    // SAFETY: 64 bytes are read from a slice of 64.
    unsafe { _mm512_loadu_si512(half.as_ptr().cast()) }
}

/// Four activations, in every lane; the four `16 f + c` meet field f of chunk c.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn broadcast(codes: &[i8; BLOCK], quad: usize) -> __m512i {
    let quad = &codes.as_chunks::<4>().0[quad];
    _mm512_set1_epi32(i32::from_le_bytes(quad.map(i8::cast_unsigned)))
}

/// `acc = fma(scale * token.scale, (sums - token.sum) as f32, acc)` for the sixteen rows of half `h`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,f16c,fma")]
#[inline]
pub(super) fn finish(scales: &[[u8; 2]; TILE], h: usize, sums: __m512i, token: &TokenBlock<'_>, acc: &mut [f32; TILE]) {
    let acc = &mut acc[16 * h..16 * h + 16];
    let scales = &scales[16 * h..16 * h + 16];
    let ints = _mm512_cvtepi32_ps(_mm512_sub_epi32(sums, _mm512_set1_epi32(token.sum)));
    // SAFETY: 32 and 64 bytes are read from, and written to, slices of that many.
    unsafe {
        let scales = _mm512_cvtph_ps(_mm256_loadu_si256(scales.as_ptr().cast()));
        let scales = _mm512_mul_ps(scales, _mm512_set1_ps(token.scale));
        let sum = _mm512_fmadd_ps(scales, ints, _mm512_loadu_ps(acc.as_ptr()));
        _mm512_storeu_ps(acc.as_mut_ptr(), sum);
    }
}

/// At most three tokens: the fields stay where they are in their bytes, so four sums have the factors 1, 4, 16 and 64 and
/// no code is shifted. Eight sums per token keep additions from waiting for each other. 64 products of a code (at most
/// 3 x 64) and an activation keep a sum below 1.6 million, exactly.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,f16c,fma")]
#[inline]
fn few_tokens_vnni<const T: usize>(block: &TileBlock, tokens: &[TokenBlock<'_>; T], acc: &mut [[f32; TILE]; T]) {
    let masks = [0x03, 0x0c, 0x30, 0xc0u8].map(|m| i32::from_le_bytes([m; 4]));
    let masks = [
        _mm512_set1_epi32(masks[0]),
        _mm512_set1_epi32(masks[1]),
        _mm512_set1_epi32(masks[2]),
        _mm512_set1_epi32(masks[3]),
    ];
    let mut sums = [[[_mm512_setzero_si512(); 4]; 2]; T];
    for c in 0..CHUNKS {
        let halves = [load(block, c, 0), load(block, c, 1)];
        for f in 0..4 {
            let codes = [_mm512_and_si512(halves[0], masks[f]), _mm512_and_si512(halves[1], masks[f])];
            for j in 0..T {
                let acts = broadcast(tokens[j].codes, 16 * f + c);
                sums[j][0][f] = _mm512_dpbusd_epi32(sums[j][0][f], codes[0], acts);
                sums[j][1][f] = _mm512_dpbusd_epi32(sums[j][1][f], codes[1], acts);
            }
        }
    }
    for j in 0..T {
        for h in 0..2 {
            let [by_1, by_4, by_16, by_64] = sums[j][h];
            let low = _mm512_add_epi32(by_1, _mm512_srai_epi32::<2>(by_4));
            let high = _mm512_add_epi32(_mm512_srai_epi32::<4>(by_16), _mm512_srai_epi32::<6>(by_64));
            finish(&block.scales, h, _mm512_add_epi32(low, high), &tokens[j], &mut acc[j]);
        }
    }
}

/// The fields of half `h` of chunk `c`, as codes 0..=3.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn fields(block: &TileBlock, c: usize, h: usize) -> [__m512i; 4] {
    let three = _mm512_set1_epi8(3);
    let all = load(block, c, h);
    [
        _mm512_and_si512(all, three),
        _mm512_and_si512(_mm512_srli_epi16::<2>(all), three),
        _mm512_and_si512(_mm512_srli_epi16::<4>(all), three),
        _mm512_and_si512(_mm512_srli_epi16::<6>(all), three),
    ]
}

/// Several tokens share unpacked codes; 8 x 2 sums and 2 x 4 fields leave registers to spare.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,f16c,fma")]
#[inline]
fn tokens_vnni<const T: usize>(block: &TileBlock, tokens: &[TokenBlock<'_>; T], acc: &mut [[f32; TILE]; T]) {
    let mut sums = [[_mm512_setzero_si512(); 2]; T];
    for c in 0..CHUNKS {
        let (low, high) = (fields(block, c, 0), fields(block, c, 1));
        for j in 0..T {
            for f in 0..4 {
                let acts = broadcast(tokens[j].codes, 16 * f + c);
                sums[j][0] = _mm512_dpbusd_epi32(sums[j][0], low[f], acts);
                sums[j][1] = _mm512_dpbusd_epi32(sums[j][1], high[f], acts);
            }
        }
    }
    for j in 0..T {
        finish(&block.scales, 0, sums[j][0], &tokens[j], &mut acc[j]);
        finish(&block.scales, 1, sums[j][1], &tokens[j], &mut acc[j]);
    }
}

/// The same by 16-bit sums: a pair of products is at most 2 * 3 * 127 = 762, and the 32 pairs of two fields 24,384, so
/// a block needs two sums per lane, and damaged codes cannot overflow them.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,f16c,fma")]
#[inline]
fn tokens_bw<const T: usize>(block: &TileBlock, tokens: &[TokenBlock<'_>; T], acc: &mut [[f32; TILE]; T]) {
    let ones = _mm512_set1_epi16(1);
    for h in 0..2 {
        let mut sums = [[_mm512_setzero_si512(); 2]; T];
        for c in 0..CHUNKS {
            let fields = fields(block, c, h);
            for j in 0..T {
                for f in 0..4 {
                    let pairs = _mm512_maddubs_epi16(fields[f], broadcast(tokens[j].codes, 16 * f + c));
                    sums[j][f / 2] = _mm512_add_epi16(sums[j][f / 2], pairs);
                }
            }
        }
        for j in 0..T {
            let [low, high] = sums[j];
            let total = _mm512_add_epi32(_mm512_madd_epi16(low, ones), _mm512_madd_epi16(high, ones));
            finish(&block.scales, h, total, &tokens[j], &mut acc[j]);
        }
    }
}

/// Sixteen rows of sixteen dwords, transposed to byte `at` of each chunk.
#[target_feature(enable = "avx512f")]
#[inline]
fn transpose_half(rows: &[[u8; BLOCK / 4]], codes: &mut [[u8; 4 * TILE]; CHUNKS], at: usize) {
    let mut x = [_mm512_setzero_si512(); 16];
    for (x, row) in x.iter_mut().zip(rows) {
        // SAFETY: a row has the 64 bytes that are read.
        *x = unsafe { _mm512_loadu_si512(row.as_ptr().cast()) };
    }
    let mut pairs = x;
    for i in 0..8 {
        pairs[2 * i] = _mm512_unpacklo_epi32(x[2 * i], x[2 * i + 1]);
        pairs[2 * i + 1] = _mm512_unpackhi_epi32(x[2 * i], x[2 * i + 1]);
    }
    // quads[4 i + k]: in quarter q, dword 4 q + k of the rows 4 i .. 4 i + 4.
    let mut quads = pairs;
    for i in 0..4 {
        quads[4 * i] = _mm512_unpacklo_epi64(pairs[4 * i], pairs[4 * i + 2]);
        quads[4 * i + 1] = _mm512_unpackhi_epi64(pairs[4 * i], pairs[4 * i + 2]);
        quads[4 * i + 2] = _mm512_unpacklo_epi64(pairs[4 * i + 1], pairs[4 * i + 3]);
        quads[4 * i + 3] = _mm512_unpackhi_epi64(pairs[4 * i + 1], pairs[4 * i + 3]);
    }
    for k in 0..4 {
        let (a, b) = (quads[k], quads[4 + k]);
        let (c, d) = (quads[8 + k], quads[12 + k]);
        let (ab_even, ab_odd) = (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xdd>(a, b));
        let (cd_even, cd_odd) = (_mm512_shuffle_i32x4::<0x88>(c, d), _mm512_shuffle_i32x4::<0xdd>(c, d));
        x[k] = _mm512_shuffle_i32x4::<0x88>(ab_even, cd_even);
        x[4 + k] = _mm512_shuffle_i32x4::<0x88>(ab_odd, cd_odd);
        x[8 + k] = _mm512_shuffle_i32x4::<0xdd>(ab_even, cd_even);
        x[12 + k] = _mm512_shuffle_i32x4::<0xdd>(ab_odd, cd_odd);
    }
    for (x, chunk) in x.iter().zip(codes) {
        let half = &mut chunk[at..at + 64];
        // SAFETY: 64 bytes are written to a slice of 64.
        unsafe { _mm512_storeu_si512(half.as_mut_ptr().cast(), *x) };
    }
}
