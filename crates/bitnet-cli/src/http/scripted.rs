//! The server without a socket and without a model: a script of tokens takes the place of the scheduler. For the tests of
//! arbitrary bytes.
//!
//! ```text
//! bytes ──post──► routes ──► dialect ──► queue ──► player: the tokens of the script ──► answer ──► bytes
//! ```

mod exercise;
mod player;
mod server;
mod tests;
mod views;
