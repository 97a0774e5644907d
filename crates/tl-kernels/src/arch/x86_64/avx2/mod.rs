//! AVX2 with FMA and F16C, with or without AVX-VNNI: a group of sixteen f32 is two registers, a ternary block eight.

mod int8;
mod integer;
mod lookup;
mod registers;
mod tile;
mod token;
mod token_table;
mod trit_tile;
mod vector;

pub(super) use integer::dots_q8;
pub(super) use registers::{fma_totals, reduce8, tq1_fractions, twice};
pub(in crate::arch) use token::Avx2;
pub(super) use token_table::{Places, by_token, eight_columns};
