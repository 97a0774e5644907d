//! The MTP block (multi-token prediction): guesses the token behind the next one from the model's final hidden states.
//!
//! ```text
//! x      = projection [rms_norm(embedding of token t + 1) | rms_norm(hidden state of position t)]    [n, 2 hidden] -> [n, hidden]
//! x      = layer(x)                          a decoder layer, with a cache of its own
//! hidden = rms_norm(x)                       stands for the hidden state of position t + 1
//! logits = head(hidden)                      of token t + 2
//! ```
//!
//! The block has the number behind the last layer. Embedding, head and the last norm are the model's where the block has
//! none of its own.
//!
//! Sources: DeepSeek-V3 technical report (arXiv 2412.19437), section 2.2; the architecture `deepseek2` of llama.cpp.
//!
//! **Invariant:** a row has the same bits whatever batch it came in, as a row of the model.

use mla_attention::{CacheShape, CompressedMlaCache, Segments, Sequences};
use tl_kernels::{ActivationBuffer, Linear, Pool, math};

use crate::error::Result;
use crate::forward::embedding::Embedding;
use crate::forward::ends::EndParts;
use crate::forward::layer::{Batch, DecoderLayer, LayerScratch};
use crate::load::rows::RowReader;
use crate::load::weights::WeightReader;
use crate::models::config::ModelConfig;

/// Most rows that a drafter gives to the block at once.
pub(crate) const MTP_ROWS: usize = 64;

/// The weights of the block.
#[derive(Debug)]
pub(crate) struct MtpBlock {
    /// Weight of the norm of the embedding, `[hidden]`.
    embedding_norm: Vec<f32>,
    /// Weight of the norm of the hidden state, `[hidden]`.
    hidden_norm: Vec<f32>,
    /// From an embedding beside a hidden state to the input of the layer, `[hidden, 2 hidden]`.
    projection: Linear,
    layer: DecoderLayer,
    /// Embeddings that the block does not share with the model, `[vocab, hidden]`.
    embedding: Option<Embedding>,
    /// Weight of the last norm, `[hidden]`.
    norm: Option<Vec<f32>>,
    /// A head that the block does not share with the model, `[vocab, hidden]`.
    head: Option<Linear>,
}

/// Tokens and the hidden states in front of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MtpRows<'a> {
    /// The token behind each position.
    pub(crate) tokens: &'a [u32],
    /// The hidden state of each position, `[n, hidden]`.
    pub(crate) hidden: &'a [f32],
}

/// The buffers of the block. They grow to the largest batch seen.
#[derive(Debug, Default)]
pub(crate) struct MtpScratch {
    segments: Segments,
    /// `[n, hidden]`: the embeddings of the tokens, then the residual stream.
    x: Vec<f32>,
    /// `[n, hidden]`: the output of the last norm.
    hidden: Vec<f32>,
    acts: ActivationBuffer,
    layer: LayerScratch,
    /// The logits of one row, `[vocab]`.
    logits: Vec<f32>,
}

impl MtpScratch {
    /// The output of the last norm, `[n, hidden]`.
    pub(crate) fn hidden(&self) -> &[f32] {
        &self.hidden
    }
}

impl MtpBlock {
    /// Reads the block behind the last layer.
    pub(crate) fn read(reader: WeightReader<'_>, config: &ModelConfig) -> Result<MtpBlock> {
        let index = config.n_layers;
        let rows = RowReader::of_layer(reader, config, index);
        Ok(MtpBlock {
            embedding_norm: rows.vector("nextn.enorm.weight")?,
            hidden_norm: rows.vector("nextn.hnorm.weight")?,
            projection: rows.matrix("nextn.eh_proj.weight")?,
            layer: DecoderLayer::read(reader, config, index)?,
            embedding: Embedding::read_optional(&rows, "nextn.embed_tokens.weight")?,
            norm: rows.optional_vector("nextn.shared_head_norm.weight")?,
            head: rows.optional_matrix("nextn.shared_head_head.weight")?,
        })
    }

    /// The numbers that the block stores per position.
    pub(crate) fn cache_shape(&self) -> CacheShape {
        self.layer.cache_shape()
    }

    /// Embedding, last norm and head: those of the model where the block has none of its own.
    pub(crate) fn ends<'a>(&'a self, model: EndParts<'a>) -> EndParts<'a> {
        EndParts {
            embedding: self.embedding.as_ref().unwrap_or(model.embedding),
            norm: self.norm.as_deref().unwrap_or(model.norm),
            head: self.head.as_ref().unwrap_or(model.head),
            ..model
        }
    }
}

/// The block of a model, with the parts of the model that it uses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mtp<'a> {
    pub(crate) block: &'a MtpBlock,
    pub(crate) ends: EndParts<'a>,
    pub(crate) pool: &'a Pool,
}

impl Mtp<'_> {
    /// Moves `rows`, which follow the positions of `cache`, through the block; `cache`, of this block alone, then holds them
    /// too.
    ///
    /// # Errors
    /// A full cache, and a token that the model does not know.
    pub(crate) fn forward(
        &self,
        rows: MtpRows<'_>,
        cache: &mut CompressedMlaCache,
        scratch: &mut MtpScratch,
    ) -> Result<()> {
        let Mtp { block, ends, pool } = *self;
        let MtpScratch { segments, x, hidden, acts, layer, .. } = scratch;
        let (n, width) = (rows.tokens.len(), block.hidden_norm.len());
        ends.embed(rows.tokens, x)?;
        acts.fill(n, 2 * width, |t, row| {
            let (embedding, state) = row.split_at_mut(width);
            math::rms_norm(&x[t * width..][..width], &block.embedding_norm, ends.eps, embedding);
            math::rms_norm(&rows.hidden[t * width..][..width], &block.hidden_norm, ends.eps, state);
        });
        acts.quantize(block.projection.act_mode());
        block.projection.forward(pool, acts, x);
        segments.clear();
        segments.push(0, cache.len(), n);
        let mut sequences = Sequences { segments, caches: std::slice::from_mut(cache), layer: 0 };
        block.layer.forward(Batch { pool, x, scratch: layer, adapter: None }, &mut sequences, &mut ())?;
        ends.norm_into(pool, x, hidden);
        Ok(())
    }

    /// The logits `[vocab]` of the last row of the last [`Mtp::forward`].
    pub(crate) fn logits<'s>(&self, scratch: &'s mut MtpScratch) -> &'s [f32] {
        let MtpScratch { hidden, acts, logits, .. } = scratch;
        let width = self.ends.norm.len();
        acts.set(&hidden[hidden.len().saturating_sub(width)..], 1, width);
        self.ends.logits_into(self.pool, 1, acts, logits);
        logits
    }
}

#[cfg(test)]
mod tests {
    use gguf_bitnet::{SafetensorsDir, TensorSource};
    use mla_attention::{CacheType, CompressedMlaCache};
    use ternary_core::ActMode;

    use super::{MtpRows, MtpScratch};
    use crate::forward::model::CraftsmanModel;
    use crate::load::files::ModelFiles;
    use crate::load::loader::LoadOptions;

    /// The numbers that `fixtures/generators/gen_mtp.py` computed.
    struct Expected {
        hidden: Vec<f32>,
        tokens: Vec<u32>,
        state: Vec<f32>,
        logits: Vec<f32>,
        further_state: Vec<f32>,
        further_logits: Vec<f32>,
    }

    fn expected(case: &str) -> Expected {
        let file = fixtures::path(format!("goldens/mtp/{case}/expected.safetensors"));
        let file = SafetensorsDir::open(&file).expect("the golden opens");
        let bytes = |name: &str| file.bytes(file.index_of(name).expect("a tensor")).expect("the golden is whole");
        let floats = |name: &str| bytes(name).as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let tokens =
            bytes("tokens").as_chunks().0.iter().map(|b| u32::try_from(i64::from_le_bytes(*b)).unwrap()).collect();
        Expected {
            hidden: floats("hidden"),
            tokens,
            state: floats("state"),
            logits: floats("logits"),
            further_state: floats("further_state"),
            further_logits: floats("further_logits"),
        }
    }

    fn model(case: &str) -> CraftsmanModel {
        let files = ModelFiles::open(&fixtures::path(format!("goldens/mtp/{case}"))).and_then(|files| files.with_mtp());
        let options = LoadOptions { act_mode: Some(ActMode::F32), ..LoadOptions::default() };
        CraftsmanModel::from_files(&files.expect("the case opens"), &options).expect("the case loads")
    }

    fn distance(got: &[f32], want: &[f32]) -> f32 {
        assert_eq!(got.len(), want.len());
        got.iter().zip(want).map(|(got, want)| (got - want).abs()).fold(0.0, |a, b| if b <= a { a } else { b })
    }

    #[test]
    fn states_and_logits_are_those_of_numpy_in_any_cut_of_the_rows() {
        for case in ["own", "shared"] {
            let (model, want) = (model(case), expected(case));
            let (mtp, config) = (model.mtp().expect("the block was read"), model.config());
            let (width, vocab, n) = (config.hidden, config.vocab, want.tokens.len() - 1);
            let mut bits: Option<Vec<f32>> = None;
            for rows in [1, 7, n] {
                let mut cache =
                    CompressedMlaCache::new([mtp.block.cache_shape()], 64, CacheType::F32).expect("a small cache");
                let mut scratch = MtpScratch::default();
                let mut states = Vec::new();
                for first in (0..n).step_by(rows) {
                    let end = n.min(first + rows);
                    let part =
                        MtpRows { tokens: &want.tokens[first..end], hidden: &want.hidden[first * width..end * width] };
                    mtp.forward(part, &mut cache, &mut scratch).expect("it runs");
                    states.extend_from_slice(scratch.hidden());
                    let logits = distance(mtp.logits(&mut scratch), &want.logits[(end - 1) * vocab..][..vocab]);
                    assert!(logits <= 2e-4, "{case}, row {end}: {logits}");
                }
                assert!(distance(&states, &want.state) <= 2e-4, "{case}: {}", distance(&states, &want.state));
                assert_eq!(*bits.get_or_insert_with(|| states.clone()), states, "{case}: the same bits in any cut");
                // The block's own state stands for the model's in front of a further guess.
                let part = MtpRows { tokens: &want.tokens[n..], hidden: &states[(n - 1) * width..] };
                mtp.forward(part, &mut cache, &mut scratch).expect("it runs");
                assert!(distance(scratch.hidden(), &want.further_state) <= 5e-4);
                assert!(distance(mtp.logits(&mut scratch), &want.further_logits) <= 5e-4);
                assert_eq!(cache.len(), n + 1);
            }
        }
    }

    /// The negative control: the golden tells the two inputs apart, and sees the block's earlier rows.
    #[test]
    fn other_tokens_states_and_earlier_rows_give_other_logits() {
        let (model, want) = (model("own"), expected("own"));
        let mtp = model.mtp().expect("the block was read");
        let (width, n) = (model.config().hidden, want.tokens.len() - 1);
        let last = |tokens: &[u32], hidden: &[f32]| {
            let mut cache =
                CompressedMlaCache::new([mtp.block.cache_shape()], 64, CacheType::F32).expect("a small cache");
            let mut scratch = MtpScratch::default();
            mtp.forward(MtpRows { tokens, hidden }, &mut cache, &mut scratch).expect("it runs");
            distance(&scratch.hidden()[(tokens.len() - 1) * width..], &want.state[(n - 1) * width..])
        };
        assert!(last(&want.tokens[..n], &want.hidden) <= 2e-4);
        assert!(last(&want.tokens[1..], &want.hidden) > 0.1, "the token behind the next one");
        let mut other = want.hidden.clone();
        other.rotate_right(width);
        assert!(last(&want.tokens[..n], &other) > 0.1, "the state before");
        assert!(last(&want.tokens[n - 1..n], &want.hidden[(n - 1) * width..]) > 1e-2, "no earlier rows");
    }
}
