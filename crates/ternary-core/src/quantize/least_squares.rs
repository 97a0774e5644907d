//! The exact weighted least-squares ternary block.
//!
//! The quantiser finds the trits `t` and the scale `s` that minimise `sum h_i (w_i - s t_i)^2`. Write `a_i` for
//! `|w_i|` and call the weights with `t_i != 0` the support. For a fixed support the best signs are those of the
//! weights and the best scale is the support's mean magnitude:
//!
//! ```text
//! s = P / N,   P = sum of h a,   N = sum of h,   and the error left is  sum h w^2 - P^2 / N
//! ```
//!
//! For a fixed scale a weight belongs to the support iff `a > s / 2`. A best support is therefore a
//! prefix of the weights in descending magnitude: the one of largest gain `P^2 / N`.
//!
//! Sorting all of the block would cost most of the time, and is hardly ever needed. The weights are
//! put into buckets of neighbouring magnitudes instead, and the prefixes that end with a bucket are
//! tried. A bucket `[low, high)` is sorted and tried weight by weight only if a best support may
//! end *inside* of it: such a support holds a weight below `high` and leaves out one of `low` or
//! more, so that half its scale is below `high` and at least `low`; and its scale lies between the
//! means of the prefixes that end with the bucket and before it. Few buckets pass:
//!
//! ```text
//! mean of the prefix with the bucket / 2 < high   and   low <= mean of the prefix before it / 2
//! ```
//!
//! **Invariant**: sums are f64, in a fixed order; the optimum is exact up to their rounding.

use half::f16;

use super::scale::stored_scale;

/// Buckets of a block. The last one takes all magnitudes too small for the others.
const BUCKETS: usize = 64;

/// Magnitudes whose bits agree above this one share a bucket: eight buckets per factor of two.
const BUCKET_SHIFT: u32 = f32::MANTISSA_DIGITS - 1 - 3;

/// Trits of least error and their scale. The trits are the best ones for the scale as it is stored:
/// rounding it to f16 may move a weight across the threshold.
pub(super) fn quantize<const N: usize>(weights: &[f32; N], importance: Option<&[f32; N]>, trits: &mut [i8; N]) -> f16 {
    let scale = stored_scale(best_scale(weights, importance));
    let threshold = 0.5 * scale.to_f32();
    for (trit, &w) in trits.iter_mut().zip(weights) {
        *trit = i8::from(w > threshold) - i8::from(w < -threshold);
    }
    scale
}

/// The scale of least error, not rounded yet; 0 for a block of zeros.
fn best_scale<const N: usize>(weights: &[f32; N], importance: Option<&[f32; N]>) -> f64 {
    // If all importances are zero, every scale has the error 0, so they are ignored.
    match importance {
        Some(importance) if importance.iter().any(|&h| h > 0.0) => search(weights, importance),
        _ => search(weights, &[1.0; N]),
    }
}

/// The scale of the prefix of largest gain.
fn search<const N: usize>(weights: &[f32; N], importance: &[f32; N]) -> f64 {
    let buckets = Buckets::new(weights, importance);
    let mut members = [(0, 0.0); N];
    let mut prefix = Support::default();
    let mut best = prefix;
    for (index, &bucket) in buckets.sums.iter().enumerate() {
        if bucket.mass == 0.0 {
            continue;
        }
        let next = prefix.plus(bucket);
        if buckets.may_end_inside(index, &prefix, &next) {
            // Magnitudes order like their bits.
            let members = buckets.members(index, weights, importance, &mut members);
            members.sort_unstable_by(|(a, _), (b, _)| b.cmp(a));
            for &mut (magnitude_bits, h) in members {
                prefix = prefix.plus(Support::of(f32::from_bits(magnitude_bits), h));
                best = best.better(prefix);
            }
        }
        prefix = next;
        best = best.better(prefix);
    }
    best.mean()
}

/// A set of weights that get a trit other than 0.
#[derive(Clone, Copy, Default)]
struct Support {
    /// P, the sum of `h a`.
    moment: f64,
    /// N, the sum of `h`.
    mass: f64,
}

impl Support {
    /// The support of a single weight.
    fn of(magnitude: f32, h: f32) -> Self {
        let (a, h) = (f64::from(magnitude), f64::from(h));
        Self { moment: h * a, mass: h }
    }

    fn plus(self, other: Self) -> Self {
        Self { moment: self.moment + other.moment, mass: self.mass + other.mass }
    }

    /// The one of larger gain, `self` where they are equal.
    fn better(self, other: Self) -> Self {
        if other.gain() > self.gain() { other } else { self }
    }

    /// By how much the support, at its best scale, lowers the squared error.
    fn gain(self) -> f64 {
        if self.mass == 0.0 { 0.0 } else { self.moment * self.moment / self.mass }
    }

    /// The support's best scale.
    fn mean(self) -> f64 {
        if self.mass == 0.0 { 0.0 } else { self.moment / self.mass }
    }
}

/// The block's weights by magnitude, bucket 0 with the largest.
struct Buckets<const N: usize> {
    /// Upper bits of the largest magnitude; bucket `index` has those less by `index`.
    top: u32,
    /// Bucket of each weight.
    of_weight: [u8; N],
    /// All weights of each bucket.
    sums: [Support; BUCKETS],
}

impl<const N: usize> Buckets<N> {
    fn new(weights: &[f32; N], importance: &[f32; N]) -> Self {
        let bits = weights.map(|w| w.abs().to_bits());
        let top = bits.iter().max().map_or(0, |max| max >> BUCKET_SHIFT);
        let of_weight = bits.map(|bits| (top - (bits >> BUCKET_SHIFT)).min(BUCKETS as u32 - 1) as u8);
        let mut sums = [Support::default(); BUCKETS];
        for ((&index, w), &h) in of_weight.iter().zip(weights).zip(importance) {
            let sum = &mut sums[usize::from(index)];
            *sum = sum.plus(Support::of(w.abs(), h));
        }
        Self { top, of_weight, sums }
    }

    /// Whether a best support may hold one part of bucket `index` and leave out another.
    fn may_end_inside(&self, index: usize, before: &Support, with: &Support) -> bool {
        // The lower bound of the bucket `key`; the top one may end with infinity, which is right.
        let bound = |key: u32| f64::from(f32::from_bits(key << BUCKET_SHIFT));
        let key = self.top.saturating_sub(index as u32);
        let high = bound(key + 1);
        let low = if index == BUCKETS - 1 { 0.0 } else { bound(key) };
        with.moment < 2.0 * high * with.mass && 2.0 * low * before.mass <= before.moment
    }

    /// Magnitude bits and importance of the weights of bucket `index`.
    fn members<'a>(
        &self,
        index: usize,
        weights: &[f32; N],
        importance: &[f32; N],
        members: &'a mut [(u32, f32); N],
    ) -> &'a mut [(u32, f32)] {
        let mut n = 0;
        for ((&of_weight, w), &h) in self.of_weight.iter().zip(weights).zip(importance) {
            if usize::from(of_weight) == index {
                members[n] = (w.abs().to_bits(), h);
                n += 1;
            }
        }
        &mut members[..n]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// By how much trits, at their best scale, lower the squared error.
    fn gain(trits: &[i8], weights: &[f32], importance: &[f32]) -> f64 {
        let (mut moment, mut mass) = (0.0, 0.0);
        for ((&t, &w), &h) in trits.iter().zip(weights).zip(importance) {
            moment += f64::from(h) * f64::from(w) * f64::from(t);
            mass += f64::from(h) * f64::from(t.abs());
        }
        if mass == 0.0 { 0.0 } else { moment * moment / mass }
    }

    /// The largest gain among all 3^8 blocks.
    fn brute_force(weights: &[f32; 8], importance: &[f32; 8]) -> f64 {
        (0..3_u32.pow(8))
            .map(|q| {
                let trits: [i8; 8] = core::array::from_fn(|i| (q / 3_u32.pow(i as u32) % 3) as i8 - 1);
                gain(&trits, weights, importance)
            })
            .fold(0.0, f64::max)
    }

    /// The gain that a scale achieves with the trits that suit it best.
    fn gain_of_scale(scale: f64, weights: &[f32], importance: &[f32]) -> f64 {
        weights.iter().zip(importance).fold(0.0, |gain, (&w, &h)| {
            let (w, h) = (f64::from(w.abs()), f64::from(h));
            let rest = (w - scale).abs().min(w);
            gain + h * (w * w - rest * rest)
        })
    }

    /// The largest gain among all prefixes of the sorted block.
    fn by_sorting(weights: &[f32], importance: &[f32]) -> f64 {
        let mut order: Vec<_> = weights.iter().map(|w| w.abs()).zip(importance).collect();
        order.sort_by(|x, y| y.0.total_cmp(&x.0));
        let mut prefix = Support::default();
        order.iter().fold(0.0, |best: f64, &(a, &h)| {
            prefix = prefix.plus(Support::of(a, h));
            best.max(prefix.gain())
        })
    }

    fn assert_equal_gain(found: f64, best: f64) {
        assert!((found - best).abs() <= 1e-12 * best, "gain {found}, the best is {best}");
    }

    /// Weights of many shapes: smooth, spread over octaves, tied, zero.
    fn weight() -> impl Strategy<Value = f32> {
        prop_oneof![
            4 => -1.0_f32..1.0,
            3 => (-1.0_f32..1.0).prop_map(|x| x * x * x),
            2 => (-14..14_i32, prop::bool::ANY)
                .prop_map(|(e, minus)| if minus { -(e as f32).exp2() } else { (e as f32).exp2() }),
            2 => (-3..=3_i8).prop_map(f32::from),
            1 => Just(0.0),
        ]
    }

    fn importance() -> impl Strategy<Value = f32> {
        prop_oneof![4 => 0.0_f32..1.0, 2 => 0.0_f32..1000.0, 1 => Just(0.0), 1 => Just(1.0)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn equals_brute_force(w in prop::array::uniform8(weight())) {
            let ones = [1.0; 8];
            let scale = best_scale(&w, None);
            assert_equal_gain(gain_of_scale(scale, &w, &ones), brute_force(&w, &ones));
        }

        #[test]
        fn equals_brute_force_with_importance(
            w in prop::array::uniform8(weight()),
            h in prop::array::uniform8(importance()),
        ) {
            prop_assume!(h.iter().any(|&h| h > 0.0));
            let scale = best_scale(&w, Some(&h));
            assert_equal_gain(gain_of_scale(scale, &w, &h), brute_force(&w, &h));
        }

        #[test]
        fn equals_sorting_a_whole_block(
            w in prop::collection::vec(weight(), 256),
            h in prop::collection::vec(importance(), 256),
        ) {
            let block: &[f32; 256] = w.as_slice().try_into().unwrap();
            let scale = best_scale(block, None);
            assert_equal_gain(gain_of_scale(scale, &w, &[1.0; 256]), by_sorting(&w, &[1.0; 256]));
            let scale = best_scale(block, Some(h.as_slice().try_into().unwrap()));
            assert_equal_gain(gain_of_scale(scale, &w, &h), by_sorting(&w, &h));
        }
    }

    #[test]
    fn a_best_support_may_end_inside_a_bucket() {
        // Magnitudes that all share bucket 1, below a few large ones in bucket 0.
        let low = 1.0_f32 - 1.0 / 1024.0;
        let mut w = [low; 64];
        w[..16].fill(1.9);
        for (i, w) in w.iter_mut().enumerate().skip(16) {
            *w -= i as f32 * 1e-3;
        }
        let scale = best_scale(&w, None);
        assert_equal_gain(gain_of_scale(scale, &w, &[1.0; 64]), by_sorting(&w, &[1.0; 64]));
    }

    #[test]
    fn the_ends_of_the_float_range_are_searched_alike() {
        for unit in [f32::MIN_POSITIVE, f32::from_bits(8), 1.0, f32::MAX / 8.0] {
            let w = [8.0, -7.0, 6.0, 1.0, -1.0, 0.0, 5.0, 3.0].map(|x: f32| x * unit);
            let scale = best_scale(&w, None);
            assert_equal_gain(gain_of_scale(scale, &w, &[1.0; 8]), brute_force(&w, &[1.0; 8]));
        }
        assert_eq!(best_scale(&[0.0; 8], None), 0.0);
        assert_eq!(best_scale(&[0.0; 8], Some(&[2.0; 8])), 0.0);
    }

    #[test]
    fn importance_without_information_is_ignored() {
        let w = [0.9, -0.2, 0.5, 0.1, 0.0, 0.7, -1.0, 0.3];
        assert_eq!(best_scale(&w, Some(&[0.0; 8])), best_scale(&w, None));
        assert_eq!(best_scale(&w, Some(&[3.0; 8])), best_scale(&w, None));
    }
}
