//! The weights of grouped-query attention.

use tl_kernels::Linear;

use super::config::GqaConfig;
use crate::checks;
use crate::error::Error;

/// The weights of one layer of grouped-query attention.
#[derive(Debug)]
pub struct GqaWeights {
    /// `[n_heads * head_dim, hidden]`.
    pub q: Linear,
    /// `[n_kv_heads * head_dim, hidden]`.
    pub k: Linear,
    /// `[n_kv_heads * head_dim, hidden]`.
    pub v: Linear,
    /// The output projection, `[hidden, n_heads * head_dim]`.
    pub out: Linear,
    /// As many values as `q` has rows.
    pub q_bias: Option<Vec<f32>>,
    /// As many values as `k` has rows.
    pub k_bias: Option<Vec<f32>>,
    /// As many values as `v` has rows.
    pub v_bias: Option<Vec<f32>>,
    /// `[head_dim]`, for every query head.
    pub q_norm: Option<Vec<f32>>,
    /// `[head_dim]`, for every key head.
    pub k_norm: Option<Vec<f32>>,
    /// `[n_heads * head_dim]`: the norm of the attended values of all heads, before the output projection.
    pub out_norm: Option<Vec<f32>>,
}

impl GqaWeights {
    /// Refuses weights that do not have the shapes of `c`.
    pub(super) fn validate(&self, c: &GqaConfig) -> Result<(), Error> {
        checks::linear("q", &self.q, c.q_width(), c.hidden)?;
        checks::linear("k", &self.k, c.kv_width(), c.hidden)?;
        checks::linear("v", &self.v, c.kv_width(), c.hidden)?;
        checks::linear("out", &self.out, c.hidden, c.q_width())?;
        let vectors = [
            ("q_bias", &self.q_bias, c.q_width()),
            ("k_bias", &self.k_bias, c.kv_width()),
            ("v_bias", &self.v_bias, c.kv_width()),
            ("q_norm", &self.q_norm, c.head_dim),
            ("k_norm", &self.k_norm, c.head_dim),
            ("out_norm", &self.out_norm, c.q_width()),
        ];
        for (name, vector, len) in vectors {
            if let Some(vector) = vector {
                checks::list(name, vector, len)?;
            }
        }
        Ok(())
    }

    /// Every matrix of the layer.
    pub(super) fn linears_mut(&mut self) -> Vec<&mut Linear> {
        let GqaWeights { q, k, v, out, .. } = self;
        vec![q, k, v, out]
    }
}
