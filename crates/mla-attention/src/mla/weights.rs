//! The weights of latent attention.

use tl_kernels::Linear;

use super::config::MlaConfig;
use crate::checks;
use crate::error::Error;

/// The projection from the residual stream to the queries.
#[derive(Debug)]
pub enum QueryProjection {
    /// One matrix `[n_heads * (qk_nope + qk_rope), hidden]`.
    Direct(Linear),
    /// Two matrices with a norm between them: queries are compressed to `q_lora` values, normed and expanded.
    LowRank {
        /// The compression, `[q_lora, hidden]`.
        a: Linear,
        /// The norm between the two, `[q_lora]`.
        a_norm: Vec<f32>,
        /// `[n_heads * (qk_nope + qk_rope), q_lora]`; the rows of a head are nope, then rope.
        b: Linear,
    },
}

/// The weights of one layer of multi-head latent attention.
#[derive(Debug)]
pub struct MlaWeights {
    /// The projection that makes the queries.
    pub q: QueryProjection,
    /// `[kv_lora + qk_rope, hidden]`: the latent, then the shared rotary key.
    pub kv_a: Linear,
    /// The norm of the latent, `[kv_lora]`.
    pub kv_a_norm: Vec<f32>,
    /// Per head `[kv_lora, qk_nope]`: the key half of `kv_b`, transposed.
    pub k_b: Vec<Linear>,
    /// Per head `[v_head, kv_lora]`: the value half of `kv_b`.
    pub v_b: Vec<Linear>,
    /// The output projection, `[hidden, n_heads * v_head]`.
    pub out: Linear,
}

impl MlaWeights {
    /// Refuses weights that do not have the shapes of `c`.
    pub(super) fn validate(&self, c: &MlaConfig) -> Result<(), Error> {
        let q_width = c.n_heads * c.q_head();
        match (&self.q, c.q_lora) {
            (QueryProjection::Direct(q), None) => checks::linear("q", q, q_width, c.hidden)?,
            (QueryProjection::LowRank { a, a_norm, b }, Some(rank)) => {
                checks::linear("q.a", a, rank, c.hidden)?;
                checks::list("q.a_norm", a_norm, rank)?;
                checks::linear("q.b", b, q_width, rank)?;
            }
            (_, rank) => {
                let expected = match rank {
                    None => "set, as the weights compress the queries",
                    Some(_) => "none, as the weights project the queries directly",
                };
                return Err(Error::Config {
                    field: "q_lora",
                    expected: expected.into(),
                    got: rank.map_or("none".into(), |rank| rank.to_string()),
                });
            }
        }
        checks::linear("kv_a", &self.kv_a, c.cache_width(), c.hidden)?;
        checks::list("kv_a_norm", &self.kv_a_norm, c.kv_lora)?;
        checks::list("k_b", &self.k_b, c.n_heads)?;
        checks::list("v_b", &self.v_b, c.n_heads)?;
        for (k_b, v_b) in self.k_b.iter().zip(&self.v_b) {
            checks::linear("k_b", k_b, c.kv_lora, c.qk_nope)?;
            checks::linear("v_b", v_b, c.v_head, c.kv_lora)?;
        }
        checks::linear("out", &self.out, c.hidden, c.n_heads * c.v_head)
    }

    /// Every matrix of the layer.
    pub(super) fn linears_mut(&mut self) -> Vec<&mut Linear> {
        let MlaWeights { q, kv_a, k_b, v_b, out, .. } = self;
        let mut linears = vec![kv_a, out];
        match q {
            QueryProjection::Direct(q) => linears.push(q),
            QueryProjection::LowRank { a, b, .. } => linears.extend([a, b]),
        }
        linears.extend(k_b.iter_mut().chain(v_b));
        linears
    }
}
