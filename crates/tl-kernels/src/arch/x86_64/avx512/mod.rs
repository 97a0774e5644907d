//! AVX-512 (F, BW, DQ, VL), with or without VNNI: a group of sixteen f32 is one register, a ternary block four.

mod int8;
mod integer;
mod lookup;
mod registers;
mod tile;
mod token;
mod token_table;
mod trit_tile;
mod vector;

pub(in crate::arch) use token::Avx512;
