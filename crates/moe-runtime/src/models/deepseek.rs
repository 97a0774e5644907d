//! DeepSeek-V2 and DeepSeek-V3: latent attention, experts behind a softmax or a sigmoid router.
//!
//! Sources: `deepseek_v2` and `deepseek_v3` in Hugging Face transformers (which select with a bias in V3 for every
//! `topk_method`, and never normalise the weights in V2); the architecture `deepseek2` of llama.cpp.

use gguf_bitnet::{Piece, Spelling, TensorClass as Class};

use super::config::{Activation, Architecture};
use super::experts::{Gating, GroupScore};
use super::gguf::{self, GgufKeys};
use super::hf::{self, read::Routing};
use super::spellings::{
    DENSE_GATE, DENSE_UP, ROUTED_DOWNS, ROUTED_GATES, ROUTED_UPS, SELECTION_BIAS, SHARED_GATE, SHARED_UP,
};
use super::table::Dim::*;
use super::table::{TensorRow as Row, When};
use super::tokens::SpecialTokens;
use crate::error::Result;

/// DeepSeek-V2: softmax router without a selection bias.
pub(super) static V2: Architecture = Architecture {
    hf_name: "deepseek_v2",
    gguf_name: "deepseek2",
    tensors: TENSORS,
    tokens: &SpecialTokens::NONE,
    activation: Activation::Silu,
    from_hf: |keys| hf::read::model(keys, &V2, |keys, _| hf::read::mla(keys, true), Some(&V2_ROUTING)),
    claims_gguf: |keys| Ok(!is_v3(keys)?),
    from_gguf: |keys| gguf::read::model(keys, &V2, gguf::read::mla, Gating::Softmax),
};

const V2_ROUTING: Routing = Routing {
    gating: Gating::Softmax,
    group_score: GroupScore::Max,
    greedy_ignores_groups: true,
    normalise: None,
    scaling: 1.0,
    selection_bias: false,
    dense_layers: 0,
};

/// DeepSeek-V3: sigmoid router with a selection bias.
pub(super) static V3: Architecture = Architecture {
    hf_name: "deepseek_v3",
    gguf_name: "deepseek2",
    tensors: TENSORS,
    tokens: &SpecialTokens::NONE,
    activation: Activation::Silu,
    from_hf: |keys| hf::read::model(keys, &V3, |keys, _| hf::read::mla(keys, false), Some(&V3_ROUTING)),
    claims_gguf: is_v3,
    from_gguf: |keys| gguf::read::model(keys, &V3, gguf::read::mla, Gating::Softmax),
};

const V3_ROUTING: Routing = Routing {
    gating: Gating::Sigmoid,
    group_score: GroupScore::TopTwoSum,
    greedy_ignores_groups: false,
    normalise: Some(true),
    scaling: 2.5,
    selection_bias: true,
    dense_layers: 3,
};

/// A file of this GGUF name with a sigmoid router and DeepSeek's tokenizer.
fn is_v3(keys: &GgufKeys<'_>) -> Result<bool> {
    Ok(keys.has_experts()? && keys.gating()? == Some(Gating::Sigmoid) && has_deepseek_tokenizer(keys)?)
}

/// Whether the file's words are split as DeepSeek's tokenizers do, which tells its models from others of the same name.
pub(super) fn has_deepseek_tokenizer(keys: &GgufKeys<'_>) -> Result<bool> {
    Ok(keys.metadata.str("tokenizer.ggml.pre")?.is_some_and(|pre| pre.starts_with("deepseek")))
}

/// Every tensor of the `deepseek2` models.
pub(super) const TENSORS: &[Row] = &[
    Row::model("token_embd.weight", "model.embed_tokens.weight", Class::Embedding, &[Vocab, Hidden]),
    Row::model("output_norm.weight", "model.norm.weight", Class::Norm, &[Hidden]),
    Row::model("output.weight", "lm_head.weight", Class::Head, &[Vocab, Hidden]).when(When::OwnHead),
    Row::layer("attn_norm.weight", "input_layernorm.weight", Class::Norm, &[Hidden]),
    Row::layer("attn_q_a.weight", "self_attn.q_a_proj.weight", Class::Attention, &[QueryRank, Hidden])
        .when(When::CompressedQueries),
    Row::layer("attn_q_a_norm.weight", "self_attn.q_a_layernorm.weight", Class::Norm, &[QueryRank])
        .when(When::CompressedQueries),
    Row::layer("attn_q_b.weight", "self_attn.q_b_proj.weight", Class::Attention, &[Queries, QueryRank])
        .when(When::CompressedQueries),
    Row::layer("attn_q.weight", "self_attn.q_proj.weight", Class::Attention, &[Queries, Hidden])
        .when(When::DirectQueries),
    Row::layer(
        "attn_kv_a_mqa.weight",
        "self_attn.kv_a_proj_with_mqa.weight",
        Class::Attention,
        &[LatentAndRope, Hidden],
    ),
    Row::layer("attn_kv_a_norm.weight", "self_attn.kv_a_layernorm.weight", Class::Norm, &[Latent]),
    Row::layer("attn_k_b.weight", "self_attn.kv_b_proj.weight", Class::AttentionKb, &[Heads, Latent, KeyNope])
        .piece(Piece::HeadKeys)
        .also(&[Spelling::gguf("attn_kv_b.weight", Piece::HeadKeys)]),
    Row::layer("attn_v_b.weight", "self_attn.kv_b_proj.weight", Class::AttentionVb, &[Heads, ValueHead, Latent])
        .piece(Piece::HeadValues)
        .also(&[Spelling::gguf("attn_kv_b.weight", Piece::HeadValues)]),
    Row::layer("attn_output.weight", "self_attn.o_proj.weight", Class::Attention, &[Hidden, HeadOutputs]),
    Row::layer("ffn_norm.weight", "post_attention_layernorm.weight", Class::Norm, &[Hidden]),
    Row::layer("ffn_gate_inp.weight", "mlp.gate.weight", Class::Router, &[Experts, Hidden]).when(When::Experts),
    Row::layer("exp_probs_b.bias", "mlp.gate.e_score_correction_bias", Class::RouterBias, &[Experts])
        .when(When::SelectionBias)
        .also(SELECTION_BIAS),
    Row::layer("ffn_gate.weight", "mlp.gate_proj.weight", Class::DenseFfn, &[DenseFf, Hidden])
        .when(When::Dense)
        .also(DENSE_GATE),
    Row::layer("ffn_up.weight", "mlp.up_proj.weight", Class::DenseFfn, &[DenseFf, Hidden])
        .when(When::Dense)
        .also(DENSE_UP),
    Row::layer("ffn_down.weight", "mlp.down_proj.weight", Class::DenseFfn, &[Hidden, DenseFf]).when(When::Dense),
    Row::layer(
        "ffn_gate_exps.weight",
        "mlp.experts.{}.gate_proj.weight",
        Class::RoutedExpert,
        &[Experts, ExpertFf, Hidden],
    )
    .when(When::Experts)
    .also(ROUTED_GATES),
    Row::layer(
        "ffn_up_exps.weight",
        "mlp.experts.{}.up_proj.weight",
        Class::RoutedExpert,
        &[Experts, ExpertFf, Hidden],
    )
    .when(When::Experts)
    .also(ROUTED_UPS),
    Row::layer(
        "ffn_down_exps.weight",
        "mlp.experts.{}.down_proj.weight",
        Class::RoutedExpert,
        &[Experts, Hidden, ExpertFf],
    )
    .when(When::Experts)
    .also(ROUTED_DOWNS),
    Row::layer(
        "ffn_gate_shexp.weight",
        "mlp.shared_experts.gate_proj.weight",
        Class::SharedExpert,
        &[SharedFf, Hidden],
    )
    .when(When::SharedExpert)
    .also(SHARED_GATE),
    Row::layer("ffn_up_shexp.weight", "mlp.shared_experts.up_proj.weight", Class::SharedExpert, &[SharedFf, Hidden])
        .when(When::SharedExpert)
        .also(SHARED_UP),
    Row::layer(
        "ffn_down_shexp.weight",
        "mlp.shared_experts.down_proj.weight",
        Class::SharedExpert,
        &[Hidden, SharedFf],
    )
    .when(When::SharedExpert),
    Row::layer("nextn.eh_proj.weight", "eh_proj.weight", Class::MtpProjection, &[Hidden, TwoHidden]).when(When::Mtp),
    Row::layer("nextn.enorm.weight", "enorm.weight", Class::Norm, &[Hidden]).when(When::Mtp),
    Row::layer("nextn.hnorm.weight", "hnorm.weight", Class::Norm, &[Hidden]).when(When::Mtp),
    Row::layer("nextn.embed_tokens.weight", "embed_tokens.weight", Class::Embedding, &[Vocab, Hidden])
        .when(When::MtpOwn),
    Row::layer("nextn.shared_head_norm.weight", "shared_head.norm.weight", Class::Norm, &[Hidden]).when(When::MtpOwn),
    Row::layer("nextn.shared_head_head.weight", "shared_head.head.weight", Class::Head, &[Vocab, Hidden])
        .when(When::MtpOwn),
];
