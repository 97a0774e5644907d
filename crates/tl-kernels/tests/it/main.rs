//! The kernels on every level of this machine against the scalar oracles, bit for bit.

#![allow(clippy::unwrap_used, reason = "the functions that the tests share fail like the tests")]

mod common;
mod integer;
mod latents;
mod levels;
mod lookup;
mod low_rank;
mod padded;
mod rounded;
mod tables;
mod tiles;
