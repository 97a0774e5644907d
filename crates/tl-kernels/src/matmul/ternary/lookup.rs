//! TL1 and TL2: products by look-ups in tables of activation sums (`activations/lookup_table.rs`).

mod format;
mod matrix;
mod tl1;
mod tl2;

pub(crate) use format::LookupFormat;
pub(crate) use matrix::{LookupMatrix, LookupProduct};
pub(crate) use tl1::Tl1;
pub(crate) use tl2::Tl2;
