//! F8_E4M3 and F8_E5M2: 8-bit floating-point numbers of checkpoints.
//!
//! ```text
//! E4M3: sign 1 | exponent 4, bias  7 | mantissa 3      no infinities; NaN is S.1111.111, the largest number 448
//! E5M2: sign 1 | exponent 5, bias 15 | mantissa 2      the upper half of an F16
//! ```
//! The weights of a checkpoint are these numbers times scales that lie in a tensor of their own; see
//! [`Scales`](crate::Scales). Source: Micikevicius et al., "FP8 Formats for Deep Learning" (2022), and the safetensors
//! format, whose `F8_E4M3` is PyTorch's `float8_e4m3fn`.

use ternary_core::Error;

use super::blocks::decode_numbers;
use super::f16::f16_to_f32;
use super::format::{FloatBits, Format, Invalid, Layout};

/// Numbers with 4 bits of exponent and 3 of mantissa.
pub(super) struct E4M3;

impl Format for E4M3 {
    fn layout(&self) -> Layout {
        Layout { id: None, name: "F8_E4M3", block_len: 1, block_bytes: 1 }
    }

    fn invalid(&self) -> Invalid {
        Invalid::Float(FloatBits { mantissa: 3, exponent: 4, infinities: false })
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) -> Result<(), Error> {
        decode_numbers(bytes, out, |[code]| {
            let (sign, magnitude) = (u16::from(code & 0x80), u16::from(code & 0x7f));
            // As an F16 the magnitude has the wrong bias: 15 instead of 7.
            let value = f16_to_f32(sign << 8 | magnitude << 7) * 256.0;
            if magnitude == 0x7f { f32::NAN } else { value }
        });
        Ok(())
    }
}

/// Numbers with 5 bits of exponent and 2 of mantissa.
pub(super) struct E5M2;

impl Format for E5M2 {
    fn layout(&self) -> Layout {
        Layout { id: None, name: "F8_E5M2", block_len: 1, block_bytes: 1 }
    }

    fn invalid(&self) -> Invalid {
        Invalid::Float(FloatBits { mantissa: 2, exponent: 5, infinities: true })
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) -> Result<(), Error> {
        decode_numbers(bytes, out, |[code]| f16_to_f32(u16::from(code) << 8));
        Ok(())
    }
}
