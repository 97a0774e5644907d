//! The storage types of weights: one file per format, decoding to F32, encoding from F32.
//!
//! A format is a file that implements [`Format`](format::Format), as [`Blocks`](blocks::Blocks) does for formats that are only
//! read, and a line of the table in `tensor_type.rs`; sizes, names, decoding, encoding and the check of weights follow from
//! these two.

mod blocks;
mod codebooks;
mod decode;
mod encode;
mod error;
mod f16;
mod f8;
mod floats;
mod format;
mod i2_s;
mod ids;
mod integers;
mod iq1_m;
mod iq1_s;
mod iq2_bn;
mod iq2_s;
mod iq2_xs;
mod iq2_xxs;
mod iq3_s;
mod iq3_xxs;
mod iq4_nl;
mod iq4_xs;
mod mxfp4;
mod q2_0;
mod q2_k;
mod q3_k;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;
mod sizes;
mod tensor_type;
mod ternary;
mod trit_coder;
mod trits;
mod u8_trits;
mod zero;

pub(crate) use format::{Extent, FloatBits, Format, Invalid};
pub(crate) use i2_s::I2S_TAIL_BYTES;
pub(crate) use u8_trits::decode_planes;
pub(crate) use zero::{is_zero, is_zeroed, trailing_zeros};

pub use decode::dequantize;
pub use encode::{encode_row, quantize_row};
pub use error::FormatError;
pub use ids::UnknownTypeName;
pub use tensor_type::TensorType;
pub use trit_coder::TritGroup;
pub use trits::Trits;
