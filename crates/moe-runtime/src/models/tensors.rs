//! The tensors a model must have: the rows of its architecture's table with the numbers of its configuration.
//!
//! Names are llama.cpp's; shapes are row-major, `[n]` for vectors, `[experts, rows, cols]` and `[heads, rows, cols]` for
//! stacks. The mapper of `gguf-bitnet` brings every other spelling into this form.

use gguf_bitnet::{Expected, NameRow, Scope, TensorClass, TensorNameMapper};

use super::config::ModelConfig;
use super::table::{Dim, Presence, TensorRow, When};

/// A tensor of a model: a row of its architecture's table, in one layer.
#[derive(Clone, Debug)]
pub struct ModelTensor {
    /// Its names in every kind of file.
    pub names: &'static NameRow,
    /// Its layer; 0 outside of the layers.
    pub layer: usize,
    /// Row-major dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Whether the configuration leaves it to the file if the model has this tensor.
    pub optional: bool,
}

impl ModelTensor {
    /// The canonical name, such as `blk.3.ffn_up_exps.weight`.
    #[must_use]
    pub fn name(&self) -> String {
        self.names.canonical_name(self.layer)
    }

    /// The role of the tensor in the model.
    #[must_use]
    pub fn class(&self) -> TensorClass {
        self.names.class()
    }
}

/// Lists the tensors of a model in the order in which files are written.
#[must_use]
pub fn model_tensors(config: &ModelConfig) -> Vec<ModelTensor> {
    let mut tensors = global_tensors(config);
    tensors.extend((0..config.n_blocks()).flat_map(|layer| layer_tensors(config, layer)));
    tensors
}

/// Lists the tensors of a model as [`gguf_bitnet::validate`] compares them with a file: exactly those that
/// [`CraftsmanModel::load`](crate::CraftsmanModel::load) reads.
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
    let expected =
        |tensor: ModelTensor| Expected { name: tensor.name(), shape: tensor.shape, optional: tensor.optional };
    model_tensors(config).into_iter().map(expected).collect()
}

/// The tensors outside of the layers.
pub(crate) fn global_tensors(config: &ModelConfig) -> Vec<ModelTensor> {
    tensors_of(config, Scope::Model, 0)
}

/// Lists the tensors of one layer, in the same order.
#[must_use]
pub fn layer_tensors(config: &ModelConfig, layer: usize) -> Vec<ModelTensor> {
    tensors_of(config, Scope::Layer, layer)
}

fn tensors_of(config: &ModelConfig, scope: Scope, layer: usize) -> Vec<ModelTensor> {
    let rows = config.arch.tensors.iter().filter(|row| row.names.scope() == scope);
    rows.filter_map(|row: &'static TensorRow| {
        let optional = match presence(config, row.when, layer) {
            Presence::Required => false,
            Presence::Detect => true,
            Presence::Absent => return None,
        };
        let shape = row.shape.iter().map(|&dim| number(config, dim)).collect();
        Some(ModelTensor { names: &row.names, layer, shape, optional })
    })
    .collect()
}

fn presence(config: &ModelConfig, when: When, layer: usize) -> Presence {
    let moe = config.moe.as_ref().filter(|_| config.is_moe(layer));
    match when {
        When::Always => Presence::Required,
        When::OwnHead => config.head,
        When::Dense => Presence::known(moe.is_none()),
        When::Experts => Presence::known(moe.is_some()),
        When::SharedExpert => Presence::known(moe.is_some_and(|moe| moe.n_shared > 0)),
        When::SelectionBias => moe.map_or(Presence::Absent, |moe| moe.router.selection_bias),
        When::CompressedQueries | When::DirectQueries | When::QueryKeyNorms | When::AttentionBiases => {
            config.attention.presence(when)
        }
        When::Mtp => Presence::known(layer >= config.n_layers),
        When::MtpOwn if layer >= config.n_layers => Presence::Detect,
        When::MtpOwn => Presence::Absent,
    }
}

/// The number behind a dimension; 0 for one that the model does not have, which no stored tensor matches.
fn number(config: &ModelConfig, dim: Dim) -> usize {
    let moe = config.moe.as_ref();
    match dim {
        Dim::Vocab => config.vocab,
        Dim::Hidden => config.hidden,
        Dim::TwoHidden => 2 * config.hidden,
        Dim::DenseFf => config.dense_ff,
        Dim::Experts => moe.map_or(0, |moe| moe.router.n_experts),
        Dim::ExpertFf => moe.map_or(0, |moe| moe.expert_ff),
        Dim::SharedFf => moe.map_or(0, |moe| moe.shared_ff()),
        _ => config.attention.dim(dim, config.n_heads).unwrap_or(0),
    }
}

/// The mapper that brings this model's tensors into canonical form.
#[must_use]
pub fn mapper(config: &ModelConfig) -> TensorNameMapper {
    let names = config.arch.tensors.iter().map(|row| &row.names);
    TensorNameMapper::new(names, config.attention.split_dims(config.n_heads), config.n_blocks())
}
