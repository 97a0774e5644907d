//! Llama, and Mistral where it does not differ: grouped-query attention that rotates whole heads, a dense feed-forward part
//! in every layer.
//!
//! Checkpoints store the rows of queries and keys for a rotation of halves, GGUF files for a rotation of neighbours. The
//! rows of a checkpoint are read in the order of GGUF files, so that both are one model and both are written alike.
//!
//! Sources: `llama` and `mistral` in Hugging Face transformers; the architecture `llama` of llama.cpp.

use gguf_bitnet::{Piece, TensorClass as Class};
use mla_attention::RopeStyle;

use super::attention::{AttentionConfig, RopeConfig};
use super::config::{Activation, Architecture, ModelConfig};
use super::experts::Gating;
use super::gguf::{self, GgufKeys};
use super::hf::{self, HfKeys};
use super::spellings::{DENSE_GATE, DENSE_UP};
use super::table::Dim::*;
use super::table::{TensorRow as Row, When};
use super::tokens::SpecialTokens;
use crate::error::Result;

pub(super) static LLAMA: Architecture = Architecture {
    hf_name: "llama",
    gguf_name: "llama",
    tensors: TENSORS,
    tokens: &SpecialTokens::NONE,
    activation: Activation::Silu,
    from_hf: |keys| hf::read::model(keys, &LLAMA, hf_attention, None),
    claims_gguf: |_| Ok(true),
    from_gguf,
};

/// Mistral without a sliding window, which is a Llama; GGUF files call it so.
pub(super) static MISTRAL: Architecture = Architecture {
    hf_name: "mistral",
    gguf_name: "llama",
    tensors: TENSORS,
    tokens: &SpecialTokens::NONE,
    activation: Activation::Silu,
    from_hf: |keys| {
        hf::read::refuse_sliding_window(keys, 4096)?;
        hf::read::model(keys, &MISTRAL, hf_attention, None)
    },
    claims_gguf: |_| Ok(false),
    from_gguf,
};

fn hf_attention(keys: &HfKeys<'_>, heads: hf::read::Heads) -> Result<(AttentionConfig, RopeConfig)> {
    let (attention, rope) = hf::read::gqa_of_whole_heads(keys, heads, 10_000.0)?;
    Ok((attention, RopeConfig { style: RopeStyle::Interleaved, ..rope }))
}

fn from_gguf(keys: &GgufKeys<'_>) -> Result<ModelConfig> {
    gguf::read::refuse_experts(keys)?;
    gguf::read::model(keys, &LLAMA, gguf_attention, Gating::Softmax)
}

fn gguf_attention(keys: &GgufKeys<'_>, heads: gguf::read::Heads) -> Result<(AttentionConfig, RopeConfig)> {
    let (attention, rope) = gguf::read::gqa(keys, heads)?;
    Ok((attention, RopeConfig { style: RopeStyle::Interleaved, ..rope }))
}

const TENSORS: &[Row] = &[
    Row::model("token_embd.weight", "model.embed_tokens.weight", Class::Embedding, &[Vocab, Hidden]),
    Row::model("output_norm.weight", "model.norm.weight", Class::Norm, &[Hidden]),
    Row::model("output.weight", "lm_head.weight", Class::Head, &[Vocab, Hidden]).when(When::OwnHead),
    Row::layer("attn_norm.weight", "input_layernorm.weight", Class::Norm, &[Hidden]),
    Row::layer("attn_q.weight", "self_attn.q_proj.weight", Class::Attention, &[Queries, Hidden])
        .piece(Piece::HeadPairs),
    Row::layer("attn_k.weight", "self_attn.k_proj.weight", Class::Attention, &[KeyValues, Hidden])
        .piece(Piece::HeadPairs),
    Row::layer("attn_v.weight", "self_attn.v_proj.weight", Class::Attention, &[KeyValues, Hidden]),
    Row::layer("attn_output.weight", "self_attn.o_proj.weight", Class::Attention, &[Hidden, HeadOutputs]),
    Row::layer("ffn_norm.weight", "post_attention_layernorm.weight", Class::Norm, &[Hidden]),
    Row::layer("ffn_gate.weight", "mlp.gate_proj.weight", Class::DenseFfn, &[DenseFf, Hidden]).also(DENSE_GATE),
    Row::layer("ffn_up.weight", "mlp.up_proj.weight", Class::DenseFfn, &[DenseFf, Hidden]).also(DENSE_UP),
    Row::layer("ffn_down.weight", "mlp.down_proj.weight", Class::DenseFfn, &[Hidden, DenseFf]),
];
