//! The search for the trits of one block: exact descent from a start, then kicks out of its local optimum.
//!
//! For a block with the Hessian `H` and the target `c`, the trits `t` and the scale `s` are to minimise
//! `s^2 t'Ht - 2 s t'c`. At the best scale `s = t'c / t'Ht` this is `-(t'c)^2 / t'Ht`, so the search maximises
//!
//! ```text
//! gain(t) = (t'c)^2 / (t'Ht)      over t in {-1, 0, 1}^B with t'c > 0      B = 64 or 256
//! ```
//!
//! and has no scale to hold on to. With `y = Ht` at hand, the gain of another trit at one place costs a few operations,
//! and making the change one pass over a row of `H`. With `s` the best scale, adding `d` to trit i raises the gain where
//!
//! ```text
//! d r_i > d^2 k_i      r_i = 2 (c_i - s y_i),   k_i = s h_ii - c_i^2 / t'c
//! ```
//! which is tried for sixteen trits at once in F32; where it holds for one of them, F64 decides.
//!
//! **Invariant:** the gain never falls below that of the start; the result depends on the arguments alone.

use moe_runtime::SplitMix64;
use tl_kernels::dense::axpy_f32;

/// Trits that a kick changes.
const KICK_TRITS: usize = 6;
/// Trits that are tried together.
const GROUP: usize = 16;

/// The quadratic form of one block of `B` weights.
pub(super) struct BlockProblem<'a, const B: usize> {
    /// The symmetric matrix of the form, `[B, B]`.
    pub(super) hessian: &'a [f32],
    /// The diagonal of `hessian`, side by side.
    pub(super) diagonal: &'a [f32; B],
    /// The linear part `c` of the form, `[B]`.
    pub(super) target: &'a [f32; B],
}

/// How long to search.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort {
    /// Most passes over the trits in one descent; 0 keeps the start.
    pub(super) sweeps: usize,
    /// Kicks after the first descent.
    pub(super) kicks: usize,
}

/// Trits with the sums that their gain is made of.
#[derive(Clone)]
pub(super) struct Candidate<const B: usize> {
    /// The trits, as numbers.
    trits: [f32; B],
    /// The product `H t`, `[B]`.
    product: [f32; B],
    /// The product `t'c` with the target.
    moment: f64,
    /// The square `t'Ht` under the Hessian.
    mass: f64,
}

impl<const B: usize> Candidate<B> {
    /// The trits of a start, `[B]`.
    pub(super) fn new(problem: &BlockProblem<'_, B>, trits: &[i8; B]) -> Self {
        let mut candidate = Self { trits: trits.map(f32::from), product: [0.0; B], moment: 0.0, mass: 0.0 };
        for (i, &trit) in trits.iter().enumerate().filter(|(_, trit)| **trit != 0) {
            axpy_f32(f32::from(trit), problem.row(i), &mut candidate.product);
            candidate.moment += f64::from(trit) * f64::from(problem.target[i]);
        }
        candidate.mass = candidate.mass_of_product();
        candidate
    }

    /// The trits as a file stores them.
    pub(super) fn trits(&self) -> [i8; B] {
        self.trits.map(|trit| trit as i8)
    }

    /// `t'Ht` by sixteen partial sums, which wait for each other the less.
    fn mass_of_product(&self) -> f64 {
        let mut sums = [0.0; GROUP];
        let groups = self.trits.as_chunks::<GROUP>().0.iter().zip(self.product.as_chunks::<GROUP>().0);
        for (trits, product) in groups {
            for ((sum, &t), &y) in sums.iter_mut().zip(trits).zip(product) {
                *sum += f64::from(t * y);
            }
        }
        sums.iter().sum()
    }

    /// The best scale of the trits; 0 where every scale is as good.
    pub(super) fn scale(&self) -> f64 {
        if self.mass > 0.0 && self.moment > 0.0 { self.moment / self.mass } else { 0.0 }
    }

    /// By how much the trits at their best scale lower the error.
    pub(super) fn gain(&self) -> f64 {
        if self.mass > 0.0 && self.moment > 0.0 { self.moment * self.moment / self.mass } else { 0.0 }
    }

    /// The moment and the mass with `change` added to trit `i`.
    fn after(&self, problem: &BlockProblem<'_, B>, i: usize, change: f64) -> (f64, f64) {
        let (y, h) = (f64::from(self.product[i]), f64::from(problem.diagonal[i]));
        let moment = self.moment + change * f64::from(problem.target[i]);
        (moment, self.mass + change * (2.0 * y + change * h))
    }

    fn change(&mut self, problem: &BlockProblem<'_, B>, i: usize, change: f32) {
        (self.moment, self.mass) = self.after(problem, i, f64::from(change));
        axpy_f32(change, problem.row(i), &mut self.product);
        self.trits[i] += change;
    }

    /// Changes single trits while that raises the gain, in at most `sweeps` passes.
    fn descend(&mut self, problem: &BlockProblem<'_, B>, sweeps: usize) {
        for _ in 0..sweeps {
            let mut changed = false;
            for first in (0..B).step_by(GROUP) {
                let mut forms = self.forms();
                let group = first..first + GROUP;
                // Without branches, for the vector units: most groups hold no such trit.
                if !group.clone().fold(false, |any, i| any | self.may_gain(problem, i, forms)) {
                    continue;
                }
                for i in group {
                    if self.may_gain(problem, i, forms) && self.improve_trit(problem, i) {
                        forms = self.forms();
                        changed = true;
                    }
                }
            }
            if !changed {
                break;
            }
            // The sums drift by rounding; a fresh one per pass keeps the drift that of one pass.
            self.mass = self.mass_of_product();
        }
    }

    /// The best scale, and one over `t'c`; numbers that let every change pass where the trits have no scale.
    fn forms(&self) -> [f32; 2] {
        if self.moment > 0.0 && self.mass > 0.0 {
            [(self.moment / self.mass) as f32, (1.0 / self.moment) as f32]
        } else {
            [0.0, f32::MAX]
        }
    }

    /// Whether F32 finds a change of trit `i` that raises the gain.
    #[inline]
    fn may_gain(&self, problem: &BlockProblem<'_, B>, i: usize, [scale, inverse]: [f32; 2]) -> bool {
        let (trit, c) = (self.trits[i], problem.target[i]);
        let residual = 2.0 * (c - scale * self.product[i]);
        let curvature = scale * problem.diagonal[i] - c * c * inverse;
        // A trit of 0 can move either way, another one towards 0. Where a move of 2 gains, one of 1 does, too, unless the curvature
        // is below 0: there a move of 2 can gain alone, and is not tried.
        let towards = (-trit * residual).max((1.0 - trit * trit) * residual.abs());
        towards > curvature
    }

    /// Makes the change of trit `i` that raises the gain the most, if one does.
    fn improve_trit(&mut self, problem: &BlockProblem<'_, B>, i: usize) -> bool {
        let (mut best, mut chosen) = ((self.moment.max(0.0), self.mass), 0.0);
        for change in changes(self.trits[i]) {
            let (moment, mass) = self.after(problem, i, f64::from(change));
            if gains(moment, mass, best) {
                (best, chosen) = ((moment, mass), change);
            }
        }
        if chosen != 0.0 {
            self.change(problem, i, chosen);
        }
        chosen != 0.0
    }
}

/// Whether `moment^2 / mass` is above that of `best`, without a division; the margin keeps rounding from going in circles.
fn gains(moment: f64, mass: f64, best: (f64, f64)) -> bool {
    let better = moment * moment * best.1 > best.0 * best.0 * mass * (1.0 + 1e-9);
    (moment > 0.0) & (mass > 0.0) & (better | (best.1 <= 0.0))
}

impl<const B: usize> BlockProblem<'_, B> {
    fn row(&self, i: usize) -> &[f32] {
        &self.hessian[i * B..][..B]
    }

    /// Descends from `start`, then kicks and descends again, keeping what is better.
    pub(super) fn search(&self, start: &[i8; B], effort: Effort, rng: &mut SplitMix64) -> Candidate<B> {
        let mut best = Candidate::new(self, start);
        if best.gain() == 0.0 {
            // Nothing to descend from: the zero block, or a start that points away from the target.
            best = Candidate::new(self, &[0; B]);
        }
        best.descend(self, effort.sweeps);
        for _ in 0..effort.kicks {
            let mut kicked = best.clone();
            for _ in 0..KICK_TRITS {
                let random = rng.next_u64();
                let i = (random % B as u64) as usize;
                let [one, other] = changes(kicked.trits[i]);
                kicked.change(self, i, if random >> 63 == 0 { one } else { other });
            }
            kicked.descend(self, effort.sweeps);
            if kicked.gain() > best.gain() {
                best = kicked;
            }
        }
        best
    }
}

/// The two changes that make another trit of `trit`.
fn changes(trit: f32) -> [f32; 2] {
    if trit == 0.0 { [1.0, -1.0] } else { [-trit, -2.0 * trit] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ptq::samples::Samples;
    use ternary_core::{BLOCK, Rounding, quantize_block};

    struct Block {
        hessian: Vec<f32>,
        diagonal: [f32; BLOCK],
        target: [f32; BLOCK],
        start: [i8; BLOCK],
    }

    fn block(seed: u64) -> Block {
        let samples = Samples::new(BLOCK, seed);
        let mut start = [0; BLOCK];
        let weights: &[f32; BLOCK] = samples.weights.as_slice().try_into().unwrap();
        quantize_block(Rounding::LeastSquares, weights, None, &mut start);
        let hessian: Vec<f32> = samples.hessian.iter().map(|&h| h as f32).collect();
        let diagonal = std::array::from_fn(|i| hessian[i * BLOCK + i]);
        Block { hessian, diagonal, target: samples.target().try_into().unwrap(), start }
    }

    impl Block {
        fn problem(&self) -> BlockProblem<'_, BLOCK> {
            BlockProblem { hessian: &self.hessian, diagonal: &self.diagonal, target: &self.target }
        }

        fn gain(&self, sweeps: usize, kicks: usize) -> f64 {
            let found = self.problem().search(&self.start, Effort { sweeps, kicks }, &mut SplitMix64::new(7));
            let fresh = Candidate::new(&self.problem(), &found.trits()).gain();
            assert!((found.gain() - fresh).abs() < 1e-4 * fresh, "the running sums are those of the trits");
            fresh
        }
    }

    #[test]
    fn descent_gains_and_kicks_gain_more() {
        let block = block(5);
        let start = Candidate::new(&block.problem(), &block.start).gain();
        assert!((block.gain(0, 0) - start).abs() < 1e-6 * start);
        let (one, many, kicked) = (block.gain(1, 0), block.gain(9, 0), block.gain(9, 40));
        let all: f64 = block.target.iter().zip(&Samples::new(BLOCK, 5).weights).map(|(&c, &w)| f64::from(c * w)).sum();
        let left = |gain: f64| (all - gain) / all;
        assert!(left(one) < 0.8 * left(start), "{} of {}", left(one), left(start));
        assert!(many > one && kicked > many, "{one} {many} {kicked}");
    }

    #[test]
    fn no_single_change_improves_what_descent_found() {
        let block = block(6);
        let problem = block.problem();
        let found = problem.search(&block.start, Effort { sweeps: 100, kicks: 0 }, &mut SplitMix64::new(0));
        for i in 0..BLOCK {
            for change in changes(found.trits[i]) {
                let mut trits = found.trits();
                trits[i] += change as i8;
                let gain = Candidate::new(&problem, &trits).gain();
                assert!(gain <= found.gain() * (1.0 + 1e-5), "trit {i}");
            }
        }
    }

    #[test]
    fn trits_are_passed_over_where_no_change_gains() {
        let block = block(8);
        let problem = block.problem();
        let mut gaining = 0;
        for sweeps in 0..4 {
            let found = problem.search(&block.start, Effort { sweeps, kicks: 0 }, &mut SplitMix64::new(0));
            for i in 0..BLOCK {
                let any = found.clone().improve_trit(&problem, i);
                assert_eq!(found.may_gain(&problem, i, found.forms()), any, "trit {i} after {sweeps} sweeps");
                gaining += usize::from(any);
            }
        }
        assert!(gaining > 0 && gaining < 2 * BLOCK);
    }

    #[test]
    fn a_block_without_a_target_stays_zero_and_a_wrong_start_is_left() {
        let block = block(7);
        let nothing = BlockProblem { target: &[0.0; BLOCK], ..block.problem() };
        let effort = Effort { sweeps: 6, kicks: 3 };
        let found = nothing.search(&block.start, effort, &mut SplitMix64::new(0));
        assert_eq!((found.scale(), found.gain()), (0.0, 0.0));
        let away = block.start.map(|trit| -trit);
        let found = block.problem().search(&away, effort, &mut SplitMix64::new(0));
        assert!(found.scale() > 0.0);
    }
}
