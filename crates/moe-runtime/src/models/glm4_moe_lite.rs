//! GLM-4.7-Flash: DeepSeek's latent attention, and experts behind a sigmoid router with a selection bias.
//!
//! Sources: `glm4_moe_lite` in Hugging Face transformers (which selects with a bias for every `topk_method`);
//! llama.cpp, which stores the model as its architecture `deepseek2`.

use super::config::{Activation, Architecture, ModelConfig};
use super::experts::{Gating, GroupScore};
use super::gguf::GgufKeys;
use super::hf::{HfKeys, read::Routing};
use super::tokens::{CallMarkup, SpecialTokens};
use super::{deepseek, gguf, hf};
use crate::error::Result;

pub(super) static GLM4_MOE_LITE: Architecture = Architecture {
    hf_name: "glm4_moe_lite",
    gguf_name: "deepseek2",
    tensors: deepseek::TENSORS,
    tokens: &TOKENS,
    activation: Activation::Silu,
    from_hf,
    claims_gguf,
    from_gguf: |keys| gguf::read::model(keys, &GLM4_MOE_LITE, gguf::read::mla, Gating::Sigmoid),
};

/// Tokens of all GLM-4 models.
pub(super) const TOKENS: SpecialTokens = SpecialTokens {
    stops: &["<|endoftext|>", "<|user|>", "<|observation|>"],
    end_of_turn: Some("<|user|>"),
    end_of_message: Some("<|observation|>"),
    raw_prefix: &["[gMASK]", "<sop>"],
    markup: &[
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "<arg_key>",
        "</arg_key>",
        "<arg_value>",
        "</arg_value>",
        "<tool_response>",
        "</tool_response>",
    ],
    thought: Some(["<think>", "</think>"]),
    call: Some(CallMarkup {
        whole: ["<tool_call>", "</tool_call>"],
        key: ["<arg_key>", "</arg_key>"],
        value: ["<arg_value>", "</arg_value>"],
    }),
    infill: Some(["<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"]),
};

const ROUTING: Routing = Routing {
    gating: Gating::Sigmoid,
    group_score: GroupScore::TopTwoSum,
    greedy_ignores_groups: false,
    normalise: Some(true),
    scaling: 1.8,
    selection_bias: true,
    dense_layers: 1,
};

/// Layers of plain decoding in the published model; files with its MTP block may count one more.
const LAYERS: [usize; 2] = [47, 48];
/// Size of the published model's vocabulary.
const VOCAB: usize = 154_880;

fn from_hf(keys: &HfKeys<'_>) -> Result<ModelConfig> {
    hf::read::model(keys, &GLM4_MOE_LITE, |keys, _| hf::read::mla(keys, false), Some(&ROUTING))
}

/// A `deepseek2` file is a GLM-4.7-Flash if its router is a sigmoid and its tokenizer is not DeepSeek's. Early files do not
/// state the gating; they are recognised by the published model's layers and vocabulary.
fn claims_gguf(keys: &GgufKeys<'_>) -> Result<bool> {
    if !keys.has_experts()? || deepseek::has_deepseek_tokenizer(keys)? {
        return Ok(false);
    }
    Ok(match keys.gating()? {
        Some(gating) => gating == Gating::Sigmoid,
        None => LAYERS.contains(&keys.trunk_layers()?) && keys.vocab()? == VOCAB,
    })
}
