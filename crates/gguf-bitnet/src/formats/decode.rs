//! Stored bytes to F32, for every type that is read.
//!
//! **Invariant:** results equal those of the format's reference implementation bit for bit: the
//! same products and sums in the same order, without fused operations.

use crate::error::{Error, Result};
use crate::formats::TensorType;

use super::float::f16_to_f32;
use super::{k_quants, legacy, ternary};

/// Writes the values of `bytes` to `out`, which says how many there are.
///
/// `bytes` are whole blocks: one or more rows, or the whole tensor where the type has no rows
/// ([`TensorType::is_whole_tensor`]). NaN and infinite values of float types and of scales pass
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
/// [`Error::DataLength`] and [`Error::RowNotBlocks`] when the lengths do not belong together,
/// [`Error::Ternary`] for an invalid code or scale.
pub fn dequantize(ty: TensorType, bytes: &[u8], out: &mut [f32]) -> Result<()> {
    let expected = ty.tensor_bytes(&[out.len()])?;
    if bytes.len() as u64 != expected {
        return Err(Error::DataLength { ty, elements: out.len(), expected, got: bytes.len() as u64 });
    }
    match ty {
        TensorType::F32 => numbers(bytes, out, f32::from_le_bytes),
        TensorType::F16 => numbers(bytes, out, |b| f16_to_f32(u16::from_le_bytes(b))),
        TensorType::Bf16 => numbers(bytes, out, |b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16)),
        TensorType::F64 => numbers(bytes, out, |b| f64::from_le_bytes(b) as f32),
        TensorType::I8 => numbers(bytes, out, |b| f32::from(i8::from_le_bytes(b))),
        TensorType::I16 => numbers(bytes, out, |b| f32::from(i16::from_le_bytes(b))),
        TensorType::I32 => numbers(bytes, out, |b| i32::from_le_bytes(b) as f32),
        TensorType::I64 => numbers(bytes, out, |b| i64::from_le_bytes(b) as f32),
        TensorType::Q4_0 => blocks(bytes, out, legacy::q4_0),
        TensorType::Q4_1 => blocks(bytes, out, legacy::q4_1),
        TensorType::Q5_0 => blocks(bytes, out, legacy::q5_0),
        TensorType::Q5_1 => blocks(bytes, out, legacy::q5_1),
        TensorType::Q8_0 => blocks(bytes, out, legacy::q8_0),
        TensorType::Q2K => blocks(bytes, out, k_quants::q2_k),
        TensorType::Q3K => blocks(bytes, out, k_quants::q3_k),
        TensorType::Q4K => blocks(bytes, out, k_quants::q4_k),
        TensorType::Q5K => blocks(bytes, out, k_quants::q5_k),
        TensorType::Q6K => blocks(bytes, out, k_quants::q6_k),
        TensorType::Iq1S => blocks(bytes, out, k_quants::iq1_s),
        TensorType::Tq1_0
        | TensorType::Tq2_0
        | TensorType::BitnetT158
        | TensorType::BitnetT158Flat
        | TensorType::I2s
        | TensorType::I2sArm => ternary::dequantize(ty, bytes, out)?,
    }
    Ok(())
}

/// One number of `N` bytes per value.
fn numbers<const N: usize>(bytes: &[u8], out: &mut [f32], value: impl Fn([u8; N]) -> f32) {
    for (out, &b) in out.iter_mut().zip(bytes.as_chunks().0) {
        *out = value(b);
    }
}

/// One block of `B` bytes per `W` values.
fn blocks<const B: usize, const W: usize>(bytes: &[u8], out: &mut [f32], block: impl Fn(&[u8; B], &mut [f32; W])) {
    for (out, b) in out.as_chunks_mut().0.iter_mut().zip(bytes.as_chunks().0) {
        block(b, out);
    }
}

/// The F16 at `at` of a block.
pub(super) fn f16_at(block: &[u8], at: usize) -> f32 {
    f16_to_f32(u16::from_le_bytes([block[at], block[at + 1]]))
}
