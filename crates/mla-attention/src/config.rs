//! The dimensions of an attention layer.
//!
//! The numbers come from a model file, so every product of two of them is checked once, by
//! `validate`, before anything is allocated or multiplied.

use crate::{Error, Rope};

/// Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1).
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
    /// Width of one head of the queries: `qk_nope + qk_rope`.
    #[must_use]
    pub fn q_head(&self) -> usize {
        self.qk_nope + self.qk_rope
    }

    /// Values cached per position: `kv_lora + qk_rope`.
    #[must_use]
    pub fn cache_width(&self) -> usize {
        self.kv_lora + self.qk_rope
    }

    /// Score scale: `1 / sqrt(qk_nope + qk_rope)`, whatever the width of the absorbed form.
    #[must_use]
    pub fn score_scale(&self) -> f32 {
        1.0 / (self.q_head() as f32).sqrt()
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        positive("hidden", self.hidden)?;
        positive("n_heads", self.n_heads)?;
        positive("kv_lora", self.kv_lora)?;
        positive("qk_nope", self.qk_nope)?;
        positive("v_head", self.v_head)?;
        if let Some(rank) = self.q_lora {
            positive("q_lora", rank)?;
        }
        let q_head = sum("qk_nope", self.qk_nope, self.qk_rope)?;
        product("n_heads", self.n_heads, q_head)?;
        product("n_heads", self.n_heads, self.v_head)?;
        let cached = sum("kv_lora", self.kv_lora, self.qk_rope)?;
        product("n_heads", self.n_heads, cached)?;
        epsilon("latent_norm_eps", self.latent_norm_eps)?;
        rotary("qk_rope", self.qk_rope, &self.rope)
    }
}

/// Grouped-query attention (arXiv 2305.13245) with optional biases, per-head query and key norms
/// and rotation of only the first part of a head.
#[derive(Clone, Debug, PartialEq)]
pub struct GqaConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; each serves `n_heads / n_kv_heads` neighbouring query heads.
    pub n_kv_heads: usize,
    /// Width of one head of queries, keys and values.
    pub head_dim: usize,
    /// How many of the first values of a head are rotated; equals `rope.dims()`.
    pub rotary_dims: usize,
    /// Epsilon of the per-head norms of queries and keys, where the weights have them.
    pub qk_norm_eps: f32,
    /// Position embedding of the first `rotary_dims` values.
    pub rope: Rope,
}

impl GqaConfig {
    /// Values of all query heads of one token.
    #[must_use]
    pub fn q_width(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Values of all key heads (and of all value heads) of one token.
    #[must_use]
    pub fn kv_width(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }

    /// Score scale: `1 / sqrt(head_dim)`.
    #[must_use]
    pub fn score_scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        positive("hidden", self.hidden)?;
        positive("n_heads", self.n_heads)?;
        positive("n_kv_heads", self.n_kv_heads)?;
        positive("head_dim", self.head_dim)?;
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            return Err(Error::Config {
                field: "n_kv_heads",
                expected: format!("a divisor of n_heads = {}", self.n_heads),
                got: self.n_kv_heads.to_string(),
            });
        }
        if self.rotary_dims > self.head_dim {
            return Err(Error::Config {
                field: "rotary_dims",
                expected: format!("at most head_dim = {}", self.head_dim),
                got: self.rotary_dims.to_string(),
            });
        }
        product("n_heads", self.n_heads, self.head_dim)?;
        epsilon("qk_norm_eps", self.qk_norm_eps)?;
        rotary("rotary_dims", self.rotary_dims, &self.rope)
    }
}

fn positive(field: &'static str, value: usize) -> Result<(), Error> {
    if value > 0 {
        return Ok(());
    }
    Err(Error::Config { field, expected: "at least 1".into(), got: value.to_string() })
}

fn sum(field: &'static str, a: usize, b: usize) -> Result<usize, Error> {
    a.checked_add(b).ok_or_else(|| Error::Config {
        field,
        expected: "small enough to be added to its companion".into(),
        got: a.to_string(),
    })
}

fn product(field: &'static str, a: usize, b: usize) -> Result<usize, Error> {
    a.checked_mul(b).ok_or_else(|| Error::Config {
        field,
        expected: format!("small enough to be multiplied by {b}"),
        got: a.to_string(),
    })
}

fn epsilon(field: &'static str, value: f32) -> Result<(), Error> {
    if value.is_finite() && value >= 0.0 {
        return Ok(());
    }
    Err(Error::Config { field, expected: "finite and not negative".into(), got: value.to_string() })
}

fn rotary(field: &'static str, dims: usize, rope: &Rope) -> Result<(), Error> {
    if dims == rope.dims() {
        return Ok(());
    }
    Err(Error::Config {
        field,
        expected: format!("the width of its position embedding, {}", rope.dims()),
        got: dims.to_string(),
    })
}
