//! Runs of rows cut out of stored tensors, also of layouts that have no rows.

use std::ops::Range;

use ternary_core::Bytes;

use crate::error::Result;
use crate::formats::{Extent, FormatError, I2S_TAIL_BYTES, TensorType, decode_planes, dequantize};
use crate::names::error::NamesError;
use crate::source::{Scales, TensorInfo, TensorSource};

/// Decodes rows of a stored tensor, of any layout, into `out`, rounds them where their model does, and multiplies them by
/// their scales.
pub(super) fn read_stored_rows(
    source: &dyn TensorSource,
    index: usize,
    rows: Range<usize>,
    out: &mut [f32],
) -> Result<()> {
    decode_stored_rows(source, index, rows.clone(), out)?;
    if let Some(scale) = source.trit_scale(index)? {
        for value in &mut *out {
            *value = (*value / scale).round_ties_even().clamp(-1.0, 1.0) * scale;
        }
    }
    match source.scales(index) {
        Some(scales) => multiply(source, scales, rows, out),
        None => Ok(()),
    }
}

/// The scale of a stored tensor of trits: the one it is rounded with, or the one number beside it.
pub(super) fn packed_trit_scale(source: &dyn TensorSource, index: usize) -> Result<Option<f32>> {
    if let Some(scale) = source.trit_scale(index)? {
        return Ok(Some(scale));
    }
    let packed = source.tensors()[index].ty == TensorType::U8Trits;
    match source.scales(index).filter(|scales| packed && scales.grid == [1, 1] && scales.shared) {
        None => Ok(None),
        Some(scales) => {
            let mut scale = [1.0];
            multiply(source, Scales { matrix_rows: 1, block: [1, 1], ..scales }, 0..1, &mut scale)?;
            Ok(Some(scale[0]))
        }
    }
}

/// Multiplies rows of a tensor, `out`, by the scales of their blocks.
fn multiply(source: &dyn TensorSource, scales: Scales, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
    let (info, bytes) = (&source.tensors()[scales.tensor], source.bytes(scales.tensor)?);
    let width = info.ty.block_bytes();
    let mut of_row = vec![0.0; scales.grid[1]];
    let cols = out.len() / rows.len().max(1);
    for (row, out) in rows.zip(out.chunks_exact_mut(cols.max(1))) {
        let first = scales.first_of_row(row);
        dequantize(info.ty, &bytes[first * width..][..of_row.len() * width], &mut of_row)?;
        for (i, (&scale, block)) in of_row.iter().zip(out.chunks_mut(scales.block[1])).enumerate() {
            if !(scale.is_finite() && scale > 0.0) {
                return Err(NamesError::ScaleValue { scale: info.name.clone(), at: first + i, value: scale }.into());
            }
            let scale = if scales.divide { 1.0 / scale } else { scale };
            for value in block {
                *value *= scale;
            }
        }
    }
    Ok(())
}

fn decode_stored_rows(source: &dyn TensorSource, index: usize, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
    let info = &source.tensors()[index];
    let (bytes, cols) = (source.bytes(index)?, info.cols());
    if let Ok(row_bytes) = info.ty.row_bytes(cols) {
        if let Extent::HeadedRows { .. } = info.ty.format().extent() {
            let stored = bytes[rows.start * row_bytes..rows.end * row_bytes].chunks_exact(row_bytes);
            return stored.zip(out.chunks_exact_mut(cols)).try_for_each(|(row, out)| dequantize(info.ty, row, out));
        }
        return dequantize(info.ty, &bytes[rows.start * row_bytes..rows.end * row_bytes], out);
    }
    let wanted = rows.start * cols..rows.end * cols;
    if info.ty.format().extent() == Extent::Planes {
        return Ok(decode_planes(&bytes, wanted, out).map_err(FormatError::Ternary)?);
    }
    // A layout over the whole tensor: decode the groups that the rows touch.
    let group = info.ty.block_len();
    let start = wanted.start / group * group;
    let end = wanted.end.next_multiple_of(group).min(info.elements());
    let groups = group_bytes(info.ty, start..end);
    let mut decoded = vec![0.0; end - start];
    match i2s_slice(info, &bytes, start..end) {
        Some(slice) => dequantize(info.ty, &slice, &mut decoded)?,
        None => dequantize(info.ty, &bytes[groups], &mut decoded)?,
    }
    out.copy_from_slice(&decoded[wanted.start - start..wanted.end - start]);
    Ok(())
}

/// Bytes of the groups that hold the elements, which start at a group.
fn group_bytes(ty: TensorType, elements: Range<usize>) -> Range<usize> {
    let (group, bytes) = (ty.block_len(), ty.block_bytes());
    elements.start / group * bytes..elements.end.div_ceil(group) * bytes
}

/// The elements of an I2_S tensor as an I2_S tensor of its own (codes and a copy of the tail), if
/// the type is I2_S and they are whole groups.
pub(super) fn i2s_slice(info: &TensorInfo, bytes: &Bytes, elements: Range<usize>) -> Option<Bytes> {
    let group = info.ty.block_len();
    let i2s = matches!(info.ty, TensorType::I2s | TensorType::I2sArm);
    if !i2s || !elements.start.is_multiple_of(group) || !elements.end.is_multiple_of(group) {
        return None;
    }
    let tail = bytes.len().checked_sub(usize::try_from(I2S_TAIL_BYTES).ok()?)?;
    let mut copy = bytes.get(group_bytes(info.ty, elements))?.to_vec();
    copy.extend_from_slice(&bytes[tail..]);
    Some(copy.into())
}
