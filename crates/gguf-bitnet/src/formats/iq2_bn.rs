//! IQ2_BN of ik_llama.cpp: two-bit codes of BitNet weights, and one F32 scale in front of each row.
//!
//! ```text
//! row: d: f32 | block 0 | block 1 | ..      block: qs[16]      value = d (c - 1)
//!      weight 16 k + j of a block = bits 2k and 2k + 1 of byte j,  k = 0..4
//! ```
//! Code 3 is +2, as in Q2_0.

use ternary_core::Error;

use super::format::{Extent, Format, Invalid, Layout};
use super::trit_coder::{ScaleKind, TritCoder, TritGroup};

/// Bytes in front of a row: its scale.
const HEAD_BYTES: usize = 4;

/// Weights of a block.
const BLOCK_LEN: usize = 64;

/// The storage format IQ2_BN.
pub(super) struct Iq2Bn;

/// Splits a row into its scale and its codes.
///
/// # Errors
/// A scale that is not finite; `row` is its number.
fn parts(row: usize, bytes: &[u8]) -> Result<(f32, &[u8]), Error> {
    let (head, codes) = bytes.split_first_chunk::<HEAD_BYTES>().unwrap_or((&[0; HEAD_BYTES], &[]));
    let scale = f32::from_le_bytes(*head);
    if scale.is_finite() { Ok((scale, codes)) } else { Err(Error::BadScale { block: row, scale }) }
}

/// Code of weight `i` of the row.
fn code(codes: &[u8], i: usize) -> u8 {
    let (block, k, j) = (i / BLOCK_LEN, i % BLOCK_LEN / 16, i % 16);
    codes[16 * block + j] >> (2 * k) & 3
}

impl Format for Iq2Bn {
    fn layout(&self) -> Layout {
        Layout { id: Some(135), name: "IQ2_BN", block_len: BLOCK_LEN, block_bytes: BLOCK_LEN / 4 }
    }

    fn extent(&self) -> Extent {
        Extent::HeadedRows { head_bytes: HEAD_BYTES }
    }

    fn is_ternary(&self) -> bool {
        true
    }

    fn trits(&self) -> Option<&dyn TritCoder> {
        Some(self)
    }

    fn invalid(&self) -> Invalid {
        Invalid::RowScale
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) -> Result<(), Error> {
        let (scale, codes) = parts(0, bytes)?;
        for (i, out) in out.iter_mut().enumerate() {
            *out = scale * (f32::from(code(codes, i)) - 1.0);
        }
        Ok(())
    }
}

impl TritCoder for Iq2Bn {
    fn group(&self) -> TritGroup {
        TritGroup::Row
    }

    fn scale_kind(&self) -> ScaleKind {
        ScaleKind::F32
    }

    fn read(&self, bytes: &[u8], cols: usize, trits: &mut [i8], scales: &mut [f32]) -> Result<(), Error> {
        let rows = bytes.chunks_exact(HEAD_BYTES + cols / 4).zip(trits.chunks_exact_mut(cols));
        for (row, ((bytes, trits), out)) in rows.zip(scales).enumerate() {
            let (scale, codes) = parts(row, bytes)?;
            *out = scale;
            for (i, trit) in trits.iter_mut().enumerate() {
                *trit = match code(codes, i) {
                    3 => return Err(Error::InvalidCode { block: (row * cols + i) / BLOCK_LEN, weight: i % BLOCK_LEN }),
                    code => code as i8 - 1,
                };
            }
        }
        Ok(())
    }

    fn write(&self, trits: &[i8], cols: usize, scales: &[f32], out: &mut [u8]) -> Result<(), Error> {
        for ((trits, out), scale) in
            trits.chunks_exact(cols).zip(out.chunks_exact_mut(HEAD_BYTES + cols / 4)).zip(scales)
        {
            let (head, codes) = out.split_at_mut(HEAD_BYTES);
            head.copy_from_slice(&scale.to_le_bytes());
            codes.fill(0);
            for (i, trit) in trits.iter().enumerate() {
                codes[16 * (i / BLOCK_LEN) + i % 16] |= ((trit + 1) as u8) << (2 * (i % BLOCK_LEN / 16));
            }
        }
        Ok(())
    }
}
