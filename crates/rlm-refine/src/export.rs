//! A model with adapters folded into its weights: `W + s B A`, encoded in the type that `W` had.
//!
//! **Invariant:** every tensor without an addition, and every key but those about gates, splits and adapters, is copied as it
//! is. The file appears whole or not at all. The files of the adapters are opened once.

mod error;

use std::io::{BufWriter, Write};
use std::path::Path;

use gguf_bitnet::{
    GgufFile, GgufWriter, Metadata, NewFile, StoreError, TensorInfo, TensorSource, TensorType, dequantize, link_target,
    quantize_row,
};
use moe_runtime::ModelFiles;
use moe_runtime::adapters::{AdapterFile, AdapterSet, FactorPair, OpenAdapters, ScaledAdapter, sidecar_layer};
use serde::Serialize;

use crate::error::{Error, Result};

pub use error::ExportError;

/// The key of the identity that the model had with its adapters.
const FOLDED_KEY: &str = "craftsman.provenance.adapted_blake3";
/// Bytes of a tensor that are copied before their pages are handed back.
const CHUNK_BYTES: usize = 32 << 20;

/// One matrix, or stack of matrices, that was encoded anew.
#[derive(Clone, Debug, Serialize)]
pub struct FoldedTensor {
    /// The name in the file.
    pub name: String,
    /// Its type, before and after.
    pub ty: TensorType,
    /// Squared error of the encoding over the squared sum, for the exact sum of the stored weights and the additions.
    pub relative_mse: f64,
}

/// Size and content of the file that was written.
#[derive(Clone, Debug, Serialize)]
pub struct ExportReport {
    /// Size of the file.
    pub output_bytes: u64,
    /// The matrices that were encoded anew, in the order of the file.
    pub folded: Vec<FoldedTensor>,
}

/// Writes the model with `adapters` folded into its weights to `out`.
///
/// # Errors
/// Adapters that do not belong to the model, a matrix of a type that holds no sums, an output that exists (unless `force` is
/// set) or is the model itself, and a disk that refuses the file.
pub fn export(files: &ModelFiles, adapters: &[ScaledAdapter], out: &Path, force: bool) -> Result<ExportReport> {
    let Some(file) = files.gguf() else {
        return Err(ExportError::NotGguf { path: files.path().display().to_string() }.into());
    };
    if adapters.is_empty() {
        return Err(ExportError::NoAdapter.into());
    }
    if files.holds(out) {
        return Err(Error::OutputIsSource { path: out.display().to_string() });
    }
    if out.exists() && !force {
        return Err(gguf_bitnet::Error::from(StoreError::OutputExists).in_file(out).into());
    }
    let identity = files.identity(&mut |_, _| {})?;
    let adapters = OpenAdapters::open(adapters)?;
    let parts = adapters.read(files, &mut || Ok(identity.clone()))?;
    // Refuses additions to a matrix that takes none.
    AdapterSet::new(files, &parts.iter().map(|(part, scale)| (part, *scale)).collect::<Vec<_>>())?;
    for (part, _) in &parts {
        part.pairs.iter().try_for_each(|pair| check_type(file, pair))?;
    }
    let mut metadata = metadata(file.metadata());
    metadata.insert(FOLDED_KEY, adapters.identity(&identity)?.as_str());
    write(file, &parts, &metadata, out)
}

fn check_type(file: &GgufFile, pair: &FactorPair) -> Result<()> {
    if sidecar_layer(&pair.tensor).is_some() {
        return Err(ExportError::Sidecar { tensor: pair.tensor.clone() }.into());
    }
    let stored = file.tensors().iter().find(|info| info.name == pair.tensor);
    match stored.map(|info| info.ty) {
        Some(TensorType::F32 | TensorType::F16 | TensorType::Bf16 | TensorType::Q8_0 | TensorType::Q6K) => Ok(()),
        None => Err(ExportError::NotInFile { tensor: pair.tensor.clone() }.into()),
        Some(ty) => Err(ExportError::Type { tensor: pair.tensor.clone(), ty }.into()),
    }
}

/// The keys of the new file: reports about the old one and its split do not hold any more.
fn metadata(source: &Metadata) -> Metadata {
    let mut metadata = source.clone();
    metadata.retain(|key, _| !key.starts_with("craftsman.gates.") && !key.starts_with("split."));
    metadata
}

fn write(file: &GgufFile, parts: &[(AdapterFile, f32)], metadata: &Metadata, out: &Path) -> Result<ExportReport> {
    let infos = file.tensors().to_vec();
    let mut writer = GgufWriter::new(metadata, infos.clone())?;
    let output_bytes = writer.file_bytes();
    let mut stream = BufWriter::new(NewFile::create(&link_target(out)?)?);
    writer.begin(&mut stream)?;
    let mut folded = Vec::new();
    for (index, info) in infos.iter().enumerate() {
        let additions: Vec<Addition<'_>> =
            parts.iter().filter_map(|(part, scale)| Addition::of(part, *scale, &info.name)).collect();
        let bytes = file.bytes(index)?;
        if additions.is_empty() {
            for chunk in bytes.chunks(CHUNK_BYTES) {
                writer.write_tensor(&mut stream, index, chunk)?;
            }
        } else {
            folded
                .push(fold(info, &bytes, &additions, &mut |row| Ok(writer.write_tensor(&mut stream, index, row)?))?);
        }
        file.release(index);
    }
    writer.finish()?;
    stream.flush().map_err(Error::io("write", out))?;
    let whole = stream.into_inner().map_err(|error| Error::io("write", out)(error.into_error()))?;
    whole.publish()?;
    Ok(ExportReport { output_bytes, folded })
}

/// The factors of an adapter for one tensor.
struct Addition<'a> {
    pair: &'a FactorPair,
    scale: f64,
}

impl<'a> Addition<'a> {
    fn of(part: &'a AdapterFile, scale: f32, tensor: &str) -> Option<Addition<'a>> {
        let pair = part.pairs.iter().find(|pair| pair.tensor == tensor)?;
        Some(Addition { pair, scale: f64::from(scale * part.scale(pair.rank())) })
    }

    /// Adds row `row` of the stack's `B A` to `sum` `[inputs]`.
    fn add_row(&self, row: usize, outputs: usize, sum: &mut [f64]) {
        let (rank, inputs) = (self.pair.rank(), sum.len());
        let a = &self.pair.a[row / outputs * rank * inputs..][..rank * inputs];
        for (b, a) in self.pair.b[row * rank..][..rank].iter().zip(a.chunks_exact(inputs)) {
            let factor = self.scale * f64::from(*b);
            sum.iter_mut().zip(a).for_each(|(sum, a)| *sum += factor * f64::from(*a));
        }
    }
}

/// Encodes the rows of a tensor with their additions, one after the other.
fn fold(
    info: &TensorInfo,
    bytes: &[u8],
    additions: &[Addition<'_>],
    take: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<FoldedTensor> {
    let (cols, ty) = (info.cols(), info.ty);
    let outputs = info.shape.iter().rev().nth(1).copied().unwrap_or(1);
    let row_bytes = bytes.len() / info.rows().max(1);
    let (mut row, mut encoded, mut back) = (vec![0.0; cols], Vec::new(), vec![0.0; cols]);
    let (mut error, mut whole) = (0.0, 0.0);
    for (r, stored) in bytes.chunks_exact(row_bytes.max(1)).enumerate() {
        dequantize(ty, stored, &mut row).map_err(|error| error.in_tensor(&info.name))?;
        let mut sum: Vec<f64> = row.iter().map(|w| f64::from(*w)).collect();
        additions.iter().for_each(|addition| addition.add_row(r, outputs, &mut sum));
        row.iter_mut().zip(&sum).for_each(|(w, sum)| *w = *sum as f32);
        encoded.clear();
        quantize_row(ty, &row, &mut encoded).map_err(|error| error.in_tensor(&info.name))?;
        dequantize(ty, &encoded, &mut back)?;
        error += sum.iter().zip(&back).map(|(s, b)| (s - f64::from(*b)).powi(2)).sum::<f64>();
        whole += sum.iter().map(|s| s * s).sum::<f64>();
        take(&encoded)?;
    }
    let relative_mse = if whole > 0.0 { error / whole } else { 0.0 };
    Ok(FoldedTensor { name: info.name.clone(), ty, relative_mse })
}
