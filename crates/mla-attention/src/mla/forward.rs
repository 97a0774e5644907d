//! Multi-head latent attention in the absorbed form (DeepSeek-V2, arXiv 2405.04434, section 2.1).
//!
//! ```text
//! q            = q_b(rmsnorm(q_a(x)))                heads x (nope | rope);  without q_lora: q(x)
//! c | k_pe     = kv_a(x)                             one latent and one rotary key for all heads
//! c            = rmsnorm(c)
//! cache       += (c, rope(k_pe))
//! q_abs_h      = k_b_h q_nope_h                      the key projection, moved to the query's side
//! score_h(t)   = (q_abs_h . c_t + rope(q_pe_h) . k_pe_t) / sqrt(nope + rope)
//! o_h          = v_b_h (sum_t p_h(t) c_t)            the value projection, moved behind the sum
//! out          = W_o concat(o_h)
//! ```
//!
//! Keys and values are never expanded: a cached row `c | k_pe` is the key of every head, and its
//! first `kv_lora` values are the value of every head. That is multi-query attention with one key
//! head, computed in [`spans`](crate::spans). For an INT8 cache the queries are rounded to INT8 too.
//!
//! Queries and attended latents are ordered (segment, head, token), so that all queries of a sequence lie side by side
//! and one reading of its cache serves them.
//!
//! **Invariant**: the value is the *normalised* latent, and the scale follows from the width of
//! the original queries, not of the absorbed ones.

use tl_kernels::int8::Vectors;
use tl_kernels::{ActivationBuffer, Linear, Pool, math};

use super::config::MlaConfig;
use super::weights::{MlaWeights, QueryProjection};
use crate::error::Error;
use crate::inner::InnerProjection;
use crate::kv_cache::{CacheError, CacheShape, CacheType};
use crate::project::{Projector, add, project, project_adapted, project_two, sized};
use crate::rope::RopeTable;
use crate::segments::{Segments, Sequences};
use crate::spans::{Columns, FloatSpans, Int8Spans, LayerCaches, Query, attend};

/// Largest number of tokens for which reading the weights of a head takes at least as long as multiplying with them.
const STREAMED_TOKENS: usize = 2;

/// One layer of multi-head latent attention: a configuration and weights that fit it.
#[derive(Debug)]
pub struct MlaAttention {
    config: MlaConfig,
    weights: MlaWeights,
}

/// Buffers of a forward pass of `n` tokens.
#[derive(Debug, Default)]
pub(crate) struct MlaScratch {
    /// The input of the next projection: `x`, then the normed compressed query, then `concat` `[n, n_heads, v_head]`.
    acts: ActivationBuffer,
    /// `[n, q_lora]`, before the norm.
    q_low: Vec<f32>,
    /// `[n, n_heads, qk_nope + qk_rope]`.
    q: Vec<f32>,
    /// `[n, kv_lora + qk_rope]`, as projected.
    kv: Vec<f32>,
    /// `[n, kv_lora]`, normed, and `[n, qk_rope]`, rotated: what the caches get.
    latents: Vec<f32>,
    rotated_keys: Vec<f32>,
    turns: RopeTable,
    heads: Vec<HeadScratch>,
    /// `[n_heads * n, kv_lora + qk_rope]`: `q_abs | rope(q_pe)`, the counterpart of a cached row.
    queries: Vec<f32>,
    /// For INT8 caches `[n_heads * n, kv_lora]`: `q_abs`, rounded.
    rounded: Vectors,
    /// Weighted sums of the latents, `[n_heads * n, kv_lora]`.
    attended: Vec<f32>,
}

/// Buffers of one head.
#[derive(Debug, Default)]
struct HeadScratch {
    /// `q_nope` `[n, qk_nope]`, then the attended latents `[n, kv_lora]`.
    acts: ActivationBuffer,
    /// The absorbed queries, `[n, kv_lora]`.
    q_abs: Vec<f32>,
    /// The head's part of `concat`, `[n, v_head]`.
    value: Vec<f32>,
}

impl MlaAttention {
    /// Joins a configuration and its weights.
    ///
    /// # Errors
    /// [`Error::Config`] for impossible settings, [`Error::WeightShape`] for a weight that does
    /// not fit them.
    pub fn new(config: MlaConfig, weights: MlaWeights) -> Result<MlaAttention, Error> {
        config.validate()?;
        weights.validate(&config)?;
        Ok(MlaAttention { config, weights })
    }

    pub(crate) fn config(&self) -> &MlaConfig {
        &self.config
    }

    pub(crate) fn linears_mut(&mut self) -> Vec<&mut Linear> {
        self.weights.linears_mut()
    }

    pub(crate) fn cache_shape(&self) -> CacheShape {
        CacheShape::Latent { kv_lora: self.config.kv_lora, qk_rope: self.config.qk_rope }
    }

    pub(crate) fn input_width(&self, projection: InnerProjection) -> Option<usize> {
        match (projection, &self.weights.q) {
            (InnerProjection::Query, QueryProjection::LowRank { a, .. }) => Some(a.rows()),
            (InnerProjection::Query, QueryProjection::Direct(_)) => None,
            (InnerProjection::Output, _) => Some(self.config.n_heads * self.config.v_head),
        }
    }

    /// Writes the input of `projection` for token `t` of the last pass.
    pub(crate) fn write_input(&self, projection: InnerProjection, scratch: &MlaScratch, t: usize, out: &mut [f32]) {
        match (projection, &self.weights.q) {
            (InnerProjection::Query, QueryProjection::LowRank { a, a_norm, .. }) => {
                let low = &scratch.q_low[t * a.rows()..][..a.rows()];
                math::rms_norm(low, a_norm, self.config.latent_norm_eps, out);
            }
            (InnerProjection::Query, QueryProjection::Direct(_)) => panic!("queries are not compressed"),
            (InnerProjection::Output, _) => out.copy_from_slice(scratch.acts.row(t)),
        }
    }

    /// One forward pass, as [`Attention::forward`](crate::Attention::forward) describes it. The caller has checked the
    /// lengths, and the shape and room of the caches.
    pub(crate) fn forward(
        &self,
        projector: Projector<'_>,
        x: &[f32],
        sequences: &mut Sequences<'_>,
        scratch: &mut MlaScratch,
        out: &mut [f32],
    ) -> Result<(), CacheError> {
        let (c, n, segments) = (&self.config, sequences.segments.n_rows(), sequences.segments);
        let Projector { pool, adapter } = projector;
        scratch.acts.set(x, n, c.hidden);
        scratch.turns.fill(&c.rope, (0..n).map(|row| segments.position(row)));
        self.project_input(projector, n, scratch);
        self.append_latents(n, sequences, scratch)?;
        self.expand_queries(projector, n, scratch);
        self.absorb_queries(pool, segments, scratch);
        self.attend(pool, sequences, scratch);
        self.expand_values(pool, segments, scratch);
        project_adapted(pool, (&self.weights.out, &adapter.out), &mut scratch.acts, out);
        Ok(())
    }

    /// `c | k_pe = kv_a(x)` with `q_a(x)`, or with `q = q(x)` `[n, n_heads, nope | rope]`, not yet rotated.
    fn project_input(&self, Projector { pool, adapter }: Projector<'_>, n: usize, s: &mut MlaScratch) {
        let c = &self.config;
        let kv = sized(&mut s.kv, n * c.cache_width());
        let (q, y, addition) = match &self.weights.q {
            QueryProjection::Direct(w) => (w, &mut s.q, &adapter.q),
            QueryProjection::LowRank { a, .. } => (a, &mut s.q_low, &adapter.q_a),
        };
        let y = sized(y, n * q.rows());
        project_two(pool, (&self.weights.kv_a, kv), (q, y), &mut s.acts);
        add(pool, &adapter.kv_a, &s.acts, kv);
        add(pool, addition, &s.acts, y);
    }

    /// `cache += rmsnorm(c) | rope(k_pe)`, for the cache of each segment.
    fn append_latents(&self, n: usize, sequences: &mut Sequences<'_>, s: &mut MlaScratch) -> Result<(), CacheError> {
        let c = &self.config;
        let latents = sized(&mut s.latents, n * c.kv_lora);
        let keys = sized(&mut s.rotated_keys, n * c.qk_rope);
        for (token, kv) in s.kv[..n * c.cache_width()].chunks_exact(c.cache_width()).enumerate() {
            let (latent, k_pe) = kv.split_at(c.kv_lora);
            let normed = &mut latents[token * c.kv_lora..][..c.kv_lora];
            math::rms_norm(latent, &self.weights.kv_a_norm, c.latent_norm_eps, normed);
            let key = &mut keys[token * c.qk_rope..][..c.qk_rope];
            key.copy_from_slice(k_pe);
            s.turns.rotate(token, key);
        }
        for segment in sequences.segments.list() {
            let latents = &latents[segment.first_row * c.kv_lora..][..segment.n * c.kv_lora];
            let keys = &keys[segment.first_row * c.qk_rope..][..segment.n * c.qk_rope];
            sequences.caches[segment.cache].append(sequences.layer, segment.n, [latents, keys])?;
        }
        Ok(())
    }

    /// `q = q_b(rmsnorm(q_a(x)))` `[n, n_heads, nope | rope]`, not yet rotated, where queries are compressed.
    fn expand_queries(&self, Projector { pool, adapter }: Projector<'_>, n: usize, s: &mut MlaScratch) {
        let c = &self.config;
        let QueryProjection::LowRank { a, a_norm, b } = &self.weights.q else { return };
        let rank = a.rows();
        let low = &s.q_low;
        s.acts.fill(n, rank, |token, normed| {
            math::rms_norm(&low[token * rank..][..rank], a_norm, c.latent_norm_eps, normed);
        });
        let q = sized(&mut s.q, n * c.n_heads * c.q_head());
        project_adapted(pool, (b, &adapter.q_b), &mut s.acts, q);
    }

    /// Calls `f(h, scratch of h)` once for every head.
    fn each_head(&self, pool: &Pool, n: usize, heads: &mut [HeadScratch], f: impl Fn(usize, &mut HeadScratch) + Sync) {
        let n_heads = self.config.n_heads;
        // With few tokens, reading the weights takes most of the time, so each thread reads the weights of
        // neighbouring heads, which lie side by side, as one stream.
        let heads_per_task = if n <= STREAMED_TOKENS { n_heads.div_ceil(pool.threads()) } else { 1 };
        pool.chunks_mut(&mut heads[..n_heads], heads_per_task, |task, heads| {
            for (i, head) in heads.iter_mut().enumerate() {
                f(task * heads_per_task + i, head);
            }
        });
    }

    /// `query_h = k_b_h q_nope_h | rope(q_pe_h)` for every head.
    fn absorb_queries(&self, pool: &Pool, segments: &Segments, s: &mut MlaScratch) {
        let (c, n) = (&self.config, segments.n_rows());
        let (q, turns, serial) = (&s.q, &s.turns, Pool::serial());
        if s.heads.len() < c.n_heads {
            s.heads.resize_with(c.n_heads, HeadScratch::default);
        }
        let q_of = |token: usize, h: usize| &q[(token * c.n_heads + h) * c.q_head()..][..c.q_head()];
        self.each_head(pool, n, &mut s.heads, |h, head| {
            head.acts.fill(n, c.qk_nope, |token, q_nope| {
                q_nope.copy_from_slice(&q_of(token, h)[..c.qk_nope]);
            });
            let q_abs = sized(&mut head.q_abs, n * c.kv_lora);
            project(&serial, &self.weights.k_b[h], &mut head.acts, q_abs);
        });
        let heads = &s.heads;
        let queries = sized(&mut s.queries, c.n_heads * n * c.cache_width());
        // A task is as many rows as there are tokens, so that there is one task per head, as above.
        pool.chunks_mut(queries, n * c.cache_width(), |task, rows| {
            for (i, row) in rows.chunks_exact_mut(c.cache_width()).enumerate() {
                let (token, h) = self.token_and_head(segments, task * n + i);
                let (abs, q_pe) = row.split_at_mut(c.kv_lora);
                abs.copy_from_slice(&heads[h].q_abs[token * c.kv_lora..][..c.kv_lora]);
                q_pe.copy_from_slice(&q_of(token, h)[c.qk_nope..]);
                turns.rotate(token, q_pe);
            }
        });
    }

    /// The token (a row of the batch) and the head of a row of `queries`.
    fn token_and_head(&self, segments: &Segments, row: usize) -> (usize, usize) {
        let n_heads = self.config.n_heads;
        // A segment has its rows of all heads where `n_heads` batches would have its tokens.
        let segment = segments.of_row(row / n_heads);
        let within = row - segment.first_row * n_heads;
        (segment.first_row + within % segment.n, within / segment.n)
    }

    /// `attended_h = sum_t p_h(t) c_t` over all positions of a token's sequence up to its own.
    fn attend(&self, pool: &Pool, sequences: &Sequences<'_>, s: &mut MlaScratch) {
        let (c, segments) = (&self.config, sequences.segments);
        let (n_rows, width) = (c.n_heads * segments.n_rows(), c.cache_width());
        let query = |row: usize| {
            let (token, _) = self.token_and_head(segments, row);
            Query { cache: segments.of_row(token).cache, position: segments.position(token), kv_head: 0 }
        };
        let caches = LayerCaches::new(sequences.caches, sequences.layer);
        let (queries, scale) = (&s.queries[..n_rows * width], c.score_scale());
        let attended = sized(&mut s.attended, n_rows * c.kv_lora);
        if caches.cache_type() == CacheType::I8 {
            s.rounded.set(pool, n_rows, c.kv_lora, |row| &queries[row * width..][..c.kv_lora]);
            let spans = Int8Spans {
                caches,
                width: c.kv_lora,
                // The latent is the key and the value.
                first_value: 0,
                rounded: &s.rounded,
                rotated: queries,
                rope: c.qk_rope,
                scale,
            };
            attend(pool, &spans, &query, attended);
        } else {
            let key_columns = Columns { stride: width, head_stride: 0, width };
            // The first columns of a row are its values.
            let value_columns = Columns { width: c.kv_lora, ..key_columns };
            FloatSpans { caches, queries, key_columns, value_columns, scale }.attend(pool, &query, attended);
        }
    }

    /// `concat_h = v_b_h attended_h`, left in `acts` as `[n, n_heads, v_head]`.
    fn expand_values(&self, pool: &Pool, segments: &Segments, s: &mut MlaScratch) {
        let (c, n) = (&self.config, segments.n_rows());
        let (attended, serial) = (&s.attended, Pool::serial());
        self.each_head(pool, n, &mut s.heads, |h, head| {
            let v_b = &self.weights.v_b[h];
            if let [_] = segments.list() {
                head.acts.set_in(v_b.act_mode(), &attended[h * n * c.kv_lora..][..n * c.kv_lora], n, c.kv_lora);
            } else {
                head.acts.fill(n, c.kv_lora, |token, row| {
                    let segment = segments.of_row(token);
                    let from = segment.first_row * c.n_heads + h * segment.n + token - segment.first_row;
                    row.copy_from_slice(&attended[from * c.kv_lora..][..c.kv_lora]);
                });
                head.acts.quantize(v_b.act_mode());
            }
            v_b.forward(&serial, &head.acts, sized(&mut head.value, n * c.v_head));
        });
        s.acts.fill(n, c.n_heads * c.v_head, |token, concat| {
            for (out, head) in concat.chunks_exact_mut(c.v_head).zip(&s.heads) {
                out.copy_from_slice(&head.value[token * c.v_head..][..c.v_head]);
            }
        });
    }
}
