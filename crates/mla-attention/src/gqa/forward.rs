//! Grouped-query attention (arXiv 2305.13245) with optional biases, per-head norms of queries and
//! keys, a norm of the attended values, and rotation of the first part of a head only.
//!
//! ```text
//! q, k, v    = W_q x + b_q, W_k x + b_k, W_v x + b_v
//! q_h, k_g   = rmsnorm(q_h), rmsnorm(k_g)              each head by itself, where the model has it
//! q_h, k_g   = rope on the first rotary_dims values, the others as they are
//! cache     += (k, v)
//! score_h(t) = q_h . k_g(t) / sqrt(head_dim)           g = h / (n_heads / n_kv_heads)
//! concat     = concat(sum_t p_h(t) v_g(t)), rmsnorm(concat) where the model has it
//! out        = W_o concat
//! ```

use tl_kernels::int8::Vectors;
use tl_kernels::{ActivationBuffer, Linear, Pool, math};

use super::config::GqaConfig;
use super::weights::GqaWeights;
use crate::error::Error;
use crate::inner::InnerProjection;
use crate::kv_cache::{CacheError, CacheShape, CacheType};
use crate::project::{Projector, project_adapted, sized};
use crate::rope::RopeTable;
use crate::segments::Sequences;
use crate::spans::{Columns, FloatSpans, Int8Spans, LayerCaches, Query, attend};

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
    /// The queries, `[n, n_heads, head_dim]`.
    q: Vec<f32>,
    /// The keys, `[n, n_kv_heads, head_dim]`; `v` holds the values in the same shape.
    k: Vec<f32>,
    v: Vec<f32>,
    /// `[head_dim]` or `[n_heads * head_dim]`: values before their norm.
    before: Vec<f32>,
    turns: RopeTable,
    /// For INT8 caches `[n, n_heads, head_dim]`: the queries, rounded.
    rounded: Vectors,
    /// The attended values, `[n, n_heads, head_dim]`.
    concat: Vec<f32>,
}

impl GqaAttention {
    /// Joins a configuration and its weights.
    ///
    /// # Errors
    /// [`Error::Config`] for impossible settings, [`Error::WeightShape`] for a weight that does
    /// not fit them.
    pub fn new(config: GqaConfig, weights: GqaWeights) -> Result<GqaAttention, Error> {
        config.validate()?;
        weights.validate(&config)?;
        Ok(GqaAttention { config, weights })
    }

    pub(crate) fn config(&self) -> &GqaConfig {
        &self.config
    }

    pub(crate) fn linears_mut(&mut self) -> Vec<&mut Linear> {
        self.weights.linears_mut()
    }

    pub(crate) fn cache_shape(&self) -> CacheShape {
        let c = &self.config;
        CacheShape::Kv { n_kv_heads: c.n_kv_heads, head_dim: c.head_dim }
    }

    pub(crate) fn input_width(&self, projection: InnerProjection) -> Option<usize> {
        (projection == InnerProjection::Output).then(|| self.config.q_width())
    }

    /// Writes the input of `projection` for token `t` of the last pass.
    pub(crate) fn write_input(&self, projection: InnerProjection, scratch: &GqaScratch, t: usize, out: &mut [f32]) {
        assert_eq!(projection, InnerProjection::Output, "queries are not compressed");
        out.copy_from_slice(scratch.acts.row(t));
    }

    /// One forward pass, as [`Attention::forward`](crate::Attention::forward) describes it. The caller has checked the
    /// lengths, and the shape and room of the caches.
    pub(crate) fn forward(
        &self,
        Projector { pool, adapter }: Projector<'_>,
        x: &[f32],
        sequences: &mut Sequences<'_>,
        s: &mut GqaScratch,
        out: &mut [f32],
    ) -> Result<(), CacheError> {
        let (c, w) = (&self.config, &self.weights);
        let (n, segments) = (x.len() / c.hidden, sequences.segments);
        s.acts.set(x, n, c.hidden);
        s.turns.fill(&c.rope, (0..n).map(|row| segments.position(row)));
        let q = sized(&mut s.q, n * c.q_width());
        let k = sized(&mut s.k, n * c.kv_width());
        let v = sized(&mut s.v, n * c.kv_width());
        for (linear, bias, addition, y) in [
            (&w.q, &w.q_bias, &adapter.q, &mut *q),
            (&w.k, &w.k_bias, &adapter.k, &mut *k),
            (&w.v, &w.v_bias, &adapter.v, &mut *v),
        ] {
            project_adapted(pool, (linear, addition), &mut s.acts, y);
            add_bias(bias.as_deref(), y);
        }
        let before = sized(&mut s.before, c.head_dim);
        self.norm_and_rotate(w.q_norm.as_deref(), &s.turns, c.n_heads, before, q);
        self.norm_and_rotate(w.k_norm.as_deref(), &s.turns, c.n_kv_heads, before, k);
        for segment in segments.list() {
            let rows = segment.first_row * c.kv_width()..(segment.first_row + segment.n) * c.kv_width();
            let cache = &mut sequences.caches[segment.cache];
            cache.append(sequences.layer, segment.n, [&k[rows.clone()], &v[rows]])?;
        }
        self.attend(pool, n, sequences, s);
        let concat = &mut s.concat[..n * c.q_width()];
        if let Some(norm) = &w.out_norm {
            let before = sized(&mut s.before, c.q_width());
            for row in concat.chunks_exact_mut(c.q_width()) {
                before.copy_from_slice(row);
                math::rms_norm(before, norm, c.norm_eps, row);
            }
        }
        s.acts.set(concat, n, c.q_width());
        project_adapted(pool, (&w.out, &adapter.out), &mut s.acts, out);
        Ok(())
    }

    /// Norms and rotates every head of `rows` `[n, heads, head_dim]` in place; `before` is scratch of `[head_dim]`.
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
                math::rms_norm(before, norm, c.norm_eps, head);
            }
            turns.rotate(i / heads, &mut head[..c.rotary_dims]);
        }
    }

    /// `concat_h = sum_t p_h(t) v_g(t)` for every head of `q`, both `[n, n_heads, head_dim]`.
    fn attend(&self, pool: &Pool, n: usize, sequences: &Sequences<'_>, s: &mut GqaScratch) {
        let (c, segments) = (&self.config, sequences.segments);
        let group = c.n_heads / c.n_kv_heads;
        // Rows are ordered (token, head).
        let query = |row: usize| {
            let token = row / c.n_heads;
            let (cache, position) = (segments.of_row(token).cache, segments.position(token));
            Query { cache, position, kv_head: row % c.n_heads / group }
        };
        let caches = LayerCaches::new(sequences.caches, sequences.layer);
        let (q, scale) = (&s.q[..n * c.q_width()], c.score_scale());
        let concat = sized(&mut s.concat, n * c.q_width());
        if caches.cache_type() == CacheType::I8 {
            s.rounded.set(pool, n * c.n_heads, c.head_dim, |row| &q[row * c.head_dim..][..c.head_dim]);
            let spans = Int8Spans {
                caches,
                width: c.head_dim,
                first_value: c.n_kv_heads,
                rounded: &s.rounded,
                rotated: &[],
                rope: 0,
                scale,
            };
            attend(pool, &spans, &query, concat);
        } else {
            let columns = Columns { stride: c.kv_width(), head_stride: c.head_dim, width: c.head_dim };
            let spans = FloatSpans { caches, queries: q, key_columns: columns, value_columns: columns, scale };
            spans.attend(pool, &query, concat);
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
