//! Reads the tensors of a model as the table of its architecture lists them: the loader states no shape of its own.

use std::sync::Arc;

use gguf_bitnet::TensorSource;
use tl_kernels::Linear;

use super::weights::WeightReader;
use crate::error::Result;
use crate::load::error::LoadError;
use crate::models::config::ModelConfig;
use crate::models::table::Presence;
use crate::models::tensors::{ModelTensor, global_tensors, layer_tensors};

/// Reads the tensors of one layer, or all outside of the layers, by their canonical names without the layer's prefix.
pub(crate) struct RowReader<'a> {
    weights: WeightReader<'a>,
    tensors: Vec<ModelTensor>,
    /// The layer's prefix, for messages.
    prefix: String,
}

impl<'a> RowReader<'a> {
    /// The tensors outside of the layers.
    pub(crate) fn of_model(weights: WeightReader<'a>, config: &ModelConfig) -> RowReader<'a> {
        RowReader { weights, tensors: global_tensors(config), prefix: String::new() }
    }

    /// The tensors of layer `index`.
    pub(crate) fn of_layer(weights: WeightReader<'a>, config: &ModelConfig, index: usize) -> RowReader<'a> {
        RowReader { weights, tensors: layer_tensors(config, index), prefix: format!("blk.{index}.") }
    }

    /// The vector called `name` in the table.
    pub(crate) fn vector(&self, name: &str) -> Result<Vec<f32>> {
        let (tensor, [len]) = self.required(name)?;
        self.weights.vector(&tensor.name(), len)
    }

    /// A vector, if the model has it.
    pub(crate) fn optional_vector(&self, name: &str) -> Result<Option<Vec<f32>>> {
        let Some(tensor) = self.find(name) else { return Ok(None) };
        let [len] = dims(tensor)?;
        self.weights.optional_vector(presence(tensor), &tensor.name(), len)
    }

    /// A matrix in the file's own precision.
    pub(crate) fn matrix(&self, name: &str) -> Result<Linear> {
        let (tensor, [rows, cols]) = self.required(name)?;
        self.weights.matrix(&tensor.name(), rows, cols)
    }

    /// A matrix, if the model has it.
    pub(crate) fn optional_matrix(&self, name: &str) -> Result<Option<Linear>> {
        let Some(tensor) = self.find(name) else { return Ok(None) };
        let [rows, cols] = dims(tensor)?;
        self.weights.optional_matrix(presence(tensor), &tensor.name(), rows, cols)
    }

    /// A matrix widened to F32.
    pub(crate) fn matrix_f32(&self, name: &str) -> Result<Linear> {
        let (tensor, [rows, cols]) = self.required(name)?;
        self.weights.matrix_f32(&tensor.name(), rows, cols)
    }

    /// The matrices of a stack.
    pub(crate) fn stack(&self, name: &str) -> Result<Vec<Linear>> {
        let (tensor, [outer, rows, cols]) = self.required(name)?;
        self.weights.stack(&tensor.name(), outer, rows, cols)
    }

    /// Where the bytes of a matrix lie: its file and its number there. `None` where they are stored in another order.
    pub(crate) fn stored_at(&self, name: &str) -> Option<(Arc<dyn TensorSource>, usize)> {
        self.weights.stored_at(&self.find(name)?.name())
    }

    fn find(&self, name: &str) -> Option<&ModelTensor> {
        self.tensors.iter().find(|tensor| tensor.names.name() == name)
    }

    fn required<const N: usize>(&self, name: &str) -> Result<(&ModelTensor, [usize; N])> {
        let missing = || LoadError::MissingTensor { tensor: format!("{}{name}", self.prefix) };
        let tensor = self.find(name).ok_or_else(missing)?;
        Ok((tensor, dims(tensor)?))
    }
}

fn presence(tensor: &ModelTensor) -> Presence {
    if tensor.optional { Presence::Detect } else { Presence::Required }
}

/// The dimensions of a tensor, which must have exactly `N`.
fn dims<const N: usize>(tensor: &ModelTensor) -> Result<[usize; N]> {
    let shape = tensor.shape.as_slice();
    let misfit = |_| LoadError::Shape { tensor: tensor.name(), expected: vec![0; N], got: shape.to_vec() };
    Ok(shape.try_into().map_err(misfit)?)
}
