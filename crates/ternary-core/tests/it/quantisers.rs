//! The guarantees of the quantisers about blocks as they are stored.

use proptest::prelude::*;
use ternary_core::{BLOCK, Error, ErrorSums, Packing, Rounding, TernaryTensor, f16, quantize_block, quantize_row};

const ROUNDINGS: [Rounding; 2] = [Rounding::AbsMean, Rounding::LeastSquares];

/// Bell-shaped weights of a standard deviation near 0.02, the same on every run.
fn gaussian(n: usize) -> Vec<f32> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..n).map(|_| 0.02 * (0..12).map(|_| uniform()).sum::<f32>()).collect()
}

fn weighted_error(w: &[f32], h: &[f32], trits: &[i8], scale: f16) -> f64 {
    let scale = scale.to_f64();
    w.iter().zip(h).zip(trits).fold(0.0, |sum, ((&w, &h), &t)| {
        let rest = f64::from(w) - f64::from(t) * scale;
        sum + f64::from(h) * rest * rest
    })
}

/// The least error of any trits with any real scale.
fn least_error(w: &[f32; 8], h: &[f32; 8]) -> f64 {
    let total: f64 = w.iter().zip(h).map(|(&w, &h)| f64::from(h) * f64::from(w).powi(2)).sum();
    let gains = (0..3_u32.pow(8)).map(|q| {
        let (mut moment, mut mass) = (0.0, 0.0);
        for i in 0..8 {
            let t = f64::from((q / 3_u32.pow(i as u32) % 3) as i32 - 1);
            moment += f64::from(h[i]) * f64::from(w[i]) * t;
            mass += f64::from(h[i]) * t * t;
        }
        if mass == 0.0 { 0.0 } else { moment * moment / mass }
    });
    total - gains.fold(0.0, f64::max)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// With the scale rounded to f16 the error exceeds that of the best real scale by no more than
    /// the rounding itself: `N (s' - s)^2`, where s' differs from s by at most one part in 2048.
    #[test]
    fn least_squares_is_the_least_up_to_the_rounding_of_the_scale(
        w in prop::array::uniform8(-2.0_f32..2.0),
        h in prop::array::uniform8(0.0_f32..3.0),
    ) {
        for importance in [[1.0; 8], h] {
            let mut trits = [0; 8];
            let given = (importance != [1.0; 8]).then_some(&importance);
            let scale = quantize_block(Rounding::LeastSquares, &w, given, &mut trits);
            let mass: f64 = importance.iter().copied().map(f64::from).sum();
            let rounding = mass * (scale.to_f64() / 2048.0 + 1e-7).powi(2);
            let (found, least) = (weighted_error(&w, &importance, &trits, scale), least_error(&w, &importance));
            prop_assert!(found <= least + rounding + 1e-12, "{} exceeds {}", found, least);
        }
    }

    #[test]
    fn no_single_trit_can_be_changed_for_the_better(
        w in prop::collection::vec(-1e-5_f32..1e-5, 64), // scales here are subnormal f16, and coarse
    ) {
        let w: [f32; 64] = w.try_into().unwrap();
        let mut trits = [0; 64];
        let scale = quantize_block(Rounding::LeastSquares, &w, None, &mut trits).to_f32();
        for (&w, &t) in w.iter().zip(&trits) {
            let chosen = (w - f32::from(t) * scale).abs();
            for other in [-scale, 0.0, scale] {
                prop_assert!(chosen <= (w - other).abs());
            }
        }
    }

    #[test]
    fn signs_and_units_do_not_matter(w in prop::collection::vec(-1.0_f32..1.0, 128)) {
        let w: [f32; 128] = w.try_into().unwrap();
        for rounding in ROUNDINGS {
            let (mut trits, mut mirrored) = ([0; 128], [0; 128]);
            let scale = quantize_block(rounding, &w, None, &mut trits);
            let same = quantize_block(rounding, &w.map(|w| -w), None, &mut mirrored);
            prop_assert_eq!(scale, same);
            prop_assert_eq!(trits, mirrored.map(|t| -t));

            if rounding == Rounding::LeastSquares {
                let fourfold = quantize_block(rounding, &w.map(|w| 4.0 * w), None, &mut mirrored);
                prop_assert_eq!(4.0 * scale.to_f32(), fourfold.to_f32());
                prop_assert_eq!(trits, mirrored);
            }
        }
    }
}

#[test]
fn absmean_follows_the_published_rule() {
    // gamma = 0.5: 0.25 is a tie and rounds to 0, 0.75 a tie that is clamped to 1.
    let w = [0.25, -0.25, 0.26, -0.75, 0.0, 1.0, 0.99, -0.5];
    let mut trits = [0; 8];
    let scale = quantize_block(Rounding::AbsMean, &w, None, &mut trits);
    assert_eq!(trits, [0, 0, 1, -1, 0, 1, 1, -1]);
    assert_eq!(scale, f16::from_f32(0.5));

    // So large that epsilon vanishes, and the ties are exact.
    let scale = quantize_block(Rounding::AbsMean, &w.map(|w| w * 2.0_f32.powi(60)), None, &mut trits);
    assert_eq!(trits, [0, 0, 1, -1, 0, 1, 1, -1]);
    assert_eq!(scale, f16::MAX);
}

#[test]
fn absmean_ignores_importance_and_least_squares_does_not() {
    let w = [1.0, 0.1, -0.1, 0.12, 0.1, -0.11, 0.1, 0.1];
    let mut h = [1.0; 8];
    h[0] = 0.0;
    for (rounding, expected_change) in ROUNDINGS.into_iter().zip([false, true]) {
        let (mut plain, mut weighted) = ([0; 8], [0; 8]);
        let a = quantize_block(rounding, &w, None, &mut plain);
        let b = quantize_block(rounding, &w, Some(&h), &mut weighted);
        assert_eq!(a != b, expected_change, "{rounding:?}");
    }
}

#[test]
fn exact_least_squares_beats_absmean_by_the_published_margin() {
    let w = gaussian(256 * 64);
    let [absmean, exact] = ROUNDINGS.map(|rounding| {
        let tensor = TernaryTensor::quantize(Packing::Tq2_0, rounding, 64, 256, &w, None).unwrap();
        let mut sums = ErrorSums::default();
        let mut row = [0.0; 256];
        for (r, weights) in w.chunks_exact(256).enumerate() {
            tensor.dequantize_row(r, &mut row).unwrap();
            sums.add(weights, &row);
        }
        sums.metrics()
    });
    assert!((0.24..0.28).contains(&absmean.relative_mse), "{absmean:?}");
    assert!((0.18..0.20).contains(&exact.relative_mse), "{exact:?}");
    assert!((0.35..0.55).contains(&exact.sparsity), "{exact:?}");
    assert!(exact.cosine > 0.89 && exact.cosine < 0.91, "{exact:?}");
}

#[test]
fn blocks_of_zeros_have_scale_zero() {
    for rounding in ROUNDINGS {
        // Also where the scale is too small for f16.
        for tiny in [0.0, 1e-9, f32::from_bits(1)] {
            let mut trits = [7; BLOCK];
            let scale = quantize_block(rounding, &[tiny; BLOCK], None, &mut trits);
            assert_eq!((scale.to_bits(), trits), (0, [0; BLOCK]), "{rounding:?} of {tiny}");
        }
    }
}

#[test]
fn scales_saturate() {
    for rounding in ROUNDINGS {
        let mut trits = [0; 8];
        let scale = quantize_block(rounding, &[f32::MAX; 8], None, &mut trits);
        assert_eq!((scale, trits), (f16::MAX, [1; 8]));
    }
}

#[test]
fn block_sizes_64_and_128_are_quantised_alike() {
    let w = gaussian(128);
    let mut trits = [0; 128];
    let (left, right) = trits.split_at_mut(64);
    let [a, b] = [(&w[..64], left), (&w[64..], right)].map(|(w, trits)| {
        let trits: &mut [i8; 64] = trits.try_into().unwrap();
        quantize_block(Rounding::LeastSquares, w.try_into().unwrap(), None, trits)
    });
    assert_ne!(a, b);
    let mut whole = [0; 128];
    let weights = w.as_slice().try_into().unwrap();
    let scale = quantize_block(Rounding::LeastSquares, weights, None, &mut whole);
    let ones = [1.0; 128];
    let halves =
        weighted_error(&w[..64], &ones[..64], &trits[..64], a) + weighted_error(&w[64..], &ones[64..], &trits[64..], b);
    assert!(halves <= weighted_error(&w, &ones, &whole, scale) * (1.0 + 1e-5));
}

#[test]
fn values_that_are_not_finite_are_an_error_that_names_the_block() {
    let mut row = gaussian(768);
    let importance = vec![1.0; 768];
    for rounding in ROUNDINGS {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let good = std::mem::replace(&mut row[600], bad);
            let mut out = vec![0; 198];
            let refused = quantize_row(Packing::Tq2_0, rounding, &row, None, &mut out);
            assert_eq!(refused, Err(Error::NotFinite { block: 2 }));
            row[600] = good;
        }
        for bad in [f32::NAN, f32::INFINITY, -1.0] {
            let mut importance = importance.clone();
            importance[300] = bad;
            let mut out = vec![0; 198];
            let refused = quantize_row(Packing::Tq2_0, rounding, &row, Some(&importance), &mut out);
            assert_eq!(refused, Err(Error::BadImportance { block: 1 }));
        }
    }
}

#[test]
fn rows_are_quantised_block_by_block() {
    let row = gaussian(512);
    for packing in Packing::ALL {
        let mut out = vec![0; packing.row_bytes(512).unwrap()];
        quantize_row(packing, Rounding::LeastSquares, &row, None, &mut out).unwrap();
        for (b, packed) in out.chunks_exact(packing.block_bytes()).enumerate() {
            let (mut expected, mut trits) = ([0; BLOCK], [0; BLOCK]);
            let weights = row[b * BLOCK..][..BLOCK].try_into().unwrap();
            let scale = quantize_block(Rounding::LeastSquares, weights, None, &mut expected);
            assert_eq!(packing.decode(packed, &mut trits), Ok(scale));
            assert_eq!(trits, expected);
        }
        let span = quantize_row(packing, Rounding::AbsMean, &row, None, &mut out[1..]);
        assert!(matches!(span, Err(Error::Span { .. })), "{span:?}");
    }
}
