//! The order in which windows are trained on.
//!
//! **Invariant:** the windows of a step follow from the seed and the number of the step alone.

use moe_runtime::SplitMix64;

/// The order of some windows, pass after pass.
#[derive(Clone, Copy, Debug)]
pub struct Batches {
    /// The number of windows to choose from.
    pub windows: usize,
    /// Windows of a step.
    pub per_step: usize,
    /// Seed of the order.
    pub seed: u64,
}

impl Batches {
    /// The windows of step `step`, counted from 0. Each pass over all windows has another order.
    #[must_use]
    pub fn of_step(&self, step: usize) -> Vec<usize> {
        let first = step.saturating_mul(self.per_step);
        let mut known: Option<(usize, Vec<usize>)> = None;
        let mut batch = Vec::with_capacity(self.per_step);
        for number in first..first.saturating_add(self.per_step) {
            let (pass, place) = (number / self.windows.max(1), number % self.windows.max(1));
            let order = match known.take() {
                Some((of, order)) if of == pass => order,
                _ => self.order(pass),
            };
            batch.extend(order.get(place));
            known = Some((pass, order));
        }
        batch
    }

    fn order(&self, pass: usize) -> Vec<usize> {
        shuffled(self.windows, self.seed.wrapping_add((pass as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }
}

/// The numbers below `n` in an order that follows from the seed.
pub(super) fn shuffled(n: usize, seed: u64) -> Vec<usize> {
    let mut rng = SplitMix64::new(seed);
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..order.len()).rev() {
        order.swap(i, (rng.next_u64() % (i as u64 + 1)) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pass_takes_each_window_once_in_another_order() {
        let batches = Batches { windows: 7, per_step: 3, seed: 1 };
        let numbers: Vec<usize> = (0..7).flat_map(|step| batches.of_step(step)).collect();
        let passes: Vec<&[usize]> = numbers.chunks(7).collect();
        for pass in &passes {
            let mut sorted = pass.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..7).collect::<Vec<_>>());
        }
        assert_ne!(passes[0], passes[1]);
        assert_ne!(
            numbers[..7],
            (0..3).flat_map(|s| Batches { seed: 2, ..batches }.of_step(s)).collect::<Vec<_>>()[..7]
        );
    }
}
