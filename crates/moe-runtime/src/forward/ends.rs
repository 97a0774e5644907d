//! The parts of a model outside of its layers: embedding, final norm and head, for programs that run the layers one by one.

use gguf_bitnet::Catalog;
use ternary_core::ActMode;
use tl_kernels::{ActivationBuffer, KernelSelector, Linear, Pool};

use crate::error::Result;
use crate::forward::layer::norm_rows;
use crate::load::rows::RowReader;
use crate::load::weights::WeightReader;
use crate::models::config::ModelConfig;

/// Embedding, final norm and head of a model. Weights stay mapped where a kernel reads their type as it is.
#[derive(Debug)]
pub struct ModelEnds {
    embedding: Linear,
    /// The weight of the norm behind the last layer, `[hidden]`.
    final_norm: Vec<f32>,
    /// `None` when the embedding serves as the head.
    head: Option<Linear>,
    eps: f32,
}

impl ModelEnds {
    /// Loads these parts of the model that `config` describes; a Q8_0, Q6_K or ternary head reads activations in `mode`.
    ///
    /// # Errors
    /// A tensor that is missing, of another shape, damaged or not finite, by name.
    pub fn load(catalog: &Catalog, config: &ModelConfig, mode: ActMode) -> Result<ModelEnds> {
        let kernels = KernelSelector::default();
        let rows = RowReader::of_model(WeightReader::new(catalog, mode, &kernels), config);
        Ok(ModelEnds {
            embedding: rows.matrix("token_embd.weight")?,
            final_norm: rows.vector("output_norm.weight")?,
            head: rows.optional_matrix("output.weight")?,
            eps: config.norm_eps,
        })
    }

    /// Writes the embeddings of `tokens` to `x` `[n, hidden]`.
    ///
    /// # Errors
    /// A token that the model does not know.
    pub fn embed(&self, tokens: &[u32], x: &mut Vec<f32>) -> Result<()> {
        let width = self.final_norm.len();
        x.resize(tokens.len() * width, 0.0);
        for (&token, row) in tokens.iter().zip(x.chunks_exact_mut(width)) {
            self.embedding.dequantize_row(token as usize, row)?;
        }
        Ok(())
    }

    /// Replaces the residual stream `x` `[n, hidden]` behind the last layer by the final hidden states.
    pub fn norm(&self, pool: &Pool, x: &mut Vec<f32>) {
        let mut hidden = vec![0.0; x.len()];
        norm_rows(pool, x, &self.final_norm, self.eps, &mut hidden);
        *x = hidden;
    }

    /// The logits `[n, vocab]` of final hidden states `[n, hidden]`.
    #[must_use]
    pub fn logits(&self, pool: &Pool, hidden: &[f32]) -> Vec<f32> {
        let head = self.head.as_ref().unwrap_or(&self.embedding);
        let width = self.final_norm.len();
        let n = hidden.len() / width;
        let mut acts = ActivationBuffer::new();
        acts.set(hidden, n, width);
        acts.quantize(head.act_mode());
        let mut logits = vec![0.0; n * head.rows()];
        head.forward(pool, &acts, &mut logits);
        logits
    }
}
