//! The weights of an INT8 weighted sum as integers.
//!
//! **Invariant:** a code is the weight over the scale, rounded half to even: a multiple of 128 up to 16,256 where weights
//! are even, else any number up to 16,383. Its high and its low seven bits are stored apart, in fours, as the products of bytes take them.

use crate::arch::{Isa, Level};
use crate::error::Result;
use crate::simd::{Float, Kernel, LANES, One, ROWS, Simd};

/// The largest code of a fine weight: 127 * 128 + 127.
const FINE: f32 = 16383.0;

/// The largest code of a coarse weight: 127 * 128.
const COARSE: f32 = 16256.0;

/// The quantised weights of one vector for up to [`ROWS`] rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WeightCodes {
    scale: f32,
    /// Whether any low half is not 0.
    fine: bool,
    high: [[u8; 4]; ROWS / 4],
    low: [[u8; 4]; ROWS / 4],
}

impl WeightCodes {
    /// The codes of an empty list of weights.
    pub const ZERO: WeightCodes =
        WeightCodes { scale: 0.0, fine: false, high: [[0; 4]; ROWS / 4], low: [[0; 4]; ROWS / 4] };

    /// Quantises `p[j] * scales[j]`, which are not negative. Rows behind them have the weight 0. Ties go to even; NaN
    /// counts as 0.
    ///
    /// Even weights, of which the largest is at most eight times the mean, get 7 bits, so that half of the work suffices.
    /// Uneven weights get 14 bits, because 7 would lose the small ones.
    ///
    /// # Panics
    /// If there are more than [`ROWS`] weights or their number differs from that of the scales.
    #[must_use]
    pub fn new(p: &[f32], scales: &[f32]) -> WeightCodes {
        weight_codes_at(Level::current(), p, scales)
    }

    /// As [`WeightCodes::new`], on a given level: for tests and benchmarks.
    ///
    /// # Errors
    /// [`crate::Error::UnsupportedIsa`].
    pub fn new_on(isa: Isa, p: &[f32], scales: &[f32]) -> Result<WeightCodes> {
        Ok(weight_codes_at(isa.level()?, p, scales))
    }

    pub(super) fn scale(&self) -> f32 {
        self.scale
    }

    pub(super) fn is_fine(&self) -> bool {
        self.fine
    }

    /// The high and the low seven bits of the codes, in fours.
    #[inline(always)]
    pub(super) fn halves(&self) -> [&[[u8; 4]; ROWS / 4]; 2] {
        [&self.high, &self.low]
    }

    /// The code of weight `j`.
    #[cfg(test)]
    pub(super) fn code(&self, j: usize) -> i32 {
        128 * i32::from(self.high[j / 4][j % 4]) + i32::from(self.low[j / 4][j % 4])
    }
}

fn weight_codes_at(level: Level, p: &[f32], scales: &[f32]) -> WeightCodes {
    assert!(p.len() <= ROWS, "at most {ROWS} weights");
    assert_eq!(p.len(), scales.len(), "one scale per weight");
    level.run(Quantize { p, scales })
}

struct Quantize<'a> {
    p: &'a [f32],
    scales: &'a [f32],
}

impl Kernel for Quantize<'_> {
    type Output = WeightCodes;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> WeightCodes {
        let n = self.p.len();
        let (mut p, mut scales) = ([0.0; ROWS], [0.0; ROWS]);
        p[..n].copy_from_slice(self.p);
        scales[..n].copy_from_slice(self.scales);
        let (mut tops, mut sums) = (s.splat(0.0), s.splat(0.0));
        for (p, scales) in p.as_chunks_mut::<LANES>().0.iter_mut().zip(scales.as_chunks().0) {
            let weights = s.mul(s.load(p), s.load(scales));
            // `max` gives its second operand where either is NaN.
            tops = s.max(weights, tops);
            sums = s.add(sums, weights);
            s.store(weights, p);
        }
        let (mut lanes, mut top) = ([0.0; LANES], 0.0);
        s.store(tops, &mut lanes);
        for lane in lanes {
            top = One.max(lane, top);
        }
        // If the scale underflowed, code times scale would not be the weight; an infinite weight has no code.
        if top / FINE < f32::MIN_POSITIVE || !top.is_finite() {
            return WeightCodes::ZERO;
        }
        let even = top * n as f32 <= 8.0 * s.reduce(sums);
        let (largest, step) = if even { (127.0, 128.0) } else { (FINE, 1.0) };
        let (per_weight, step) = (s.splat(largest / top), s.splat(step));
        for p in p.as_chunks_mut::<LANES>().0 {
            let code = s.mul(s.round(s.mul(s.load(p), per_weight)), step);
            s.store(s.max(code, s.splat(0.0)), p);
        }
        let mut codes = WeightCodes { scale: top / if even { COARSE } else { FINE }, fine: !even, ..WeightCodes::ZERO };
        s.halve_codes(&p, &mut codes.high, &mut codes.low);
        codes
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Four kinds: even weights, one weight far above the others, one weight alone, no weight.
    pub(in crate::attention::int8) fn weights(kind: usize, rows: usize) -> Vec<f32> {
        (0..rows)
            .map(|j| match kind % 4 {
                0 => 0.5 + ((j * 37) % 17) as f32 / 20.0,
                1 if j == rows / 2 => 1.0,
                1 => 0.002 * ((j * 29) % 13) as f32 / 13.0,
                2 if j == 0 => 3e-7,
                _ => 0.0,
            })
            .collect()
    }

    #[test]
    fn small_weights_beside_a_large_one_are_kept() {
        for kind in 0..3 {
            let p = weights(kind, 64);
            let codes = WeightCodes::new(&p, &[1.0; 64]);
            for isa in Isa::ALL.into_iter().filter(|isa| isa.is_supported()) {
                assert_eq!(WeightCodes::new_on(isa, &p, &[1.0; 64]).unwrap(), codes, "{isa}");
            }
            assert_eq!(codes.fine, kind != 0);
            let (sum, top) = (p.iter().sum::<f32>(), p.iter().fold(0.0f32, |top, p| top.max(*p)));
            let step = if codes.fine { top / FINE } else { 128.0 * top / COARSE };
            let mut total = 0.0;
            for (j, p) in p.iter().enumerate() {
                let code = codes.code(j);
                assert!((codes.scale * code as f32 - p).abs() <= 0.501 * step, "weight {j} of kind {kind}");
                total += codes.scale * code as f32;
            }
            assert!((total - sum).abs() <= 5e-3 * sum, "kind {kind}: {total} instead of {sum}");
        }
        for odd in [&[0.0; 5][..], &[], &[f32::NAN; 3], &[1e-44], &[f32::INFINITY, 1.0]] {
            assert_eq!(WeightCodes::new(odd, &vec![1.0; odd.len()]), WeightCodes::ZERO);
        }
        let codes = WeightCodes::new(&[f32::NAN, 1.0, 0.5], &[1.0; 3]);
        assert_eq!([codes.code(0), codes.code(3)], [0, 0], "NaN counts as 0");
    }
}
