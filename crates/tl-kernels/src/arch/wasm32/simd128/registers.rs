//! Functions that the pieces of SIMD128 share: loads, stores and products of bytes.

use std::arch::wasm32::*;

/// The sixteen bytes of an array.
#[inline(always)]
pub(super) fn vector<T: bytemuck::Pod, const N: usize>(x: &[T; N]) -> v128 {
    const { assert!(size_of::<T>() * N == 16, "a vector has sixteen bytes") };
    // SAFETY: the load reads the sixteen bytes of `x`, at any address.
    unsafe { v128_load(x.as_ptr().cast()) }
}

/// Writes the sixteen bytes of an array.
#[inline(always)]
pub(super) fn store<T: bytemuck::Pod, const N: usize>(a: v128, x: &mut [T; N]) {
    const { assert!(size_of::<T>() * N == 16, "a vector has sixteen bytes") };
    // SAFETY: the store writes the sixteen bytes of `x`, at any address.
    unsafe { v128_store(x.as_mut_ptr().cast(), a) };
}

/// Values 0 and 1 of the quad in every pair of 16-bit lanes, then values 2 and 3.
#[inline(always)]
pub(super) fn splat_quad(x: [i8; 4]) -> [v128; 2] {
    let x = i16x8_extend_low_i8x16(i32x4_splat(i32::from_le_bytes(x.map(i8::cast_unsigned))));
    [i32x4_shuffle::<0, 0, 0, 0>(x, x), i32x4_shuffle::<1, 1, 1, 1>(x, x)]
}

/// `acc[r] + w[r][0] x[0] + .. + w[r][3] x[3]`, for a quad x as [`splat_quad`] gives it. Products and their sums are taken
/// in 32 bits.
#[inline(always)]
pub(super) fn dot_four(acc: v128, w: &[[i8; 4]; 4], x: [v128; 2]) -> v128 {
    let w = vector(w);
    // Columns 0 and 1 of the four rows, then columns 2 and 3. Where many x meet a w, the compiler does this once for all.
    let w = i8x16_shuffle::<0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15>(w, w);
    let acc = i32x4_add(acc, i32x4_dot_i16x8(i16x8_extend_low_i8x16(w), x[0]));
    i32x4_add(acc, i32x4_dot_i16x8(i16x8_extend_high_i8x16(w), x[1]))
}
