//! The parts of a layer, each forward with a tape and backward from it.
//!
//! | file | contents |
//! |---|---|
//! | `context` | what every part needs: threads, weights, windows |
//! | `linear` | products with a named matrix |
//! | `addition` | the trained addition of low rank to such a matrix |
//! | `mla`, `gqa` | attention of either kind |
//! | `network` | gate, up and down |
//! | `experts` | the router and its experts |

pub(super) mod addition;
pub(super) mod context;
pub(super) mod experts;
pub(super) mod gqa;
pub(super) mod linear;
pub(super) mod mla;
pub(super) mod network;
