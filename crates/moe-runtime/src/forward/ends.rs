//! The parts of a model outside of its layers: embedding, final norm and head. Programs that run the layers one by one load
//! them alone.

use gguf_bitnet::Catalog;
use ternary_core::ActMode;
use tl_kernels::{ActivationBuffer, KernelSelector, Linear, Pool};

use crate::error::Result;
use crate::forward::embedding::{EMBEDDING, Embedding, HEAD};
use crate::forward::layer::norm_rows;
use crate::load::rows::RowReader;
use crate::load::weights::WeightReader;
use crate::models::config::ModelConfig;

/// Embedding, final norm and head of a model. Weights stay mapped where a kernel reads their type as it is.
#[derive(Debug)]
pub struct ModelEnds {
    /// One row per token, `[vocab, hidden]`.
    embedding: Embedding,
    /// The weight of the norm behind the last layer, `[hidden]`.
    final_norm: Vec<f32>,
    /// `[vocab, hidden]`; `None` when the embedding serves as the head.
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
        ModelEnds::read(WeightReader::new(catalog, mode, &kernels), config)
    }

    /// Reads these parts of the model that `config` describes.
    pub(crate) fn read(weights: WeightReader<'_>, config: &ModelConfig) -> Result<ModelEnds> {
        let rows = RowReader::of_model(weights, config);
        let (embedding, head) = (Embedding::read(&rows, EMBEDDING)?, rows.optional_matrix(HEAD)?);
        Ok(ModelEnds {
            embedding: if head.is_none() { embedding.into_head() } else { embedding },
            final_norm: rows.vector("output_norm.weight")?,
            head,
            eps: config.norm_eps,
        })
    }

    /// The weights that the parts compute with.
    pub(crate) fn parts(&self) -> EndParts<'_> {
        let ModelEnds { embedding, final_norm, eps, .. } = self;
        EndParts { embedding, norm: final_norm, head: self.head(), eps: *eps }
    }

    /// Writes the embeddings of `tokens` to `x` `[n, hidden]`.
    ///
    /// # Errors
    /// A damaged row.
    ///
    /// # Panics
    /// If the model has no such token.
    pub fn embed(&self, tokens: &[u32], x: &mut Vec<f32>) -> Result<()> {
        self.parts().embed(tokens, x)
    }

    /// Replaces the residual stream `x` `[n, hidden]` behind the last layer by the final hidden states.
    pub fn norm(&self, pool: &Pool, x: &mut Vec<f32>) {
        let mut hidden = Vec::new();
        self.parts().norm_into(pool, x, &mut hidden);
        *x = hidden;
    }

    /// The logits `[n, vocab]` of final hidden states `[n, hidden]`.
    #[must_use]
    pub fn logits(&self, pool: &Pool, hidden: &[f32]) -> Vec<f32> {
        let width = self.final_norm.len();
        let n = hidden.len() / width;
        let (mut acts, mut logits) = (ActivationBuffer::new(), Vec::new());
        acts.set(hidden, n, width);
        self.parts().logits_into(pool, n, &mut acts, &mut logits);
        logits
    }

    /// The head, `[vocab, hidden]`; the embedding itself in tied models.
    pub(crate) fn head(&self) -> &Linear {
        self.head.as_ref().unwrap_or(self.embedding.weights())
    }

    pub(crate) fn head_is_tied(&self) -> bool {
        self.head.is_none()
    }

    /// The weight of the final norm, `[hidden]`.
    pub(crate) fn final_norm(&self) -> &[f32] {
        &self.final_norm
    }
}

/// The weights of the ends: those of a model, or those that its MTP block shares with it or has of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EndParts<'a> {
    /// One row per token, `[vocab, hidden]`.
    pub(crate) embedding: &'a Embedding,
    /// The weight of the last norm, `[hidden]`.
    pub(crate) norm: &'a [f32],
    /// One row per token, `[vocab, hidden]`; in a tied model the embedding.
    pub(crate) head: &'a Linear,
    /// Epsilon of the norms.
    pub(crate) eps: f32,
}

impl EndParts<'_> {
    /// Writes the embeddings of `tokens` to `x` `[n, hidden]`.
    ///
    /// # Errors
    /// A damaged row.
    ///
    /// # Panics
    /// If the model has no such token.
    pub(crate) fn embed(&self, tokens: &[u32], x: &mut Vec<f32>) -> Result<()> {
        let width = self.norm.len();
        x.resize(tokens.len() * width, 0.0);
        for (&token, row) in tokens.iter().zip(x.chunks_exact_mut(width)) {
            self.embedding.read_row(token, row)?;
        }
        Ok(())
    }

    /// Writes the final hidden states of the residual stream `x` `[n, hidden]` behind the last layer to `hidden`.
    pub(crate) fn norm_into(&self, pool: &Pool, x: &[f32], hidden: &mut Vec<f32>) {
        hidden.resize(x.len(), 0.0);
        norm_rows(pool, x, self.norm, self.eps, hidden);
    }

    /// Writes the logits of the `n` final hidden states in `acts` to `logits` `[n, vocab]`.
    pub(crate) fn logits_into(&self, pool: &Pool, n: usize, acts: &mut ActivationBuffer, logits: &mut Vec<f32>) {
        acts.quantize(self.head.act_mode());
        logits.resize(n * self.head.rows(), 0.0);
        self.head.forward(pool, acts, logits);
    }
}
