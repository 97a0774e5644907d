//! Layer normalisation with bias (Ba, Kiros, Hinton 2016): `out[i] = (x[i] - mean) / sqrt(variance + eps) * weight[i] + bias[i]`.
//!
//! **Invariant:** both sums run in 16 partial sums, element i in lane i mod 16, and one fixed tree; equal on every level. The
//! variance is the mean of squared distances from the mean, in a second pass, so that a large mean costs no precision.

use crate::arch::{Isa, Level};
use crate::error::Result;
use crate::simd::{Kernel, LANES, Simd, fma};

/// The trained parameters of a layer normalisation.
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm<'a> {
    /// Factor of each value.
    pub weight: &'a [f32],
    /// Added to each value.
    pub bias: &'a [f32],
    /// Added to the variance.
    pub eps: f32,
}

impl LayerNorm<'_> {
    /// Normalises the row `x` in place.
    ///
    /// ```
    /// use tl_kernels::math::LayerNorm;
    /// let mut x = [1.0, 3.0];
    /// LayerNorm { weight: &[1.0, 2.0], bias: &[0.0, 10.0], eps: 0.0 }.apply(&mut x);
    /// assert_eq!(x, [-1.0, 12.0]);
    /// ```
    ///
    /// # Panics
    /// If there is not one weight and one bias per value.
    pub fn apply(self, x: &mut [f32]) {
        self.apply_at(Level::current(), x);
    }

    /// As [`LayerNorm::apply`], on a given level: for tests and benchmarks.
    ///
    /// # Errors
    /// [`crate::Error::UnsupportedIsa`].
    pub fn apply_on(self, isa: Isa, x: &mut [f32]) -> Result<()> {
        self.apply_at(isa.level()?, x);
        Ok(())
    }

    fn apply_at(self, level: Level, x: &mut [f32]) {
        assert_eq!(x.len(), self.weight.len(), "one weight per value");
        assert_eq!(x.len(), self.bias.len(), "one bias per value");
        if !x.is_empty() {
            level.run(Normalise { norm: self, x });
        }
    }
}

struct Normalise<'a> {
    norm: LayerNorm<'a>,
    x: &'a mut [f32],
}

impl Kernel for Normalise<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let n = self.x.len() as f32;
        let (chunks, rest) = self.x.as_chunks_mut::<LANES>();
        let mut sums = s.splat(0.0);
        for x in chunks.iter() {
            sums = s.add(sums, s.load(x));
        }
        let mut last = [0.0; LANES];
        last[..rest.len()].copy_from_slice(rest);
        let mean = s.reduce(s.add(sums, s.load(&last))) / n;
        let mut squares = s.splat(0.0);
        for x in chunks.iter_mut() {
            let centred = s.sub(s.load(x), s.splat(mean));
            squares = s.fma(centred, centred, squares);
            s.store(centred, x);
        }
        let mut last = [0.0; LANES];
        for (x, last) in rest.iter_mut().zip(&mut last) {
            *x -= mean;
            *last = *x;
        }
        let last = s.load(&last);
        let scale = 1.0 / (s.reduce(s.fma(last, last, squares)) / n + self.norm.eps).sqrt();
        let (weight, weight_rest) = self.norm.weight.as_chunks::<LANES>();
        let (bias, bias_rest) = self.norm.bias.as_chunks::<LANES>();
        for ((x, weight), bias) in chunks.iter_mut().zip(weight).zip(bias) {
            let scaled = s.mul(s.load(x), s.splat(scale));
            s.store(s.fma(scaled, s.load(weight), s.load(bias)), x);
        }
        for ((x, weight), bias) in rest.iter_mut().zip(weight_rest).zip(bias_rest) {
            *x = fma(*x * scale, *weight, *bias);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layer_norm_agrees_with_the_formula_in_double_precision() {
        for n in [1, 5, 16, 37, 384] {
            let x: Vec<f32> = (0..n).map(|i| 100.0 + (i as f32 * 0.7).sin()).collect();
            let weight: Vec<f32> = (0..n).map(|i| 1.0 + i as f32 * 0.01).collect();
            let bias: Vec<f32> = (0..n).map(|i| i as f32 * -0.02).collect();
            let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / n as f64;
            let variance = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n as f64;
            let mut got = x.clone();
            LayerNorm { weight: &weight, bias: &bias, eps: 1e-3 }.apply(&mut got);
            for i in 0..n {
                let scaled = (f64::from(x[i]) - mean) / (variance + 1e-3).sqrt();
                let expected = scaled * f64::from(weight[i]) + f64::from(bias[i]);
                assert!((f64::from(got[i]) - expected).abs() < 2e-4, "{n} values, {i}: {} not {expected}", got[i]);
            }
        }
        LayerNorm { weight: &[], bias: &[], eps: 1e-12 }.apply(&mut []);
    }

    #[test]
    fn layer_norm_has_the_same_bits_on_every_level() {
        let x: Vec<f32> = (0..45).map(|i| (i as f32 * 1.3).cos() * 3.0).collect();
        let weight: Vec<f32> = (0..45).map(|i| (i as f32 * 0.3).sin()).collect();
        let norm = LayerNorm { weight: &weight, bias: &x, eps: 1e-12 };
        let mut expected = x.clone();
        norm.apply_on(Isa::Scalar, &mut expected).unwrap();
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_supported()) {
            let mut got = x.clone();
            norm.apply_on(isa, &mut got).unwrap();
            assert_eq!(got, expected);
        }
    }
}
