//! Every dimension and rule of one model that the forward pass needs, the same for every kind of file.
//!
//! [`ModelConfig::from_hf`] reads a checkpoint's `config.json`, [`ModelConfig::from_gguf`] the metadata of a GGUF, and
//! [`ModelConfig::to_gguf_metadata`] writes the latter.
//!
//! **Invariant:** a `ModelConfig` made by this crate has passed [`ModelConfig::validate`]: no product of two of its
//! dimensions overflows, every divisor divides, and no number is larger than its limit.

use std::fmt;

use mla_attention::CacheShape;
use ternary_core::ActMode;
use tl_kernels::math;

use super::attention::{AttentionConfig, RopeConfig};
use super::error::ConfigError;
use super::experts::MoeConfig;
use super::gguf::GgufKeys;
use super::hf::HfKeys;
use super::limits::{MAX_DIM, MAX_LAYERS, bad, positive, within};
use super::table::{Presence, TensorRow, When};
use super::tokens::SpecialTokens;
use crate::error::Result;
use crate::guess::Guess;

/// A family of models: its names, its tensors, and how its configuration is read. Each lies in a file of its own in
/// `models/` and in one line of the registry.
pub struct Architecture {
    /// The `model_type` of `config.json`.
    pub(crate) hf_name: &'static str,
    /// The `general.architecture` of a GGUF; several architectures may share one.
    pub(crate) gguf_name: &'static str,
    /// Every tensor, in the order in which files are written.
    pub(crate) tensors: &'static [TensorRow],
    /// Tokens with a role that files do not state.
    pub(crate) tokens: &'static SpecialTokens,
    /// The function inside feed-forward parts where files do not name one.
    pub(crate) activation: Activation,
    /// Reads a checkpoint's `config.json`.
    pub(crate) from_hf: fn(&HfKeys<'_>) -> Result<ModelConfig>,
    /// Whether a GGUF with this architecture's name holds this architecture, asked in the order of the registry.
    pub(crate) claims_gguf: fn(&GgufKeys<'_>) -> Result<bool>,
    /// Reads the metadata of a GGUF.
    pub(crate) from_gguf: fn(&GgufKeys<'_>) -> Result<ModelConfig>,
}

impl Architecture {
    /// The `model_type` of `config.json`.
    #[must_use]
    pub fn hf_name(&self) -> &'static str {
        self.hf_name
    }

    /// The `general.architecture` of a GGUF.
    #[must_use]
    pub fn gguf_name(&self) -> &'static str {
        self.gguf_name
    }
}

impl fmt::Debug for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.hf_name)
    }
}

impl PartialEq for Architecture {
    fn eq(&self, other: &Architecture) -> bool {
        self.hf_name == other.hf_name
    }
}

/// The function on the gate of a feed-forward part, before the product with the up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// `x / (1 + exp(-x))`, `silu` in checkpoints.
    #[default]
    Silu,
    /// `max(x, 0)^2`, `relu2` in checkpoints.
    SquaredRelu,
}

impl Activation {
    /// `gate = f(gate) up`, value by value; NaN stays NaN.
    pub fn gate(self, gate: &mut [f32], up: &[f32]) {
        match self {
            Activation::Silu => math::swiglu(gate, up),
            Activation::SquaredRelu => {
                for (gate, up) in gate.iter_mut().zip(up) {
                    let positive = if *gate < 0.0 { 0.0 } else { *gate };
                    *gate = positive * positive * up;
                }
            }
        }
    }

    /// The keys that name the function: of `config.json`, and of GGUF metadata behind the name of the architecture.
    pub(crate) const KEYS: [&str; 2] = ["hidden_act", "hidden_activation"];

    /// Every function, the default first.
    pub const ALL: [Activation; 2] = [Activation::Silu, Activation::SquaredRelu];

    /// The name in `config.json` and in GGUF metadata.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Activation::Silu => "silu",
            Activation::SquaredRelu => "relu2",
        }
    }

    /// The function of this name.
    pub(crate) fn by_name(name: &str) -> Option<Activation> {
        Activation::ALL.into_iter().find(|activation| activation.name() == name)
    }
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Every number and rule of one model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// The architecture, whose table names the tensors.
    pub arch: &'static Architecture,
    /// Tokens in the vocabulary: rows of the embedding and of the head.
    pub vocab: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Layers of plain decoding, without MTP blocks.
    pub n_layers: usize,
    /// MTP blocks that some files have after these layers; plain decoding skips them.
    pub n_mtp: usize,
    /// Whether the first of these blocks is read too, for guesses at the tokens behind the next one.
    pub reads_mtp: bool,
    /// Number of leading layers that have a dense feed-forward part instead of experts.
    pub n_dense: usize,
    /// Width of the dense feed-forward part.
    pub dense_ff: usize,
    /// Heads of the queries.
    pub n_heads: usize,
    /// The kind of attention, and its numbers.
    pub attention: AttentionConfig,
    /// The rotary embedding of queries and keys.
    pub rope: RopeConfig,
    /// The function inside every feed-forward part.
    pub activation: Activation,
    /// The experts of the layers after the dense ones; `None` exactly when there are no such layers.
    pub moe: Option<MoeConfig>,
    /// Epsilon of all norms but the latents'.
    pub norm_eps: f32,
    /// Positions that the model was made for.
    pub n_ctx: usize,
    /// The rounding of activations that the ternary matrices were trained with; `None` where the files do not tell of one.
    pub trained_act: Option<ActMode>,
    /// Whether the model has a head of its own; `Absent` means that the embedding serves as the head.
    pub head: Presence,
    /// Numbers and rules above that the file does not state.
    pub guesses: Vec<Guess>,
}

impl ModelConfig {
    /// Computes `activation` in every feed-forward part, whatever the files say or leave open.
    pub fn set_activation(&mut self, activation: Activation) {
        self.activation = activation;
        self.guesses.retain(|guess| !Activation::KEYS.iter().any(|key| guess.key.ends_with(key)));
    }

    /// Tokens of a context where the user asks for none: 4096, or less where the model was made for less.
    #[must_use]
    pub fn default_context(&self) -> usize {
        self.n_ctx.min(4096)
    }

    /// Whether the model has an MTP block whose tensors are known here.
    #[must_use]
    pub fn has_mtp(&self) -> bool {
        self.n_mtp > 0 && self.arch.tensors.iter().any(|row| row.when == When::Mtp)
    }

    /// The blocks that are read: the layers, and the MTP block where it counts.
    pub(crate) fn n_blocks(&self) -> usize {
        self.n_layers + usize::from(self.reads_mtp)
    }

    /// Whether the tensor of this canonical name belongs to the MTP block, where that is read.
    pub(crate) fn is_of_mtp(&self, name: &str) -> bool {
        let number = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
        self.reads_mtp && number.is_some_and(|(number, _)| number.parse::<usize>() == Ok(self.n_layers))
    }

    /// Whether a layer has experts.
    #[must_use]
    pub fn is_moe(&self, layer: usize) -> bool {
        layer >= self.n_dense && self.moe.is_some()
    }

    /// The latent attention's configuration with the model's rotation; an error for other attention.
    ///
    /// # Errors
    /// [`ConfigError::Unsupported`] for grouped-query attention; the errors of [`mla_attention::Rope::new`].
    pub(crate) fn mla(&self) -> Result<mla_attention::MlaConfig> {
        let dims = self.attention.as_mla().ok_or_else(|| ConfigError::Unsupported {
            feature: format!("latent attention in {}", self.arch.hf_name),
            remedy: "ask for its grouped-query attention instead",
        })?;
        Ok(mla_attention::MlaConfig {
            hidden: self.hidden,
            n_heads: self.n_heads,
            q_lora: dims.q_lora,
            kv_lora: dims.kv_lora,
            qk_nope: dims.qk_nope,
            qk_rope: dims.qk_rope,
            v_head: dims.v_head,
            latent_norm_eps: dims.latent_norm_eps,
            rope: self.rotation()?,
        })
    }

    /// The grouped-query attention's configuration; an error for other attention.
    ///
    /// # Errors
    /// [`ConfigError::Unsupported`] for latent attention; the errors of [`mla_attention::Rope::new`].
    pub(crate) fn gqa(&self) -> Result<mla_attention::GqaConfig> {
        let dims = self.attention.as_gqa().ok_or_else(|| ConfigError::Unsupported {
            feature: format!("grouped-query attention in {}", self.arch.hf_name),
            remedy: "ask for its latent attention instead",
        })?;
        Ok(mla_attention::GqaConfig {
            hidden: self.hidden,
            n_heads: self.n_heads,
            n_kv_heads: dims.n_kv_heads,
            head_dim: dims.head_dim,
            rotary_dims: self.rope.dims,
            norm_eps: self.norm_eps,
            rope: self.rotation()?,
        })
    }

    /// Checks that the model's kind of attention can be built.
    ///
    /// # Errors
    /// The errors of [`mla_attention::Rope::new`].
    pub(crate) fn attention_parts(&self) -> Result<()> {
        match self.attention {
            AttentionConfig::Mla(_) => self.mla().map(drop),
            AttentionConfig::Gqa(_) => self.gqa().map(drop),
        }
    }

    /// The rotary position embedding of the model's heads.
    ///
    /// # Errors
    /// A base or a width that no embedding has.
    pub fn rotation(&self) -> Result<mla_attention::Rope> {
        Ok(mla_attention::Rope::new(self.rope.theta, self.rope.dims, self.rope.style)?)
    }

    /// The numbers that one position adds to one layer's cache.
    #[must_use]
    pub fn cache_shape(&self) -> CacheShape {
        self.attention.cache_shape()
    }

    /// Checks every number against every other.
    ///
    /// # Errors
    /// [`ConfigError::BadValue`] with the field and the rule it breaks.
    pub(crate) fn validate(&self) -> Result<()> {
        within("vocab", self.vocab, 1, MAX_DIM)?;
        within("hidden", self.hidden, 1, MAX_DIM)?;
        within("layers", self.n_layers, 1, MAX_LAYERS)?;
        within("MTP blocks", self.n_mtp, usize::from(self.reads_mtp), MAX_LAYERS)?;
        within("dense layers", self.n_dense, 0, self.n_layers)?;
        if self.n_dense > 0 {
            within("dense feed-forward width", self.dense_ff, 1, MAX_DIM)?;
        }
        within("heads", self.n_heads, 1, MAX_DIM)?;
        within("context length", self.n_ctx, 1, MAX_DIM)?;
        positive("norm epsilon", self.norm_eps)?;
        positive("rope theta", self.rope.theta)?;
        self.attention.validate(self.n_heads, &self.rope)?;
        match &self.moe {
            Some(moe) => moe.validate(),
            None if self.n_dense == self.n_layers => Ok(()),
            None => Err(bad("dense layers", self.n_dense, "equal to the number of layers in a model without experts")),
        }
    }
}
