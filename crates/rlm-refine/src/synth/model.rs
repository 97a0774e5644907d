//! A synthetic model: a shape and a seed.

use std::path::PathBuf;

use moe_runtime::models::{ModelTensor, model_tensors};

use super::shape::Shape;

/// A model with random weights; shape and seed determine every weight.
#[derive(Clone, Debug)]
pub struct SyntheticModel {
    /// The configuration of the model.
    pub shape: Shape,
    /// Another seed gives other weights.
    pub seed: u64,
    /// A directory whose tokenizer goes into a GGUF, so that texts can be read and written; ids behind its last one are
    /// unused tokens. Without it the file says that it has no words.
    pub tokenizer: Option<PathBuf>,
}

/// A function that is called with the bytes written so far and in all.
pub type OnBytes<'a> = dyn FnMut(u64, u64) + 'a;

impl SyntheticModel {
    /// The tensors that a file of this shape must have.
    pub(super) fn tensors(&self) -> impl Iterator<Item = ModelTensor> {
        model_tensors(&self.shape.config).into_iter().filter(|tensor| !tensor.optional)
    }
}
