//! The INT8 operations with NEON: the 64 quads of a group are sixteen registers of four rows.
//!
//! Four products are added to a 32-bit lane by `sdot`, or in 16-bit lanes first: see `dot_four`.

use std::arch::aarch64::*;

use super::Neon;
use super::registers::{dot_four, splat_quad};
use crate::simd::{BLOCK_QUADS, Group, Int8, ROWS, Vector};

/// Registers of a group.
const WIDTH: usize = ROWS / 4;

/// Rows 4 k .. 4 k + 4 at k.
type Sums = [int32x4_t; WIDTH];

impl<const DOTPROD: bool> Int8 for Neon<DOTPROD> {
    #[inline(always)]
    fn dots_i8<const V: usize>(self, x: [Vector<'_>; V], span: &[Group<[i8; 4]>], sums: &mut [[i32; ROWS]; V]) {
        for (x, sums) in x.iter().zip(sums) {
            let mut acc = zero(self);
            for (x, group) in x.quads.iter().zip(span) {
                add_quad(self, &mut acc, *x, group);
            }
            store(self, &acc, sums);
        }
    }
    #[inline(always)]
    fn turn(self, block: &[Group<[i8; 4]>; BLOCK_QUADS], out: &mut [Group<[i8; 4]>; BLOCK_QUADS]) {
        // SAFETY: `self` is the proof that the machine has the instructions.
        unsafe { turn(block, out) }
    }
    #[inline(always)]
    fn quad_sums<const V: usize, const P: usize>(
        self,
        codes: [[&[[u8; 4]]; P]; V],
        quads: &[Group<[i8; 4]>; BLOCK_QUADS],
        sums: &mut [[i32; ROWS]; V],
    ) {
        for (codes, sums) in codes.iter().zip(sums) {
            let mut acc = zero(self);
            for (p, codes) in codes.iter().enumerate() {
                for (code, group) in codes.iter().zip(quads) {
                    add_quad(self, &mut acc, code.map(u8::cast_signed), group);
                }
                if p == 0 {
                    count_128_times(self, &mut acc);
                }
            }
            store(self, &acc, sums);
        }
    }
}

#[inline(always)]
fn zero<const DOTPROD: bool>(_level: Neon<DOTPROD>) -> Sums {
    // SAFETY: the level is the proof that the machine has the instructions.
    unsafe { [vdupq_n_s32(0); WIDTH] }
}

/// Adds the product of the quad x, in -127..=127, with that of each row.
#[inline(always)]
fn add_quad<const DOTPROD: bool>(level: Neon<DOTPROD>, acc: &mut Sums, x: [i8; 4], group: &Group<[i8; 4]>) {
    // SAFETY: the level is the proof that the machine has the instructions.
    let x = unsafe { splat_quad(x) };
    for (acc, quads) in acc.iter_mut().zip(group.0.as_chunks().0) {
        *acc = dot_four(level, *acc, quads, x);
    }
}

#[inline(always)]
fn count_128_times<const DOTPROD: bool>(_level: Neon<DOTPROD>, acc: &mut Sums) {
    for acc in acc {
        // SAFETY: the level is the proof that the machine has the instructions.
        *acc = unsafe { vshlq_n_s32::<7>(*acc) };
    }
}

#[inline(always)]
fn store<const DOTPROD: bool>(_level: Neon<DOTPROD>, acc: &Sums, sums: &mut [i32; ROWS]) {
    for (acc, sums) in acc.iter().zip(sums.as_chunks_mut::<4>().0) {
        // SAFETY: the level is the proof that the machine has the instructions; the store writes the four sums.
        unsafe { vst1q_s32(sums.as_mut_ptr(), *acc) };
    }
}

#[target_feature(enable = "neon")]
#[inline]
fn turn(block: &[Group<[i8; 4]>; BLOCK_QUADS], out: &mut [Group<[i8; 4]>; BLOCK_QUADS]) {
    // Four rows of four columns become four columns of four rows.
    let square = [0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15u8];
    // SAFETY: the load reads the sixteen bytes of the array.
    let square = unsafe { vld1q_u8(square.as_ptr()) };
    for (q, quads) in block.iter().enumerate() {
        for (quads, out) in quads.0.as_chunks::<4>().0.iter().zip(out.iter_mut()) {
            // SAFETY: the load reads four quads, the store writes four.
            unsafe {
                let rows = vqtbl1q_s8(vld1q_s8(quads.as_ptr().cast()), square);
                vst1q_s8(out.0.as_chunks_mut::<4>().0[q].as_mut_ptr().cast(), rows);
            }
        }
    }
}
