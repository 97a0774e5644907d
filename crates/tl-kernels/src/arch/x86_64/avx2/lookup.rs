//! The lookup operations with AVX2: 64 rows are two registers, `vpshufb` looks up 32 of them.

use std::arch::x86_64::*;

use super::Avx2;
use crate::arch::methods::vector_methods;
use crate::simd::{GROUP_ROWS, Lookup};

/// Sums of the even and of the odd rows, of the first and of the second register.
type Halves = [[__m256i; 2]; 2];

impl<const VNNI: bool> Lookup for Avx2<VNNI> {
    type Table = __m256i;
    type Wide = Halves;

    vector_methods! {
        fn load_table(self, entries: &[i8; 16]) -> __m256i {
            _mm256_broadcastsi128_si256(_mm_loadu_si128(entries.as_ptr().cast()))
        }
        fn low_nibbles(self, a: [__m256i; 2]) -> [__m256i; 2] {
            let mask = _mm256_set1_epi8(15);
            [_mm256_and_si256(a[0], mask), _mm256_and_si256(a[1], mask)]
        }
        fn high_nibbles(self, a: [__m256i; 2]) -> [__m256i; 2] {
            let mask = _mm256_set1_epi8(15);
            let (first, second) = (_mm256_srli_epi16::<4>(a[0]), _mm256_srli_epi16::<4>(a[1]));
            [_mm256_and_si256(first, mask), _mm256_and_si256(second, mask)]
        }
        fn look_up(self, table: __m256i, index: [__m256i; 2]) -> [__m256i; 2] {
            [_mm256_shuffle_epi8(table, index[0]), _mm256_shuffle_epi8(table, index[1])]
        }
        fn add_rows(self, a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
            [_mm256_add_epi8(a[0], b[0]), _mm256_add_epi8(a[1], b[1])]
        }
        fn negate_rows(self, a: [__m256i; 2], signs: [__m256i; 2]) -> [__m256i; 2] {
            // vpsignb would make 0 of a value whose sign byte is 0.
            let one = _mm256_set1_epi8(1);
            let (first, second) = (_mm256_or_si256(signs[0], one), _mm256_or_si256(signs[1], one));
            [_mm256_sign_epi8(a[0], first), _mm256_sign_epi8(a[1], second)]
        }
        fn double_rows(self, a: [__m256i; 2]) -> [__m256i; 2] {
            [_mm256_add_epi8(a[0], a[0]), _mm256_add_epi8(a[1], a[1])]
        }
        fn zero_wide(self) -> Halves {
            [[_mm256_setzero_si256(); 2]; 2]
        }
        fn widen_add(self, sums: Halves, a: [__m256i; 2]) -> Halves {
            [widen(sums[0], a[0]), widen(sums[1], a[1])]
        }
        fn combine(self, hi: Halves, lo: Halves, factor: i16) -> [i16; GROUP_ROWS] {
            let mut out = [0; GROUP_ROWS];
            let factor = _mm256_set1_epi16(factor);
            for ((hi, lo), out) in hi.iter().zip(&lo).zip(out.as_chunks_mut::<32>().0) {
                let even = _mm256_add_epi16(_mm256_mullo_epi16(hi[0], factor), lo[0]);
                let odd = _mm256_add_epi16(_mm256_mullo_epi16(hi[1], factor), lo[1]);
                // Rows 0..8 | 16..24, and 8..16 | 24..32.
                let (a, b) = (_mm256_unpacklo_epi16(even, odd), _mm256_unpackhi_epi16(even, odd));
                let (first, second) = out.split_at_mut(16);
                _mm256_storeu_si256(first.as_mut_ptr().cast(), _mm256_permute2x128_si256::<0x20>(a, b));
                _mm256_storeu_si256(second.as_mut_ptr().cast(), _mm256_permute2x128_si256::<0x31>(a, b));
            }
            out
        }
    }
}

/// `[even + even bytes of a, odd + odd bytes of a]`
#[target_feature(enable = "avx2")]
#[inline]
fn widen([even, odd]: [__m256i; 2], a: __m256i) -> [__m256i; 2] {
    let even_bytes = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(a));
    [_mm256_add_epi16(even, even_bytes), _mm256_add_epi16(odd, _mm256_srai_epi16::<8>(a))]
}
