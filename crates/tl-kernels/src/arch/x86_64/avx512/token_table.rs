//! Token tables by AVX-512 BW: an entry is one register of 32 tokens, and the tables of four bytes are 20 KiB.

use std::arch::x86_64::*;

use ternary_core::BLOCK;

use super::Avx512;
use crate::arch::x86_64::avx2::{Places, by_token, eight_columns};
use crate::simd::{BlockColumn, CHUNKS, COMBINATIONS, TILE, TableSimd, portable_sums};

/// Tokens of a register.
const TOKENS: usize = 32;

/// Bytes of a block's row whose tables are in use at the same time: a chunk.
const BYTES: usize = 4;

/// Bytes of an entry and of a table.
const ENTRY_BYTES: usize = 2 * TOKENS;
const TABLE_BYTES: usize = COMBINATIONS * ENTRY_BYTES;

impl<const VNNI: bool> TableSimd for Avx512<VNNI> {
    const TABLE_TOKENS: usize = if VNNI { 0 } else { TOKENS };

    #[inline(always)]
    fn table_sums<const T: usize>(
        self,
        tokens: &[&[i8; BLOCK]; T],
        column: BlockColumn<'_>,
        tables: &mut [[i16; T]],
        sums: &mut [[[i16; T]; TILE]],
    ) -> bool {
        if T != TOKENS {
            return portable_sums(tokens, column, tables, sums);
        }
        let (tables, sums) = (tables.as_flattened_mut(), sums.as_flattened_mut().as_flattened_mut());
        // SAFETY: `self` is the proof that the machine has the instructions this function is compiled for.
        unsafe { sums_of_32(tokens, column, tables, sums) }
    }

    #[inline(always)]
    fn by_token<const T: usize>(self, acc: &[[f32; T]; TILE], out: &mut [[f32; TILE]; T]) {
        // SAFETY: as above.
        unsafe { by_token(acc, out) };
    }
}

/// [`TableSimd::table_sums`] for 32 tokens.
///
/// # Panics
/// If `tokens` are not 32 or `tables` or `sums` too short.
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
fn sums_of_32(tokens: &[&[i8; BLOCK]], column: BlockColumn<'_>, tables: &mut [i16], sums: &mut [i16]) -> bool {
    let [low, high] = tokens.as_chunks().0 else { panic!("32 tokens") };
    let sums = sums.as_chunks_mut::<TOKENS>().0.as_chunks_mut::<TILE>().0;
    let (tables, _) = tables.as_chunks_mut::<TOKENS>();
    let mut damage = _mm512_setzero_si512();
    for pair in 0..CHUNKS / 2 {
        // columns[f][k]: activation 64 f + 8 pair + k of all tokens.
        let mut columns = [[_mm256_setzero_si256(); 2 * BYTES]; 4];
        for (f, columns) in columns.iter_mut().enumerate() {
            let first = 64 * f + 2 * BYTES * pair;
            let halves = eight_columns(low, first).into_iter().zip(eight_columns(high, first));
            for (column, (low, high)) in columns.iter_mut().zip(halves) {
                *column = _mm256_set_m128i(high, low);
            }
        }
        for half in 0..2 {
            for (byte, table) in tables.chunks_exact_mut(COMBINATIONS).take(BYTES).enumerate() {
                let k = BYTES * half + byte;
                let [a, b, c, d] = [columns[0][k], columns[1][k], columns[2][k], columns[3][k]];
                fill_table(
                    [
                        _mm512_cvtepi8_epi16(a),
                        _mm512_cvtepi8_epi16(b),
                        _mm512_cvtepi8_epi16(c),
                        _mm512_cvtepi8_epi16(d),
                    ],
                    table.first_chunk_mut().expect("a whole table"),
                );
            }
            let c = 2 * pair + half;
            for (block, sums) in column.blocks().zip(&mut *sums) {
                let chunk = &block.codes[c];
                for line in 2..5 {
                    _mm_prefetch::<_MM_HINT_T1>(chunk.as_ptr().cast::<i8>().wrapping_add(64 * line));
                }
                let new =
                    if c == 0 { look_up::<true>(chunk, tables, sums) } else { look_up::<false>(chunk, tables, sums) };
                damage = _mm512_or_si512(damage, new);
            }
        }
    }
    _mm512_movepi8_mask(damage) == 0
}

/// Entry `c_0 + 3 c_1 + 9 c_2 + 27 c_3` becomes the sum of `(c_f - 1) * fields[f]`.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn fill_table(fields: [__m512i; 4], table: &mut [[i16; TOKENS]; COMBINATIONS]) {
    let [a, b, c, d] = fields;
    let all = _mm512_add_epi16(_mm512_add_epi16(a, b), _mm512_add_epi16(c, d));
    let mut by_d = _mm512_sub_epi16(_mm512_setzero_si512(), all);
    for nines in table.as_chunks_mut::<27>().0 {
        let mut by_c = by_d;
        for threes in nines.as_chunks_mut::<9>().0 {
            let mut by_b = by_c;
            for ones in threes.as_chunks_mut::<3>().0 {
                let mut by_a = by_b;
                for entry in ones {
                    // SAFETY: 64 bytes are written to an array of 64.
                    unsafe { _mm512_storeu_si512(entry.as_mut_ptr().cast(), by_a) };
                    by_a = _mm512_add_epi16(by_a, a);
                }
                by_b = _mm512_add_epi16(by_b, b);
            }
            by_c = _mm512_add_epi16(by_c, c);
        }
        by_d = _mm512_add_epi16(by_d, d);
    }
}

/// Adds the entries for a chunk of a tile to the sums of its rows, which start from 0 if `FIRST`. Returns bytes of
/// which one has its highest bit set if a code is 3.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn look_up<const FIRST: bool>(
    chunk: &[u8; 4 * TILE],
    tables: &[[i16; TOKENS]],
    sums: &mut [[i16; TOKENS]; TILE],
) -> __m512i {
    // One bound for all loads below: three tables and as many entries as a byte can count.
    assert!(tables.len() >= (BYTES - 1) * COMBINATIONS + 256, "room for the places of damaged bytes");
    let tables = tables.as_ptr().cast::<u8>();
    let mut places = Places::NONE;
    let mut damage = _mm512_setzero_si512();
    let parts = places.even.as_chunks_mut::<16>().0.iter_mut().zip(places.odd.as_chunks_mut::<16>().0);
    for (bytes, (even, odd)) in chunk.as_chunks::<64>().0.iter().zip(parts) {
        // SAFETY: 64 bytes are read from an array of 64.
        let index = combinations(unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) });
        damage = _mm512_or_si512(damage, index);
        // At most 255 * 64, whatever the codes.
        let evens = _mm512_maddubs_epi16(index, _mm512_set1_epi16(ENTRY_BYTES as i16));
        let odds = _mm512_maddubs_epi16(index, _mm512_set1_epi16((ENTRY_BYTES as i16) << 8));
        // SAFETY: 64 bytes are written to arrays of 64.
        unsafe {
            _mm512_storeu_si512(even.as_mut_ptr().cast(), evens);
            _mm512_storeu_si512(odd.as_mut_ptr().cast(), odds);
        }
    }
    // Four rows at a time, because one row is so little work that the loop's own instructions would slow it down.
    for (i, sums) in sums.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        for (j, sum) in sums.iter_mut().enumerate() {
            let (even, odd) = (places.even[4 * i + j], places.odd[4 * i + j]);
            let mut total = if FIRST {
                _mm512_setzero_si512()
            } else {
                // SAFETY: 64 bytes are read from an array of 64.
                unsafe { _mm512_loadu_si512(sum.as_ptr().cast()) }
            };
            for (k, place) in [(0, even & 0xffff), (2, even >> 16), (1, odd & 0xffff), (3, odd >> 16)] {
                // SAFETY: k is less than four and the place at most 255 * 64, so by the assertion above the 64 bytes of
                // the entry lie inside `tables`.
                let entry = unsafe { _mm512_loadu_si512(tables.add(k * TABLE_BYTES + place as usize).cast()) };
                total = _mm512_add_epi16(total, entry);
            }
            // SAFETY: 64 bytes are written to an array of 64.
            unsafe { _mm512_storeu_si512(sum.as_mut_ptr().cast(), total) };
        }
    }
    damage
}

/// The combination that each byte is, 0..=80; 128 or more where one of its codes is 3.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn combinations(bytes: __m512i) -> __m512i {
    const X: i8 = i8::MIN;
    let (low, high) = (
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 2, X, 3, 4, 5, X, 6, 7, 8, X, X, X, X, X)),
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 9, 18, X, 27, 36, 45, X, 54, 63, 72, X, X, X, X, X)),
    );
    let mask = _mm512_set1_epi8(0x0f);
    let low = _mm512_shuffle_epi8(low, _mm512_and_si512(bytes, mask));
    let high = _mm512_shuffle_epi8(high, _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), mask));
    // Two halves with a code 3 stay at 255.
    _mm512_adds_epu8(low, high)
}
