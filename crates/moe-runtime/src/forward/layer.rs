//! One decoder layer: attention and feed-forward, each behind a norm, each added to the residual stream.
//!
//! ```text
//! x += attention(rms_norm(x))
//! x += experts(rms_norm(x))        or the dense network in the first layers; the sidecar of an adapter beside it
//! ```
//!
//! A layer is loaded and run without the rest of its model: quantisation streams layers one by one.
//!
//! **Invariant:** a row of the output has the same bits whatever batch it came in.

use gguf_bitnet::Catalog;
use mla_attention::{
    Attention, AttentionScratch, CacheShape, GqaAttention, GqaWeights, MlaAttention, MlaWeights, Projector,
    QueryProjection, Sequences,
};
use ternary_core::ActMode;
use tl_kernels::{ActivationBuffer, KernelSelector, Linear, Pool, math};

use crate::adapters::layer::LayerAdapter;
use crate::error::Result;
use crate::forward::experts::{ExpertBank, ExpertScratch, ResidencyHook, RoutedBatch};
use crate::forward::ffn::{FfnBatch, FfnScratch, SwiGlu};
use crate::forward::router::{MoeRouter, RouterScratch};
use crate::forward::taps::{At, ExpertId, Taps};
use crate::load::rows::RowReader;
use crate::load::weights::WeightReader;
use crate::models::attention::AttentionConfig;
use crate::models::config::{Activation, ModelConfig};
use crate::models::experts::MoeConfig;

/// Values per task of an elementwise sum: the row of one token is one task.
const ELEMENTS_PER_TASK: usize = 16 << 10;

/// The feed-forward part of a layer.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one per layer, and nearly all are the large one")]
pub enum FeedForward {
    /// One network for all tokens.
    Dense(SwiGlu),
    /// A router and its experts.
    Moe {
        /// Chooses the experts of each token.
        router: MoeRouter,
        /// Computes the chosen experts.
        experts: ExpertBank,
    },
}

/// One layer with its weights.
#[derive(Debug)]
pub struct DecoderLayer {
    index: usize,
    hidden: usize,
    eps: f32,
    /// Weight of the norm before the attention, `[hidden]`.
    attention_norm: Vec<f32>,
    attention: Attention,
    /// Weight of the norm before the feed-forward part, `[hidden]`.
    ffn_norm: Vec<f32>,
    ffn: FeedForward,
}

/// The tokens that a layer moves on, with threads and buffers.
#[derive(Debug)]
pub struct Batch<'a> {
    /// The threads that compute.
    pub pool: &'a Pool,
    /// The residual stream, `[n, hidden]`; replaced by the layer's output.
    pub x: &'a mut [f32],
    /// Buffers, reused from layer to layer.
    pub scratch: &'a mut LayerScratch,
    /// The additions to the matrices of the layer.
    pub adapter: Option<&'a LayerAdapter>,
}

/// Buffers of [`DecoderLayer::forward`]. They grow to the largest batch seen; then a step allocates nothing.
#[derive(Debug, Default)]
pub struct LayerScratch {
    /// `[n, hidden]`: the output of a norm.
    normed: Vec<f32>,
    /// `[n, hidden]`: the output of a part, which is added to the residual stream.
    delta: Vec<f32>,
    attention: AttentionScratch,
    acts: ActivationBuffer,
    router: RouterScratch,
    experts: ExpertScratch,
    dense: FfnScratch,
    tokens: Vec<u32>,
}

/// The threads, the place and the additions of a feed-forward part.
struct Feed<'a> {
    pool: &'a Pool,
    at: At,
    adapter: Option<&'a LayerAdapter>,
}

impl LayerScratch {
    /// The buffers of the last attention.
    #[must_use]
    pub fn attention(&self) -> &AttentionScratch {
        &self.attention
    }
}

impl DecoderLayer {
    /// Loads layer `index` of the model that `config` describes; ternary, Q8_0 and Q6_K matrices
    /// will read activations in `mode`.
    ///
    /// # Errors
    /// A tensor that is missing, of another shape, damaged or not finite, by name.
    pub fn load(catalog: &Catalog, config: &ModelConfig, index: usize, mode: ActMode) -> Result<DecoderLayer> {
        let kernels = KernelSelector::default();
        DecoderLayer::read(WeightReader::new(catalog, mode, &kernels), config, index)
    }

    /// As [`DecoderLayer::load`], on the kernels of a model.
    pub(crate) fn read(reader: WeightReader<'_>, config: &ModelConfig, index: usize) -> Result<DecoderLayer> {
        let rows = RowReader::of_layer(reader, config, index);
        let ffn = match config.moe.as_ref().filter(|_| config.is_moe(index)) {
            Some(moe) => load_moe(&rows, moe, config.activation)?,
            None => {
                let names = ["ffn_gate.weight", "ffn_up.weight", "ffn_down.weight"];
                let network = load_network(&rows, names, config.activation)?;
                FeedForward::Dense(match rows.optional_vector("ffn_sub_norm.weight")? {
                    Some(weight) => network.with_norm(weight, config.norm_eps)?,
                    None => network,
                })
            }
        };
        Ok(DecoderLayer {
            index,
            hidden: config.hidden,
            eps: config.norm_eps,
            attention_norm: rows.vector("attn_norm.weight")?,
            attention: load_attention(&rows, config)?,
            ffn_norm: rows.vector("ffn_norm.weight")?,
            ffn,
        })
    }

    /// Replaces the attention by that of `catalog`, which needs no other tensors: so a layer is run with an attention of
    /// another precision.
    ///
    /// # Errors
    /// As [`DecoderLayer::load`].
    pub fn load_attention(&mut self, catalog: &Catalog, config: &ModelConfig, mode: ActMode) -> Result<()> {
        let kernels = KernelSelector::default();
        let rows = RowReader::of_layer(WeightReader::new(catalog, mode, &kernels), config, self.index);
        self.attention_norm = rows.vector("attn_norm.weight")?;
        self.attention = load_attention(&rows, config)?;
        Ok(())
    }

    /// Position of the layer in its model.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// All matrices but the router's, which is never ternary; matrices of routed experts come last.
    pub(crate) fn linears_mut(&mut self) -> Vec<&mut Linear> {
        let (mut linears, routed) = self.parts_mut();
        linears.extend(routed.iter_mut().flat_map(SwiGlu::linears_mut));
        linears
    }

    /// The matrices that every token passes through but the router's, and the routed experts.
    pub(crate) fn parts_mut(&mut self) -> (Vec<&mut Linear>, &mut [SwiGlu]) {
        let mut always = self.attention.linears_mut();
        match &mut self.ffn {
            FeedForward::Dense(ffn) => {
                always.extend(ffn.linears_mut());
                (always, &mut [])
            }
            FeedForward::Moe { experts, .. } => {
                let (routed, shared) = experts.parts_mut();
                always.extend(shared.map(SwiGlu::linears_mut).into_iter().flatten());
                (always, routed)
            }
        }
    }

    /// Checks the codes and scales of experts that were never used before; other weights were checked at load.
    pub(crate) fn validate(&self, pool: &Pool) -> Result<()> {
        match &self.ffn {
            FeedForward::Dense(_) => Ok(()),
            FeedForward::Moe { experts, .. } => experts.validate(pool, self.index),
        }
    }

    /// The numbers that the layer stores per position.
    #[must_use]
    pub fn cache_shape(&self) -> CacheShape {
        self.attention.cache_shape()
    }

    /// The attention of the layer.
    #[must_use]
    pub fn attention(&self) -> &Attention {
        &self.attention
    }

    /// The dense network, or the router and its experts.
    #[must_use]
    pub fn ffn(&self) -> &FeedForward {
        &self.ffn
    }

    /// Calls `hook` before the experts of the layer are read.
    pub(crate) fn set_residency_hook(&mut self, hook: &ResidencyHook) {
        if let FeedForward::Moe { experts, .. } = &mut self.ffn {
            experts.set_residency_hook(hook.clone());
        }
    }

    /// Moves `batch.x` through the layer: tokens that continue `sequences`, whose caches then hold them too.
    ///
    /// # Errors
    /// A failure of the attention (a full context, the cache of another layer) or a forced routing that does not fit. The
    /// content of the residual stream is then undefined.
    ///
    /// # Panics
    /// When `batch.x` is no whole number of rows.
    pub fn forward<T: Taps>(&self, batch: Batch<'_>, sequences: &mut Sequences<'_>, taps: &mut T) -> Result<()> {
        let Batch { pool, x, scratch, adapter } = batch;
        let at = self.at(sequences.segments.first_position(), x);
        taps.layer_in(at, x);
        self.attend(Batch { pool, x, scratch, adapter }, sequences, taps)?;
        self.feed(Batch { pool, x, scratch, adapter }, at.first, taps)?;
        taps.layer_out(at, x);
        Ok(())
    }

    /// The first half of [`DecoderLayer::forward`]: adds the attention to `batch.x`.
    ///
    /// # Errors
    /// A failure of the attention.
    ///
    /// # Panics
    /// When `batch.x` is no whole number of rows.
    pub fn attend<T: Taps>(&self, batch: Batch<'_>, sequences: &mut Sequences<'_>, taps: &mut T) -> Result<()> {
        let Batch { pool, x, scratch, adapter } = batch;
        let at = self.at(sequences.segments.first_position(), x);
        scratch.normed.resize(x.len(), 0.0);
        scratch.delta.resize(x.len(), 0.0);
        norm_rows(pool, x, &self.attention_norm, self.eps, &mut scratch.normed);
        taps.attention_in(at, &scratch.normed);
        let projector = Projector::new(pool, adapter.map(|layer| &layer.attention));
        let LayerScratch { normed, delta, attention, .. } = scratch;
        self.attention.forward_with(projector, normed, sequences, attention, delta)?;
        taps.attention_out(at, &mut scratch.delta);
        add(pool, x, &scratch.delta);
        Ok(())
    }

    /// The second half of [`DecoderLayer::forward`]: adds the feed-forward part to `batch.x`, whose first token stands at
    /// position `first` (which only the taps see).
    ///
    /// # Errors
    /// A forced routing that does not fit.
    ///
    /// # Panics
    /// When `batch.x` is no whole number of rows.
    pub fn feed<T: Taps>(&self, batch: Batch<'_>, first: usize, taps: &mut T) -> Result<()> {
        let Batch { pool, x, scratch, adapter } = batch;
        let at = self.at(first, x);
        scratch.normed.resize(x.len(), 0.0);
        scratch.delta.resize(x.len(), 0.0);
        norm_rows(pool, x, &self.ffn_norm, self.eps, &mut scratch.normed);
        taps.ffn_in(at, &scratch.normed);
        scratch.acts.set(&scratch.normed, at.n, self.hidden);
        let delta = self.feed_forward(Feed { pool, at, adapter }, scratch, taps)?;
        add(pool, x, delta);
        if let Some(sidecar) = adapter.and_then(|layer| layer.sidecar.as_ref()) {
            let (normed, width) = (&scratch.normed, self.hidden);
            pool.chunks_mut(x, width, |t, row| sidecar.add_row(&normed[t * width..][..width], 0..width, row));
        }
        Ok(())
    }

    /// Writes the input that the attention would have for `x` `[hidden]`, the residual stream in front of the layer.
    ///
    /// # Panics
    /// When `x` or `out` has another length.
    pub fn norm_for_attention(&self, x: &[f32], out: &mut [f32]) {
        math::rms_norm(x, &self.attention_norm, self.eps, out);
    }

    /// Writes the input that the feed-forward part would have for `x` `[hidden]`, the residual stream behind the attention.
    ///
    /// # Panics
    /// When `x` or `out` has another length.
    pub fn norm_for_ffn(&self, x: &[f32], out: &mut [f32]) {
        math::rms_norm(x, &self.ffn_norm, self.eps, out);
    }

    fn at(&self, first: usize, x: &[f32]) -> At {
        assert!(x.len().is_multiple_of(self.hidden), "the residual stream must be [n, hidden]");
        At { layer: self.index, first, n: x.len() / self.hidden }
    }

    /// The output of the feed-forward part for `scratch.acts`, `[n, hidden]`.
    fn feed_forward<'s, T: Taps>(
        &self,
        Feed { pool, at, adapter }: Feed<'_>,
        scratch: &'s mut LayerScratch,
        taps: &mut T,
    ) -> Result<&'s [f32]> {
        let LayerScratch { delta, acts, router: routing, experts: buffers, dense, tokens, .. } = scratch;
        match &self.ffn {
            FeedForward::Dense(ffn) => {
                tokens.clear();
                tokens.extend(0..u32::try_from(at.n).unwrap_or(u32::MAX));
                taps.expert_in(at, ExpertId::Dense, tokens, acts);
                let batch = FfnBatch { pool, x: acts, adapter: adapter.map(|layer| &layer.always) };
                ffn.forward(batch, dense, delta, |h| taps.expert_hidden(at, ExpertId::Dense, tokens, h));
                taps.expert_out(at, ExpertId::Dense, tokens, delta);
                Ok(delta)
            }
            FeedForward::Moe { router, experts } => {
                router.route(pool, acts, routing);
                taps.router(at, &routing.logits, &routing.scores);
                taps.routing(at, &mut routing.decision);
                let decision = &routing.decision;
                tracing::trace!(
                    name: "ExpertRouted",
                    layer = at.layer,
                    first = at.first,
                    tokens = at.n,
                    experts = ?decision.ids,
                    "ExpertRouted"
                );
                experts.forward(RoutedBatch { pool, at, x: acts, decision, adapter }, buffers, taps)
            }
        }
    }
}

fn load_attention(rows: &RowReader<'_>, config: &ModelConfig) -> Result<Attention> {
    match config.attention {
        AttentionConfig::Mla(_) => {
            let q = match rows.optional_matrix("attn_q_a.weight")? {
                None => QueryProjection::Direct(rows.matrix("attn_q.weight")?),
                Some(a) => QueryProjection::LowRank {
                    a,
                    a_norm: rows.vector("attn_q_a_norm.weight")?,
                    b: rows.matrix("attn_q_b.weight")?,
                },
            };
            let weights = MlaWeights {
                q,
                kv_a: rows.matrix("attn_kv_a_mqa.weight")?,
                kv_a_norm: rows.vector("attn_kv_a_norm.weight")?,
                k_b: rows.stack("attn_k_b.weight")?,
                v_b: rows.stack("attn_v_b.weight")?,
                out: rows.matrix("attn_output.weight")?,
            };
            Ok(Attention::Mla(MlaAttention::new(config.mla()?, weights)?))
        }
        AttentionConfig::Gqa(_) => {
            let weights = GqaWeights {
                q: rows.matrix("attn_q.weight")?,
                k: rows.matrix("attn_k.weight")?,
                v: rows.matrix("attn_v.weight")?,
                out: rows.matrix("attn_output.weight")?,
                q_bias: rows.optional_vector("attn_q.bias")?,
                k_bias: rows.optional_vector("attn_k.bias")?,
                v_bias: rows.optional_vector("attn_v.bias")?,
                q_norm: rows.optional_vector("attn_q_norm.weight")?,
                k_norm: rows.optional_vector("attn_k_norm.weight")?,
                out_norm: rows.optional_vector("attn_sub_norm.weight")?,
            };
            Ok(Attention::Gqa(GqaAttention::new(config.gqa()?, weights)?))
        }
    }
}

/// Loads the feed-forward network whose gate, up and down matrices have these names.
fn load_network(rows: &RowReader<'_>, names: [&str; 3], activation: Activation) -> Result<SwiGlu> {
    let [gate, up, down] = names;
    Ok(SwiGlu::new(rows.matrix(gate)?, rows.matrix(up)?, rows.matrix(down)?)?.with_activation(activation))
}

fn load_moe(rows: &RowReader<'_>, moe: &MoeConfig, activation: Activation) -> Result<FeedForward> {
    let router = MoeRouter::new(
        moe.router.clone(),
        rows.matrix_f32("ffn_gate_inp.weight")?,
        rows.optional_vector("exp_probs_b.bias")?,
    )?;
    let gates = rows.stack("ffn_gate_exps.weight")?;
    let ups = rows.stack("ffn_up_exps.weight")?;
    let downs = rows.stack("ffn_down_exps.weight")?;
    let matrices = gates.into_iter().zip(ups).zip(downs);
    let routed = matrices.map(|((gate, up), down)| Ok(SwiGlu::new(gate, up, down)?.with_activation(activation)));
    let routed = routed.collect::<Result<Vec<_>>>()?;
    let shared = match moe.shared_ff() {
        0 => None,
        _ => {
            let names = ["ffn_gate_shexp.weight", "ffn_up_shexp.weight", "ffn_down_shexp.weight"];
            Some(load_network(rows, names, activation)?)
        }
    };
    Ok(FeedForward::Moe { router, experts: ExpertBank::new(routed, shared) })
}

/// `out[t] = rms_norm(x[t])`, rows `[weight.len()]`.
pub(crate) fn norm_rows(pool: &Pool, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let width = weight.len();
    pool.chunks_mut(out, width, |t, row| math::rms_norm(&x[t * width..][..width], weight, eps, row));
}

/// Adds `delta` to `x` on all threads.
fn add(pool: &Pool, x: &mut [f32], delta: &[f32]) {
    pool.chunks_mut(x, ELEMENTS_PER_TASK, |i, x| {
        for (x, d) in x.iter_mut().zip(&delta[i * ELEMENTS_PER_TASK..]) {
            *x += *d;
        }
    });
}
