//! The non-linear functions over slices.

use super::precise::exp_f64_of;
use super::scalar::{exp_of, sigmoid_of, silu_of};
use crate::arch::{Isa, Level};
use crate::attention::dense::dot;
use crate::error::Result;
use crate::simd::{Float, Kernel, LANES, One, Simd};

/// Replaces each value by its sigmoid.
pub fn sigmoid_in_place(x: &mut [f32]) {
    Level::current().run(Sigmoid(x));
}

/// `gate[i] = silu(gate[i]) * up[i]`: the activation of a gated feed-forward layer.
///
/// # Panics
/// If the lengths differ.
pub fn swiglu(gate: &mut [f32], up: &[f32]) {
    swiglu_at(Level::current(), gate, up);
}

/// Replaces each number by e to its power, as [`exp_f64`](super::exp_f64) does.
pub fn exp_f64_in_place(x: &mut [f64]) {
    Level::current().run(ExpF64(x));
}

/// Turns scores into probabilities. Scores of -inf get 0; if all are -inf the result is all zeros. A NaN
/// makes the result NaN.
pub fn softmax_in_place(x: &mut [f32]) {
    Level::current().run(Softmax(x));
}

/// Replaces each score by `exp(score - top)` and returns their sum, taken in 16 partial sums as in `dot16`.
/// With the largest score as `top` this is the numerator and the denominator of a softmax.
#[must_use]
pub fn exp_sum_in_place(x: &mut [f32], top: f32) -> f32 {
    Level::current().run(ExpSum { x, top })
}

/// Multiplies each score by `scale` and returns the largest, -inf if there is none; NaN never wins.
#[must_use]
pub fn scale_and_top(x: &mut [f32], scale: f32) -> f32 {
    Level::current().run(ScaleAndTop { x, scale })
}

/// Multiplies each value by `factor`.
pub fn scale_in_place(x: &mut [f32], factor: f32) {
    Level::current().run(Scale { x, factor });
}

/// Root mean square normalisation: `out[i] = x[i] / sqrt(mean(x^2) + eps) * weight[i]`.
///
/// # Panics
/// If the lengths differ.
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    rms_norm_at(Level::current(), x, weight, eps, out);
}

/// Index of the largest value, the first of equals; NaN never wins. `None` without any number.
#[must_use]
pub fn argmax(x: &[f32]) -> Option<usize> {
    let mut best: Option<(usize, f32)> = None;
    for (i, &value) in x.iter().enumerate() {
        let wins = best.is_none_or(|(_, top)| value > top);
        if wins && !value.is_nan() {
            best = Some((i, value));
        }
    }
    best.map(|(i, _)| i)
}

/// As [`sigmoid_in_place`], on a given level: for tests and benchmarks.
///
/// # Errors
/// [`crate::Error::UnsupportedIsa`].
pub fn sigmoid_in_place_on(isa: Isa, x: &mut [f32]) -> Result<()> {
    isa.level()?.run(Sigmoid(x));
    Ok(())
}

/// As [`swiglu`], on a given level: for tests and benchmarks.
///
/// # Errors
/// [`crate::Error::UnsupportedIsa`].
pub fn swiglu_on(isa: Isa, gate: &mut [f32], up: &[f32]) -> Result<()> {
    swiglu_at(isa.level()?, gate, up);
    Ok(())
}

/// As [`softmax_in_place`], on a given level: for tests and benchmarks.
///
/// # Errors
/// [`crate::Error::UnsupportedIsa`].
pub fn softmax_in_place_on(isa: Isa, x: &mut [f32]) -> Result<()> {
    isa.level()?.run(Softmax(x));
    Ok(())
}

/// As [`exp_sum_in_place`], on a given level: for tests and benchmarks.
///
/// # Errors
/// [`crate::Error::UnsupportedIsa`].
pub fn exp_sum_in_place_on(isa: Isa, x: &mut [f32], top: f32) -> Result<f32> {
    Ok(isa.level()?.run(ExpSum { x, top }))
}

/// As [`rms_norm`], on a given level: for tests and benchmarks.
///
/// # Errors
/// [`crate::Error::UnsupportedIsa`].
pub fn rms_norm_on(isa: Isa, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) -> Result<()> {
    rms_norm_at(isa.level()?, x, weight, eps, out);
    Ok(())
}

/// As [`scale_and_top`], on a given level: for tests and benchmarks.
///
/// # Errors
/// [`crate::Error::UnsupportedIsa`].
pub fn scale_and_top_on(isa: Isa, x: &mut [f32], scale: f32) -> Result<f32> {
    Ok(isa.level()?.run(ScaleAndTop { x, scale }))
}

fn swiglu_at(level: Level, gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len(), "gate and up must be of one length");
    level.run(Swiglu { gate, up });
}

fn rms_norm_at(level: Level, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    assert_eq!(x.len(), weight.len(), "one weight per value");
    assert_eq!(x.len(), out.len(), "one output per value");
    let mean = dot(level, x, x) / x.len() as f32;
    level.run(Normed { x, weight, scale: 1.0 / (mean + eps).sqrt(), out });
}

struct Sigmoid<'a>(&'a mut [f32]);

impl Kernel for Sigmoid<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (chunks, rest) = self.0.as_chunks_mut::<LANES>();
        for x in chunks {
            s.store(sigmoid_of(s, s.load(x)), x);
        }
        for x in rest {
            *x = sigmoid_of(One, *x);
        }
    }
}

struct ExpF64<'a>(&'a mut [f64]);

impl Kernel for ExpF64<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        self.0.iter_mut().for_each(|x| *x = exp_f64_of(*x));
    }
}

struct Swiglu<'a> {
    gate: &'a mut [f32],
    up: &'a [f32],
}

impl Kernel for Swiglu<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (gate, gate_rest) = self.gate.as_chunks_mut::<LANES>();
        let (up, up_rest) = self.up.as_chunks::<LANES>();
        for (gate, up) in gate.iter_mut().zip(up) {
            s.store(s.mul(silu_of(s, s.load(gate)), s.load(up)), gate);
        }
        for (gate, up) in gate_rest.iter_mut().zip(up_rest) {
            *gate = silu_of(One, *gate) * up;
        }
    }
}

struct Softmax<'a>(&'a mut [f32]);

impl Kernel for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut top = f32::NEG_INFINITY;
        for &x in self.0.iter() {
            top = One.max(x, top);
        }
        if top == f32::NEG_INFINITY {
            // No score but -inf and NaN: zeros, and NaN stays visible.
            for x in self.0 {
                *x = if x.is_nan() { *x } else { 0.0 };
            }
            return;
        }
        let total = ExpSum { x: &mut *self.0, top }.run(s);
        let (chunks, rest) = self.0.as_chunks_mut::<LANES>();
        for x in chunks {
            s.store(s.div(s.load(x), s.splat(total)), x);
        }
        for x in rest {
            *x /= total;
        }
    }
}

struct ExpSum<'a> {
    x: &'a mut [f32],
    top: f32,
}

impl Kernel for ExpSum<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let (chunks, rest) = self.x.as_chunks_mut::<LANES>();
        let mut sums = s.splat(0.0);
        for x in chunks {
            let e = exp_of(s, s.sub(s.load(x), s.splat(self.top)));
            sums = s.add(sums, e);
            s.store(e, x);
        }
        let mut last = [0.0; LANES];
        for (x, last) in rest.iter_mut().zip(&mut last) {
            *x = exp_of(One, *x - self.top);
            *last = *x;
        }
        s.reduce(s.add(sums, s.load(&last)))
    }
}

struct ScaleAndTop<'a> {
    x: &'a mut [f32],
    scale: f32,
}

impl Kernel for ScaleAndTop<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let (chunks, rest) = self.x.as_chunks_mut::<LANES>();
        let mut tops = s.splat(f32::NEG_INFINITY);
        for x in chunks {
            let scaled = s.mul(s.load(x), s.splat(self.scale));
            // `max` gives its second operand where either is NaN.
            tops = s.max(scaled, tops);
            s.store(scaled, x);
        }
        let mut lanes = [0.0; LANES];
        s.store(tops, &mut lanes);
        for (x, lane) in rest.iter_mut().zip(&mut lanes) {
            *x *= self.scale;
            *lane = One.max(*x, *lane);
        }
        let mut top = f32::NEG_INFINITY;
        for lane in lanes {
            top = One.max(lane, top);
        }
        top
    }
}

struct Scale<'a> {
    x: &'a mut [f32],
    factor: f32,
}

impl Kernel for Scale<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (chunks, rest) = self.x.as_chunks_mut::<LANES>();
        for x in chunks {
            s.store(s.mul(s.load(x), s.splat(self.factor)), x);
        }
        for x in rest {
            *x *= self.factor;
        }
    }
}

struct Normed<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    scale: f32,
    out: &'a mut [f32],
}

impl Kernel for Normed<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (x, x_rest) = self.x.as_chunks::<LANES>();
        let (weight, weight_rest) = self.weight.as_chunks::<LANES>();
        let (out, out_rest) = self.out.as_chunks_mut::<LANES>();
        for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
            s.store(s.mul(s.mul(s.load(x), s.splat(self.scale)), s.load(weight)), out);
        }
        for ((out, x), weight) in out_rest.iter_mut().zip(x_rest).zip(weight_rest) {
            *out = x * self.scale * weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::silu;
    use super::*;

    #[test]
    fn swiglu_is_silu_of_the_gate_times_up() {
        let (mut gate, up) = ([1.0, -2.0, 0.5], [2.0, 3.0, -1.0]);
        let expected = [silu(1.0) * 2.0, silu(-2.0) * 3.0, -silu(0.5)];
        swiglu(&mut gate, &up);
        assert_eq!(gate, expected);
    }

    #[test]
    fn softmax_survives_infinities() {
        let mut x = [1.0, f32::NEG_INFINITY, 1.0];
        softmax_in_place(&mut x);
        assert_eq!(x, [0.5, 0.0, 0.5]);
        let mut masked = [f32::NEG_INFINITY; 20];
        softmax_in_place(&mut masked);
        assert_eq!(masked, [0.0; 20]);
        let mut nan = [0.0, f32::NAN];
        softmax_in_place(&mut nan);
        assert!(nan.iter().all(|x| x.is_nan()));
        softmax_in_place(&mut []);
        let mut big = [1e30, -1e30];
        softmax_in_place(&mut big);
        assert_eq!(big, [1.0, 0.0]);
    }

    #[test]
    fn exponentials_in_double_precision_have_the_same_bits_on_every_level() {
        let mut x: Vec<f64> = (-4000..4000).map(|i| f64::from(i) * 0.19).collect();
        x.extend([f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, 1e-300]);
        let expected: Vec<u64> = x.iter().map(|x| super::super::exp_f64(*x).to_bits()).collect();
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_supported()) {
            let mut y = x.clone();
            isa.level().unwrap().run(ExpF64(&mut y));
            assert!(y.iter().map(|y| y.to_bits()).eq(expected.iter().copied()), "{isa}");
        }
    }

    #[test]
    fn exp_sum_has_the_same_bits_on_every_level() {
        let scores: Vec<f32> = (0..37).map(|i| (i as f32 * 0.7).sin() * 9.0).collect();
        let mut expected = scores.clone();
        let sum = exp_sum_in_place_on(Isa::Scalar, &mut expected, 9.0).unwrap();
        assert!((sum - scores.iter().map(|x| (x - 9.0).exp()).sum::<f32>()).abs() < 1e-5);
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_supported()) {
            let mut x = scores.clone();
            assert_eq!(exp_sum_in_place_on(isa, &mut x, 9.0).unwrap(), sum);
            assert_eq!(x, expected);
        }
    }

    #[test]
    fn the_top_of_scaled_scores_is_the_same_on_every_level() {
        let mut scores: Vec<f32> = (0..37).map(|i| (i as f32 * 0.7).sin() * 9.0).collect();
        (scores[3], scores[36], scores[5]) = (f32::NAN, f32::NAN, f32::NEG_INFINITY);
        let expected: Vec<u32> = scores.iter().map(|x| (x * 0.3).to_bits()).collect();
        let top = scores.iter().fold(f32::NEG_INFINITY, |top, x| top.max(x * 0.3));
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_supported()) {
            let mut x = scores.clone();
            assert_eq!(scale_and_top_on(isa, &mut x, 0.3).unwrap(), top);
            assert_eq!(x.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), expected);
        }
        assert_eq!(scale_and_top(&mut [f32::NAN; 20], 1.0), f32::NEG_INFINITY);
        assert_eq!(scale_and_top(&mut [], 1.0), f32::NEG_INFINITY);
    }

    #[test]
    fn rms_norm_normalises() {
        let mut out = [0.0; 2];
        rms_norm(&[3.0, 4.0], &[1.0, 2.0], 0.0, &mut out);
        assert!((out[0] - 3.0 / 12.5f32.sqrt()).abs() < 1e-6);
        assert!((out[1] - 8.0 / 12.5f32.sqrt()).abs() < 1e-6);
        rms_norm(&[0.0, 0.0], &[1.0, 1.0], 1e-5, &mut out);
        assert_eq!(out, [0.0, 0.0]);
    }

    #[test]
    fn argmax_takes_the_first_of_equals() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0]), Some(1));
        assert_eq!(argmax(&[f32::NAN, -1.0]), Some(1));
        assert_eq!(argmax(&[f32::NEG_INFINITY]), Some(0));
        assert_eq!(argmax(&[f32::NAN]), None);
        assert_eq!(argmax(&[]), None);
    }
}
