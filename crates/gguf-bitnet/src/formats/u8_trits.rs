//! Trits of BitNet checkpoints: two-bit codes of a matrix in four planes, in unsigned bytes.
//!
//! ```text
//! byte b of n / 4:  bits 1 0    3 2          5 4            7 6
//!                   weight b    b + n / 4    b + 2 n / 4    b + 3 n / 4        of the flattened matrix, n weights
//! ```
//! A code is the weight plus 1; code 3 is invalid. The scale lies in a tensor of its own ([`Scales`](crate::Scales)). The
//! checkpoint gives a quarter of the rows as the shape. Source: `pack_weights` of Hugging Face transformers
//! (`integrations/bitnet.py`).

use std::ops::Range;

use ternary_core::Error;

use super::format::{Extent, Format, Invalid, Layout};

/// Four planes of two-bit codes.
pub(super) struct U8Trits;

impl Format for U8Trits {
    fn layout(&self) -> Layout {
        Layout { id: None, name: "U8_TRITS", block_len: 4, block_bytes: 1 }
    }

    fn extent(&self) -> Extent {
        Extent::Planes
    }

    fn is_ternary(&self) -> bool {
        true
    }

    fn invalid(&self) -> Invalid {
        Invalid::Block { scales: &[], codes: 1 }
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) -> Result<(), Error> {
        decode_planes(bytes, 0..out.len(), out)
    }
}

/// Writes the weights `elements` of the matrix that `bytes` hold to `out`.
///
/// # Errors
/// [`Error::InvalidCode`] with the byte as block.
pub(crate) fn decode_planes(bytes: &[u8], elements: Range<usize>, out: &mut [f32]) -> Result<(), Error> {
    let mut out = out;
    let mut next = elements.start;
    while next < elements.end {
        let (plane, first) = (next / bytes.len(), next % bytes.len());
        let len = (bytes.len() - first).min(elements.end - next);
        let (run, rest) = std::mem::take(&mut out).split_at_mut(len);
        for (block, (out, byte)) in run.iter_mut().zip(&bytes[first..first + len]).enumerate() {
            match byte >> (2 * plane) & 3 {
                3 => return Err(Error::InvalidCode { block: first + block, weight: plane }),
                code => *out = f32::from(code) - 1.0,
            }
        }
        (out, next) = (rest, next + len);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_plane_is_a_quarter_of_the_matrix() {
        // Weights 0..8, two bytes: plane p holds weights 2 p and 2 p + 1.
        let bytes = [0b10_01_00_10, 0b00_10_01_01];
        let whole = [1.0, 0.0, -1.0, 0.0, 0.0, 1.0, 1.0, -1.0];
        for start in 0..8 {
            for end in start..=8 {
                let mut out = vec![9.0; end - start];
                decode_planes(&bytes, start..end, &mut out).unwrap();
                assert_eq!(out, whole[start..end], "{start}..{end}");
            }
        }
        let damaged = [bytes[0], bytes[1] | 0b0000_1100];
        let mut out = [0.0; 8];
        assert_eq!(U8Trits.decode(&damaged, &mut out), Err(Error::InvalidCode { block: 1, weight: 1 }));
        decode_planes(&damaged, 0..3, &mut out[..3]).unwrap();
    }
}
