//! The storage types of weights: ids and sizes, decoding to F32, encoding from F32.

mod decode;
mod encode;
mod float;
mod iq1_grid;
mod k_quants;
mod legacy;
mod q6_k;
mod tensor_type;
mod ternary;

pub(crate) use tensor_type::I2S_TAIL_BYTES;

pub use decode::dequantize;
pub use encode::{encode_row, quantize_row};
pub use tensor_type::{TensorType, UnknownTypeName};
