//! The tensors a model must have, by canonical name and shape.
//!
//! Names are llama.cpp's; shapes are row-major, `[n]` for vectors, `[experts, rows, cols]` and `[heads, rows, cols]` for
//! stacks. The mapper of `gguf-bitnet` brings every other spelling into this form.

use gguf_bitnet::Expected;

use crate::models::config::{AttentionConfig, ModelConfig, MoeConfig, Presence};

/// Lists what [`CraftsmanModel::load`](crate::CraftsmanModel::load) reads, in the order in which files are written.
///
/// ```
/// let text = std::fs::read_to_string(fixtures::path("goldens/glm-tiny/config.json"))?;
/// let config = moe_runtime::models::ModelConfig::from_hf_str(&text)?;
/// let tensors = moe_runtime::models::expected_tensors(&config);
/// let up = tensors.iter().find(|t| t.name == "blk.1.ffn_up_exps.weight").expect("layer 1 has experts");
/// assert_eq!(up.shape, [4, 256, 256]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn expected_tensors(config: &ModelConfig) -> Vec<Expected> {
    let mut list = List(Vec::new());
    list.weight("token_embd", &[config.vocab, config.hidden]);
    list.weight("output_norm", &[config.hidden]);
    list.part(config.head, "output.weight", &[config.vocab, config.hidden]);
    for layer in 0..config.n_layers {
        list.extend_layer(config, layer);
    }
    list.0
}

/// The part of [`expected_tensors`] that belongs to one layer.
#[must_use]
pub fn expected_layer_tensors(config: &ModelConfig, layer: usize) -> Vec<Expected> {
    let mut list = List(Vec::new());
    list.extend_layer(config, layer);
    list.0
}

struct List(Vec<Expected>);

impl List {
    fn push(&mut self, name: String, shape: &[usize], optional: bool) {
        self.0.push(Expected { name, shape: shape.to_vec(), optional });
    }

    fn weight(&mut self, stem: &str, shape: &[usize]) {
        self.push(format!("{stem}.weight"), shape, false);
    }

    fn part(&mut self, presence: Presence, name: &str, shape: &[usize]) {
        match presence {
            Presence::Required => self.push(name.to_owned(), shape, false),
            Presence::Detect => self.push(name.to_owned(), shape, true),
            Presence::Absent => {}
        }
    }

    fn extend_layer(&mut self, config: &ModelConfig, layer: usize) {
        let at = |stem: &str| format!("blk.{layer}.{stem}");
        let hidden = config.hidden;
        self.weight(&at("attn_norm"), &[hidden]);
        self.extend_attention(config, &at);
        self.weight(&at("ffn_norm"), &[hidden]);
        match config.moe.as_ref().filter(|_| config.is_moe(layer)) {
            Some(moe) => self.extend_moe(moe, hidden, &at),
            None => {
                self.weight(&at("ffn_gate"), &[config.dense_ff, hidden]);
                self.weight(&at("ffn_up"), &[config.dense_ff, hidden]);
                self.weight(&at("ffn_down"), &[hidden, config.dense_ff]);
            }
        }
    }

    fn extend_attention(&mut self, config: &ModelConfig, at: &dyn Fn(&str) -> String) {
        let (hidden, heads) = (config.hidden, config.n_heads);
        match config.attention {
            AttentionConfig::Mla { q_lora, kv_lora, qk_nope, qk_rope, v_head, .. } => {
                let q_width = heads * (qk_nope + qk_rope);
                match q_lora {
                    Some(rank) => {
                        self.weight(&at("attn_q_a"), &[rank, hidden]);
                        self.weight(&at("attn_q_a_norm"), &[rank]);
                        self.weight(&at("attn_q_b"), &[q_width, rank]);
                    }
                    None => self.weight(&at("attn_q"), &[q_width, hidden]),
                }
                self.weight(&at("attn_kv_a_mqa"), &[kv_lora + qk_rope, hidden]);
                self.weight(&at("attn_kv_a_norm"), &[kv_lora]);
                self.weight(&at("attn_k_b"), &[heads, kv_lora, qk_nope]);
                self.weight(&at("attn_v_b"), &[heads, v_head, kv_lora]);
                self.weight(&at("attn_output"), &[hidden, heads * v_head]);
            }
            AttentionConfig::Gqa { n_kv_heads, head_dim, qk_norm, bias } => {
                let widths = [
                    ("attn_q", heads * head_dim),
                    ("attn_k", n_kv_heads * head_dim),
                    ("attn_v", n_kv_heads * head_dim),
                ];
                for (stem, width) in widths {
                    self.weight(&at(stem), &[width, hidden]);
                    self.part(bias, &format!("{}.bias", at(stem)), &[width]);
                    if stem != "attn_v" {
                        self.part(qk_norm, &format!("{}_norm.weight", at(stem)), &[head_dim]);
                    }
                }
                self.weight(&at("attn_output"), &[hidden, heads * head_dim]);
            }
        }
    }

    fn extend_moe(&mut self, moe: &MoeConfig, hidden: usize, at: &dyn Fn(&str) -> String) {
        let (experts, ff, shared) = (moe.router.n_experts, moe.expert_ff, moe.shared_ff());
        self.weight(&at("ffn_gate_inp"), &[experts, hidden]);
        self.part(moe.router.selection_bias, &format!("{}.bias", at("exp_probs_b")), &[experts]);
        self.weight(&at("ffn_gate_exps"), &[experts, ff, hidden]);
        self.weight(&at("ffn_up_exps"), &[experts, ff, hidden]);
        self.weight(&at("ffn_down_exps"), &[experts, hidden, ff]);
        if shared > 0 {
            self.weight(&at("ffn_gate_shexp"), &[shared, hidden]);
            self.weight(&at("ffn_up_shexp"), &[shared, hidden]);
            self.weight(&at("ffn_down_shexp"), &[hidden, shared]);
        }
    }
}
