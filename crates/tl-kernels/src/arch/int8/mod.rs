//! What attention over INT8 rows needs of a vector unit. The portable forms are here and define the others.
//!
//! **Invariant:** sums are exact: no intermediate result leaves its type for any input of the stated range, so every
//! level gives the same integers.

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "vector instructions, behind tokens that prove support")]
mod avx2;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "vector instructions, behind tokens that prove support")]
mod avx512;

#[cfg(target_arch = "aarch64")]
#[allow(unsafe_code, reason = "vector instructions, behind tokens that prove support")]
mod neon;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm;

use crate::int8::{BLOCK_QUADS, Group, ROWS, Vector};

/// Products of INT8 rows, all values in -127..=127.
pub trait Int8: Copy {
    /// `sums[j][r] = sum of x[j].quads[q][c] * tile[q].0[r][c]` over all q and c: one quad of each vector per group.
    #[inline(always)]
    fn dots_i8<const V: usize>(self, x: [Vector<'_>; V], tile: &[Group<[i8; 4]>], sums: &mut [[i32; ROWS]; V]) {
        for (x, sums) in x.iter().zip(sums) {
            *sums = [0; ROWS];
            for (x, group) in x.quads.iter().zip(tile) {
                for (sum, row) in sums.iter_mut().zip(&group.0) {
                    for c in 0..4 {
                        *sum += i32::from(x[c]) * i32::from(row[c]);
                    }
                }
            }
        }
    }

    /// Turns quads of columns into quads of rows: `out[r].0[4 * q + c][k] = block[q].0[4 * r + k][c]`.
    #[inline(always)]
    fn turn(self, block: &[Group<[i8; 4]>; BLOCK_QUADS], out: &mut [Group<[i8; 4]>; BLOCK_QUADS]) {
        for (r, out) in out.iter_mut().enumerate() {
            for (i, out) in out.0.iter_mut().enumerate() {
                for (k, out) in out.iter_mut().enumerate() {
                    *out = block[i / 4].0[4 * r + k][i % 4];
                }
            }
        }
    }

    /// `sums[j][i] = sum of codes[j][0][q][k] * quads[q].0[i][k]` over all q and k. With two halves of codes the first
    /// counts 128 times, and the second is added. Half codes are at most 127; all slices have one length, at most
    /// [`BLOCK_QUADS`].
    #[inline(always)]
    fn quad_sums<const V: usize, const P: usize>(
        self,
        codes: [[&[[u8; 4]]; P]; V],
        quads: &[Group<[i8; 4]>; BLOCK_QUADS],
        sums: &mut [[i32; ROWS]; V],
    ) {
        for (codes, sums) in codes.iter().zip(sums) {
            *sums = [0; ROWS];
            // The first half alone is the high one as well.
            for (codes, factor) in codes.iter().zip([128, 1]) {
                for (code, quad) in codes.iter().zip(quads) {
                    for (sum, quad) in sums.iter_mut().zip(&quad.0) {
                        for k in 0..4 {
                            *sum += factor * i32::from(code[k]) * i32::from(quad[k]);
                        }
                    }
                }
            }
        }
    }

    /// `high[j] = codes[j] / 128` and `low[j] = codes[j] % 128`, byte by byte; codes are integers in 0..=16,383.
    #[inline(always)]
    fn halve_codes(self, codes: &[f32; ROWS], high: &mut [[u8; 4]; ROWS / 4], low: &mut [[u8; 4]; ROWS / 4]) {
        let halves = high.as_flattened_mut().iter_mut().zip(low.as_flattened_mut());
        for ((high, low), &code) in halves.zip(codes) {
            let code = code as i32;
            (*high, *low) = ((code >> 7) as u8, (code & 127) as u8);
        }
    }
}

impl Int8 for super::Scalar {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::vector::{Kernel, Simd};

    /// Values between -127 and 127, with both extremes in long runs.
    fn values(n: usize, seed: usize) -> Vec<i8> {
        (0..n)
            .map(|i| match (i / 96 + seed) % 4 {
                0 => 127,
                1 => -127,
                _ => ((i * 37 + i / 7 + 11 * seed) % 255) as i32 as u8 as i8,
            })
            .map(|v: i8| v.max(-127))
            .collect()
    }

    fn groups(n: usize, seed: usize) -> Vec<Group<[i8; 4]>> {
        let values = values(n * 4 * ROWS, seed);
        let quads = values.as_chunks::<4>().0.as_chunks::<ROWS>().0;
        quads.iter().map(|&quads| Group(quads)).collect()
    }

    struct Each {
        quads: usize,
        row_quads: usize,
    }

    impl Kernel for Each {
        type Output = (Vec<i32>, Vec<[i8; 4]>, Vec<u8>);
        const INTEGER: bool = true;

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Self::Output {
            let x: Vec<Vec<i8>> = (0..3).map(|v| values(4 * self.quads, v)).collect();
            let vectors: [Vector<'_>; 3] = std::array::from_fn(|v| Vector::of(x[v].as_chunks().0));
            let (mut sums, mut one) = ([[0; ROWS]; 3], [[0; ROWS]]);
            let tile = groups(self.quads, 1);
            s.dots_i8(vectors, &tile, &mut sums);
            s.dots_i8([vectors[1]], &tile, &mut one);
            let mut integers = [sums.as_flattened(), one.as_flattened()].concat();

            let block = groups(BLOCK_QUADS, 2);
            let mut turned = [Group([[0; 4]; ROWS]); BLOCK_QUADS];
            s.turn(block.as_array().expect("a block"), &mut turned);

            let codes: Vec<Vec<[u8; 4]>> = (0..4)
                .map(|j| (0..self.row_quads).map(|q| [127, (q * 31 + j) as u8 % 128, 127, 0]).collect())
                .collect();
            s.quad_sums([[&codes[0][..]], [&codes[1]], [&codes[2]]], &turned, &mut sums);
            integers.extend(sums.as_flattened());
            s.quad_sums([[&codes[3][..], &codes[0]]], &turned, &mut one);
            integers.extend(one.as_flattened());

            let (mut high, mut low) = ([[0; 4]; ROWS / 4], [[0; 4]; ROWS / 4]);
            s.halve_codes(&std::array::from_fn(|j| (j * 260) as f32), &mut high, &mut low);
            let turned = turned.iter().flat_map(|group| group.0).collect();
            (integers, turned, [high.as_flattened(), low.as_flattened()].concat())
        }
    }

    #[test]
    fn every_level_gives_the_integers_of_the_portable_form() {
        for (quads, row_quads) in [(0, 0), (1, 1), (31, 2), (16, 16), (128, 15)] {
            let level = |isa: Isa| isa.level().unwrap().run(Each { quads, row_quads });
            let expected = level(Isa::Scalar);
            for isa in Isa::ALL.into_iter().filter(|isa| isa.is_supported()) {
                assert_eq!(level(isa), expected, "{isa}, {quads} quads, {row_quads} quads of rows");
            }
        }
    }
}
