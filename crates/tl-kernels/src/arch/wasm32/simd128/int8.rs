//! The INT8 operations with WASM SIMD128: the 64 quads of a group are sixteen vectors of four rows.

use std::arch::wasm32::*;

use super::Simd128;
use super::registers::{dot_four, splat_quad, store, vector};
use crate::simd::{BLOCK_QUADS, Group, Int8, ROWS, Vector};

/// Vectors of sums at a time: half a group, so that they and their operands fit sixteen registers.
const WIDTH: usize = ROWS / 8;

impl Int8 for Simd128 {
    #[inline(always)]
    fn dots_i8<const V: usize>(self, x: [Vector<'_>; V], span: &[Group<[i8; 4]>], sums: &mut [[i32; ROWS]; V]) {
        for (x, sums) in x.iter().zip(sums) {
            for half in 0..2 {
                let mut acc = [i32x4_splat(0); WIDTH];
                for (x, group) in x.quads.iter().zip(span) {
                    add_quad(&mut acc, *x, group, half);
                }
                store_half(&acc, sums, half);
            }
        }
    }
    #[inline(always)]
    fn turn(self, block: &[Group<[i8; 4]>; BLOCK_QUADS], out: &mut [Group<[i8; 4]>; BLOCK_QUADS]) {
        for (q, quads) in block.iter().enumerate() {
            for (quads, out) in quads.0.as_chunks::<4>().0.iter().zip(out.iter_mut()) {
                // Four rows of four columns become four columns of four rows.
                let w = vector(quads);
                let rows = i8x16_shuffle::<0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15>(w, w);
                store(rows, &mut out.0.as_chunks_mut::<4>().0[q]);
            }
        }
    }
    #[inline(always)]
    fn quad_sums<const V: usize, const P: usize>(
        self,
        codes: [[&[[u8; 4]]; P]; V],
        quads: &[Group<[i8; 4]>; BLOCK_QUADS],
        sums: &mut [[i32; ROWS]; V],
    ) {
        for (codes, sums) in codes.iter().zip(sums) {
            for half in 0..2 {
                let mut acc = [i32x4_splat(0); WIDTH];
                for (p, codes) in codes.iter().enumerate() {
                    for (code, group) in codes.iter().zip(quads) {
                        add_quad(&mut acc, code.map(u8::cast_signed), group, half);
                    }
                    if p == 0 {
                        acc = acc.map(|acc| i32x4_shl(acc, 7));
                    }
                }
                store_half(&acc, sums, half);
            }
        }
    }
}

/// Adds the product of the quad x with that of each row of a half.
#[inline(always)]
fn add_quad(acc: &mut [v128; WIDTH], x: [i8; 4], group: &Group<[i8; 4]>, half: usize) {
    let x = splat_quad(x);
    for (acc, quads) in acc.iter_mut().zip(&group.0.as_chunks().0[WIDTH * half..]) {
        *acc = dot_four(*acc, quads, x);
    }
}

#[inline(always)]
fn store_half(acc: &[v128; WIDTH], sums: &mut [i32; ROWS], half: usize) {
    for (acc, sums) in acc.iter().zip(&mut sums.as_chunks_mut::<4>().0[WIDTH * half..]) {
        store(*acc, sums);
    }
}
