//! The operations of attention over INT8 rows. The portable forms are here and define the others.
//!
//! **Invariant:** sums are exact: no intermediate result leaves its type for any input of the stated range, so every
//! level gives the same integers.

/// Cached positions of a span: rows that attention multiplies together.
pub const ROWS: usize = 64;

/// Quads of a block of 64 columns.
pub(crate) const BLOCK_QUADS: usize = ROWS / 4;

/// Values of 64 rows (or columns) side by side, on cache lines of their own.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub struct Group<T>(pub [T; ROWS]);

/// One of the vectors that are multiplied with a span.
#[derive(Debug, Clone, Copy)]
pub struct Vector<'a> {
    /// The codes in fours.
    pub(crate) quads: &'a [[i8; 4]],
    /// The sum of the codes, for products that add 128 to the rows.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only `vpdpbusd` wants rows without a sign"))]
    pub(crate) sum: i32,
    /// The value of the code 1.
    pub(crate) scale: f32,
}

impl<'a> Vector<'a> {
    /// A vector without codes.
    pub(crate) const EMPTY: Vector<'a> = Vector { quads: &[], sum: 0, scale: 0.0 };

    /// A vector of scale 1.
    #[cfg(test)]
    pub(crate) fn of(quads: &'a [[i8; 4]]) -> Vector<'a> {
        Vector { quads, sum: quads.as_flattened().iter().map(|&q| i32::from(q)).sum(), scale: 1.0 }
    }
}

/// Products of INT8 rows, all values in -127..=127.
pub trait Int8: Copy {
    /// `sums[j][r] = sum of x[j].quads[q][c] * span[q].0[r][c]` over all q and c: one quad of each vector per group.
    #[inline(always)]
    fn dots_i8<const V: usize>(self, x: [Vector<'_>; V], span: &[Group<[i8; 4]>], sums: &mut [[i32; ROWS]; V]) {
        for (x, sums) in x.iter().zip(sums) {
            *sums = [0; ROWS];
            for (x, group) in x.quads.iter().zip(span) {
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
            // A single half is the high one, so it counts 128 times as well.
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
