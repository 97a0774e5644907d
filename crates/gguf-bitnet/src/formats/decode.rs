//! Stored bytes to F32, for every type that is read.
//!
//! **Invariant:** results equal those of the format's reference implementation bit for bit: the
//! same products and sums in the same order, without fused operations.

use super::error::FormatError;
use super::tensor_type::TensorType;
use crate::error::Result;

/// Writes the values of `bytes` to `out`, whose length is the number of values.
///
/// `bytes` are whole blocks: one or more rows, or the whole tensor where the type has no rows
/// (I2_S and [`TensorType::BitnetT158Flat`]). NaN and infinite values of float types and of scales pass
/// through, but for ternary types, whose codes and scales are checked.
///
/// ```
/// use gguf_bitnet::{TensorType, dequantize};
/// let mut out = [0.0; 2];
/// dequantize(TensorType::Bf16, &[0x80, 0x3f, 0x00, 0xc0], &mut out)?;
/// assert_eq!(out, [1.0, -2.0]);
/// # Ok::<(), gguf_bitnet::Error>(())
/// ```
///
/// # Errors
/// [`FormatError::DataLength`] and [`FormatError::RowNotBlocks`] when the two lengths do not fit each other,
/// [`FormatError::Ternary`] for an invalid code or scale.
pub fn dequantize(ty: TensorType, bytes: &[u8], out: &mut [f32]) -> Result<()> {
    let expected = ty.tensor_bytes(&[out.len()])?;
    if bytes.len() as u64 != expected {
        let got = bytes.len() as u64;
        return Err(FormatError::DataLength { ty, elements: out.len(), expected, got }.into());
    }
    Ok(ty.format().decode(bytes, out).map_err(FormatError::Ternary)?)
}
