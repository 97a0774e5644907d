//! Models without weights: files whose end was never written, and matrices and norms whose weights are all zero.
//!
//! No trained model has a matrix or a norm of zeros, so such a model is refused before it runs. The check reads little:
//! of each file its last bytes, and of each matrix the weights up to the first that is not zero. Holes inside of a matrix
//! are left to [`verify`](crate::verify), which reads all weights.

use std::fmt;
use std::ops::Range;
use std::path::Path;

use super::error::ModelError;
use crate::error::{Locate, Result};
use crate::formats::is_zero;
use crate::names::{Catalog, LogicalTensor, Part, TensorClass};
use crate::shown::Shown;
use crate::source::{TensorSource, ZeroTail};

/// Bytes of a matrix that are asked for ahead: its first page.
const PROBE_BYTES: usize = 4096;

/// The parts of a model that have no weights; empty for a model that can be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Weightless {
    /// Files whose end was never written.
    pub tails: Vec<ZeroTail>,
    /// Tensors with matrices of zeros, but for those in `tails`.
    pub tensors: Vec<ZeroTensor>,
}

/// A tensor of which some matrices, or all, are zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZeroTensor {
    /// Name of the tensor in the catalog, such as `blk.1.ffn_up_exps.weight`.
    pub name: String,
    /// The role of the tensor in its model.
    pub class: TensorClass,
    /// Number of its matrices that are zero.
    pub zero: usize,
    /// Number of its matrices.
    pub of: usize,
    /// The first one that is zero.
    pub first: usize,
}

impl Weightless {
    /// Looks for missing weights among the tensors that a model uses.
    ///
    /// # Errors
    /// When a tensor cannot be read, which happens only to a file that changes meanwhile.
    pub fn find(catalog: &Catalog) -> Result<Weightless> {
        let source = &**catalog.source();
        let tails = source.zero_tails();
        let stacks: Vec<_> = catalog.tensors().iter().map(|tensor| (tensor, matrices(source, tensor))).collect();
        // A disk answers many questions at once much faster than one after the other.
        for (stored, range) in stacks.iter().flat_map(|(_, matrices)| matrices) {
            source.prefetch_range(*stored, range.start..range.start + PROBE_BYTES);
        }
        let mut tensors = Vec::new();
        for (tensor, matrices) in stacks {
            if let Some(found) = zero_matrices(source, tensor, &matrices)?
                && !explains(&tails, catalog, tensor)
            {
                tensors.push(found);
            }
        }
        Ok(Weightless { tails, tensors })
    }

    /// Whether no weights are missing.
    pub fn is_empty(&self) -> bool {
        self.tails.is_empty() && self.tensors.is_empty()
    }

    /// Refuses a model with missing weights, which was opened at `path`.
    ///
    /// # Errors
    /// [`ModelError::ZeroTail`] for a file whose end was never written, [`ModelError::ZeroWeights`] for matrices of zeros.
    pub fn refuse(self, path: &Path) -> Result<()> {
        if let Some(tail) = self.tails.into_iter().next() {
            let file = tail.path.clone();
            return Err(ModelError::ZeroTail { tail }.in_file(file));
        }
        match self.tensors.split_first() {
            None => Ok(()),
            Some((first, more)) => {
                Err(ModelError::ZeroWeights { first: first.to_string(), more: more.len() }.in_file(path))
            }
        }
    }
}

/// Whether the data of a tensor lie in a file's end that was never written.
fn explains(tails: &[ZeroTail], catalog: &Catalog, tensor: &LogicalTensor) -> bool {
    let stored = |part: &Part| &catalog.source().tensors()[part.source].name;
    let in_tail = |part: &Part| tails.iter().any(|tail| tail.tensors.contains(stored(part)));
    tensor.parts.iter().any(in_tail)
}

/// The `matrices` of a tensor that are zero; `None` where there are none.
fn zero_matrices(source: &dyn TensorSource, tensor: &LogicalTensor, matrices: &[Matrix]) -> Result<Option<ZeroTensor>> {
    let (mut zero, mut first) = (0, None);
    for (index, (stored, range)) in matrices.iter().enumerate() {
        if is_zero(source.tensors()[*stored].ty, &source.bytes(*stored)?[range.clone()]) {
            zero += 1;
            first.get_or_insert(index);
        }
        source.release_range(*stored, range.clone());
    }
    let of = matrices.len();
    // A head may be pruned by zeroing it; an expert without weights still gets its share of the tokens.
    let is_missing = zero == of || zero > 0 && tensor.class == TensorClass::RoutedExpert;
    let (name, class) = (tensor.name.clone(), tensor.class);
    Ok(first.filter(|_| is_missing).map(|first| ZeroTensor { name, class, zero, of, first }))
}

/// A matrix: the index of a stored tensor and the range of its bytes.
type Matrix = (usize, Range<usize>);

/// The matrices of a tensor. A layout without rows is one matrix, and so is a norm; a tensor that may be zero has none.
fn matrices(source: &dyn TensorSource, tensor: &LogicalTensor) -> Vec<Matrix> {
    let may_be_zero = match tensor.class {
        TensorClass::Norm => false,
        TensorClass::RouterBias | TensorClass::Bias => true,
        _ => tensor.shape.len() < 2,
    };
    if may_be_zero {
        return Vec::new();
    }
    let per_part = (tensor.outer() / tensor.parts.len().max(1)).max(1);
    let mut matrices = Vec::with_capacity(tensor.parts.len() * per_part);
    for part in &tensor.parts {
        let info = &source.tensors()[part.source];
        let Ok(row_bytes) = info.ty.row_bytes(info.cols()) else {
            matrices.push((part.source, 0..usize::try_from(info.bytes).unwrap_or(0)));
            continue;
        };
        let (start, bytes) = (part.rows.start * row_bytes, part.rows.len() / per_part * row_bytes);
        matrices.extend((0..per_part).map(|m| (part.source, start + m * bytes..start + (m + 1) * bytes)));
    }
    matrices
}

impl fmt::Display for ZeroTensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ZeroTensor { name, class, zero, of, first } = self;
        let name = Shown(name);
        match class {
            TensorClass::RoutedExpert if zero < of => {
                write!(
                    f,
                    "{zero} of {of} experts have no weights in `{name}`, where all of theirs are zero (the first is expert {first})"
                )
            }
            TensorClass::RoutedExpert => write!(f, "none of the {of} experts has weights in `{name}`: all are zero"),
            _ => write!(f, "all weights of `{name}` are zero"),
        }
    }
}
