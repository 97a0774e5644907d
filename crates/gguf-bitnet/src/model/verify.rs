//! The check of all weights of a model, which opening the model does not read: invalid codes, scales and weights that are
//! NaN or infinite, weights that are missing although their bytes can be read. The report names the tensor of every defect,
//! and the model's identity, which the same pass computes.

mod pieces;
mod share;
mod tensor;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::defect::Defect;
use super::identity::{by_name, header_hasher};
use super::open::OpenModel;
use super::zeros::all_findings;
use crate::error::Result;
use crate::formats::TensorType;
use crate::gguf::Metadata;
use crate::source::{TensorSource, ZeroTail};

pub use share::{VERIFY_JOB, verify_parts, verify_shard};
use tensor::{Scanner, TensorFindings};

/// The result of reading a model that could be opened.
#[derive(Clone, Debug, Serialize)]
pub struct VerifyReport {
    /// The file or directory.
    pub path: PathBuf,
    /// BLAKE3 identity, in hexadecimal; see [`identity`](crate::identity()).
    pub identity: String,
    /// Number of tensors of the model.
    pub tensors: usize,
    /// Number of weights in all tensors.
    pub elements: u64,
    /// Bytes of tensor data, all of which were read.
    pub bytes: u64,
    /// Counts by type, in the order of their ids.
    pub types: Vec<TypeCount>,
    /// Files whose end was never written; their tensors are not among the defects for being zero.
    pub zero_tails: Vec<ZeroTail>,
    /// The defects, by tensor name; empty for a valid model.
    pub defects: Vec<Defect>,
    /// Findings that a model may have been made with, by tensor name.
    pub notices: Vec<Defect>,
    /// Whether missing weights are no defects: the files of a valid model may end in `zero_tails`.
    pub zero_allowed: bool,
}

impl VerifyReport {
    /// Whether the model has no defects.
    pub fn is_valid(&self) -> bool {
        self.defects.is_empty() && (self.zero_allowed || self.zero_tails.is_empty())
    }

    /// The report of a model that may lack weights: these defects become notices, and its files may end in zeros.
    #[must_use]
    pub fn allow_zero(mut self) -> VerifyReport {
        let zero = self.defects.extract_if(.., |defect| defect.kind.is_zero());
        self.notices.extend(zero);
        VerifyReport { zero_allowed: true, ..self }
    }
}

/// The tensors of one storage type, counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TypeCount {
    /// The storage type that is counted.
    #[serde(rename = "type")]
    pub ty: TensorType,
    /// Tensors of the type.
    pub tensors: usize,
    /// Weights of these tensors.
    pub elements: u64,
    /// Stored bytes of these tensors.
    pub bytes: u64,
}

/// Opens the model at `path` (a GGUF file or set, a safetensors file or directory) and reads all of it. `progress` is
/// called with the bytes done and their total.
///
/// # Errors
/// When the model cannot be opened: a damaged header, a span outside of the file, an unsupported type. Defects of the
/// weights are no errors: they are in the report.
pub fn verify(path: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<VerifyReport> {
    match OpenModel::open(path)? {
        OpenModel::Gguf(file) => verify_source(&*file, Some(file.metadata()), progress),
        OpenModel::Safetensors(dir) => verify_source(&*dir, None, progress),
    }
}

/// As [`verify`], for a model that is open; `metadata` count in its identity.
///
/// # Errors
/// When a tensor of the source cannot be read, which happens only to a file that changes meanwhile.
pub fn verify_source(
    source: &dyn TensorSource,
    metadata: Option<&Metadata>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<VerifyReport> {
    let mut hasher = header_hasher(source, metadata);
    let zero_tails = source.zero_tails();
    let scanner = Scanner::new(source, &zero_tails);
    let total: u64 = source.tensors().iter().map(|info| info.bytes).sum();
    let mut done = 0;
    progress(done, total);
    let mut tensors = Vec::new();
    for index in by_name(source) {
        let findings = scanner.tensor(index, &mut |chunk| {
            hasher.update_rayon(chunk);
            done += chunk.len() as u64;
            progress(done, total);
        })?;
        tensors.push((findings, source.tensors()[index].bytes));
    }
    Ok(report((source.path().to_owned(), zero_tails), tensors, hasher.finalize()))
}

/// The report of a model whose tensors, by ascending name, have these findings and bytes. Neither their elements nor their
/// bytes have a sum that overflows.
fn report(
    (path, zero_tails): (PathBuf, Vec<ZeroTail>),
    tensors: Vec<(TensorFindings, u64)>,
    identity: blake3::Hash,
) -> VerifyReport {
    let mut types: BTreeMap<TensorType, TypeCount> = BTreeMap::new();
    let (mut names, mut defects, mut zeros) = (Vec::new(), Vec::new(), Vec::new());
    for (tensor, bytes) in tensors {
        let count = TypeCount { ty: tensor.ty, tensors: 0, elements: 0, bytes: 0 };
        let count = types.entry(tensor.ty).or_insert(count);
        count.tensors += 1;
        count.elements += tensor.elements;
        count.bytes += bytes;
        names.push(tensor.tensor);
        defects.extend(tensor.defects);
        zeros.push(tensor.zeros);
    }
    let (without_weights, mut notices) = all_findings(&names, zeros);
    defects.extend(without_weights);
    let place = |defect: &Defect| (defect.tensor.clone(), defect.kind);
    defects.sort_by_key(place);
    notices.sort_by_key(place);
    let types: Vec<TypeCount> = types.into_values().collect();
    VerifyReport {
        path,
        identity: identity.to_string(),
        tensors: names.len(),
        elements: types.iter().map(|t| t.elements).sum(),
        bytes: types.iter().map(|t| t.bytes).sum(),
        types,
        zero_tails,
        defects,
        notices,
        zero_allowed: false,
    }
}
