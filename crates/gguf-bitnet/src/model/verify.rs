//! The check of all weights of a model, which opening the model does not read: invalid codes, scales and weights that are
//! NaN or infinite, weights that are missing although their bytes can be read. The report names the tensor of every defect,
//! and the model's identity, which the same pass computes.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::defect::{Defect, DefectKind};
use super::identity::{each_chunk, header_hasher};
use super::open::OpenModel;
use super::scan;
use super::zeros::ZeroScan;
use crate::error::Result;
use crate::formats::TensorType;
use crate::gguf::Metadata;
use crate::source::{TensorSource, ZeroTail};

/// Bytes that are scanned at a time, in parallel.
const CHUNK_BYTES: usize = 32 << 20;

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
    let mut found: BTreeMap<(String, DefectKind), Defect> = BTreeMap::new();
    let infos = source.tensors();
    let scales: HashSet<&str> =
        (0..infos.len()).filter_map(|index| Some(&*infos[source.scales(index)?.tensor].name)).collect();
    let zero_tails = source.zero_tails();
    let mut zeros = ZeroScan::new(source, &zero_tails);
    each_chunk(source, CHUNK_BYTES, progress, |info, offset, chunk| {
        hasher.update_rayon(chunk);
        let is_scales = scales.contains(&*info.name);
        let findings = if is_scales { scan::scales(info, offset, chunk)? } else { scan::chunk(info, offset, chunk) };
        for (kind, finding) in findings {
            let defect = found.entry((info.name.clone(), kind)).or_insert_with(|| Defect {
                tensor: info.name.clone(),
                ty: info.ty,
                kind,
                count: 0,
                of: scan::total(info, kind),
                first_row: finding.first_element / (info.cols().max(1) as u64),
            });
            defect.count += finding.count;
        }
        if is_scales { Ok(()) } else { zeros.chunk(info, offset, chunk) }
    })?;
    let (without_weights, mut notices) = zeros.into_findings();
    let mut defects: Vec<Defect> = found.into_values().chain(without_weights).collect();
    let place = |defect: &Defect| (defect.tensor.clone(), defect.kind);
    defects.sort_by_key(place);
    notices.sort_by_key(place);

    let mut types: BTreeMap<TensorType, TypeCount> = BTreeMap::new();
    for info in source.tensors() {
        let count = types.entry(info.ty).or_insert(TypeCount { ty: info.ty, tensors: 0, elements: 0, bytes: 0 });
        count.tensors += 1;
        count.elements += info.elements() as u64;
        count.bytes += info.bytes;
    }
    let types: Vec<TypeCount> = types.into_values().collect();
    Ok(VerifyReport {
        path: source.path().to_owned(),
        identity: hasher.finalize().to_string(),
        tensors: source.tensors().len(),
        elements: types.iter().map(|t| t.elements).sum(),
        bytes: types.iter().map(|t| t.bytes).sum(),
        types,
        zero_tails,
        defects,
        notices,
        zero_allowed: false,
    })
}
