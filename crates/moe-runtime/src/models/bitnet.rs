//! BitNet b1.58: grouped-query attention that rotates halves of whole heads, a norm before each output projection, the
//! squared ReLU, and a dense feed-forward part in every layer.
//!
//! ```text
//! attention      o_proj(attn_sub_norm(attended values of all heads))
//! feed-forward   down(ffn_sub_norm(relu(gate(x))^2 * up(x)))
//! ```
//! Files of either kind store queries and keys for a rotation of halves, unlike those of Llama. llama.cpp calls the
//! architecture `bitnet` and computes SiLU; the tree of Microsoft's bitnet.cpp calls it `bitnet-b1.58` and computes the
//! squared ReLU. Neither writes the function into its files.
//!
//! Sources: `bitnet` in Hugging Face transformers; llama.cpp; arXiv 2504.12285.

use gguf_bitnet::TensorClass as Class;
use ternary_core::ActMode;

use super::config::{Activation, Architecture, ModelConfig};
use super::experts::Gating;
use super::gguf::{self, GgufKeys};
use super::hf;
use super::spellings::{DENSE_GATE, DENSE_UP};
use super::table::Dim::*;
use super::table::{TensorRow as Row, When};
use super::tokens::SpecialTokens;
use crate::error::Result;

/// The architecture of checkpoints and of bitnet.cpp.
pub(super) static BITNET: Architecture = Architecture {
    hf_name: "bitnet",
    gguf_name: "bitnet-b1.58",
    tensors: TENSORS,
    tokens: &SpecialTokens::NONE,
    activation: Activation::SquaredRelu,
    from_hf: |keys| {
        hf::read::model(keys, &BITNET, |keys, heads| hf::read::gqa_of_whole_heads(keys, heads, 500_000.0), None)
    },
    claims_gguf: |_| Ok(true),
    from_gguf: |keys| from_gguf(keys, &BITNET, "the function of bitnet.cpp, whose name for the architecture this is"),
};

/// The same architecture under llama.cpp's name.
pub(super) static MAINLINE: Architecture = Architecture {
    hf_name: "bitnet",
    gguf_name: "bitnet",
    tensors: TENSORS,
    tokens: &SpecialTokens::NONE,
    activation: Activation::Silu,
    from_hf: |keys| (BITNET.from_hf)(keys),
    claims_gguf: |_| Ok(true),
    from_gguf: |keys| {
        let reason = "the function of llama.cpp, whose name for the architecture this is; BitNet b1.58 2B4T was trained with \
                      relu2";
        from_gguf(keys, &MAINLINE, reason)
    },
};

fn from_gguf(keys: &GgufKeys<'_>, arch: &'static Architecture, reason: &str) -> Result<ModelConfig> {
    gguf::read::refuse_experts(keys)?;
    let activation = gguf::read::activation(keys, arch.activation, reason)?;
    let config = gguf::read::model(keys, arch, gguf::read::gqa, Gating::Softmax)?;
    let trained_act = config.trained_act.or(keys.tensors.ternary_layers.then_some(ActMode::A8Token));
    Ok(ModelConfig { activation, trained_act, ..config })
}

const TENSORS: &[Row] = &[
    Row::model("token_embd.weight", "model.embed_tokens.weight", Class::Embedding, &[Vocab, Hidden]),
    Row::model("output_norm.weight", "model.norm.weight", Class::Norm, &[Hidden]),
    Row::model("output.weight", "lm_head.weight", Class::Head, &[Vocab, Hidden]).when(When::OwnHead),
    Row::layer("attn_norm.weight", "input_layernorm.weight", Class::Norm, &[Hidden]),
    Row::layer("attn_q.weight", "self_attn.q_proj.weight", Class::Attention, &[Queries, Hidden]),
    Row::layer("attn_k.weight", "self_attn.k_proj.weight", Class::Attention, &[KeyValues, Hidden]),
    Row::layer("attn_v.weight", "self_attn.v_proj.weight", Class::Attention, &[KeyValues, Hidden]),
    Row::layer("attn_sub_norm.weight", "self_attn.attn_sub_norm.weight", Class::Norm, &[HeadOutputs]),
    Row::layer("attn_output.weight", "self_attn.o_proj.weight", Class::Attention, &[Hidden, HeadOutputs]),
    Row::layer("ffn_norm.weight", "post_attention_layernorm.weight", Class::Norm, &[Hidden]),
    Row::layer("ffn_gate.weight", "mlp.gate_proj.weight", Class::DenseFfn, &[DenseFf, Hidden]).also(DENSE_GATE),
    Row::layer("ffn_up.weight", "mlp.up_proj.weight", Class::DenseFfn, &[DenseFf, Hidden]).also(DENSE_UP),
    Row::layer("ffn_sub_norm.weight", "mlp.ffn_sub_norm.weight", Class::Norm, &[DenseFf]),
    Row::layer("ffn_down.weight", "mlp.down_proj.weight", Class::DenseFfn, &[Hidden, DenseFf]),
];
