//! Integration tests of the crate's public API.

mod arithmetic;
mod packings;
mod products;
mod q2_0;
mod quantisers;
