//! Latent attention written out head by head in F64, with the mistake that negative tests need.

use gguf_bitnet::Catalog;
use moe_runtime::forward::{At, Taps};
use moe_runtime::models::{MlaDims, ModelConfig};

/// Replaces the attention of every layer by plain loops over one batch that starts at position 0.
pub(crate) struct NaiveMla<'a> {
    pub(crate) config: &'a ModelConfig,
    pub(crate) catalog: &'a Catalog,
    /// The mistake: values are made from the latent as projected, before its norm.
    pub(crate) raw_values: bool,
    pub(crate) input: Vec<f32>,
}

impl Taps for NaiveMla<'_> {
    fn attention_in(&mut self, _: At, x: &[f32]) {
        self.input = x.to_vec();
    }

    fn attention_out(&mut self, at: At, y: &mut [f32]) {
        assert_eq!(at.first, 0, "the loops know no earlier positions");
        let out = self.attend(at);
        y.iter_mut().zip(out).for_each(|(y, o)| *y = o as f32);
    }
}

impl NaiveMla<'_> {
    fn weight(&self, layer: usize, stem: &str) -> Vec<f64> {
        let tensor = self.catalog.find(&format!("blk.{layer}.{stem}.weight")).expect("the tensor exists");
        let mut values = vec![0.0; tensor.elements()];
        self.catalog.read_rows(tensor, 0..tensor.rows(), &mut values).expect("the tensor reads");
        values.into_iter().map(f64::from).collect()
    }

    fn attend(&self, at: At) -> Vec<f64> {
        let dims = *self.config.attention.as_mla().expect("only latent attention is written out");
        let MlaDims { kv_lora, qk_nope, qk_rope, v_head, latent_norm_eps, .. } = dims;
        let (heads, hidden, eps) = (self.config.n_heads, self.config.hidden, f64::from(latent_norm_eps));
        let x: Vec<f64> = self.input.iter().map(|&v| f64::from(v)).collect();
        let w = |stem: &str| self.weight(at.layer, stem);
        let norm = |rows: &[f64], weight: &[f64]| -> Vec<f64> {
            let one = |row: &[f64]| {
                let scale = (row.iter().map(|v| v * v).sum::<f64>() / row.len() as f64 + eps).sqrt().recip();
                row.iter().zip(weight).map(|(v, w)| v * scale * w).collect::<Vec<f64>>()
            };
            rows.chunks(weight.len()).flat_map(one).collect()
        };
        let low = norm(&product(&w("attn_q_a"), &x, hidden), &w("attn_q_a_norm"));
        let mut q = product(&w("attn_q_b"), &low, low.len() / at.n);
        let kv = product(&w("attn_kv_a_mqa"), &x, hidden);
        let (mut latents, mut keys) = (Vec::new(), Vec::new());
        for row in kv.chunks(kv_lora + qk_rope) {
            latents.extend_from_slice(&row[..kv_lora]);
            keys.push(row[kv_lora..].to_vec());
        }
        let normed = norm(&latents, &w("attn_kv_a_norm"));
        let values = if self.raw_values { &latents } else { &normed };
        let q_head = qk_nope + qk_rope;
        for t in 0..at.n {
            self.rotate(t, &mut keys[t]);
            for h in 0..heads {
                self.rotate(t, &mut q[(t * heads + h) * q_head + qk_nope..][..qk_rope]);
            }
        }
        let (k_b, v_b) = (w("attn_k_b"), w("attn_v_b"));
        let mut concat = vec![0.0; at.n * heads * v_head];
        for h in 0..heads {
            // Expanded keys and values of this head, [n, nope] and [n, v].
            let k_rows = &k_b[h * kv_lora * qk_nope..][..kv_lora * qk_nope];
            let k: Vec<Vec<f64>> = normed
                .chunks(kv_lora)
                .map(|c| (0..qk_nope).map(|j| (0..kv_lora).map(|r| c[r] * k_rows[r * qk_nope + j]).sum()).collect())
                .collect();
            let v = product(&v_b[h * v_head * kv_lora..][..v_head * kv_lora], values, kv_lora);
            for t in 0..at.n {
                let q = &q[(t * heads + h) * q_head..][..q_head];
                let score = |s: usize| {
                    let plain = dot(&q[..qk_nope], &k[s]) + dot(&q[qk_nope..], &keys[s]);
                    plain / (q_head as f64).sqrt()
                };
                let scores: Vec<f64> = (0..=t).map(score).collect();
                let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let exps: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
                let sum: f64 = exps.iter().sum();
                for (s, e) in exps.iter().enumerate() {
                    for j in 0..v_head {
                        concat[(t * heads + h) * v_head + j] += e / sum * v[s * v_head + j];
                    }
                }
            }
        }
        product(&w("attn_output"), &concat, heads * v_head)
    }

    fn rotate(&self, position: usize, x: &mut [f64]) {
        let dims = x.len();
        for i in 0..dims / 2 {
            let angle = position as f64 * f64::from(self.config.rope.theta).powf(-2.0 * i as f64 / dims as f64);
            let (a, b) = (x[2 * i], x[2 * i + 1]);
            (x[2 * i], x[2 * i + 1]) = (a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos());
        }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `[n, rows]` from a matrix `[rows, cols]` and `[n, cols]`.
fn product(w: &[f64], x: &[f64], cols: usize) -> Vec<f64> {
    x.chunks(cols).flat_map(|x| w.chunks(cols).map(move |w| dot(w, x))).collect()
}
