//! Products of queries with cached rows, and sums of rows by weights: the arithmetic of attention.

pub mod columns;
pub mod dense;
pub mod int8;
pub mod rows;
mod value;
