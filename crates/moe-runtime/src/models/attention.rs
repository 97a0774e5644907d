//! The attention of every layer as configured: its numbers, the shapes that follow from them, and its rotation.

use std::fmt;

use gguf_bitnet::SplitDims;
use mla_attention::{CacheShape, RopeStyle};

use super::limits::{MAX_DIM, bad, positive, within};
use super::table::{Dim, Presence, When};
use crate::error::Result;

/// Epsilon of the norms of the latents in transformers, which does not follow the model's own epsilon.
pub(crate) const LATENT_NORM_EPS: f32 = 1e-6;

/// Rotary position embedding as configured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopeConfig {
    /// Base of the frequencies.
    pub theta: f32,
    /// How many values of a head are rotated.
    pub dims: usize,
    /// Which values form a pair.
    pub style: RopeStyle,
}

/// The numbers of multi-head latent attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MlaDims {
    /// Rank of the query compression; `None` when queries are projected directly.
    pub q_lora: Option<usize>,
    /// Width of the latent.
    pub kv_lora: usize,
    /// Width per head of the part without position.
    pub qk_nope: usize,
    /// Width of the rotated part.
    pub qk_rope: usize,
    /// Width of one head's value.
    pub v_head: usize,
    /// Epsilon of the norms of the latents: 1e-6 in transformers, for every model.
    pub latent_norm_eps: f32,
}

/// The numbers of grouped-query attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GqaDims {
    /// Key and value heads.
    pub n_kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Norms of every query and key head.
    pub qk_norm: Presence,
    /// Biases of the query, key and value projections.
    pub bias: Presence,
}

/// The attention of every layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AttentionConfig {
    /// Keys and values are kept as one latent per position.
    Mla(MlaDims),
    /// Groups of query heads share one head of keys and values.
    Gqa(GqaDims),
}

impl AttentionConfig {
    /// The numbers of latent attention, if the model has it.
    #[must_use]
    pub fn as_mla(&self) -> Option<&MlaDims> {
        match self {
            AttentionConfig::Mla(dims) => Some(dims),
            AttentionConfig::Gqa(_) => None,
        }
    }

    /// The numbers of latent attention, to change them.
    pub fn as_mla_mut(&mut self) -> Option<&mut MlaDims> {
        match self {
            AttentionConfig::Mla(dims) => Some(dims),
            AttentionConfig::Gqa(_) => None,
        }
    }

    /// The numbers of grouped-query attention, if the model has it.
    #[must_use]
    pub(crate) fn as_gqa(&self) -> Option<&GqaDims> {
        match self {
            AttentionConfig::Mla(_) => None,
            AttentionConfig::Gqa(dims) => Some(dims),
        }
    }

    /// This attention with the details that a GGUF leaves to its tensors left open.
    pub(crate) fn as_read_from_gguf(mut self) -> AttentionConfig {
        if let AttentionConfig::Gqa(dims) = &mut self {
            (dims.qk_norm, dims.bias) = (Presence::Detect, Presence::Detect);
        }
        self
    }

    /// A dimension of an attention tensor; `None` for one that this kind of attention does not have.
    pub(crate) fn dim(&self, dim: Dim, n_heads: usize) -> Option<usize> {
        Some(match (self, dim) {
            (_, Dim::Heads) => n_heads,
            (AttentionConfig::Mla(a), Dim::Queries) => n_heads * (a.qk_nope + a.qk_rope),
            (AttentionConfig::Mla(a), Dim::HeadOutputs) => n_heads * a.v_head,
            (AttentionConfig::Mla(a), Dim::QueryRank) => a.q_lora?,
            (AttentionConfig::Mla(a), Dim::Latent) => a.kv_lora,
            (AttentionConfig::Mla(a), Dim::LatentAndRope) => a.kv_lora + a.qk_rope,
            (AttentionConfig::Mla(a), Dim::KeyNope) => a.qk_nope,
            (AttentionConfig::Mla(a), Dim::ValueHead) => a.v_head,
            (AttentionConfig::Gqa(a), Dim::Queries | Dim::HeadOutputs) => n_heads * a.head_dim,
            (AttentionConfig::Gqa(a), Dim::Head) => a.head_dim,
            (AttentionConfig::Gqa(a), Dim::KeyValues) => a.n_kv_heads * a.head_dim,
            _ => return None,
        })
    }

    /// Whether layers have the attention tensors of a row that depends on the kind of attention.
    pub(crate) fn presence(&self, when: When) -> Presence {
        match (self, when) {
            (AttentionConfig::Mla(a), When::CompressedQueries) => Presence::known(a.q_lora.is_some()),
            (AttentionConfig::Mla(a), When::DirectQueries) => Presence::known(a.q_lora.is_none()),
            (AttentionConfig::Gqa(a), When::QueryKeyNorms) => a.qk_norm,
            (AttentionConfig::Gqa(a), When::AttentionBiases) => a.bias,
            _ => Presence::Absent,
        }
    }

    /// How a fused key/value expansion is split, and the rows of a head that may be stored in halves.
    pub(crate) fn split_dims(&self, n_heads: usize) -> SplitDims {
        match *self {
            AttentionConfig::Mla(MlaDims { qk_nope, v_head, .. }) => SplitDims { n_heads, qk_nope, v_head, paired: 0 },
            AttentionConfig::Gqa(GqaDims { head_dim, .. }) => SplitDims { paired: head_dim, ..SplitDims::default() },
        }
    }

    /// The numbers that one position adds to one layer's cache.
    pub(crate) fn cache_shape(&self) -> CacheShape {
        match *self {
            AttentionConfig::Mla(MlaDims { kv_lora, qk_rope, .. }) => CacheShape::Latent { kv_lora, qk_rope },
            AttentionConfig::Gqa(GqaDims { n_kv_heads, head_dim, .. }) => CacheShape::Kv { n_kv_heads, head_dim },
        }
    }

    /// An upper bound of the values that attention keeps in buffers for one token.
    pub(crate) fn buffered_values(&self, n_heads: usize) -> usize {
        match *self {
            AttentionConfig::Mla(MlaDims { q_lora, kv_lora, qk_nope, qk_rope, v_head, .. }) => {
                let per_head = qk_nope + qk_rope + v_head + 2 * (kv_lora + qk_rope);
                n_heads * per_head + 2 * (kv_lora + qk_rope) + 2 * q_lora.unwrap_or(0)
            }
            AttentionConfig::Gqa(GqaDims { n_kv_heads, head_dim, .. }) => 3 * (n_heads + n_kv_heads) * head_dim,
        }
    }

    /// Checks the numbers against each other, the heads and the rotation.
    pub(crate) fn validate(&self, n_heads: usize, rope: &RopeConfig) -> Result<()> {
        let rotated_of = match self {
            AttentionConfig::Mla(dims) => dims.validate(n_heads, rope)?,
            AttentionConfig::Gqa(dims) => dims.validate(n_heads)?,
        };
        within("rotated dimensions", rope.dims, 0, rotated_of)?;
        if rope.dims.is_multiple_of(2) {
            Ok(())
        } else {
            Err(bad("rotated dimensions", rope.dims, "even: they turn in pairs"))
        }
    }
}

impl MlaDims {
    /// The width that may be rotated.
    fn validate(&self, n_heads: usize, rope: &RopeConfig) -> Result<usize> {
        let MlaDims { q_lora, kv_lora, qk_nope, qk_rope, v_head, latent_norm_eps } = *self;
        if let Some(rank) = q_lora {
            within("query rank", rank, 1, MAX_DIM)?;
        }
        within("key-value rank", kv_lora, 1, MAX_DIM)?;
        within("key width without position", qk_nope, 1, MAX_DIM)?;
        within("rotated key width", qk_rope, 0, MAX_DIM)?;
        within("value head width", v_head, 1, MAX_DIM)?;
        within("heads x head width", n_heads.saturating_mul(qk_nope + qk_rope + v_head), 1, MAX_DIM)?;
        positive("latent norm epsilon", latent_norm_eps)?;
        if rope.dims != qk_rope {
            let rule = format!("equal to the rotated key width, {qk_rope}");
            return Err(bad("rotated dimensions", rope.dims, &rule));
        }
        Ok(qk_rope)
    }
}

impl GqaDims {
    /// The width that may be rotated.
    fn validate(&self, n_heads: usize) -> Result<usize> {
        let GqaDims { n_kv_heads, head_dim, .. } = *self;
        within("key-value heads", n_kv_heads, 1, n_heads)?;
        within("head width", head_dim, 1, MAX_DIM)?;
        within("heads x head width", n_heads.saturating_mul(head_dim), 1, MAX_DIM)?;
        if !n_heads.is_multiple_of(n_kv_heads) {
            return Err(bad("key-value heads", n_kv_heads, &format!("a divisor of the {n_heads} heads")));
        }
        Ok(head_dim)
    }
}

impl fmt::Display for AttentionConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            AttentionConfig::Mla(MlaDims { q_lora, kv_lora, qk_nope, qk_rope, v_head, .. }) => {
                f.write_str("latent attention: queries ")?;
                match q_lora {
                    None => f.write_str("direct")?,
                    Some(rank) => write!(f, "rank {rank}")?,
                }
                write!(f, ", latent {kv_lora} + {qk_rope}, heads of {qk_nope} + {qk_rope} / {v_head}")
            }
            AttentionConfig::Gqa(GqaDims { n_kv_heads, head_dim, .. }) => {
                write!(f, "grouped-query attention: {n_kv_heads} key/value heads of {head_dim}")
            }
        }
    }
}
