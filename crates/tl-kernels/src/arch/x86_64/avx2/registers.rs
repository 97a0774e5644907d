//! Functions that the pieces of AVX2 share, and AVX-512 on half registers: products of bytes, sums, fractions of trits.

use std::arch::asm;
use std::arch::x86_64::*;

/// How [`add_products`] multiplies: in pairs, as every AVX2 machine can.
pub(in crate::arch::x86_64) const PAIRS: u8 = 0;

/// In fours, by `vpdpbusd` as AVX-VNNI encodes it.
pub(in crate::arch::x86_64) const FOURS: u8 = 1;

/// In fours, by `vpdpbusd` as AVX-512 VNNI and VL encode it: for tests on machines that have no other.
#[cfg(test)]
pub(in crate::arch::x86_64) const FOURS_EVEX: u8 = 2;

/// `vpdpbusd` on 256 bits, in the encoding that the prefix asks for.
macro_rules! dot_in_fours {
    ($encoding:literal, $sums:ident, $codes:ident, $acts:ident) => {
        asm!(
            concat!($encoding, " vpdpbusd {sums}, {codes}, {acts}"),
            sums = inout(ymm_reg) $sums,
            codes = in(ymm_reg) $codes,
            acts = in(ymm_reg) $acts,
            options(pure, nomem, nostack, preserves_flags)
        )
    };
}

/// Each byte of a register twice, mod 256, as the instruction `vpaddb`. From an addition that it sees the compiler would
/// make a product, and no vector unit multiplies bytes as fast.
macro_rules! twice {
    ($class:ident, $a:expr) => {{
        let twice;
        // SAFETY: one instruction of the enabled features, on registers only.
        unsafe {
            asm!(
                "vpaddb {twice}, {a}, {a}",
                twice = out($class) twice,
                a = in($class) $a,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        twice
    }};
}
pub(in crate::arch::x86_64) use twice;

/// Adds the products of the unsigned bytes `codes` and the signed bytes `acts` to `sums`: two to each lane of 16 bits,
/// which must neither saturate nor overflow, or four to each lane of 32 bits, by `FORM`.
///
/// # Safety
/// The machine has AVX-VNNI for [`FOURS`], AVX-512 VNNI and VL for `FOURS_EVEX`.
#[target_feature(enable = "avx2")]
#[inline]
pub(in crate::arch::x86_64) unsafe fn add_products<const FORM: u8>(
    mut sums: __m256i,
    codes: __m256i,
    acts: __m256i,
) -> __m256i {
    if FORM == PAIRS {
        return _mm256_add_epi16(sums, _mm256_maddubs_epi16(codes, acts));
    }
    // Written as an instruction, because one generic body cannot be compiled for two sets of features.
    // SAFETY: the instruction works on registers only, and the machine has it.
    unsafe {
        if FORM == FOURS {
            dot_in_fours!("{{vex}}", sums, codes, acts);
        } else {
            dot_in_fours!("{{evex}}", sums, codes, acts);
        }
    }
    sums
}

/// The sums of eight rows, of two sums that [`add_products`] made.
#[target_feature(enable = "avx2")]
#[inline]
pub(in crate::arch::x86_64) fn row_sums<const FORM: u8>([a, b]: [__m256i; 2]) -> __m256i {
    if FORM == PAIRS {
        let ones = _mm256_set1_epi16(1);
        return _mm256_add_epi32(_mm256_madd_epi16(a, ones), _mm256_madd_epi16(b, ones));
    }
    _mm256_add_epi32(a, b)
}

/// `a` by the tree of `dot16`, from eight lanes on.
#[target_feature(enable = "avx2")]
#[inline]
pub(in crate::arch::x86_64) fn reduce8(a: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
}

/// `q - 32` of 6-bit codes: the low four bits of the bytes of `low`, bits 4 and 5 of `high`.
#[target_feature(enable = "avx2")]
#[inline]
pub(in crate::arch::x86_64) fn q6_codes(low: __m256i, high: __m256i) -> __m256i {
    let low = _mm256_and_si256(low, _mm256_set1_epi8(15));
    let high = _mm256_and_si256(high, _mm256_set1_epi8(48));
    _mm256_sub_epi8(_mm256_or_si256(low, high), _mm256_set1_epi8(32))
}

/// The fractions of a TQ1_0 block whose leading trits are the codes, in natural order, 32 per register:
///
/// ```text
/// 0..5  bytes 0..32, times 3^n     5 bytes 32..48, times 1 | 3    6 times 9 | 27    7 times 81 | bytes 48..52
/// ```
#[target_feature(enable = "avx2")]
#[inline]
pub(in crate::arch::x86_64) fn tq1_fractions(packed: &[u8; 52]) -> [__m256i; 8] {
    // SAFETY: the loads read 32 and 16 bytes from 0 and 32 on, of 52.
    let (a, b) = unsafe { (_mm256_loadu_si256(packed.as_ptr().cast()), _mm_loadu_si128(packed[32..].as_ptr().cast())) };
    let c = _mm_cvtsi32_si128(i32::from_le_bytes([packed[48], packed[49], packed[50], packed[51]]));
    let (a1, b1, c1) = (triple32(a), triple16(b), triple16(c));
    let (a2, b2, c2) = (triple32(a1), triple16(b1), triple16(c1));
    let (a3, b3, c3) = (triple32(a2), triple16(b2), triple16(c2));
    let (a4, b4) = (triple32(a3), triple16(b3));
    let last = _mm_unpacklo_epi64(_mm_unpacklo_epi32(c, c1), _mm_unpacklo_epi32(c2, c3));
    [a, a1, a2, a3, a4, _mm256_set_m128i(b1, b), _mm256_set_m128i(b3, b2), _mm256_set_m128i(last, b4)]
}

/// Each byte times 3, mod 256.
#[target_feature(enable = "avx2")]
#[inline]
pub(in crate::arch::x86_64) fn triple32(a: __m256i) -> __m256i {
    _mm256_add_epi8(twice!(ymm_reg, a), a)
}

/// Each byte times 3, mod 256.
#[target_feature(enable = "avx2")]
#[inline]
fn triple16(a: __m128i) -> __m128i {
    _mm_add_epi8(twice!(xmm_reg, a), a)
}

/// The trit before the point of 3 times each fraction: 1 from 86 on, 2 from 171 on.
#[target_feature(enable = "avx2")]
#[inline]
pub(in crate::arch::x86_64) fn leading_trits(fractions: __m256i) -> __m256i {
    let one = _mm256_set1_epi8(1);
    let first = _mm256_min_epu8(_mm256_subs_epu8(fractions, _mm256_set1_epi8(85)), one);
    let second = _mm256_min_epu8(_mm256_subs_epu8(fractions, _mm256_set1_epi8(170u8.cast_signed())), one);
    _mm256_add_epi8(first, second)
}

/// `fma(w_scales[j] * a_scale, (totals[j] - act_sum) as f32, acc[j])` for each j.
#[target_feature(enable = "avx2,fma")]
#[inline]
pub(in crate::arch::x86_64) fn fma_totals(
    acc: __m128,
    totals: __m128i,
    act_sum: i32,
    w_scales: __m128,
    a_scale: f32,
) -> __m128 {
    let ints = _mm_cvtepi32_ps(_mm_sub_epi32(totals, _mm_set1_epi32(act_sum)));
    _mm_fmadd_ps(_mm_mul_ps(w_scales, _mm_set1_ps(a_scale)), ints, acc)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `sums + codes * acts` by the definition of the instruction: u8 times i8, four products to a lane of 32 bits.
    fn model(sums: &[i32; 8], codes: &[u8; 32], acts: &[i8; 32]) -> [i32; 8] {
        std::array::from_fn(|lane| {
            let products = (4 * lane..4 * lane + 4).map(|i| i32::from(codes[i]) * i32::from(acts[i]));
            sums[lane].wrapping_add(products.sum())
        })
    }

    #[target_feature(enable = "avx2")]
    unsafe fn instruction<const FORM: u8>(sums: &[i32; 8], codes: &[u8; 32], acts: &[i8; 32]) -> [i32; 8] {
        let mut out = [0; 8];
        // SAFETY: the loads and the store are of whole arrays; the caller has seen that the machine has the form.
        unsafe {
            let load = |bytes: *const __m256i| _mm256_loadu_si256(bytes);
            let (codes, acts) = (load(codes.as_ptr().cast()), load(acts.as_ptr().cast()));
            let got = add_products::<FORM>(load(sums.as_ptr().cast()), codes, acts);
            _mm256_storeu_si256(out.as_mut_ptr().cast(), got);
        }
        out
    }

    #[test]
    #[allow(clippy::print_stdout, reason = "a missing form must be seen in the test's output")]
    fn products_in_fours_follow_the_model_of_the_instruction() {
        let vex = is_x86_feature_detected!("avxvnni");
        let evex = is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512vl");
        for (form, present) in [("avxvnni, VEX", vex), ("avx512vnni and avx512vl, EVEX", evex)] {
            if !present {
                println!("SKIP vpdpbusd on 256 bits as encoded by {form}");
            }
        }
        for seed in 0..200usize {
            let codes = std::array::from_fn(|i| [0, 255, (i * 37 + seed * 11) as u8, 128][(i + seed) % 4]);
            let acts = std::array::from_fn(|i| [-128, 127, (i * 53 + seed * 7) as u8 as i8, -1][(i / 2 + seed) % 4]);
            let sums = std::array::from_fn(|i| [i32::MAX, i32::MIN, 0, (i * seed) as i32][(i + seed) % 4]);
            let expected = model(&sums, &codes, &acts);
            // SAFETY: detected above.
            unsafe {
                if vex {
                    assert_eq!(instruction::<FOURS>(&sums, &codes, &acts), expected, "VEX {seed}");
                }
                if evex {
                    assert_eq!(instruction::<FOURS_EVEX>(&sums, &codes, &acts), expected, "EVEX {seed}");
                }
            }
        }
    }
}
