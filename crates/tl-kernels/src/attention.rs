//! The arithmetic of attention: products of queries with cached rows, and weighted sums of rows.
//!
//! ```text
//! dense.rs      one query and one row
//! rows.rs       many queries and rows of f32 or f16
//! columns.rs    many queries and a span of 64 rows of f16, stored by columns
//! int8.rs       many queries and a span of 64 rows of INT8
//! ```

pub mod columns;
pub mod dense;
pub mod int8;
pub mod rows;
mod value;
