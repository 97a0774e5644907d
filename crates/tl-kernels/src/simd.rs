//! The operations of a vector unit as traits, and the types and sizes that they work on.
//!
//! **Invariant:** an implementation gives, element by element, the bits of the scalar expression in the method's
//! documentation. An algorithm that is written once over these traits is then equal on every machine.
//!
//! ```text
//! float.rs        arithmetic on sixteen f32                      Float
//! vector.rs       loads, ternary codes, integer dot products     Simd, and Kernel: code that is compiled per level
//! tile.rs         32 ternary rows in 2-bit fields                TileSimd
//! trit_tile.rs    32 ternary rows with five weights in a byte    TritTileSimd
//! token_table.rs  sums of activations, looked up by weights      TableSimd
//! int8.rs         64 INT8 rows of a cache                        Int8
//! lookup.rs       tables of 16 bytes: TL1 and TL2                Lookup, optional
//! ```
//! The room imports nothing of this crate. The traits are `pub` because sealed public traits mention them; code outside
//! of the crate cannot name them.

mod codes;
mod float;
mod int8;
mod lookup;
mod tile;
mod token_table;
mod trit_tile;
mod vector;

pub(crate) use codes::{LANES, QUAD_ROWS, field_order, tq1_codes};
pub(crate) use float::{Float, One, fma};
pub(crate) use int8::{BLOCK_QUADS, Int8, Vector};
pub use int8::{Group, ROWS};
pub(crate) use lookup::{Lookup, PortableLookup};
#[cfg(test)]
pub(crate) use tile::portable_block;
pub(crate) use tile::{CHUNKS, TILE, TileBlock, TileSimd, TileTokens, TokenBlock};
#[cfg(any(test, target_arch = "x86_64"))]
pub(crate) use token_table::COMBINATIONS;
#[cfg(target_arch = "x86_64")]
pub(crate) use token_table::portable_sums;
pub(crate) use token_table::{BlockColumn, TABLE_LEN, TableSimd};
#[cfg(target_arch = "x86_64")]
pub(crate) use trit_tile::{COLUMNS, QUADS};
pub(crate) use trit_tile::{GROUP_ROWS, RowBytes, TritBlock, TritTileSimd, expand, fill_row};
pub(crate) use vector::{Kernel, PatchShape, Simd};
