//! The dense matrix product, computed in patches: some rows times some tokens, each sum with the lanes and tree of `dot16`.
//!
//! **Invariant:** the sum of a (row, token) pair is one chain of fused multiply-adds per lane, over
//! ascending groups of sixteen, whatever patch it falls into.
//!
//! ```text
//!            tokens ->                 one patch: R x T vectors of sixteen partial sums, in registers
//!   rows   | x0 x1 x2 x3 x4 x5
//!    w0    |  .  .  .  .  .  .         w is read once for T tokens, x once for R rows
//!    w1    |  .  .  .  .  .  .
//! ```
//! With few tokens (up to eight, or three in scalar code and WASM), the packed weights are converted on their way into
//! one patch after the other, and fetched from memory ahead of their use, in the order of their addresses. Later
//! patches find the rows in the first-level cache. With more tokens, a panel of rows is converted to f32 once (it stays
//! in the second-level cache) and all tokens are multiplied with it, 512 columns at a time.

mod panel;
mod product;
mod rows;

pub(crate) use panel::{panel_product, with_panel};
pub(crate) use product::DenseProduct;
pub(crate) use rows::{PackedRows, PanelSource};
