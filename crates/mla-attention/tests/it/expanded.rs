//! The oracle of the tests: attention with expanded keys and values, in plain f64 loops.
//!
//! ```text
//! k_h(t) = k_b_h^T c_t | rope(k_pe_t)          a key of nope + rope values for every head
//! v_h(t) = v_b_h c_t
//! out(s) = W_o concat_h sum_t softmax_t(q_h(s) . k_h(t) / sqrt(nope + rope)) v_h(t)
//! ```
//!
//! This is the form of the paper before absorption, and the form the weights were trained in. It
//! shares no code with the fast path but the weights and the frequencies of the position
//! embedding: two-pass softmax, no spans, no absorbed product. It is slow and holds everything
//! expanded, so it is for tests only. Activations are never quantised here.

use half::f16;
use tl_kernels::Linear;

use mla_attention::{CacheType, GqaConfig, GqaWeights, MlaConfig, MlaWeights, QueryProjection, Rope, RopeStyle};

/// Latent attention of a whole sequence `x` `[n, hidden]` from position 0; returns `[n, hidden]`.
///
/// Keys and values are rounded as a cache of type `cache` rounds them.
///
/// # Panics
/// When the weights do not have the shapes of the configuration, or a ternary block is damaged.
pub(crate) fn mla(config: &MlaConfig, weights: &MlaWeights, cache: CacheType, x: &[f32]) -> Vec<f64> {
    let c = config;
    let q_head = c.qk_nope + c.qk_rope;
    let eps = f64::from(c.latent_norm_eps);
    let tokens: Vec<Vec<f64>> = x.chunks_exact(c.hidden).map(widen).collect();
    let kv_a = Matrix::of(&weights.kv_a);
    let k_b: Vec<Matrix> = weights.k_b.iter().map(Matrix::of).collect();
    let v_b: Vec<Matrix> = weights.v_b.iter().map(Matrix::of).collect();

    let mut queries = Vec::new(); // [n][n_heads][nope + rope]
    let mut keys = vec![Vec::new(); c.n_heads]; // [n_heads][n][nope + rope]
    let mut values = vec![Vec::new(); c.n_heads]; // [n_heads][n][v_head]
    for (position, x) in tokens.iter().enumerate() {
        let q = match &weights.q {
            QueryProjection::Direct(w) => Matrix::of(w).times(x),
            QueryProjection::LowRank { a, a_norm, b } => {
                Matrix::of(b).times(&rms_norm(&Matrix::of(a).times(x), a_norm, eps))
            }
        };
        let rotated = q.chunks_exact(q_head).map(|head| {
            let mut head = head.to_vec();
            rotate(&c.rope, position, &mut head[c.qk_nope..]);
            head
        });
        queries.push(rotated.collect::<Vec<_>>());

        let kv = kv_a.times(x);
        let latent = round_vector(&rms_norm(&kv[..c.kv_lora], &weights.kv_a_norm, eps), cache);
        let mut k_pe = kv[c.kv_lora..].to_vec();
        rotate(&c.rope, position, &mut k_pe);
        let k_pe = round(&k_pe, cache);
        for h in 0..c.n_heads {
            keys[h].push([k_b[h].transposed_times(&latent), k_pe.clone()].concat());
            values[h].push(v_b[h].times(&latent));
        }
    }

    let scale = 1.0 / (q_head as f64).sqrt();
    let out = Matrix::of(&weights.out);
    let attended = queries.iter().enumerate().map(|(position, heads)| {
        let of_head = |h: usize| {
            let (keys, values) = (&keys[h][..=position], &values[h][..=position]);
            softmax_attend(&heads[h], keys, values, scale)
        };
        let concat: Vec<f64> = (0..c.n_heads).flat_map(of_head).collect();
        out.times(&concat)
    });
    attended.flatten().collect()
}

/// Grouped-query attention of a whole sequence `x` `[n, hidden]` from position 0; returns
/// `[n, hidden]`.
///
/// Keys and values are rounded as a cache of type `cache` rounds them.
///
/// # Panics
/// When the weights do not have the shapes of the configuration, or a ternary block is damaged.
pub(crate) fn gqa(config: &GqaConfig, weights: &GqaWeights, cache: CacheType, x: &[f32]) -> Vec<f64> {
    let (c, w) = (config, weights);
    let [q, k, v, out] = [&w.q, &w.k, &w.v, &w.out].map(Matrix::of);
    let finish = |y: Vec<f64>, norm: &Option<Vec<f32>>, position: usize| {
        let finished = y.chunks_exact(c.head_dim).map(|head| {
            let mut head = match norm {
                Some(norm) => rms_norm(head, norm, f64::from(c.norm_eps)),
                None => head.to_vec(),
            };
            rotate(&c.rope, position, &mut head[..c.rotary_dims]);
            head
        });
        finished.collect::<Vec<_>>()
    };

    let mut queries = Vec::new(); // [n][n_heads][head_dim]
    let mut keys = vec![Vec::new(); c.n_kv_heads]; // [n_kv_heads][n][head_dim]
    let mut values = vec![Vec::new(); c.n_kv_heads];
    for (position, x) in x.chunks_exact(c.hidden).map(widen).enumerate() {
        queries.push(finish(add(q.times(&x), &w.q_bias), &w.q_norm, position));
        let heads = finish(add(k.times(&x), &w.k_bias), &w.k_norm, position);
        let value = add(v.times(&x), &w.v_bias);
        for (g, key) in heads.iter().enumerate() {
            keys[g].push(round_vector(key, cache));
            values[g].push(round_vector(&value[g * c.head_dim..][..c.head_dim], cache));
        }
    }

    let scale = 1.0 / (c.head_dim as f64).sqrt();
    let attended = queries.iter().enumerate().map(|(position, heads)| {
        let of_head = |h: usize| {
            let g = h * c.n_kv_heads / c.n_heads;
            let (keys, values) = (&keys[g][..=position], &values[g][..=position]);
            softmax_attend(&heads[h], keys, values, scale)
        };
        let concat: Vec<f64> = (0..c.n_heads).flat_map(of_head).collect();
        out.times(&match &w.out_norm {
            Some(norm) => rms_norm(&concat, norm, f64::from(c.norm_eps)),
            None => concat,
        })
    });
    attended.flatten().collect()
}

/// `sum_t softmax_t(scale * query . keys[t]) values[t]`.
fn softmax_attend(query: &[f64], keys: &[Vec<f64>], values: &[Vec<f64>], scale: f64) -> Vec<f64> {
    let scores: Vec<f64> = keys.iter().map(|key| scale * dot(query, key)).collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let mut out = vec![0.0; values[0].len()];
    for (weight, value) in weights.iter().zip(values) {
        for (out, v) in out.iter_mut().zip(value) {
            *out += weight / sum * v;
        }
    }
    out
}

/// A dequantised matrix, `[rows, cols]`.
struct Matrix {
    cols: usize,
    values: Vec<f64>,
}

impl Matrix {
    fn of(linear: &Linear) -> Matrix {
        let mut row = vec![0.0; linear.cols()];
        let mut values = Vec::with_capacity(linear.rows() * linear.cols());
        for r in 0..linear.rows() {
            linear.dequantize_row(r, &mut row).expect("the oracle is given undamaged weights");
            values.extend(row.iter().copied().map(f64::from));
        }
        Matrix { cols: linear.cols(), values }
    }

    fn times(&self, x: &[f64]) -> Vec<f64> {
        assert_eq!(x.len(), self.cols, "the oracle was given weights of other shapes");
        self.values.chunks_exact(self.cols).map(|row| dot(row, x)).collect()
    }

    fn transposed_times(&self, x: &[f64]) -> Vec<f64> {
        let mut y = vec![0.0; self.cols];
        for (row, x) in self.values.chunks_exact(self.cols).zip(x) {
            for (y, w) in y.iter_mut().zip(row) {
                *y += w * x;
            }
        }
        y
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(mut y: Vec<f64>, bias: &Option<Vec<f32>>) -> Vec<f64> {
    for (y, b) in y.iter_mut().zip(bias.iter().flatten()) {
        *y += f64::from(*b);
    }
    y
}

fn rms_norm(x: &[f64], weight: &[f32], eps: f64) -> Vec<f64> {
    let mean_square = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
    let scale = 1.0 / (mean_square + eps).sqrt();
    x.iter().zip(weight).map(|(x, w)| x * scale * f64::from(*w)).collect()
}

fn rotate(rope: &Rope, position: usize, head: &mut [f64]) {
    for (i, frequency) in rope.inverse_frequencies().iter().enumerate() {
        let (sin, cos) = f64::from(position as f32 * frequency).sin_cos();
        let (a, b) = match rope.style() {
            RopeStyle::Interleaved => (2 * i, 2 * i + 1),
            RopeStyle::Halves => (i, i + rope.dims() / 2),
        };
        (head[a], head[b]) = (head[a] * cos - head[b] * sin, head[a] * sin + head[b] * cos);
    }
}

/// Rotated keys of latent attention, as a cache of type `ty` holds them: an INT8 one holds them as F16.
fn round(values: &[f64], ty: CacheType) -> Vec<f64> {
    let rounded = |v: &f64| match ty {
        CacheType::F32 => f64::from(*v as f32),
        CacheType::F16 | CacheType::I8 => f16::from_f32(*v as f32).to_f64(),
    };
    values.iter().map(rounded).collect()
}

/// A latent, or the key or value of a head, as a cache of type `ty` holds it.
fn round_vector(values: &[f64], ty: CacheType) -> Vec<f64> {
    if ty != CacheType::I8 {
        return round(values, ty);
    }
    let scale = values.iter().fold(0.0, |top: f64, v| top.max(v.abs())) / 127.0;
    values.iter().map(|v| if scale == 0.0 { 0.0 } else { (v / scale).round_ties_even() * scale }).collect()
}

fn widen(x: &[f32]) -> Vec<f64> {
    x.iter().copied().map(f64::from).collect()
}
