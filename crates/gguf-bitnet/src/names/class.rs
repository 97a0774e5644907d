//! The part a tensor plays in the model, read off its canonical (llama.cpp) name.
//!
//! Recipes and reports speak in classes: routers and norms are never ternary, experts are.

use serde::{Deserialize, Serialize};

/// What a tensor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TensorClass {
    /// `token_embd`: one row per token.
    Embedding,
    /// `output`: the language-model head.
    Head,
    /// Any RMSNorm weight.
    Norm,
    /// `ffn_gate_inp`: scores the experts.
    Router,
    /// `exp_probs_b`: added to the scores for selection only.
    RouterBias,
    /// Attention projections other than the two below.
    Attention,
    /// `attn_k_b`: the key half of `kv_b`, transposed per head.
    AttentionKb,
    /// `attn_v_b`: the value half of `kv_b`.
    AttentionVb,
    /// `ffn_{gate,up,down}` of a dense layer.
    DenseFfn,
    /// `ffn_{gate,up,down}_shexp`.
    SharedExpert,
    /// `ffn_{gate,up,down}_exps`: stacked routed experts.
    RoutedExpert,
    /// Bias of a projection.
    Bias,
    /// Anything else.
    Other,
}

impl TensorClass {
    /// Every class, in the order of reports.
    pub const ALL: [TensorClass; 13] = [
        TensorClass::Embedding,
        TensorClass::Head,
        TensorClass::Norm,
        TensorClass::Router,
        TensorClass::RouterBias,
        TensorClass::Attention,
        TensorClass::AttentionKb,
        TensorClass::AttentionVb,
        TensorClass::DenseFfn,
        TensorClass::SharedExpert,
        TensorClass::RoutedExpert,
        TensorClass::Bias,
        TensorClass::Other,
    ];

    /// The class of a canonical tensor name such as `blk.3.ffn_up_exps.weight`.
    ///
    /// ```
    /// use gguf_bitnet::TensorClass;
    /// assert_eq!(TensorClass::of("blk.3.ffn_up_exps.weight"), TensorClass::RoutedExpert);
    /// assert_eq!(TensorClass::of("blk.3.exp_probs_b.bias"), TensorClass::RouterBias);
    /// assert_eq!(TensorClass::of("no_such_thing"), TensorClass::Other);
    /// ```
    pub fn of(name: &str) -> TensorClass {
        let stem = match name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
            Some((layer, stem)) if layer.bytes().all(|b| b.is_ascii_digit()) => stem,
            _ => name,
        };
        if matches!(stem, "exp_probs_b.bias" | "exp_probs_b") {
            return TensorClass::RouterBias;
        }
        if stem.ends_with(".bias") {
            return TensorClass::Bias;
        }
        match stem.strip_suffix(".weight").unwrap_or(stem) {
            "token_embd" => TensorClass::Embedding,
            "output" => TensorClass::Head,
            "ffn_gate_inp" => TensorClass::Router,
            "attn_k_b" => TensorClass::AttentionKb,
            "attn_v_b" => TensorClass::AttentionVb,
            "attn_q" | "attn_k" | "attn_v" | "attn_output" | "attn_q_a" | "attn_q_b" | "attn_kv_a_mqa"
            | "attn_kv_b" => TensorClass::Attention,
            "ffn_gate" | "ffn_up" | "ffn_down" => TensorClass::DenseFfn,
            "ffn_gate_shexp" | "ffn_up_shexp" | "ffn_down_shexp" => TensorClass::SharedExpert,
            "ffn_gate_exps" | "ffn_up_exps" | "ffn_down_exps" | "ffn_gate_up_exps" => TensorClass::RoutedExpert,
            other if other.ends_with("_norm") => TensorClass::Norm,
            _ => TensorClass::Other,
        }
    }

    /// The name used in reports and JSON, such as `routed-expert`.
    pub fn name(self) -> &'static str {
        match self {
            TensorClass::Embedding => "embedding",
            TensorClass::Head => "head",
            TensorClass::Norm => "norm",
            TensorClass::Router => "router",
            TensorClass::RouterBias => "router-bias",
            TensorClass::Attention => "attention",
            TensorClass::AttentionKb => "attention-kb",
            TensorClass::AttentionVb => "attention-vb",
            TensorClass::DenseFfn => "dense-ffn",
            TensorClass::SharedExpert => "shared-expert",
            TensorClass::RoutedExpert => "routed-expert",
            TensorClass::Bias => "bias",
            TensorClass::Other => "other",
        }
    }
}

impl std::fmt::Display for TensorClass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_canonical_name_has_its_class() {
        let table = [
            ("token_embd.weight", TensorClass::Embedding),
            ("output.weight", TensorClass::Head),
            ("output_norm.weight", TensorClass::Norm),
            ("blk.0.attn_norm.weight", TensorClass::Norm),
            ("blk.0.ffn_norm.weight", TensorClass::Norm),
            ("blk.0.post_attention_norm.weight", TensorClass::Norm),
            ("blk.0.attn_q_norm.weight", TensorClass::Norm),
            ("blk.0.attn_kv_a_norm.weight", TensorClass::Norm),
            ("blk.11.ffn_gate_inp.weight", TensorClass::Router),
            ("blk.11.exp_probs_b.bias", TensorClass::RouterBias),
            ("blk.11.attn_kv_a_mqa.weight", TensorClass::Attention),
            ("blk.11.attn_q.weight", TensorClass::Attention),
            ("blk.11.attn_q.bias", TensorClass::Bias),
            ("blk.11.attn_k_b.weight", TensorClass::AttentionKb),
            ("blk.11.attn_v_b.weight", TensorClass::AttentionVb),
            ("blk.0.ffn_down.weight", TensorClass::DenseFfn),
            ("blk.0.ffn_down_shexp.weight", TensorClass::SharedExpert),
            ("blk.0.ffn_down_exps.weight", TensorClass::RoutedExpert),
            ("blk.0.nextn.eh_proj.weight", TensorClass::Other),
            ("blk.x.ffn_down.weight", TensorClass::Other),
        ];
        for (name, class) in table {
            assert_eq!(TensorClass::of(name), class, "{name}");
        }
    }

    #[test]
    fn names_and_json_agree() {
        for class in TensorClass::ALL {
            let json = serde_json::to_value(class).expect("a unit variant serialises");
            assert_eq!(json, class.name());
        }
    }
}
