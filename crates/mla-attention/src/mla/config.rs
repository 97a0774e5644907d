//! The dimensions of latent attention.

use crate::checks;
use crate::error::Error;
use crate::rope::Rope;

/// Dimensions of multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1).
#[derive(Clone, Debug, PartialEq)]
pub struct MlaConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Query heads; there is one latent for all of them.
    pub n_heads: usize,
    /// Rank of the query compression; `None` when queries are projected directly.
    pub q_lora: Option<usize>,
    /// Width of the latent that stands for all keys and values of a position.
    pub kv_lora: usize,
    /// Width per head of the query and key part without position.
    pub qk_nope: usize,
    /// Width of the rotated part: per head in queries, shared by all heads in keys.
    pub qk_rope: usize,
    /// Width of one head's value.
    pub v_head: usize,
    /// Epsilon of the norms of the latent and of the compressed query.
    pub latent_norm_eps: f32,
    /// Position embedding of the `qk_rope` part.
    pub rope: Rope,
}

impl MlaConfig {
    /// Width of one head of the queries.
    pub(super) fn q_head(&self) -> usize {
        self.qk_nope + self.qk_rope
    }

    /// Values cached per position.
    pub(super) fn cache_width(&self) -> usize {
        self.kv_lora + self.qk_rope
    }

    /// The scale of scores, `1 / sqrt(qk_nope + qk_rope)`: the width of the original queries, not of the absorbed
    /// ones.
    pub(super) fn score_scale(&self) -> f32 {
        1.0 / (self.q_head() as f32).sqrt()
    }

    pub(super) fn validate(&self) -> Result<(), Error> {
        checks::positive("hidden", self.hidden)?;
        checks::positive("n_heads", self.n_heads)?;
        checks::positive("kv_lora", self.kv_lora)?;
        checks::positive("qk_nope", self.qk_nope)?;
        checks::positive("v_head", self.v_head)?;
        if let Some(rank) = self.q_lora {
            checks::positive("q_lora", rank)?;
        }
        let q_head = checks::sum("qk_nope", self.qk_nope, self.qk_rope)?;
        checks::product("n_heads", self.n_heads, q_head)?;
        checks::product("n_heads", self.n_heads, self.v_head)?;
        let cached = checks::sum("kv_lora", self.kv_lora, self.qk_rope)?;
        checks::product("n_heads", self.n_heads, cached)?;
        checks::epsilon("latent_norm_eps", self.latent_norm_eps)?;
        checks::rotary("qk_rope", self.qk_rope, &self.rope)
    }
}
