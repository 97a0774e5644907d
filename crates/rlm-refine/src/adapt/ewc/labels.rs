//! Labels of a window, sampled from the model's own predictions.
//!
//! **Invariant:** the labels follow from the values of the model, the window and the seed.

use moe_runtime::SplitMix64;

use crate::error::Result;
use crate::train::TrainModel;
use crate::train::ops::loss::probabilities;

/// Positions whose logits are in memory at a time.
const POSITIONS: usize = 256;

/// One token per position of `window`, drawn from the model's distribution there.
pub(super) fn sample_labels(model: &TrainModel<'_>, window: &[u32], seed: u64) -> Result<Vec<u32>> {
    let predictions = model.targets(&[window.to_vec()])?;
    let vocab = model.files().config.vocab;
    let mut random = SplitMix64::new(seed);
    let mut labels = Vec::with_capacity(window.len());
    for first in (0..window.len()).step_by(POSITIONS) {
        let logits = predictions.logits(first, POSITIONS.min(window.len() - first));
        labels.extend(logits.chunks_exact(vocab).map(|row| draw(row, random.next_f64())));
    }
    Ok(labels)
}

/// The token at the share `at` of the softmax of `logits`.
fn draw(logits: &[f32], at: f64) -> u32 {
    let mut left = at;
    for (token, probability) in probabilities(logits).into_iter().enumerate() {
        left -= probability;
        if left < 0.0 {
            return token as u32;
        }
    }
    // Rounding left a rest behind the last token.
    logits.len().saturating_sub(1) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_drawn_as_often_as_they_are_likely() {
        let logits = [0.0, 3f32.ln(), f32::NEG_INFINITY, 4f32.ln()];
        let mut counts = [0; 4];
        (0..800).for_each(|i| counts[draw(&logits, (f64::from(i) + 0.5) / 800.0) as usize] += 1);
        assert_eq!(counts, [100, 300, 0, 400]);
    }
}
