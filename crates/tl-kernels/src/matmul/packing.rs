//! Packing of many layers into one arena.

use super::linear::Linear;
use super::ternary::{BitLinear, packed_bytes};
use crate::error::Result;
use crate::memory::Arena;
use crate::pool::Pool;

/// Packs the ternary matrices among `layers` into one arena and returns its bytes, 0 where there was nothing to pack.
/// Matrices for F32 activations and matrices in a layout of their own are left as they are. Products of packed
/// matrices do not read the pages of the file, so the caller may hand them back to the system.
///
/// # Errors
/// [`crate::Error::ArenaMemory`]; then no layer has changed.
pub fn pack_layers(layers: &mut [&mut Linear], pool: &Pool) -> Result<usize> {
    let matrices: Vec<&BitLinear> = layers.iter().filter_map(|layer| layer.packable()).collect();
    let total = matrices.iter().map(|w| packed_bytes(w.tensor())).sum();
    if total == 0 {
        return Ok(0);
    }
    let mut arena = Arena::new(total)?;
    let mut rest = arena.as_mut_slice();
    let mut work = Vec::with_capacity(matrices.len());
    for matrix in matrices {
        let (part, behind) = rest.split_at_mut(packed_bytes(matrix.tensor()));
        work.push((matrix, part));
        rest = behind;
    }
    pool.chunks_mut(&mut work, 1, |_, work| {
        for (matrix, part) in work {
            matrix.pack_into(part);
        }
    });
    drop(work);
    let bytes = arena.freeze();
    let mut start = 0;
    for layer in layers {
        let Some(matrix) = layer.packable() else { continue };
        let end = start + packed_bytes(matrix.tensor());
        **layer = Linear::Ternary(matrix.clone().with_packed(bytes.slice(start..end))?);
        start = end;
    }
    Ok(total)
}
