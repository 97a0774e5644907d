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

/// Columns of a block of weighted sums.
pub(crate) const BLOCK_COLUMNS: usize = 64;

/// Products of INT8 rows, all values in -127..=127.
pub trait Int8: Copy {
    /// `sum of rows[i][k] * x[j][k]` over all k, by j and i. All slices have one length, at most 65,536; `x_sums[j]` is
    /// the sum of `x[j]`.
    #[inline(always)]
    fn dots_i8<const R: usize, const Q: usize>(
        self,
        rows: [&[i8]; R],
        x: [&[i8]; Q],
        _x_sums: [i32; Q],
    ) -> [[i32; R]; Q] {
        let mut sums = [[0; R]; Q];
        for j in 0..Q {
            for i in 0..R {
                let products = rows[i].iter().zip(x[j]).map(|(&a, &b)| i32::from(a) * i32::from(b));
                sums[j][i] = products.sum();
            }
        }
        sums
    }

    /// `out[c] = [rows[0][c], .., rows[3][c]]`. All have one length, a multiple of [`BLOCK_COLUMNS`].
    #[inline(always)]
    fn interleave(self, rows: [&[i8]; 4], out: &mut [[i8; 4]]) {
        for (c, out) in out.iter_mut().enumerate() {
            *out = [rows[0][c], rows[1][c], rows[2][c], rows[3][c]];
        }
    }

    /// `sum of codes[j][q][k] * quads[q * stride + c][k]` over all q and k, for each j and the columns c in
    /// 0..[`BLOCK_COLUMNS`]. Codes are at most 127; the slices of codes have one length, at most 65,536.
    #[inline(always)]
    fn quad_sums<const Q: usize>(
        self,
        codes: [&[[u8; 4]]; Q],
        quads: &[[i8; 4]],
        stride: usize,
    ) -> [[i32; BLOCK_COLUMNS]; Q] {
        let mut sums = [[0; BLOCK_COLUMNS]; Q];
        for j in 0..Q {
            for (codes, quads) in codes[j].iter().zip(quads.chunks(stride)) {
                for (sum, quad) in sums[j].iter_mut().zip(quads) {
                    for k in 0..4 {
                        *sum += i32::from(codes[k]) * i32::from(quad[k]);
                    }
                }
            }
        }
        sums
    }
}

impl Int8 for super::Scalar {}
#[cfg(target_arch = "aarch64")]
impl<const DOTPROD: bool> Int8 for super::neon::Neon<DOTPROD> {}
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
impl Int8 for super::wasm::Simd128 {}

#[cfg(test)]
mod tests {
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

    struct Each {
        width: usize,
        quads: usize,
    }

    impl Kernel for Each {
        type Output = (Vec<i32>, Vec<[i8; 4]>, Vec<i32>);
        const INTEGER: bool = true;

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Self::Output {
            let rows: Vec<Vec<i8>> = (0..7).map(|i| values(self.width, i)).collect();
            let x = [&rows[4][..], &rows[5][..], &rows[6][..]];
            let sum = |row: &[i8]| row.iter().map(|&v| i32::from(v)).sum::<i32>();
            let dots = s.dots_i8([&rows[0][..], &rows[1][..], &rows[2][..], &rows[3][..]], x, x.map(sum));
            let one = s.dots_i8([&rows[0][..], &rows[1][..]], [&rows[2][..]], [sum(&rows[2])]);

            let wide: Vec<Vec<i8>> = (0..4).map(|i| values(128, i + 1)).collect();
            let mut interleaved = vec![[0; 4]; 128];
            s.interleave([&wide[0], &wide[1], &wide[2], &wide[3]], &mut interleaved);

            let stride = 80;
            let flat = values(self.quads * stride * 4, 1);
            let quads: Vec<[i8; 4]> = flat.as_chunks().0.to_vec();
            let codes: Vec<Vec<[u8; 4]>> =
                (0..3).map(|j| (0..self.quads).map(|q| [127, (q * 31 + j) as u8 % 128, 127, 0]).collect()).collect();
            let sums = s.quad_sums([&codes[0], &codes[1], &codes[2]], &quads, stride);
            let dots = [dots.as_flattened(), one.as_flattened()].concat();
            (dots, interleaved, sums.as_flattened().to_vec())
        }
    }

    #[test]
    fn every_level_gives_the_integers_of_the_portable_form() {
        for (width, quads) in [(0, 0), (1, 1), (31, 2), (32, 3), (63, 5), (64, 16), (65, 7), (512, 16), (577, 15)] {
            let level = |isa: Isa| isa.level().unwrap().run(Each { width, quads });
            let expected = level(Isa::Scalar);
            for isa in Isa::ALL.into_iter().filter(|isa| isa.is_supported()) {
                assert_eq!(level(isa), expected, "{isa}, width {width}, {quads} quads");
            }
        }
    }
}
