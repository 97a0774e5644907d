//! Writes a model of ternary weights in another ternary type, without loss.
//!
//! **Invariant:** the file appears only after it was read back and every trit and every scale found equal to the source's;
//! tensors that are not ternary are copied byte for byte. A tensor that the type cannot hold is refused before a file appears.

use std::cell::RefCell;
use std::path::Path;

use super::error::ModelError;
use super::replace::replace_checked;
use crate::error::{Error, Locate, Result};
use crate::formats::{TensorType, Trits};
use crate::gguf::{GgufFile, GgufWriter, Metadata, Value, i2s_layout};
use crate::source::{TensorInfo, TensorSource};
use crate::store::{output_path, require_space};

/// `general.file_type` of a file whose type has no number: llama.cpp's sign that the number is not stated.
const NOT_STATED: u32 = 1024;

/// The result of a conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Converted {
    /// Tensors that have the new type.
    pub tensors: usize,
    /// Weights of these tensors.
    pub weights: u64,
    /// Bytes of these tensors in the source.
    pub bytes_before: u64,
    /// Bytes of these tensors in the new type.
    pub bytes_after: u64,
}

/// Writes `source` to `out` with all its ternary tensors in type `ty`. `progress` is called with the tensors done and their
/// number, over writing and comparing.
///
/// # Errors
/// [`ModelError::NothingToConvert`] for a model without trits, [`ModelError::OutputIsSource`]; the errors of [`Trits::read`]
/// and [`Trits::write`] with the tensor; [`ModelError::NotConverted`] where the written file differs.
pub fn convert(source: &GgufFile, ty: TensorType, out: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<Converted> {
    let path = &output_path(out)?;
    let same = |part: &Path| path.canonicalize().is_ok_and(|path| part.canonicalize().is_ok_and(|part| part == path));
    if source.paths().any(same) {
        return Err(ModelError::OutputIsSource.in_file(path));
    }
    let mut converted = Converted { tensors: 0, weights: 0, bytes_before: 0, bytes_after: 0 };
    let mut infos = Vec::with_capacity(source.tensors().len());
    for info in source.tensors() {
        let mut info = info.clone();
        if info.ty.trit_group().is_some() {
            converted.bytes_before += info.bytes;
            (info.ty, info.bytes) = (ty, ty.tensor_bytes(&info.shape).map_err(|e| e.in_tensor(&info.name))?);
            converted.bytes_after += info.bytes;
            converted.tensors += 1;
            converted.weights += info.elements() as u64;
        }
        infos.push(info);
    }
    if converted.tensors == 0 {
        return Err(ModelError::NothingToConvert.in_file(source.path()));
    }
    let mut writer = GgufWriter::new(&metadata(source, ty), infos)?;
    require_space(path, writer.file_bytes())?;
    let n = source.tensors().len();
    let progress = RefCell::new(progress);
    let report = |done: usize| (progress.borrow_mut())(done as u64, 2 * n as u64);
    replace_checked(
        path,
        |file| {
            writer.begin(file)?;
            for (index, info) in source.tensors().iter().enumerate() {
                let bytes = source.bytes(index)?;
                let located = |e: Error| e.in_tensor(&info.name);
                match trits(info, &bytes).map_err(located)? {
                    Some(trits) => writer.write_tensor(file, index, &trits.write(ty).map_err(located)?)?,
                    None => writer.write_tensor(file, index, &bytes)?,
                }
                source.release(index);
                report(index + 1);
            }
            writer.finish()
        },
        |written| {
            (0..n).try_for_each(|index| {
                compare(source, written, index)?;
                report(n + index + 1);
                Ok(())
            })
        },
    )?;
    Ok(converted)
}

/// The trits of a tensor that is converted.
fn trits(info: &TensorInfo, bytes: &[u8]) -> Result<Option<Trits>> {
    info.ty.trit_group().map(|_| Trits::read(info.ty, &info.shape, bytes)).transpose()
}

/// Checks that tensor `index` of the two files holds the same.
fn compare(source: &GgufFile, written: &GgufFile, index: usize) -> Result<()> {
    let (before, after) = (&source.tensors()[index], written.tensors().get(index));
    let after = after.filter(|after| (&after.name, &after.shape) == (&before.name, &before.shape));
    let same = match after {
        None => false,
        Some(after) => {
            let (old, new) = (source.bytes(index)?, written.bytes(index)?);
            match (trits(before, &old)?, trits(after, &new)?) {
                (Some(old), Some(new)) => old.is_same(&new),
                (None, None) => before.ty == after.ty && old[..] == new[..],
                _ => false,
            }
        }
    };
    source.release(index);
    written.release(index);
    if same { Ok(()) } else { Err(ModelError::NotConverted.in_tensor(&before.name)) }
}

/// The metadata of the converted file: only what states the type changes, so that a conversion back restores it.
fn metadata(source: &GgufFile, ty: TensorType) -> Metadata {
    let number = |ty: TensorType| Some(ty.file_type().unwrap_or(NOT_STATED));
    let block = |ty: TensorType| ty.trit_block().and_then(|n| u32::try_from(n).ok());
    let mut metadata = source.metadata().clone();
    // A file of mostly other weights states their type.
    let stated = metadata.u32("general.file_type").ok().flatten();
    if source.tensors().iter().any(|info| info.ty.trit_group().is_some() && number(info.ty) == stated) {
        number(ty).map(|number| metadata.insert("general.file_type", Value::U32(number)));
    }
    if metadata.contains_key("craftsman.bitnet.block_size") {
        block(ty).map(|block| metadata.insert("craftsman.bitnet.block_size", Value::U32(block)));
    }
    match ty {
        TensorType::I2sArm => metadata.insert(i2s_layout::KEY, i2s_layout::ARM),
        _ => metadata.remove(i2s_layout::KEY),
    };
    metadata
}
