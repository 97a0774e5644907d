//! What a model is: its configuration, and the tensors that its file must hold.

pub(crate) mod config;
pub(crate) mod tensors;

pub use config::{
    Arch, AttentionConfig, Gating, GroupScore, ModelConfig, MoeConfig, Presence, RopeConfig, RouterConfig, WeightNorm,
};
pub use tensors::{expected_layer_tensors, expected_tensors};
