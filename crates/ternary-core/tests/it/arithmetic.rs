//! The fused multiply-add, the dense dot product, INT8 activations and error metrics.

use proptest::prelude::*;
use ternary_core::{ErrorSums, dot16, fma, quantize_a8};

/// Equal bits, or both NaN.
fn assert_same(got: f32, expected: f32, context: impl std::fmt::Debug) {
    let same = got.to_bits() == expected.to_bits() || (got.is_nan() && expected.is_nan());
    assert!(same, "got {got:e}, expected {expected:e} for {context:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn fma_equals_the_processors_for_any_bits(a: u32, b: u32, c: u32) {
        let (a, b, c) = (f32::from_bits(a), f32::from_bits(b), f32::from_bits(c));
        assert_same(fma(a, b, c), a.mul_add(b, c), (a, b, c));
    }

    /// Addends near the product, where bits cancel, and far below it, where they decide ties.
    #[test]
    fn fma_equals_the_processors_where_it_is_hard(a: u32, b: u32, c: u32, exponent in -100..30_i32) {
        let unit = |bits: u32| f32::from_bits(bits & 0x807f_ffff | 0x3f80_0000);
        // Products of 13 and 13 bits are often ties of 24 bits; shorter ones cancel.
        for mask in [u32::MAX, 0xffff_f800, 0xfff0_0000] {
            let (a, b) = (unit(a & mask), unit(b & mask));
            let c = unit(c & mask) * (exponent as f32).exp2();
            assert_same(fma(a, b, c), a.mul_add(b, c), (a, b, c));
            let (a, c) = (a * 2.0_f32.powi(-100), c * 2.0_f32.powi(-120)); // results are subnormal
            let b = b * 2.0_f32.powi(-30);
            assert_same(fma(a, b, c), a.mul_add(b, c), (a, b, c));
        }
    }
}

#[test]
fn fma_equals_the_processors_at_the_special_values() {
    let values = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        f32::EPSILON,
        1.0 + f32::EPSILON,
        1.0 - f32::EPSILON / 2.0,
        f32::MIN_POSITIVE,
        -f32::MIN_POSITIVE,
        f32::from_bits(1),
        f32::from_bits(0x007f_ffff),
        f32::MAX,
        f32::MIN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        16_777_216.0,
        3.0,
    ];
    for a in values {
        for b in values {
            for c in values {
                assert_same(fma(a, b, c), a.mul_add(b, c), (a, b, c));
            }
        }
    }
}

#[test]
fn fma_rounds_once() {
    // The product is 1 + 2^-11 + 2^-24: rounded by itself it would lose the last bit.
    let x = 1.0 + 2.0_f32.powi(-12);
    assert_eq!(fma(x, x, -1.0), 2.0_f32.powi(-11) + 2.0_f32.powi(-24));
    assert_eq!(x * x - 1.0, 2.0_f32.powi(-11));
    // The product alone is a tie; the addend decides it, though f64 cannot hold their sum.
    for sign in [1.0, -1.0] {
        let addend = 2.0_f32.powi(-80);
        assert_eq!(fma(sign * x, x, sign * addend), sign * (1.0 + 2.0_f32.powi(-11) + f32::EPSILON));
        assert_eq!(fma(sign * x, x, -sign * addend), sign * (1.0 + 2.0_f32.powi(-11)));
    }
}

#[test]
fn dot16_sums_lanes_and_then_a_tree() {
    for n in [0, 1, 7, 15, 16, 17, 31, 32, 100, 256, 1000] {
        let w: Vec<f32> = (0..n).map(|i| (i as f32 * 0.731).sin()).collect();
        let x: Vec<f32> = (0..n).map(|i| (i as f32 * 1.17).cos() * 3.0).collect();
        let mut lanes = [0.0_f32; 16];
        for i in 0..n {
            lanes[i % 16] = w[i].mul_add(x[i], lanes[i % 16]);
        }
        let eight: Vec<f32> = (0..8).map(|j| lanes[j] + lanes[j + 8]).collect();
        let four: Vec<f32> = (0..4).map(|j| eight[j] + eight[j + 4]).collect();
        let sum = (four[0] + four[2]) + (four[1] + four[3]);
        assert_same(dot16(&w, &x), sum, n);
    }
}

#[test]
fn dot16_does_not_sum_from_left_to_right() {
    // Lane 0 holds 2^24 and lane 1 two ones: in order, both ones would vanish.
    let mut x = [0.0; 32];
    (x[0], x[1], x[17]) = (16_777_216.0, 1.0, 1.0);
    assert_eq!(dot16(&x, &[1.0; 32]), 16_777_218.0);
    assert_eq!(x.iter().sum::<f32>(), 16_777_216.0);
}

proptest! {
    #[test]
    fn codes_are_the_quotients_rounded_half_to_even(
        x in prop::collection::vec(prop::num::f32::NORMAL | prop::num::f32::ZERO, 1..300),
    ) {
        let mut q = vec![99; x.len()];
        let scale = quantize_a8(&x, &mut q);
        let max = x.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
        prop_assert_eq!(scale, max / 127.0);
        for (&x, &q) in x.iter().zip(&q) {
            prop_assert!((-127..=127).contains(&q));
            if scale >= f32::MIN_POSITIVE {
                prop_assert_eq!(f32::from(q), (x / scale).round_ties_even());
            }
        }
    }
}

#[test]
fn codes_next_to_ties_are_those_of_the_division() {
    // A product with the reciprocal of the scale would differ here.
    for max in [1.0, 0.3, 2.7, 11.1, 0.0123] {
        let scale = max / 127.0;
        for k in 0..127 {
            let tie = ((k as f32 + 0.5) * scale).to_bits();
            let x = [tie - 1, tie, tie + 1].map(f32::from_bits);
            let mut q = [0; 4];
            assert_eq!(quantize_a8(&[x[0], x[1], x[2], -max], &mut q), scale);
            assert_eq!(q[..3], x.map(|x| (x / scale).round_ties_even() as i8), "{max} {k}");
        }
    }
}

#[test]
fn activation_extremes() {
    let codes = |x: &[f32]| {
        let mut q = vec![99; x.len()];
        (quantize_a8(x, &mut q), q)
    };
    assert_eq!(codes(&[]), (0.0, vec![]));
    assert_eq!(codes(&[0.0, -0.0]), (0.0, vec![0, 0]));
    assert_eq!(codes(&[127.0, -127.0, 1.5, 2.5, -0.5]), (1.0, vec![127, -127, 2, 2, 0]));
    assert_eq!(codes(&[f32::MAX, f32::MIN]).1, [127, -127]);
    // The scale is 1 or 2 units of the smallest number, and quotients run past 127.
    let unit = f32::from_bits(1);
    assert_eq!(codes(&[unit, 63.0 * unit]), (0.0, vec![0, 0]));
    assert_eq!(codes(&[190.0 * unit, -190.0 * unit]), (unit, vec![127, -127]));
}

#[test]
fn activations_that_are_not_finite_reach_the_scale() {
    let mut q = [99; 3];
    assert!(quantize_a8(&[1.0, f32::NAN, f32::INFINITY], &mut q).is_nan());
    assert_eq!(q, [0; 3]);
    assert_eq!(quantize_a8(&[1.0, f32::NEG_INFINITY, 2.0], &mut q), f32::INFINITY);
    assert_eq!(q, [0; 3]);
}

#[test]
fn metrics_of_known_errors() {
    let mut sums = ErrorSums::default();
    sums.add(&[3.0, -4.0, 0.0, 0.0], &[4.0, -3.0, 0.0, 1.0]);
    for scale in [1.0, 4.0, 1.0, 2.0] {
        sums.add_scale(scale);
    }
    let m = sums.metrics();
    assert_eq!((m.n, m.n_scales), (4, 4));
    assert_eq!(m.relative_mse, 3.0 / 25.0);
    assert!((m.cosine - 24.0 / (25.0_f64 * 26.0).sqrt()).abs() < 1e-15);
    assert_eq!(m.sparsity, 0.25);
    assert_eq!((m.scale_min, m.scale_mean, m.scale_max), (1.0, 2.0, 4.0));
    assert!((m.scale_std - 1.5_f64.sqrt()).abs() < 1e-15);
}

#[test]
fn metrics_of_degenerate_tensors() {
    let metrics = |w: &[f32], v: &[f32]| {
        let mut sums = ErrorSums::default();
        sums.add(w, v);
        let m = sums.metrics();
        (m.relative_mse, m.cosine, m.sparsity)
    };
    assert_eq!(metrics(&[], &[]), (0.0, 1.0, 0.0));
    assert_eq!(metrics(&[0.0], &[0.0]), (0.0, 1.0, 1.0));
    assert_eq!(metrics(&[2.0], &[0.0]), (1.0, 0.0, 1.0));
    assert_eq!(metrics(&[0.0], &[2.0]), (f64::INFINITY, 0.0, 0.0));
    let (mse, cosine, _) = metrics(&[1e-38, -1e-38], &[2e-38, -2e-38]);
    assert!((mse - 1.0).abs() < 1e-6 && (cosine - 1.0).abs() < 1e-14);
}

proptest! {
    #[test]
    fn metrics_do_not_depend_on_the_chunks(
        pairs in prop::collection::vec((-1.0_f32..1.0, -1.0_f32..1.0), 2..200),
        cut in 0.0..1.0,
    ) {
        let (w, v): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
        let cut = (w.len() as f64 * cut) as usize;
        let (mut whole, mut left, mut right) = <(ErrorSums, ErrorSums, ErrorSums)>::default();
        whole.add(&w, &v);
        left.add(&w[..cut], &v[..cut]);
        right.add(&w[cut..], &v[cut..]);
        v.iter().for_each(|&v| whole.add_scale(v));
        v[..cut].iter().for_each(|&v| left.add_scale(v));
        v[cut..].iter().for_each(|&v| right.add_scale(v));
        left.merge(&right);

        let (a, b) = (whole.metrics(), left.metrics());
        prop_assert_eq!((a.n, a.n_scales, a.sparsity), (b.n, b.n_scales, b.sparsity));
        prop_assert_eq!((a.scale_min, a.scale_max), (b.scale_min, b.scale_max));
        for (a, b) in [(a.relative_mse, b.relative_mse), (a.cosine, b.cosine),
                       (a.scale_mean, b.scale_mean), (a.scale_std, b.scale_std)] {
            prop_assert!((a - b).abs() <= 1e-9 * a.abs().max(1.0), "{} and {}", a, b);
        }
    }
}
