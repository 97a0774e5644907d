//! The role of a tensor in its model, which each row of an architecture's table states.
//!
//! Recipes and reports speak in classes: routers and norms are never ternary, experts are.

use serde::{Deserialize, Serialize};

/// The role of a tensor in its model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TensorClass {
    /// `token_embd`: one row per token.
    Embedding,
    /// `output`: the language-model head.
    Head,
    /// The weight of any RMSNorm.
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
    /// `ffn_{gate,up,down}_shexp`: the expert that every token passes through.
    SharedExpert,
    /// `ffn_{gate,up,down}_exps`: stacked routed experts.
    RoutedExpert,
    /// `nextn.eh_proj`: joins the embedding of a token and a hidden state, in front of an MTP block's layer.
    MtpProjection,
    /// Bias of a projection.
    Bias,
    /// A tensor that no table lists.
    Other,
}

impl TensorClass {
    /// Every class, in the order of reports.
    pub const ALL: [TensorClass; 14] = [
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
        TensorClass::MtpProjection,
        TensorClass::Bias,
        TensorClass::Other,
    ];

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
            TensorClass::MtpProjection => "mtp-projection",
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
    fn names_and_json_agree() {
        for class in TensorClass::ALL {
            let json = serde_json::to_value(class).expect("a unit variant serialises");
            assert_eq!(json, class.name());
        }
    }
}
