//! The tensors of a file with their types, and its exact size.
//!
//! **Invariant:** the size of the file follows from the plan alone; the values of the weights cannot change it.

use gguf_bitnet::{GgufWriter, Metadata, TensorClass, TensorInfo, TensorNameMapper};
use moe_runtime::ModelFiles;
use moe_runtime::models::{ModelConfig, mapper};

use crate::error::Result;
use crate::recipe::{Assignment, Reason, Recipe};

/// One tensor of a student.
#[derive(Clone, Debug)]
pub struct PlannedTensor {
    /// The canonical name of the tensor.
    pub name: String,
    /// Its role in the model.
    pub class: TensorClass,
    /// Its dimensions, rows before columns.
    pub shape: Vec<usize>,
    /// Its type on disk, with the reason.
    pub assignment: Assignment,
}

impl PlannedTensor {
    /// How many weights it has.
    pub fn params(&self) -> u64 {
        self.shape.iter().product::<usize>() as u64
    }

    /// Length of a row.
    pub fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Rows of the tensor flattened to `[rows, cols]`.
    pub fn rows(&self) -> usize {
        self.shape[..self.shape.len().saturating_sub(1)].iter().product()
    }
}

/// The tensors of a student in file order.
#[derive(Clone, Debug)]
pub struct StudentPlan {
    /// The tensors in file order.
    pub tensors: Vec<PlannedTensor>,
    names: TensorNameMapper,
    pub(super) arch: &'static str,
}

impl StudentPlan {
    /// Gives every tensor `(canonical name, shape)` its type.
    ///
    /// # Errors
    /// As [`Recipe::assign`]; [`UnusedOverride`](crate::RecipeError::UnusedOverride) for an override without a tensor to
    /// change.
    pub fn new<'a>(
        config: &ModelConfig,
        tensors: impl Iterator<Item = (&'a str, &'a [usize])>,
        recipe: &Recipe,
    ) -> Result<Self> {
        let names = mapper(config);
        let recipe = &if config.moe.is_some() { recipe.clone() } else { recipe.of_dense_model() };
        let tensors = tensors.map(|(name, shape)| {
            let class = names.class(name);
            let assignment = recipe.assign(name, class, shape)?;
            Ok(PlannedTensor { name: name.to_owned(), class, shape: shape.to_vec(), assignment })
        });
        let tensors = tensors.collect::<Result<Vec<PlannedTensor>>>()?;
        let open = tensors.iter().filter(|tensor| tensor.assignment.reason != Reason::AlwaysF32);
        recipe.ensure_used(open.map(|tensor| &*tensor.name))?;
        Ok(Self { tensors, names, arch: config.arch.gguf_name() })
    }

    /// Gives every tensor of an opened source its type.
    ///
    /// # Errors
    /// As [`StudentPlan::new`].
    pub(crate) fn of_source(files: &ModelFiles, recipe: &Recipe) -> Result<Self> {
        Self::new(&files.config, files.catalog.tensors().iter().map(|t| (&*t.name, &*t.shape)), recipe)
    }

    /// How many weights it has.
    pub fn params(&self) -> u64 {
        self.tensors.iter().map(PlannedTensor::params).sum()
    }

    /// The number of weights that one token is multiplied with: all but the embedding (a look-up) and the experts that
    /// the router did not choose.
    pub fn active_params(&self, config: &ModelConfig) -> u64 {
        let has_head = self.tensors.iter().any(|tensor| tensor.class == TensorClass::Head);
        let weights = |tensor: &PlannedTensor| match (tensor.class, &config.moe) {
            (TensorClass::RoutedExpert, Some(moe)) => {
                tensor.params() / moe.router.n_experts.max(1) as u64 * moe.router.top_k as u64
            }
            (TensorClass::Embedding, _) if has_head => 0,
            _ => tensor.params(),
        };
        self.tensors.iter().map(weights).sum()
    }

    /// Lays out the file with this metadata.
    ///
    /// # Errors
    /// When a tensor does not fit the format (a name too long, a row that fills no blocks).
    pub fn writer(&self, metadata: &Metadata) -> Result<GgufWriter> {
        let infos = (0..self.tensors.len()).map(|index| self.info(index));
        Ok(GgufWriter::new(metadata, infos.collect::<Result<_>>()?)?)
    }

    /// The tensor with this index as a file lists it.
    ///
    /// # Errors
    /// A row that fills no blocks of its type.
    pub(crate) fn info(&self, index: usize) -> Result<TensorInfo> {
        let tensor = &self.tensors[index];
        let ty = tensor.assignment.ty;
        let bytes = ty.tensor_bytes(&tensor.shape)?;
        Ok(TensorInfo { name: self.names.gguf_name(&tensor.name), shape: tensor.shape.clone(), ty, bytes })
    }
}
