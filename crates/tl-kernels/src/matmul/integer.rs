//! The product of Q8_0, Q6_K and Q2_0 matrices with INT8 activations.
//!
//! **Invariant:** over ascending blocks, `acc = fma(d_b * a_b, int_b as f32, acc)` from 0, where `int_b` is the exact sum
//! of weights times codes over a block and `a_b` the scale of the activations it meets, as for ternary rows. A block
//! is 32 weights of Q8_0, 64 of Q2_0 or 256 of Q6_K; `int_b` of the last has the scales of its groups in it.
//!
//! ```text
//! few tokens: four rows, block by block, as they are stored        |int_b| <= 16 groups * 16 * 128 * 32 * 127 < 2^28
//! many tokens: sixteen rows become a panel of INT8 weights by quads of columns, once;
//!              strips of four or eight tokens are multiplied with it
//! ```
//! Source: integer products of blocks with their own scales are the idea of GGML's `vec_dot` functions.

mod panel;
mod product;

pub(crate) use panel::with_panel;
pub(crate) use product::{IntegerProduct, PANEL_FROM_TOKENS};
