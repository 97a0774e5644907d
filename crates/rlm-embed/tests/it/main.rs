//! Tests of the crate as its users see it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod appliance;
mod encoder;
mod graph;
mod offload;
mod store;
