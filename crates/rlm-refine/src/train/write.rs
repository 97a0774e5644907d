//! The trained values in the types of the student's file.
//!
//! ```text
//! weights       encoded again in the type that the tensor has
//! scales        the bytes of the file, with another F16 scale at the end of each block
//! latents       trits and scale of each block packed again
//! ```
//!
//! **Invariant:** a tensor that is not trained keeps its bytes.

use std::ops::Range;

use gguf_bitnet::{LogicalTensor, RowOrder, TensorClass, TensorSource, TensorType, quantize_row};
use moe_runtime::ModelFiles;
use ternary_core::{BLOCK, Packing, Rounding, f16};
use tl_kernels::{Pool, math};

use super::error::TrainError;
use super::params::{Kind, Param};
use super::weights::{Weights, trit};
use crate::encode::{Encoding, Rows, encode_rows};
use crate::error::Result;

/// Blocks that one thread packs at a time.
const TASK_BLOCKS: usize = 1 << 10;

/// The tensors of a student's file by their number there, and the tensors of the model that they hold.
///
/// # Errors
/// [`TrainError::NoStudent`] for a model that is no GGUF of one file, or a trained tensor that is no tensor of the file by itself;
/// [`TrainError::Unwritable`] for a trained tensor of a type that is only read.
pub(crate) fn places<'a>(files: &'a ModelFiles, weights: &Weights<'_>) -> Result<Vec<Option<&'a LogicalTensor>>> {
    let unusable = || TrainError::NoStudent { path: files.path().display().to_string() };
    let file = files.gguf().filter(|file| file.n_parts() == 1).ok_or_else(unusable)?;
    let mut places = vec![None; file.tensors().len()];
    for tensor in files.catalog.tensors().iter().filter(|tensor| weights.wants(&tensor.name)) {
        let [part] = &tensor.parts[..] else { return Err(unusable().into()) };
        let info = &file.tensors()[part.source];
        if part.order != RowOrder::AsStored || info.shape != tensor.shape {
            return Err(unusable().into());
        }
        let is_encoded = weights.params.find(&tensor.name, Kind::Weights).is_some();
        if is_encoded && !is_written(info.ty, info.cols()) {
            return Err(TrainError::Unwritable { name: info.name.clone(), ty: info.ty.name() }.into());
        }
        places[part.source] = Some(tensor);
    }
    Ok(places)
}

/// Refuses a model with a router of a type in which no repaired router can be written.
///
/// # Errors
/// [`TrainError::RouterType`] with the first such router.
pub(super) fn check_routers(files: &ModelFiles) -> Result<()> {
    let routers = files.catalog.tensors().iter().filter(|tensor| tensor.class == TensorClass::Router);
    for (tensor, ty) in routers.filter_map(|tensor| Some((tensor, files.catalog.tensor_type(tensor)?))) {
        if ty.is_ternary() || !is_written(ty, tensor.cols()) {
            return Err(TrainError::RouterType { name: tensor.name.clone(), ty: ty.name() }.into());
        }
    }
    Ok(())
}

/// Whether rows of `cols` weights can be encoded in a type.
fn is_written(ty: TensorType, cols: usize) -> bool {
    quantize_row(ty, &vec![0.0; cols], &mut Vec::new()).is_ok()
}

/// Replaces `bytes`, the rows `rows` of a trained tensor as the file has them, in the type `ty`, by the trained ones.
///
/// # Errors
/// Values that the type cannot store.
pub(crate) fn encode(
    pool: &Pool,
    weights: &Weights<'_>,
    tensor: &LogicalTensor,
    ty: TensorType,
    rows: Range<usize>,
    bytes: &mut Vec<u8>,
) -> Result<()> {
    let entry = |kind| weights.params.find(&tensor.name, kind).map(|index| &weights.params.list()[index]);
    if let Some(param) = entry(Kind::Weights) {
        let cols = param.cols;
        let read = |rows: Range<usize>, out: &mut [f32]| {
            out.copy_from_slice(&param.values[rows.start * cols..rows.end * cols]);
            Ok(())
        };
        let encoding = Encoding { ty, rounding: Rounding::LeastSquares, cols };
        let made = encode_rows(pool, encoding, Rows { numbers: rows, read: &read }, bytes);
        return made.map(drop).map_err(|error| error.of_tensor(&tensor.name, weights.files.path()));
    }
    let unwritable = || TrainError::TernaryType { name: tensor.name.clone(), ty: ty.name() };
    let packing = ty.packing().ok_or_else(unwritable)?;
    let [factors, latents] = [Kind::LogScales, Kind::Latents].map(entry);
    let first = (rows.start - weights.first_row(tensor)) * tensor.cols() / BLOCK;
    pool.chunks_mut(bytes, TASK_BLOCKS * packing.block_bytes(), |task, blocks| {
        for (i, block) in blocks.chunks_exact_mut(packing.block_bytes()).enumerate() {
            let b = first + task * TASK_BLOCKS + i;
            let factor = factors.map_or(1.0, |param| math::exp(param.values[b]));
            write_block(packing, block, b, factor, latents);
        }
    });
    Ok(())
}

fn write_block(packing: Packing, block: &mut [u8], b: usize, factor: f32, latents: Option<&Param>) {
    let largest = f16::MAX.to_f32();
    match latents {
        Some(param) => {
            let mut trits = [0i8; BLOCK];
            let values = &param.values[b * BLOCK..][..BLOCK];
            trits.iter_mut().zip(values).for_each(|(t, &latent)| *t = trit(latent));
            let scale = (param.block_scales[b] * factor).min(largest);
            packing.encode(&trits, f16::from_f32(scale), block);
        }
        None => {
            let end = block.len() - 2;
            let scale = f16::from_le_bytes([block[end], block[end + 1]]).to_f32() * factor;
            block[end..].copy_from_slice(&f16::from_f32(scale.clamp(-largest, largest)).to_le_bytes());
        }
    }
}
