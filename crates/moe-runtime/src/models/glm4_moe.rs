//! GLM-4.5: grouped-query attention, partly rotated, and experts behind a sigmoid router with a selection bias.
//!
//! Sources: `glm4_moe` in Hugging Face transformers (which selects with a bias for every `topk_method`); the
//! architecture `glm4moe` of llama.cpp, which calls the norm before the feed-forward part `post_attention_norm`.

use gguf_bitnet::TensorClass as Class;

use super::config::{Activation, Architecture};
use super::experts::{Gating, GroupScore};
use super::hf::read::Routing;
use super::spellings::{
    DENSE_GATE, DENSE_UP, ROUTED_DOWNS, ROUTED_GATES, ROUTED_UPS, SELECTION_BIAS, SHARED_GATE, SHARED_UP,
};
use super::table::Dim::*;
use super::table::{TensorRow as Row, When};
use super::{gguf, glm4_moe_lite, hf};

pub(super) static GLM4_MOE: Architecture = Architecture {
    hf_name: "glm4_moe",
    gguf_name: "glm4moe",
    tensors: TENSORS,
    tokens: &glm4_moe_lite::TOKENS,
    activation: Activation::Silu,
    from_hf: |keys| hf::read::model(keys, &GLM4_MOE, |keys, heads| hf::read::gqa(keys, heads, 0.5), Some(&ROUTING)),
    claims_gguf: |_| Ok(true),
    from_gguf: |keys| gguf::read::model(keys, &GLM4_MOE, gguf::read::gqa, Gating::Sigmoid),
};

const ROUTING: Routing = Routing {
    gating: Gating::Sigmoid,
    group_score: GroupScore::TopTwoSum,
    greedy_ignores_groups: false,
    normalise: Some(true),
    scaling: 1.0,
    selection_bias: true,
    dense_layers: 1,
};

const TENSORS: &[Row] = &[
    Row::model("token_embd.weight", "model.embed_tokens.weight", Class::Embedding, &[Vocab, Hidden]),
    Row::model("output_norm.weight", "model.norm.weight", Class::Norm, &[Hidden]),
    Row::model("output.weight", "lm_head.weight", Class::Head, &[Vocab, Hidden]).when(When::OwnHead),
    Row::layer("attn_norm.weight", "input_layernorm.weight", Class::Norm, &[Hidden]),
    Row::layer("attn_q.weight", "self_attn.q_proj.weight", Class::Attention, &[Queries, Hidden]),
    Row::layer("attn_q.bias", "self_attn.q_proj.bias", Class::Bias, &[Queries]).when(When::AttentionBiases),
    Row::layer("attn_q_norm.weight", "self_attn.q_norm.weight", Class::Norm, &[Head]).when(When::QueryKeyNorms),
    Row::layer("attn_k.weight", "self_attn.k_proj.weight", Class::Attention, &[KeyValues, Hidden]),
    Row::layer("attn_k.bias", "self_attn.k_proj.bias", Class::Bias, &[KeyValues]).when(When::AttentionBiases),
    Row::layer("attn_k_norm.weight", "self_attn.k_norm.weight", Class::Norm, &[Head]).when(When::QueryKeyNorms),
    Row::layer("attn_v.weight", "self_attn.v_proj.weight", Class::Attention, &[KeyValues, Hidden]),
    Row::layer("attn_v.bias", "self_attn.v_proj.bias", Class::Bias, &[KeyValues]).when(When::AttentionBiases),
    Row::layer("attn_output.weight", "self_attn.o_proj.weight", Class::Attention, &[Hidden, HeadOutputs]),
    Row::layer("ffn_norm.weight", "post_attention_layernorm.weight", Class::Norm, &[Hidden])
        .written_as("post_attention_norm.weight"),
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
];
