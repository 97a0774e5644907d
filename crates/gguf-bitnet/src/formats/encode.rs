//! F32 rows to stored bytes: the counterpart of [`dequantize`](crate::dequantize) for the types that
//! are written.
//!
//! **Invariant:** results depend on the row alone: same bits on every machine. A value that a type cannot
//! hold is an error that names the element, never an infinity in the file.

use ternary_core::Rounding;

use super::error::FormatError;
use super::format::Encoding;
use super::tensor_type::TensorType;
use crate::error::Result;

/// Appends one row (or several whole rows) in a type that is not ternary; see [`encode_row`].
///
/// ```
/// use gguf_bitnet::{TensorType, dequantize, quantize_row};
/// let row: Vec<f32> = (0..32).map(|i| i as f32 / 31.0).collect();
/// let mut bytes = Vec::new();
/// quantize_row(TensorType::Q8_0, &row, &mut bytes)?;
/// let mut back = [0.0; 32];
/// dequantize(TensorType::Q8_0, &bytes, &mut back)?;
/// assert!(row.iter().zip(back).all(|(a, b)| (a - b).abs() < 0.005));
/// # Ok::<(), gguf_bitnet::Error>(())
/// ```
///
/// # Errors
/// As [`encode_row`]; [`FormatError::NotWritable`] for ternary types, which need a [`Rounding`].
pub fn quantize_row(ty: TensorType, row: &[f32], out: &mut Vec<u8>) -> Result<()> {
    if ty.is_ternary() {
        return Err(FormatError::NotWritable { ty }.into());
    }
    encode_row(ty, Rounding::AbsMean, row, None, out)
}

/// Appends one row (or several whole rows) to `out`, in any type that is written.
///
/// `rounding` says how ternary types choose their trits; others ignore it. `importance`, one value
/// per element, weighs the squared error of ternary types and of Q6_K; others ignore it.
///
/// # Errors
/// [`FormatError::NotWritable`] for types that are only read, [`FormatError::RowNotBlocks`] for a length that does not
/// divide into blocks, [`FormatError::NotRepresentable`] for NaN, infinite and too large values,
/// [`FormatError::ImportanceLength`] and [`FormatError::BadImportance`]. On an error nothing is appended.
pub fn encode_row(
    ty: TensorType,
    rounding: Rounding,
    row: &[f32],
    importance: Option<&[f32]>,
    out: &mut Vec<u8>,
) -> Result<()> {
    let Some(encoder) = ty.format().encoder() else {
        return Err(FormatError::NotWritable { ty }.into());
    };
    let bytes = ty.row_bytes(row.len())?;
    check_values(ty, encoder.limit(), row)?;
    check_importance(row, importance)?;
    let start = out.len();
    out.resize(start + bytes, 0);
    let encoded = encoder.encode(row, Encoding { rounding, importance }, &mut out[start..]);
    encoded.map_err(|error| {
        out.truncate(start);
        FormatError::Ternary(error).into()
    })
}

/// Checks that every value is below the limit in magnitude.
fn check_values(ty: TensorType, limit: f32, row: &[f32]) -> Result<(), FormatError> {
    // The fold has no early exit, so that it becomes vector code. The comparison is false for NaN.
    let all_fit = row.iter().fold(true, |all, v| all & (v.abs() < limit));
    if !all_fit && let Some(at) = row.iter().position(|v| v.is_nan() || v.abs() >= limit) {
        return Err(FormatError::NotRepresentable { ty, at, value: row[at] });
    }
    Ok(())
}

fn check_importance(row: &[f32], importance: Option<&[f32]>) -> Result<(), FormatError> {
    let Some(importance) = importance else { return Ok(()) };
    if importance.len() != row.len() {
        return Err(FormatError::ImportanceLength { cols: row.len(), got: importance.len() });
    }
    match importance.iter().position(|h| !h.is_finite() || *h < 0.0) {
        Some(at) => Err(FormatError::BadImportance { at, value: importance[at] }),
        None => Ok(()),
    }
}
