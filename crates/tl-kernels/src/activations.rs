//! The inputs of matrix products: `n` rows of `cols` activations, quantised once for all readers. Rows that are read
//! by integer products alone exist as codes only.
//!
//! **Invariant:** once the largest shape has been seen, nothing here allocates.
//!
//! ```text
//! lanes   row t: cols.div_ceil(16) groups of 16 f32; the padding of the last group is -0.0, which with a
//!         weight of +0.0 leaves a running sum unchanged to the bit: fma(0.0, -0.0, s) == s for every s
//! codes   row t, block b: 256 INT8 in the order of the TQ2_0 fields, so that 64 packed bytes meet them
//!         without a shuffle: place 64 n + 32 h + m holds element 128 h + 32 n + m  (n < 4, h < 2, m < 32)
//! scales  [n, blocks] f32, equal over a row in A8Token mode;  sums  [n, blocks] i32, the sum of a block
//! ```

mod buffer;
mod lookup_table;
mod quantized;

pub use buffer::ActivationBuffer;
pub(crate) use lookup_table::{GroupTable, Grouping, LookupTable, TableGuard};
pub(crate) use quantized::QuantizedRows;
