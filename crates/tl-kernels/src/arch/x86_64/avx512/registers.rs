//! What the pieces of AVX-512 share.

use std::arch::asm;
use std::arch::x86_64::*;

/// Each byte times 3, mod 256; see `triple32` for the instruction.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
pub(super) fn triple64(a: __m512i) -> __m512i {
    let twice: __m512i;
    // SAFETY: one instruction of the enabled features, on registers only.
    unsafe {
        asm!(
            "vpaddb {twice}, {a}, {a}",
            twice = out(zmm_reg) twice,
            a = in(zmm_reg) a,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    _mm512_add_epi8(twice, a)
}
