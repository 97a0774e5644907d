//! Functions that the pieces of AVX-512 share.

use std::arch::asm;
use std::arch::x86_64::*;

use crate::arch::x86_64::avx2::twice;

/// Each byte times 3, mod 256.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
pub(super) fn triple64(a: __m512i) -> __m512i {
    _mm512_add_epi8(twice!(zmm_reg, a), a)
}
