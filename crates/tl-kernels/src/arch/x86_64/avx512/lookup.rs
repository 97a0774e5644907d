//! The lookup operations with AVX-512BW: 64 rows are one register. `vpermb` of VBMI would look up no more rows than
//! `vpshufb` does, because a table has 16 entries.

use std::arch::x86_64::*;

use super::Avx512;
use crate::arch::methods::vector_methods;
use crate::simd::{GROUP_ROWS, Lookup};

impl<const VNNI: bool> Lookup for Avx512<VNNI> {
    type Table = __m512i;
    /// Sums of the even and of the odd rows.
    type Wide = [__m512i; 2];

    vector_methods! {
        fn load_table(self, entries: &[i8; 16]) -> __m512i {
            _mm512_broadcast_i32x4(_mm_loadu_si128(entries.as_ptr().cast()))
        }
        fn low_nibbles(self, a: __m512i) -> __m512i {
            _mm512_and_si512(a, _mm512_set1_epi8(15))
        }
        fn high_nibbles(self, a: __m512i) -> __m512i {
            _mm512_and_si512(_mm512_srli_epi16::<4>(a), _mm512_set1_epi8(15))
        }
        fn look_up(self, table: __m512i, index: __m512i) -> __m512i {
            _mm512_shuffle_epi8(table, index)
        }
        fn add_rows(self, a: __m512i, b: __m512i) -> __m512i {
            _mm512_add_epi8(a, b)
        }
        fn negate_rows(self, a: __m512i, signs: __m512i) -> __m512i {
            _mm512_mask_sub_epi8(a, _mm512_movepi8_mask(signs), _mm512_setzero_si512(), a)
        }
        fn double_rows(self, a: __m512i) -> __m512i {
            _mm512_add_epi8(a, a)
        }
        fn zero_wide(self) -> [__m512i; 2] {
            [_mm512_setzero_si512(); 2]
        }
        fn widen_add(self, sums: [__m512i; 2], a: __m512i) -> [__m512i; 2] {
            let even_bytes = _mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(a));
            [_mm512_add_epi16(sums[0], even_bytes), _mm512_add_epi16(sums[1], _mm512_srai_epi16::<8>(a))]
        }
        fn combine(self, hi: [__m512i; 2], lo: [__m512i; 2], factor: i16) -> [i16; GROUP_ROWS] {
            let factor = _mm512_set1_epi16(factor);
            let even = _mm512_add_epi16(_mm512_mullo_epi16(hi[0], factor), lo[0]);
            let odd = _mm512_add_epi16(_mm512_mullo_epi16(hi[1], factor), lo[1]);
            // Rows 16 l .. 16 l + 8, and the eight after them, for each quarter l.
            let (a, b) = (_mm512_unpacklo_epi16(even, odd), _mm512_unpackhi_epi16(even, odd));
            let first_half = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
            let second_half = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
            let mut out = [0; GROUP_ROWS];
            let (first, second) = out.split_at_mut(32);
            _mm512_storeu_si512(first.as_mut_ptr().cast(), _mm512_permutex2var_epi64(a, first_half, b));
            _mm512_storeu_si512(second.as_mut_ptr().cast(), _mm512_permutex2var_epi64(a, second_half, b));
            out
        }
    }
}
