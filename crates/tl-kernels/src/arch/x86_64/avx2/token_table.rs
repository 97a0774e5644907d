//! Token tables by AVX2: an entry is one register of sixteen tokens, and the tables of eight bytes are 20 KiB.
//!
//! ```text
//! bytes of 8 rows --two shuffles by half bytes--> combinations --one multiplication--> places of entries in a table
//!     even bytes | row 0: byte 0, byte 2 | row 1 | ..      one scalar load has two places
//!     odd bytes  | row 0: byte 1, byte 3 | row 1 | ..
//! ```

use std::arch::x86_64::*;

use ternary_core::BLOCK;

use super::Avx2;
use crate::simd::{BlockColumn, CHUNKS, COMBINATIONS, TILE, TableSimd, portable_sums};

/// Tokens of a register.
const TOKENS: usize = 16;

/// Bytes of a block's row whose tables are in use at the same time: two chunks.
const BYTES: usize = 8;

/// Bytes of an entry and of a table.
const ENTRY_BYTES: usize = 2 * TOKENS;
const TABLE_BYTES: usize = COMBINATIONS * ENTRY_BYTES;

/// Lines of a tile from one pair of chunks to the end of the next one, with a line of scales between two blocks.
const LINES_AHEAD: std::ops::Range<usize> = 4..9;

/// Byte offsets of the entries for a chunk in their tables, two of 16 bits in each number.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(in crate::arch::x86_64) struct Places {
    /// Of bytes 0 and 2 of each row.
    pub(in crate::arch::x86_64) even: [u32; TILE],
    /// Of bytes 1 and 3 of each row.
    pub(in crate::arch::x86_64) odd: [u32; TILE],
}

impl Places {
    /// All entries at the start of their tables.
    pub(in crate::arch::x86_64) const NONE: Places = Places { even: [0; TILE], odd: [0; TILE] };
}

impl<const VNNI: bool> TableSimd for Avx2<VNNI> {
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
        unsafe { sums_of_sixteen(tokens, column, tables, sums) }
    }

    #[inline(always)]
    fn by_token<const T: usize>(self, acc: &[[f32; T]; TILE], out: &mut [[f32; TILE]; T]) {
        // SAFETY: as above.
        unsafe { by_token(acc, out) };
    }
}

/// [`TableSimd::table_sums`] for sixteen tokens.
///
/// # Panics
/// If `tokens` are not sixteen or `tables` or `sums` too short.
#[target_feature(enable = "avx2")]
fn sums_of_sixteen(tokens: &[&[i8; BLOCK]], column: BlockColumn<'_>, tables: &mut [i16], sums: &mut [i16]) -> bool {
    let tokens: &[&[i8; BLOCK]; TOKENS] = tokens.first_chunk().expect("sixteen tokens");
    let sums = sums.as_chunks_mut::<TOKENS>().0.as_chunks_mut::<TILE>().0;
    let (tables, _) = tables.as_chunks_mut::<TOKENS>();
    let mut damage = _mm256_setzero_si256();
    for pair in 0..CHUNKS / 2 {
        make_tables(tokens, BYTES * pair, tables);
        for (block, sums) in column.blocks().zip(&mut *sums) {
            let chunks = &block.codes.as_chunks::<2>().0[pair];
            for line in LINES_AHEAD {
                _mm_prefetch::<_MM_HINT_T1>(chunks.as_ptr().cast::<i8>().wrapping_add(64 * line));
            }
            let new =
                if pair == 0 { look_up::<true>(chunks, tables, sums) } else { look_up::<false>(chunks, tables, sums) };
            damage = _mm256_or_si256(damage, new);
        }
    }
    _mm256_movemask_epi8(damage) == 0
}

/// The tables of the eight bytes from `first` on.
#[target_feature(enable = "avx2")]
#[inline]
fn make_tables(tokens: &[&[i8; BLOCK]; TOKENS], first: usize, tables: &mut [[i16; TOKENS]]) {
    let columns = [0, 1, 2, 3].map(|f| 64 * f + first);
    let columns = [
        eight_columns(tokens, columns[0]),
        eight_columns(tokens, columns[1]),
        eight_columns(tokens, columns[2]),
        eight_columns(tokens, columns[3]),
    ];
    for (byte, table) in tables.chunks_exact_mut(COMBINATIONS).take(BYTES).enumerate() {
        let [a, b, c, d] = [columns[0][byte], columns[1][byte], columns[2][byte], columns[3][byte]];
        fill_table(
            [_mm256_cvtepi8_epi16(a), _mm256_cvtepi8_epi16(b), _mm256_cvtepi8_epi16(c), _mm256_cvtepi8_epi16(d)],
            table.first_chunk_mut().expect("a whole table"),
        );
    }
}

/// Activations `first .. first + 8` of sixteen tokens, one register for each of the eight.
#[target_feature(enable = "avx2")]
#[inline]
pub(in crate::arch::x86_64) fn eight_columns(tokens: &[&[i8; BLOCK]; TOKENS], first: usize) -> [__m128i; 8] {
    let mut x = [_mm_setzero_si128(); TOKENS];
    for (x, codes) in x.iter_mut().zip(tokens) {
        let eight = codes.as_chunks::<8>().0[first / 8];
        *x = _mm_cvtsi64_si128(i64::from_le_bytes(eight.map(i8::cast_unsigned)));
    }
    // Tokens that are 8, 4, 2 and 1 apart become neighbours, in this order: then all ascend.
    let mut y = [_mm_setzero_si128(); 8];
    for t in 0..8 {
        y[t] = _mm_unpacklo_epi8(x[t], x[t + 8]);
    }
    // y[m t + k]: of the tokens t, t + m, t + 2 m, .., part k of the activations.
    for m in [4, 2, 1] {
        let mut z = y;
        let parts = 4 / m;
        for t in 0..m {
            for k in 0..parts {
                let (a, b) = (y[parts * t + k], y[parts * (t + m) + k]);
                z[2 * parts * t + 2 * k] = _mm_unpacklo_epi8(a, b);
                z[2 * parts * t + 2 * k + 1] = _mm_unpackhi_epi8(a, b);
            }
        }
        y = z;
    }
    y
}

/// Entry `c_0 + 3 c_1 + 9 c_2 + 27 c_3` becomes the sum of `(c_f - 1) * fields[f]`.
#[target_feature(enable = "avx2")]
#[inline]
fn fill_table(fields: [__m256i; 4], table: &mut [[i16; TOKENS]; COMBINATIONS]) {
    let [a, b, c, d] = fields;
    let all = _mm256_add_epi16(_mm256_add_epi16(a, b), _mm256_add_epi16(c, d));
    let mut by_d = _mm256_sub_epi16(_mm256_setzero_si256(), all);
    for nines in table.as_chunks_mut::<27>().0 {
        let mut by_c = by_d;
        for threes in nines.as_chunks_mut::<9>().0 {
            let mut by_b = by_c;
            for ones in threes.as_chunks_mut::<3>().0 {
                let mut by_a = by_b;
                for entry in ones {
                    // SAFETY: 32 bytes are written to an array of 32.
                    unsafe { _mm256_storeu_si256(entry.as_mut_ptr().cast(), by_a) };
                    by_a = _mm256_add_epi16(by_a, a);
                }
                by_b = _mm256_add_epi16(by_b, b);
            }
            by_c = _mm256_add_epi16(by_c, c);
        }
        by_d = _mm256_add_epi16(by_d, d);
    }
}

/// Adds the entries for two chunks of a tile to the sums of its rows, which start from 0 if `FIRST`. Returns bytes
/// of which one has its highest bit set if a code is 3.
#[target_feature(enable = "avx2")]
#[inline]
fn look_up<const FIRST: bool>(
    chunks: &[[u8; 4 * TILE]; 2],
    tables: &[[i16; TOKENS]],
    sums: &mut [[i16; TOKENS]; TILE],
) -> __m256i {
    // One bound for all loads below: seven tables and as many entries as a byte can count.
    assert!(tables.len() >= (BYTES - 1) * COMBINATIONS + 256, "room for the places of damaged bytes");
    let tables = tables.as_ptr().cast::<u8>();
    let mut places = [Places::NONE; 2];
    let mut damage = _mm256_setzero_si256();
    for (chunk, Places { even, odd }) in chunks.iter().zip(&mut places) {
        let parts = even.as_chunks_mut::<8>().0.iter_mut().zip(odd.as_chunks_mut::<8>().0);
        for (bytes, (even, odd)) in chunk.as_chunks::<32>().0.iter().zip(parts) {
            // SAFETY: 32 bytes are read from an array of 32.
            let index = combinations(unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) });
            damage = _mm256_or_si256(damage, index);
            // At most 255 * 32, whatever the codes.
            let evens = _mm256_maddubs_epi16(index, _mm256_set1_epi16(ENTRY_BYTES as i16));
            let odds = _mm256_maddubs_epi16(index, _mm256_set1_epi16((ENTRY_BYTES as i16) << 8));
            // SAFETY: 32 bytes are written to arrays of 32.
            unsafe {
                _mm256_storeu_si256(even.as_mut_ptr().cast(), evens);
                _mm256_storeu_si256(odd.as_mut_ptr().cast(), odds);
            }
        }
    }
    for (r, sum) in sums.iter_mut().enumerate() {
        let mut total = if FIRST {
            _mm256_setzero_si256()
        } else {
            // SAFETY: 32 bytes are read from an array of 32.
            unsafe { _mm256_loadu_si256(sum.as_ptr().cast()) }
        };
        for (half, places) in places.iter().enumerate() {
            let (even, odd) = (places.even[r], places.odd[r]);
            for (k, place) in [(0, even & 0xffff), (2, even >> 16), (1, odd & 0xffff), (3, odd >> 16)] {
                let entry = (4 * half + k) * TABLE_BYTES + place as usize;
                // SAFETY: 4 * half + k is less than eight and the place at most 255 * 32, so by the assertion above
                // the 32 bytes of the entry lie inside `tables`.
                let entry = unsafe { _mm256_loadu_si256(tables.add(entry).cast()) };
                total = _mm256_add_epi16(total, entry);
            }
        }
        // SAFETY: 32 bytes are written to an array of 32.
        unsafe { _mm256_storeu_si256(sum.as_mut_ptr().cast(), total) };
    }
    damage
}

/// The combination that each byte is, 0..=80; 128 or more where one of its codes is 3.
#[target_feature(enable = "avx2")]
#[inline]
fn combinations(bytes: __m256i) -> __m256i {
    const X: i8 = i8::MIN;
    let (low, high) = (
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 2, X, 3, 4, 5, X, 6, 7, 8, X, X, X, X, X)),
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 9, 18, X, 27, 36, 45, X, 54, 63, 72, X, X, X, X, X)),
    );
    let mask = _mm256_set1_epi8(0x0f);
    let low = _mm256_shuffle_epi8(low, _mm256_and_si256(bytes, mask));
    let high = _mm256_shuffle_epi8(high, _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), mask));
    // Two halves with a code 3 stay at 255.
    _mm256_adds_epu8(low, high)
}

/// [`TableSimd::by_token`], eight rows and eight tokens at a time.
#[target_feature(enable = "avx2")]
#[inline]
pub(in crate::arch::x86_64) fn by_token<const T: usize>(acc: &[[f32; T]; TILE], out: &mut [[f32; TILE]; T]) {
    for (i, rows) in acc.as_chunks::<8>().0.iter().enumerate() {
        for (j, tokens) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let mut x = [_mm256_setzero_ps(); 8];
            for (x, row) in x.iter_mut().zip(rows) {
                // SAFETY: 32 bytes are read from an array of 32.
                *x = unsafe { _mm256_loadu_ps(row.as_chunks::<8>().0[j].as_ptr()) };
            }
            for (x, token) in transposed(x).into_iter().zip(tokens) {
                // SAFETY: 32 bytes are written to an array of 32.
                unsafe { _mm256_storeu_ps(token.as_chunks_mut::<8>().0[i].as_mut_ptr(), x) };
            }
        }
    }
}

/// Lane j of register i becomes lane i of register j.
#[target_feature(enable = "avx2")]
#[inline]
fn transposed(x: [__m256; 8]) -> [__m256; 8] {
    let mut pairs = x;
    for i in 0..4 {
        pairs[2 * i] = _mm256_unpacklo_ps(x[2 * i], x[2 * i + 1]);
        pairs[2 * i + 1] = _mm256_unpackhi_ps(x[2 * i], x[2 * i + 1]);
    }
    // quads[4 i + k]: in half h, lane 4 h + k of the registers 4 i .. 4 i + 4.
    let mut quads = pairs;
    for i in 0..2 {
        quads[4 * i] = _mm256_shuffle_ps::<0x44>(pairs[4 * i], pairs[4 * i + 2]);
        quads[4 * i + 1] = _mm256_shuffle_ps::<0xee>(pairs[4 * i], pairs[4 * i + 2]);
        quads[4 * i + 2] = _mm256_shuffle_ps::<0x44>(pairs[4 * i + 1], pairs[4 * i + 3]);
        quads[4 * i + 3] = _mm256_shuffle_ps::<0xee>(pairs[4 * i + 1], pairs[4 * i + 3]);
    }
    let mut out = quads;
    for k in 0..4 {
        out[k] = _mm256_permute2f128_ps::<0x20>(quads[k], quads[4 + k]);
        out[4 + k] = _mm256_permute2f128_ps::<0x31>(quads[k], quads[4 + k]);
    }
    out
}
