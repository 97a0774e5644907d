//! Reading all of a model to find what opening it cannot see: invalid codes, scales and weights that
//! are NaN or infinite. Every defect is reported with its tensor; the model's identity comes along.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::defect::{Defect, DefectKind};
use super::identity::{each_chunk, header_hasher};
use super::open::OpenModel;
use super::scan;
use crate::error::Result;
use crate::formats::TensorType;
use crate::gguf::Metadata;
use crate::source::TensorSource;

/// How much is scanned at a time, in parallel.
const CHUNK_BYTES: usize = 32 << 20;

/// What was found in a model that could be opened.
#[derive(Clone, Debug, Serialize)]
pub struct VerifyReport {
    /// The file or directory.
    pub path: PathBuf,
    /// BLAKE3 identity, in hexadecimal; see [`identity`](crate::identity()).
    pub identity: String,
    /// Number of tensors.
    pub tensors: usize,
    /// Number of weights.
    pub elements: u64,
    /// Bytes of tensor data, all of which were read.
    pub bytes: u64,
    /// Counts by type, in the order of their ids.
    pub types: Vec<TypeCount>,
    /// By tensor name; empty for a sound model.
    pub defects: Vec<Defect>,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.defects.is_empty()
    }
}

/// How much of a model has one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TypeCount {
    /// The type.
    #[serde(rename = "type")]
    pub ty: TensorType,
    /// Tensors of the type.
    pub tensors: usize,
    /// Their weights.
    pub elements: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Opens the model at `path` (a GGUF file or set, a safetensors file or directory) and reads all of
/// it. `progress` is told the bytes done and their total.
///
/// # Errors
/// Whatever keeps the model from being opened: a damaged header, a span outside of the file, an
/// unsupported type. Defects of the weights are in the report.
pub fn verify(path: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<VerifyReport> {
    match OpenModel::open(path)? {
        OpenModel::Gguf(file) => verify_source(&*file, Some(file.metadata()), progress),
        OpenModel::Safetensors(dir) => verify_source(&*dir, None, progress),
    }
}

/// As [`verify`], for a model that is open; `metadata` count in its identity.
///
/// # Errors
/// None for a file that is not changed while it is read.
pub fn verify_source(
    source: &dyn TensorSource,
    metadata: Option<&Metadata>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<VerifyReport> {
    let mut hasher = header_hasher(source, metadata);
    let mut found: BTreeMap<(String, DefectKind), Defect> = BTreeMap::new();
    each_chunk(source, CHUNK_BYTES, progress, |info, offset, chunk| {
        hasher.update_rayon(chunk);
        for (kind, finding) in scan::chunk(info, offset, chunk) {
            let defect = found.entry((info.name.clone(), kind)).or_insert_with(|| Defect {
                tensor: info.name.clone(),
                ty: info.ty,
                kind,
                count: 0,
                first_row: finding.first_element / (info.cols().max(1) as u64),
            });
            defect.count += finding.count;
        }
    })?;

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
        defects: found.into_values().collect(),
    })
}
