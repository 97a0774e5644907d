//! The trained values in the types of the student's file.
//!
//! ```text
//! weights       encoded again in the type that the tensor has
//! scales        the bytes of the file, with another F16 scale at the end of each block
//! latents       trits and scale of each block packed again
//! ```
//!
//! **Invariant:** a tensor that is not trained keeps its bytes.

use gguf_bitnet::{LogicalTensor, RowOrder, TensorSource, TensorType, encode_row};
use moe_runtime::ModelFiles;
use ternary_core::{BLOCK, Packing, Rounding, f16};
use tl_kernels::math;

use super::error::TrainError;
use super::params::{Kind, Param};
use super::weights::{Weights, trit};
use crate::error::Result;

/// The tensors of a student's file by their number there, and the tensors of the model that they hold.
///
/// # Errors
/// [`TrainError::NoStudent`] for a model that is no GGUF of one file, or a trained tensor that is no tensor of the file by itself.
pub(super) fn places<'a>(files: &'a ModelFiles, weights: &Weights<'_>) -> Result<Vec<Option<&'a LogicalTensor>>> {
    let unusable = || TrainError::NoStudent { path: files.path().display().to_string() };
    let file = files.gguf().filter(|file| file.n_parts() == 1).ok_or_else(unusable)?;
    let mut places = vec![None; file.tensors().len()];
    for tensor in files.catalog.tensors().iter().filter(|tensor| weights.wants(&tensor.name)) {
        let [part] = &tensor.parts[..] else { return Err(unusable().into()) };
        if part.order != RowOrder::AsStored || file.tensors()[part.source].shape != tensor.shape {
            return Err(unusable().into());
        }
        places[part.source] = Some(tensor);
    }
    Ok(places)
}

/// The bytes of a trained tensor whose bytes in the file, of type `ty`, are `stored`.
///
/// # Errors
/// Values that the type cannot store.
pub(super) fn encode(weights: &Weights<'_>, tensor: &LogicalTensor, ty: TensorType, stored: &[u8]) -> Result<Vec<u8>> {
    let entry = |kind| weights.params.find(&tensor.name, kind).map(|index| &weights.params.list()[index]);
    if let Some(param) = entry(Kind::Weights) {
        let mut bytes = Vec::with_capacity(stored.len());
        for row in param.values.chunks_exact(param.cols) {
            encode_row(ty, Rounding::LeastSquares, row, None, &mut bytes).map_err(|e| e.in_tensor(&tensor.name))?;
        }
        return Ok(bytes);
    }
    let unwritable = || TrainError::Unwritable { name: tensor.name.clone(), ty: ty.name() };
    let packing = ty.packing().ok_or_else(unwritable)?;
    let factors = entry(Kind::LogScales);
    let latents = entry(Kind::Latents);
    let mut bytes = stored.to_vec();
    for (b, block) in bytes.chunks_exact_mut(packing.block_bytes()).enumerate() {
        let factor = factors.map_or(1.0, |param| math::exp(param.values[b]));
        write_block(packing, block, b, factor, latents);
    }
    Ok(bytes)
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
