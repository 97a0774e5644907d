//! Grouped-query attention (arXiv 2305.13245) with optional biases, per-head norms of queries and
//! keys, and rotation of the first part of a head only.
//!
//! ```text
//! q, k, v    = W_q x + b_q, W_k x + b_k, W_v x + b_v
//! q_h, k_g   = rmsnorm(q_h), rmsnorm(k_g)              each head by itself, where the model has it
//! q_h, k_g   = rope on the first rotary_dims values, the others as they are
//! cache     += (k, v)
//! score_h(t) = q_h . k_g(t) / sqrt(head_dim)           g = h / (n_heads / n_kv_heads)
//! out        = W_o concat(sum_t p_h(t) v_g(t))
//! ```

use tl_kernels::{ActivationBuffer, Linear, Pool, math};

use crate::attention::{check_rows, sized};
use crate::cache::check_shape;
use crate::float_tiles::{Columns, FloatTiles};
use crate::plane::Rows;
use crate::rope::RopeTable;
use crate::tiles::{Place, attend};
use crate::weights::{check_linear, check_vector, project};
use crate::{CacheShape, Error, GqaConfig, KvCache};

/// The weights of one layer of grouped-query attention.
#[derive(Debug)]
pub struct GqaWeights {
    /// `[n_heads * head_dim, hidden]`.
    pub q: Linear,
    /// `[n_kv_heads * head_dim, hidden]`.
    pub k: Linear,
    /// `[n_kv_heads * head_dim, hidden]`.
    pub v: Linear,
    /// `[hidden, n_heads * head_dim]`.
    pub out: Linear,
    /// `[n_heads * head_dim]`.
    pub q_bias: Option<Vec<f32>>,
    /// `[n_kv_heads * head_dim]`.
    pub k_bias: Option<Vec<f32>>,
    /// `[n_kv_heads * head_dim]`.
    pub v_bias: Option<Vec<f32>>,
    /// `[head_dim]`, for every query head.
    pub q_norm: Option<Vec<f32>>,
    /// `[head_dim]`, for every key head.
    pub k_norm: Option<Vec<f32>>,
}

/// One layer of grouped-query attention: a configuration and weights that fit it.
#[derive(Debug)]
pub struct GqaAttention {
    config: GqaConfig,
    weights: GqaWeights,
}

/// Buffers of a forward pass of `n` tokens.
#[derive(Debug, Default)]
pub(crate) struct GqaScratch {
    acts: ActivationBuffer,
    /// `[n, n_heads, head_dim]`.
    q: Vec<f32>,
    /// `[n, n_kv_heads, head_dim]`.
    k: Vec<f32>,
    v: Vec<f32>,
    /// `[head_dim]`: a head before its norm.
    head: Vec<f32>,
    turns: RopeTable,
    /// `[n, n_heads, head_dim]`.
    concat: Vec<f32>,
}

impl GqaAttention {
    pub(crate) fn weights_mut(&mut self) -> &mut GqaWeights {
        &mut self.weights
    }

    /// Joins a configuration and its weights.
    ///
    /// # Errors
    /// [`Error::Config`] for impossible settings, [`Error::WeightShape`] for a weight that does
    /// not fit them.
    pub fn new(config: GqaConfig, weights: GqaWeights) -> Result<GqaAttention, Error> {
        config.validate()?;
        let (c, w) = (&config, &weights);
        check_linear("q", &w.q, c.q_width(), c.hidden)?;
        check_linear("k", &w.k, c.kv_width(), c.hidden)?;
        check_linear("v", &w.v, c.kv_width(), c.hidden)?;
        check_linear("out", &w.out, c.hidden, c.q_width())?;
        let vectors = [
            ("q_bias", &w.q_bias, c.q_width()),
            ("k_bias", &w.k_bias, c.kv_width()),
            ("v_bias", &w.v_bias, c.kv_width()),
            ("q_norm", &w.q_norm, c.head_dim),
            ("k_norm", &w.k_norm, c.head_dim),
        ];
        for (name, vector, len) in vectors {
            if let Some(vector) = vector {
                check_vector(name, vector, len)?;
            }
        }
        Ok(GqaAttention { config, weights })
    }

    /// The dimensions.
    #[must_use]
    pub fn config(&self) -> &GqaConfig {
        &self.config
    }

    /// The weights.
    #[must_use]
    pub fn weights(&self) -> &GqaWeights {
        &self.weights
    }

    /// What the layer stores per position.
    #[must_use]
    pub fn cache_shape(&self) -> CacheShape {
        let c = &self.config;
        CacheShape::Kv { n_kv_heads: c.n_kv_heads, head_dim: c.head_dim }
    }

    /// See [`Attention::forward`](crate::Attention::forward).
    pub(crate) fn forward(
        &self,
        pool: &Pool,
        x: &[f32],
        n: usize,
        cache: &mut KvCache,
        s: &mut GqaScratch,
        out: &mut [f32],
    ) -> Result<(), Error> {
        let (c, w) = (&self.config, &self.weights);
        check_rows("x", x.len(), n, c.hidden)?;
        check_rows("out", out.len(), n, c.hidden)?;
        check_shape(self.cache_shape(), cache.shape())?;
        let first = cache.keys.len();
        cache.keys.check_room(n)?;
        if n == 0 {
            return Ok(());
        }

        s.acts.set(x, n, c.hidden);
        s.turns.fill(&c.rope, first, n);
        let q = sized(&mut s.q, n * c.q_width());
        let k = sized(&mut s.k, n * c.kv_width());
        let v = sized(&mut s.v, n * c.kv_width());
        for (linear, bias, y) in [(&w.q, &w.q_bias, &mut *q), (&w.k, &w.k_bias, &mut *k), (&w.v, &w.v_bias, &mut *v)] {
            project(pool, linear, &mut s.acts, y);
            add_bias(bias.as_deref(), y);
        }
        let before = sized(&mut s.head, c.head_dim);
        self.norm_and_rotate(w.q_norm.as_deref(), &s.turns, c.n_heads, before, q);
        self.norm_and_rotate(w.k_norm.as_deref(), &s.turns, c.n_kv_heads, before, k);
        cache.keys.append(k);
        cache.values.append(v);

        let concat = sized(&mut s.concat, n * c.q_width());
        self.attend(pool, first, cache, q, concat);
        s.acts.set(concat, n, c.q_width());
        project(pool, &w.out, &mut s.acts, out);
        Ok(())
    }

    /// Norms and rotates every head of `rows` `[n, heads, head_dim]` in place; `before` is a
    /// spare `[head_dim]`.
    fn norm_and_rotate(
        &self,
        norm: Option<&[f32]>,
        turns: &RopeTable,
        heads: usize,
        before: &mut [f32],
        rows: &mut [f32],
    ) {
        let c = &self.config;
        for (i, head) in rows.chunks_exact_mut(c.head_dim).enumerate() {
            if let Some(norm) = norm {
                before.copy_from_slice(head);
                math::rms_norm(before, norm, c.qk_norm_eps, head);
            }
            turns.rotate(i / heads, &mut head[..c.rotary_dims]);
        }
    }

    /// `concat_h = sum_t p_h(t) v_g(t)` for every head of `q`, both `[n, n_heads, head_dim]`.
    fn attend(&self, pool: &Pool, first: usize, cache: &KvCache, q: &[f32], concat: &mut [f32]) {
        let c = &self.config;
        let columns = Columns { stride: c.kv_width(), head_stride: c.head_dim, width: c.head_dim };
        let group = c.n_heads / c.n_kv_heads;
        // Rows are ordered (token, head).
        let place = |row: usize| Place { position: first + row / c.n_heads, kv_head: row % c.n_heads / group };
        let scale = c.score_scale();
        match (cache.keys.rows(), cache.values.rows()) {
            (Rows::F32(keys), Rows::F32(values)) => {
                let tiles =
                    FloatTiles { queries: q, keys, key_columns: columns, values, value_columns: columns, scale };
                attend(pool, &tiles, &place, concat);
            }
            (Rows::F16(keys), Rows::F16(values)) => {
                let tiles =
                    FloatTiles { queries: q, keys, key_columns: columns, values, value_columns: columns, scale };
                attend(pool, &tiles, &place, concat);
            }
            _ => unreachable!("a cache has one number type"),
        }
    }
}

/// Adds `bias` `[width]` to every row of `y` `[n, width]`.
fn add_bias(bias: Option<&[f32]>, y: &mut [f32]) {
    let Some(bias) = bias else { return };
    for row in y.chunks_exact_mut(bias.len()) {
        for (y, b) in row.iter_mut().zip(bias) {
            *y += b;
        }
    }
}
