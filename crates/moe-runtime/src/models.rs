//! The description of a model: its architecture, its configuration, and the tensors that its file must hold.
//!
//! | file | |
//! |---|---|
//! | `glm4_moe_lite`, `glm4_moe`, `deepseek`, `llama`, `bitnet` | one architecture each, or two that share a table: names, tensor table, rules, tokens |
//! | `registry` | the list of architectures, and the readers that choose one |
//! | `config`, `attention`, `experts` | the numbers of one model, which the forward pass needs |
//! | `table`, `spellings`, `tensors` | the rows of a tensor table, names that tables share, and the tensors of one model |
//! | `hf`, `gguf` | readers of both sources that architectures share |
//!
//! A new architecture is one file here with a `static` [`Architecture`], its `mod` line below, and its line in
//! `registry::ARCHITECTURES`. The tests of `registry` then check its table, and a golden case its numbers.

pub(crate) mod attention;
mod bitnet;
pub(crate) mod config;
mod deepseek;
pub(crate) mod error;
pub(crate) mod experts;
mod gguf;
mod glm4_moe;
mod glm4_moe_lite;
pub(crate) mod hf;
mod limits;
mod llama;
pub(crate) mod registry;
mod spellings;
pub(crate) mod table;
pub(crate) mod tensors;
pub(crate) mod tokens;

pub use attention::{AttentionConfig, GqaDims, MlaDims, RopeConfig};
pub use config::{Activation, Architecture, ModelConfig};
pub use error::ConfigError;
pub use experts::{Gating, GroupScore, MoeConfig, RouterConfig, WeightNorm};
pub use hf::keep_layers;
pub use table::Presence;
pub use tensors::{ModelTensor, expected_tensors, layer_tensors, mapper, model_tensors};
