//! What a model is: every dimension and rule that the forward pass needs, whatever file it came from.
//!
//! [`ModelConfig::from_hf`] reads a checkpoint's `config.json`, [`ModelConfig::from_gguf`] the metadata of a GGUF, and
//! [`ModelConfig::to_gguf_metadata`] writes the latter.
//!
//! **Invariant:** a `ModelConfig` made by this module has passed [`ModelConfig::validate`]: no product of two of its
//! dimensions overflows, every divisor divides, and nothing is larger than [`MAX_DIM`].
//!
//! Sources: the configuration classes of `glm4_moe_lite`, `glm4_moe`, `deepseek_v2` and `deepseek_v3` in Hugging Face
//! transformers; the `deepseek2` and `glm4moe` keys of the GGUF specification as llama.cpp writes them.

mod gguf;
mod hf;

use mla_attention::CacheShape;
use mla_attention::RopeStyle;

use crate::error::{Error, Result};

/// Largest width, count or position that a configuration may state.
pub(crate) const MAX_DIM: usize = 1 << 28;
/// Largest number of layers that a configuration may state.
pub(crate) const MAX_LAYERS: usize = 4096;
/// Largest number of experts per layer that a configuration may state.
pub(crate) const MAX_EXPERTS: usize = 1 << 16;
/// Epsilon of the norms of the latents in transformers, whatever the model's own epsilon is.
pub(crate) const LATENT_NORM_EPS: f32 = 1e-6;
/// Added to the sum of the selected scores before dividing by it.
pub(crate) const WEIGHT_SUM_EPS: f32 = 1e-20;

/// The model families that share this forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Arch {
    /// GLM-4.7-Flash (`glm4_moe_lite`): latent attention, sigmoid router with selection bias.
    Glm4MoeLite,
    /// DeepSeek-V2 (`deepseek_v2`): latent attention, softmax router.
    DeepseekV2,
    /// DeepSeek-V3 (`deepseek_v3`): latent attention, sigmoid router with selection bias.
    DeepseekV3,
    /// GLM-4.5 (`glm4_moe`): grouped-query attention, sigmoid router with selection bias.
    Glm4Moe,
}

impl Arch {
    /// The `model_type` of `config.json`.
    #[must_use]
    pub fn hf_name(self) -> &'static str {
        match self {
            Arch::Glm4MoeLite => "glm4_moe_lite",
            Arch::DeepseekV2 => "deepseek_v2",
            Arch::DeepseekV3 => "deepseek_v3",
            Arch::Glm4Moe => "glm4_moe",
        }
    }

    /// The `general.architecture` of a GGUF.
    #[must_use]
    pub fn gguf_name(self) -> &'static str {
        match self {
            Arch::Glm4MoeLite | Arch::DeepseekV2 | Arch::DeepseekV3 => "deepseek2",
            Arch::Glm4Moe => "glm4moe",
        }
    }
}

/// Whether a part that only some models of a family have is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// The model has it: a file without it is incomplete.
    Required,
    /// The model does not have it: a file with it is another model's.
    Absent,
    /// The configuration does not say; the file's tensors decide.
    Detect,
}

/// How router logits become scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gating {
    /// Each expert's score is independent of the others (GLM-4, DeepSeek-V3).
    Sigmoid,
    /// Scores sum to 1 over all experts (DeepSeek-V2).
    Softmax,
}

/// How a group of experts is scored when only the best groups may be chosen from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupScore {
    /// The sum of its two best selection scores (`noaux_tc`).
    TopTwoSum,
    /// Its best selection score (`group_limited_greedy`).
    Max,
}

/// What the weights of the selected experts are divided by before they are scaled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum WeightNorm {
    /// Nothing.
    None,
    /// Their sum plus this small number ([`WEIGHT_SUM_EPS`] in transformers).
    Sum {
        /// Added to the sum.
        eps: f32,
    },
}

/// The routing rule of every MoE layer.
#[derive(Clone, Debug, PartialEq)]
pub struct RouterConfig {
    /// How logits become scores.
    pub gating: Gating,
    /// Routed experts per layer.
    pub n_experts: usize,
    /// Routed experts per token.
    pub top_k: usize,
    /// Groups that the experts are cut into, in order; 1 means no grouping.
    pub n_group: usize,
    /// Groups per token.
    pub topk_group: usize,
    /// How groups compare.
    pub group_score: GroupScore,
    /// Normalisation of the weights.
    pub norm: WeightNorm,
    /// Factor on the weights (`routed_scaling_factor`).
    pub scaling: f32,
    /// Whether the layers have a bias that takes part in the selection only.
    pub selection_bias: Presence,
}

/// The feed-forward part of the MoE layers.
#[derive(Clone, Debug, PartialEq)]
pub struct MoeConfig {
    /// The routing rule.
    pub router: RouterConfig,
    /// Width of one routed expert.
    pub expert_ff: usize,
    /// Shared experts; they are stored as one expert of `n_shared * expert_ff`.
    pub n_shared: usize,
}

impl MoeConfig {
    /// Width of the shared expert, 0 without one.
    #[must_use]
    pub fn shared_ff(&self) -> usize {
        self.n_shared * self.expert_ff
    }
}

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

/// The attention of every layer.
#[derive(Clone, Debug, PartialEq)]
pub enum AttentionConfig {
    /// Multi-head latent attention.
    Mla {
        /// Rank of the query compression; `None` when queries are projected directly.
        q_lora: Option<usize>,
        /// Width of the latent.
        kv_lora: usize,
        /// Width per head of the part without position.
        qk_nope: usize,
        /// Width of the rotated part.
        qk_rope: usize,
        /// Width of one head's value.
        v_head: usize,
        /// Epsilon of the norms of the latents; [`LATENT_NORM_EPS`] unless told otherwise.
        latent_norm_eps: f32,
    },
    /// Grouped-query attention.
    Gqa {
        /// Key and value heads.
        n_kv_heads: usize,
        /// Width of a head.
        head_dim: usize,
        /// Norms of every query and key head.
        qk_norm: Presence,
        /// Biases of the query, key and value projections.
        bias: Presence,
    },
}

/// Every number and rule of one model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Family.
    pub arch: Arch,
    /// Tokens in the vocabulary: rows of the embedding and of the head.
    pub vocab: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Layers of plain decoding, without MTP blocks.
    pub n_layers: usize,
    /// MTP blocks that follow them in some files; plain decoding skips them.
    pub n_mtp: usize,
    /// The first layers, which have a plain feed-forward part.
    pub n_dense: usize,
    /// Width of that part.
    pub dense_ff: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Attention.
    pub attention: AttentionConfig,
    /// Position embedding.
    pub rope: RopeConfig,
    /// The layers after the dense ones; `None` exactly if there are none.
    pub moe: Option<MoeConfig>,
    /// Epsilon of all norms but the latents'.
    pub norm_eps: f32,
    /// Positions that the model was made for.
    pub n_ctx: usize,
    /// A head of its own; `Absent` means that the embedding serves as the head.
    pub head: Presence,
}

impl ModelConfig {
    /// Whether a layer has experts.
    #[must_use]
    pub fn is_moe(&self, layer: usize) -> bool {
        layer >= self.n_dense && self.moe.is_some()
    }

    /// The latent attention's configuration with the model's rotation; an error for other attention.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for grouped-query attention; what [`mla_attention::Rope::new`] refuses.
    pub fn mla(&self) -> Result<mla_attention::MlaConfig> {
        let AttentionConfig::Mla { q_lora, kv_lora, qk_nope, qk_rope, v_head, latent_norm_eps } = self.attention else {
            return Err(Error::Unsupported {
                feature: format!("latent attention in {}", self.arch.hf_name()),
                remedy: "ask for its grouped-query attention instead",
            });
        };
        Ok(mla_attention::MlaConfig {
            hidden: self.hidden,
            n_heads: self.n_heads,
            q_lora,
            kv_lora,
            qk_nope,
            qk_rope,
            v_head,
            latent_norm_eps,
            rope: self.rotation()?,
        })
    }

    /// The grouped-query attention's configuration; an error for other attention.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for latent attention; what [`mla_attention::Rope::new`] refuses.
    pub fn gqa(&self) -> Result<mla_attention::GqaConfig> {
        let AttentionConfig::Gqa { n_kv_heads, head_dim, .. } = self.attention else {
            return Err(Error::Unsupported {
                feature: format!("grouped-query attention in {}", self.arch.hf_name()),
                remedy: "ask for its latent attention instead",
            });
        };
        Ok(mla_attention::GqaConfig {
            hidden: self.hidden,
            n_heads: self.n_heads,
            n_kv_heads,
            head_dim,
            rotary_dims: self.rope.dims,
            qk_norm_eps: self.norm_eps,
            rope: self.rotation()?,
        })
    }

    fn rotation(&self) -> Result<mla_attention::Rope> {
        Ok(mla_attention::Rope::new(self.rope.theta, self.rope.dims, self.rope.style)?)
    }

    /// What one position adds to one layer's cache.
    #[must_use]
    pub fn cache_shape(&self) -> CacheShape {
        match self.attention {
            AttentionConfig::Mla { kv_lora, qk_rope, .. } => CacheShape::Latent { kv_lora, qk_rope },
            AttentionConfig::Gqa { n_kv_heads, head_dim, .. } => CacheShape::Kv { n_kv_heads, head_dim },
        }
    }

    /// Checks every number against every other.
    ///
    /// # Errors
    /// [`Error::BadValue`] with the field and the rule it breaks.
    pub fn validate(&self) -> Result<()> {
        within("vocab", self.vocab, 1, MAX_DIM)?;
        within("hidden", self.hidden, 1, MAX_DIM)?;
        within("layers", self.n_layers, 1, MAX_LAYERS)?;
        within("MTP blocks", self.n_mtp, 0, MAX_LAYERS)?;
        within("dense layers", self.n_dense, 0, self.n_layers)?;
        if self.n_dense > 0 {
            within("dense feed-forward width", self.dense_ff, 1, MAX_DIM)?;
        }
        within("heads", self.n_heads, 1, MAX_DIM)?;
        within("context length", self.n_ctx, 1, MAX_DIM)?;
        positive("norm epsilon", self.norm_eps)?;
        positive("rope theta", self.rope.theta)?;
        self.validate_attention()?;
        match &self.moe {
            Some(moe) => moe.validate(),
            None if self.n_dense == self.n_layers => Ok(()),
            None => Err(bad("dense layers", self.n_dense, "equal to the number of layers in a model without experts")),
        }
    }

    fn validate_attention(&self) -> Result<()> {
        let rotated_of = match self.attention {
            AttentionConfig::Mla { q_lora, kv_lora, qk_nope, qk_rope, v_head, latent_norm_eps } => {
                if let Some(rank) = q_lora {
                    within("query rank", rank, 1, MAX_DIM)?;
                }
                within("key-value rank", kv_lora, 1, MAX_DIM)?;
                within("key width without position", qk_nope, 1, MAX_DIM)?;
                within("rotated key width", qk_rope, 0, MAX_DIM)?;
                within("value head width", v_head, 1, MAX_DIM)?;
                within("heads x head width", self.n_heads.saturating_mul(qk_nope + qk_rope + v_head), 1, MAX_DIM)?;
                positive("latent norm epsilon", latent_norm_eps)?;
                if self.rope.dims != qk_rope {
                    return Err(bad(
                        "rotated dimensions",
                        self.rope.dims,
                        &format!("equal to the rotated key width, {qk_rope}"),
                    ));
                }
                qk_rope
            }
            AttentionConfig::Gqa { n_kv_heads, head_dim, .. } => {
                within("key-value heads", n_kv_heads, 1, self.n_heads)?;
                within("head width", head_dim, 1, MAX_DIM)?;
                within("heads x head width", self.n_heads.saturating_mul(head_dim), 1, MAX_DIM)?;
                if !self.n_heads.is_multiple_of(n_kv_heads) {
                    return Err(bad(
                        "key-value heads",
                        n_kv_heads,
                        &format!("a divisor of the {} heads", self.n_heads),
                    ));
                }
                head_dim
            }
        };
        within("rotated dimensions", self.rope.dims, 0, rotated_of)?;
        if self.rope.dims.is_multiple_of(2) {
            Ok(())
        } else {
            Err(bad("rotated dimensions", self.rope.dims, "even: they turn in pairs"))
        }
    }
}

impl MoeConfig {
    fn validate(&self) -> Result<()> {
        let r = &self.router;
        within("experts", r.n_experts, 1, MAX_EXPERTS)?;
        within("experts per token", r.top_k, 1, r.n_experts)?;
        within("expert feed-forward width", self.expert_ff, 1, MAX_DIM)?;
        within("shared experts", self.n_shared, 0, MAX_EXPERTS)?;
        within("shared experts x width", self.n_shared.saturating_mul(self.expert_ff), 0, MAX_DIM)?;
        within("expert groups", r.n_group, 1, r.n_experts)?;
        within("expert groups per token", r.topk_group, 1, r.n_group)?;
        if !r.n_experts.is_multiple_of(r.n_group) {
            return Err(bad("expert groups", r.n_group, &format!("a divisor of the {} experts", r.n_experts)));
        }
        let reachable = r.n_experts / r.n_group * r.topk_group;
        if r.top_k > reachable {
            return Err(bad(
                "experts per token",
                r.top_k,
                &format!("at most {reachable}, the experts of {} groups", r.topk_group),
            ));
        }
        if let WeightNorm::Sum { eps } = r.norm
            && !(eps.is_finite() && eps >= 0.0)
        {
            return Err(bad("epsilon of the weight sum", eps, "finite and not negative"));
        }
        positive("expert weight scale", r.scaling)
    }
}

fn within(key: &str, value: usize, low: usize, high: usize) -> Result<()> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(bad(key, value, &format!("it must lie between {low} and {high}")))
}

fn positive(key: &str, value: f32) -> Result<()> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    Err(bad(key, value, "it must be a positive finite number"))
}

fn bad(key: &str, value: impl ToString, rule: &str) -> Error {
    Error::BadValue { key: key.to_owned(), value: value.to_string(), rule: rule.to_owned() }
}
