//! NEON, with or without the dot product extension: a group of sixteen f32 is four registers, a ternary block sixteen.

mod int8;
mod integer;
mod lookup;
mod registers;
mod tile;
mod token;
mod trit_tile;
mod vector;

pub(in crate::arch) use token::Neon;
