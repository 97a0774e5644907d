//! Compares the tensors of a file with the tensors that its model should have.
//!
//! The caller lists the tensors that a model must have: this crate knows names and shapes, not architectures.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use serde::Serialize;

use super::catalog::Catalog;
use super::class::TensorClass;
use super::error::NamesError;
use crate::error::{Error, Locate, Result};
use crate::formats::TensorType;

/// A tensor that a model has, or may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Its canonical name, with the layer.
    pub name: String,
    /// Its row-major dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Whether the model is complete without it.
    pub optional: bool,
}

/// A tensor whose shape is not the expected one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Misshaped {
    /// Its canonical name, with the layer.
    pub name: String,
    /// The dimensions that the configuration asks for.
    pub expected: Vec<usize>,
    /// The dimensions in the file.
    pub got: Vec<usize>,
}

/// Totals of the tensors of one class in one storage type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClassCount {
    /// The role of the tensors in their model.
    pub class: TensorClass,
    /// Storage type of the tensors.
    #[serde(rename = "type")]
    pub ty: TensorType,
    /// Number of canonical tensors; one stored in several types is counted under each.
    pub tensors: u64,
    /// Weights of all these tensors together.
    pub params: u64,
    /// Stored size in bytes.
    pub bytes: u64,
}

/// The result of [`validate`]: totals, and every tensor that is not as expected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DiscoveryReport {
    /// The model that was examined.
    pub path: PathBuf,
    /// Number of canonical tensors.
    pub tensors: u64,
    /// Weights of all canonical tensors.
    pub params: u64,
    /// Stored bytes of all canonical tensors.
    pub bytes: u64,
    /// Totals by class and storage type, in the order of [`TensorClass::ALL`].
    pub classes: Vec<ClassCount>,
    /// Expected tensors that the model lacks.
    pub missing: Vec<String>,
    /// Tensors that the caller did not list: canonical names, and names in the file that are not known.
    pub unexpected: Vec<String>,
    /// Tensors of another shape than expected.
    pub misshaped: Vec<Misshaped>,
    /// Tensors that are known and left out (multi-token prediction, pictures and sound), as the file names them.
    pub skipped: Vec<String>,
}

impl DiscoveryReport {
    /// Whether no tensor is missing, unexpected or of another shape.
    pub fn is_exact(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.misshaped.is_empty()
    }

    /// Refuses a model whose tensors are not exactly the expected ones.
    ///
    /// # Errors
    /// [`NamesError::WrongShape`], [`NamesError::MissingTensors`] or [`NamesError::UnexpectedTensors`], in this
    /// order, naming the model and the first tensor. A tensor that is not listed is refused because
    /// leaving it out could change the results (a bias, for instance).
    pub fn ensure_exact(&self) -> Result<()> {
        self.deviations().into_iter().next().map_or(Ok(()), Err)
    }

    /// The errors of [`DiscoveryReport::ensure_exact`], one of each kind: the reasons why a model cannot be used.
    pub fn deviations(&self) -> Vec<Error> {
        let misshaped = self.misshaped.first().map(|first| {
            let (expected, got) = (first.expected.clone(), first.got.clone());
            NamesError::WrongShape { expected, got }.in_tensor(&first.name)
        });
        let missing = self
            .missing
            .first()
            .map(|first| NamesError::MissingTensors { count: self.missing.len(), first: first.clone() }.into());
        let unexpected = self
            .unexpected
            .first()
            .map(|first| NamesError::UnexpectedTensors { count: self.unexpected.len(), first: first.clone() }.into());
        [misshaped, missing, unexpected].into_iter().flatten().map(|error: Error| error.in_file(&self.path)).collect()
    }
}

/// Compares a catalog with the list of tensors its model should have. Reads no weights.
pub fn validate(catalog: &Catalog, expected: &[Expected]) -> DiscoveryReport {
    let mut missing = Vec::new();
    let mut misshaped = Vec::new();
    for want in expected {
        match catalog.find(&want.name) {
            None if want.optional => {}
            None => missing.push(want.name.clone()),
            Some(tensor) if tensor.shape != want.shape => misshaped.push(Misshaped {
                name: want.name.clone(),
                expected: want.shape.clone(),
                got: tensor.shape.clone(),
            }),
            Some(_) => {}
        }
    }
    let known: HashSet<&str> = expected.iter().map(|want| want.name.as_str()).collect();
    let not_listed = catalog.tensors().iter().map(|t| &t.name).filter(|name| !known.contains(name.as_str()));
    let unexpected: Vec<String> = not_listed.chain(catalog.unmapped()).cloned().collect();

    let mut classes: BTreeMap<(TensorClass, TensorType), (u64, u64, u64)> = BTreeMap::new();
    for tensor in catalog.tensors() {
        for (ty, (params, bytes)) in catalog.storage(tensor) {
            let sum = classes.entry((tensor.class, ty)).or_default();
            *sum = (sum.0 + 1, sum.1 + params, sum.2 + bytes);
        }
    }
    let classes: Vec<ClassCount> = classes
        .into_iter()
        .map(|((class, ty), (tensors, params, bytes))| ClassCount { class, ty, tensors, params, bytes })
        .collect();
    DiscoveryReport {
        path: catalog.source().path().to_owned(),
        tensors: catalog.tensors().len() as u64,
        params: classes.iter().map(|c| c.params).sum(),
        bytes: classes.iter().map(|c| c.bytes).sum(),
        classes,
        missing,
        unexpected,
        misshaped,
        skipped: catalog.skipped().to_vec(),
    }
}
