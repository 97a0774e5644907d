//! The dimensions of grouped-query attention.

use crate::checks;
use crate::error::Error;
use crate::rope::Rope;

/// Dimensions of grouped-query attention (arXiv 2305.13245) with optional biases, per-head query and key norms, a norm of
/// the attended values, and rotation of only the first part of a head.
#[derive(Clone, Debug, PartialEq)]
pub struct GqaConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Heads of the queries.
    pub n_heads: usize,
    /// Key and value heads; each serves `n_heads / n_kv_heads` neighbouring query heads.
    pub n_kv_heads: usize,
    /// Width of one head of queries, keys and values.
    pub head_dim: usize,
    /// How many of the first values of a head are rotated; equals `rope.dims()`.
    pub rotary_dims: usize,
    /// Epsilon of the norms, where the weights have them.
    pub norm_eps: f32,
    /// Position embedding of the first `rotary_dims` values.
    pub rope: Rope,
}

impl GqaConfig {
    /// Values of all query heads of one token.
    pub(super) fn q_width(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Values of all key heads (and of all value heads) of one token.
    pub(super) fn kv_width(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }

    /// The scale of scores, `1 / sqrt(head_dim)`.
    pub(super) fn score_scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    pub(super) fn validate(&self) -> Result<(), Error> {
        checks::positive("hidden", self.hidden)?;
        checks::positive("n_heads", self.n_heads)?;
        checks::positive("n_kv_heads", self.n_kv_heads)?;
        checks::positive("head_dim", self.head_dim)?;
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
        checks::product("n_heads", self.n_heads, self.head_dim)?;
        checks::epsilon("norm_eps", self.norm_eps)?;
        checks::rotary("rotary_dims", self.rotary_dims, &self.rope)
    }
}
