//! The server without a socket and without a model: a script of tokens takes the place of the scheduler. For the tests of
//! arbitrary bytes, and for the fuzz targets of the dialects.
//!
//! ```text
//! bytes ──post──► routes ──► dialect ──► queue ──► player: the tokens of the script ──► answer ──► bytes
//! ```

mod exercise;
mod player;
mod server;
#[cfg(test)]
mod tests;
mod views;

#[cfg(fuzzing)]
pub(crate) use exercise::{Dialect, Exercise};
