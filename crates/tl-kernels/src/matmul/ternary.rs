//! Products of ternary weights: one file for each layout in which the weights can lie.
//!
//! ```text
//! file_rows.rs      as files store them
//! tiles.rs          tiles of 32 rows in an arena: 2-bit fields (tile_product.rs) or five weights in a byte
//!                   (trit_tiles.rs); many tokens by tables of partial sums (token_tables.rs)
//! lookup.rs         TL1 and TL2: tables of activation sums
//! ```
//! **Invariant:** `acc = fma(d_b * a_b, int_b as f32, acc)` over ascending blocks, `int_b` exact: the bits of
//! `ternary_core::oracle`, whatever the layout.

mod file_rows;
mod layer;
mod lookup;
mod rows;
mod tile_product;
mod tiles;
mod token_tables;
mod trit_tiles;

pub use layer::BitLinear;
pub use tiles::LAYOUT_ID;
pub(crate) use tiles::packed_bytes;
pub(crate) use token_tables::TABLE_ROWS;
