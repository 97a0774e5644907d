//! The error that each type of the head causes in the logits.

use gguf_bitnet::TensorClass;
use moe_runtime::ModelFiles;
use tl_kernels::{ActivationBuffer, Linear, Pool, math};

use super::candidates::Candidates;
use super::shares::{length2, mean_share, subtract};
use super::weights::{Weights, index_of, linear, missing};
use crate::error::Result;

/// Rows of the head that are multiplied with at a time.
pub(super) const HEAD_ROWS: usize = 1024;

/// Measures the head on `stream` `[n, hidden]` behind the last layer.
pub(super) fn measure_head(weights: Weights<'_>, candidates: &mut Candidates, stream: &[f32]) -> Result<()> {
    let catalog = &weights.files.catalog;
    // A model without a head of its own multiplies with the embedding.
    let (name, class) = match catalog.find("output.weight") {
        Some(_) => ("output.weight", TensorClass::Head),
        None => ("token_embd.weight", TensorClass::Embedding),
    };
    let plans = candidates.measured(class);
    let Some((_, plan)) = plans.first() else { return Ok(()) };
    let index = index_of(plan, name)?;
    let (rows, cols) = (plan.tensors[index].rows(), plan.tensors[index].cols());
    let acts = normed(weights.files, stream)?;
    let mut lengths2 = LogitSums::new(acts.n());
    let mut errors2 = vec![LogitSums::new(acts.n()); plans.len()];
    for first in (0..rows).step_by(HEAD_ROWS) {
        let chunk = first..rows.min(first + HEAD_ROWS);
        let mut teacher = vec![0.0; chunk.len() * cols];
        catalog.read_rows(&catalog.tensors()[index], chunk.clone(), &mut teacher)?;
        for ((_, plan), errors2) in plans.iter().zip(&mut errors2) {
            let mut student = weights.values(plan, index, chunk.clone())?;
            subtract(&mut student, &teacher);
            errors2.add(&logits(weights.pool, &acts, &linear(cols, student)?));
        }
        lengths2.add(&logits(weights.pool, &acts, &linear(cols, teacher)?));
    }
    catalog.release(&catalog.tensors()[index]);
    let lengths2: Vec<f64> = lengths2.squares().collect();
    let errors = plans.iter().zip(&errors2).map(|((ty, _), sums)| (*ty, mean_share(sums.squares(), &lengths2)));
    let errors: Vec<_> = errors.collect();
    errors.into_iter().for_each(|(ty, error)| candidates.add_error(class, ty, error));
    Ok(())
}

/// The stream behind the last norm.
fn normed(files: &ModelFiles, stream: &[f32]) -> Result<ActivationBuffer> {
    let hidden = files.config.hidden;
    let Some(tensor) = files.catalog.find("output_norm.weight") else { return Err(missing("output_norm.weight")) };
    let mut weight = vec![0.0; hidden];
    files.catalog.read_rows(tensor, 0..1, &mut weight)?;
    let mut acts = ActivationBuffer::new();
    acts.fill(stream.len() / hidden, hidden, |token, row| {
        math::rms_norm(&stream[token * hidden..][..hidden], &weight, files.config.norm_eps, row);
    });
    Ok(acts)
}

/// The products of all tokens with some rows of the head, `[n, rows]`.
fn logits(pool: &Pool, acts: &ActivationBuffer, head: &Linear) -> Vec<f32> {
    let mut logits = vec![0.0; acts.n() * head.rows()];
    head.forward(pool, acts, &mut logits);
    logits
}

/// For each token, the squares of its logits around their mean, summed as the rows of the head come.
#[derive(Clone, Debug)]
struct LogitSums {
    rows: usize,
    sums: Vec<f64>,
    squares: Vec<f64>,
}

impl LogitSums {
    fn new(tokens: usize) -> Self {
        Self { rows: 0, sums: vec![0.0; tokens], squares: vec![0.0; tokens] }
    }

    /// Adds logits `[tokens, rows]`.
    fn add(&mut self, logits: &[f32]) {
        let rows = logits.len() / self.sums.len().max(1);
        self.rows += rows;
        for ((sum, square), logits) in self.sums.iter_mut().zip(&mut self.squares).zip(logits.chunks_exact(rows.max(1)))
        {
            *sum += logits.iter().map(|&v| f64::from(v)).sum::<f64>();
            *square += length2(logits);
        }
    }

    fn squares(&self) -> impl Iterator<Item = f64> {
        let n = self.rows.max(1) as f64;
        self.sums.iter().zip(&self.squares).map(move |(sum, square)| (square - sum * sum / n).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logits_are_measured_around_their_mean() {
        let mut sums = LogitSums::new(2);
        sums.add(&[5.0, 6.0, 1.0, 1.0]);
        sums.add(&[10.0, -3.0]);
        let spread: Vec<f64> = sums.squares().collect();
        assert!((spread[0] - 14.0).abs() < 1e-9 && (spread[1] - 32.0 / 3.0).abs() < 1e-9, "{spread:?}");
    }
}
