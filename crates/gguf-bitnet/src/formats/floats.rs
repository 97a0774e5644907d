//! Floating-point numbers: F32, F16, BF16 and F64.
//!
//! ```text
//! F64: sign 1 | exponent 11 | mantissa 52      F16:  sign 1 | exponent 5 | mantissa 10
//! F32: sign 1 | exponent  8 | mantissa 23      BF16: sign 1 | exponent 8 | mantissa  7, the upper half of an F32
//! ```

use ternary_core::Error;

use super::blocks::{decode_numbers, encode_numbers};
use super::f16::{F16_LIMIT, f16_to_f32, f32_to_f16};
use super::format::{Encoder, Encoding, FloatBits, Format, Invalid, Layout};

/// From this magnitude on, BF16 rounds to infinity: the largest BF16 and half a unit.
const BF16_LIMIT: f32 = f32::from_bits(0x7f7f_8000);

/// IEEE binary32, stored as it is computed with.
pub(super) struct F32;

impl Format for F32 {
    fn layout(&self) -> Layout {
        Layout { id: Some(0), name: "F32", block_len: 1, block_bytes: 4 }
    }

    fn invalid(&self) -> Invalid {
        Invalid::Float(FloatBits { mantissa: 23, exponent: 8, infinities: true })
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) -> Result<(), Error> {
        decode_numbers(bytes, out, f32::from_le_bytes);
        Ok(())
    }

    fn encoder(&self) -> Option<&dyn Encoder> {
        Some(self)
    }
}

impl Encoder for F32 {
    fn encode(&self, row: &[f32], _: Encoding<'_>, out: &mut [u8]) -> Result<(), Error> {
        encode_numbers(row, out, f32::to_le_bytes);
        Ok(())
    }
}

/// IEEE binary16, rounded to nearest even when it is written.
pub(super) struct F16;

impl Format for F16 {
    fn layout(&self) -> Layout {
        Layout { id: Some(1), name: "F16", block_len: 1, block_bytes: 2 }
    }

    fn invalid(&self) -> Invalid {
        Invalid::Float(FloatBits { mantissa: 10, exponent: 5, infinities: true })
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) -> Result<(), Error> {
        decode_numbers(bytes, out, |b| f16_to_f32(u16::from_le_bytes(b)));
        Ok(())
    }

    fn encoder(&self) -> Option<&dyn Encoder> {
        Some(self)
    }
}

impl Encoder for F16 {
    fn limit(&self) -> f32 {
        F16_LIMIT
    }

    fn encode(&self, row: &[f32], _: Encoding<'_>, out: &mut [u8]) -> Result<(), Error> {
        encode_numbers(row, out, |v| f32_to_f16(v).to_le_bytes());
        Ok(())
    }
}

/// The upper half of binary32.
pub(super) struct Bf16;

impl Format for Bf16 {
    fn layout(&self) -> Layout {
        Layout { id: Some(30), name: "BF16", block_len: 1, block_bytes: 2 }
    }

    fn invalid(&self) -> Invalid {
        Invalid::Float(FloatBits { mantissa: 7, exponent: 8, infinities: true })
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) -> Result<(), Error> {
        decode_numbers(bytes, out, |b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16));
        Ok(())
    }

    fn encoder(&self) -> Option<&dyn Encoder> {
        Some(self)
    }
}

impl Encoder for Bf16 {
    fn limit(&self) -> f32 {
        BF16_LIMIT
    }

    fn encode(&self, row: &[f32], _: Encoding<'_>, out: &mut [u8]) -> Result<(), Error> {
        encode_numbers(row, out, |v| f32_to_bf16(v).to_le_bytes());
        Ok(())
    }
}

/// The nearest BF16, ties to even, of a finite value below the limit.
fn f32_to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// IEEE binary64, rounded to F32 when it is read.
pub(super) struct F64;

impl Format for F64 {
    fn layout(&self) -> Layout {
        Layout { id: Some(28), name: "F64", block_len: 1, block_bytes: 8 }
    }

    fn invalid(&self) -> Invalid {
        Invalid::Float(FloatBits { mantissa: 52, exponent: 11, infinities: true })
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) -> Result<(), Error> {
        decode_numbers(bytes, out, |b| f64::from_le_bytes(b) as f32);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_rounds_to_nearest_even() {
        for bits in (0..0x7f7f_8000u32).step_by(4099).chain([0x3f80_8000, 0x3f81_8000, 0x7f7f_7fff, 1]) {
            for value in [f32::from_bits(bits), -f32::from_bits(bits)] {
                assert_eq!(f32_to_bf16(value), half::bf16::from_f32(value).to_bits(), "{bits:#x}");
            }
        }
    }
}
