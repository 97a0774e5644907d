//! Q8_0: 8 bits per weight and one F16 scale per 32 weights.
//!
//! ```text
//! d: f16 | qs[32]: i8      value = d q
//! ```

use ternary_core::Error;

use super::blocks::{decode_blocks, encode_blocks, f16_at};
use super::f16::{F16_LIMIT, f32_to_f16};
use super::format::{Encoder, Encoding, Format, Invalid, Layout};

/// The storage format Q8_0.
pub(super) struct Q8_0;

impl Format for Q8_0 {
    fn layout(&self) -> Layout {
        Layout { id: Some(8), name: "Q8_0", block_len: 32, block_bytes: 34 }
    }

    fn invalid(&self) -> Invalid {
        Invalid::Block { scales: &[0], codes: 0 }
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) -> Result<(), Error> {
        decode_blocks(bytes, out, decode);
        Ok(())
    }

    fn encoder(&self) -> Option<&dyn Encoder> {
        Some(self)
    }
}

impl Encoder for Q8_0 {
    fn limit(&self) -> f32 {
        // The block's scale is stored as F16, which bounds the weights.
        F16_LIMIT * 127.0
    }

    fn encode(&self, row: &[f32], _: Encoding<'_>, out: &mut [u8]) -> Result<(), Error> {
        encode_blocks(row, out, encode);
        Ok(())
    }
}

fn decode(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = f16_at(block, 0);
    for (out, &q) in out.iter_mut().zip(&block[2..]) {
        *out = d * f32::from(q as i8);
    }
}

/// Scale = largest magnitude / 127, codes rounded with halves away from zero, as the
/// reference does.
fn encode(x: &[f32; 32], out: &mut [u8; 34]) {
    let mut largest = [0.0f32; 8];
    for x in x.as_chunks::<8>().0 {
        for (largest, x) in largest.iter_mut().zip(x) {
            *largest = if x.abs() > *largest { x.abs() } else { *largest };
        }
    }
    let largest = largest.iter().fold(0.0f32, |m, &v| if v > m { v } else { m });
    let scale = largest / 127.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let (d, codes) = out.split_at_mut(2);
    d.copy_from_slice(&f32_to_f16(scale).to_le_bytes());
    for (code, x) in codes.iter_mut().zip(x) {
        // The inverse of a subnormal scale overflows; clamping keeps infinities in range.
        let v = (x * inverse).clamp(-127.0, 127.0);
        // The largest F32 below one half: adding it and cutting off rounds halves away from zero.
        *code = (v + 0.499_999_97_f32.copysign(v)) as i32 as i8 as u8;
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_cut_rounds_halves_away_from_zero() {
        let trick = |v: f32| (v + 0.499_999_97_f32.copysign(v)) as i32 as f32;
        for half in -254..=254 {
            let v = half as f32 / 2.0;
            for v in [v, v.next_up(), v.next_down()] {
                assert_eq!(trick(v), v.round(), "{v:e}");
            }
        }
    }
}
