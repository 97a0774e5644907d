//! Jobs of numbered units, whole or cut into shards whose parts are joined later.
//!
//! ```text
//! units 0 1 2 3 4 5 6      --shard 1/2 does 0 2 4 6, --shard 2/2 does 1 3 5
//!
//! a part, the file of one shard:
//!   {"part":1,"shard":"1/2","units":7,"manifest":{...}}\n
//!   {"unit":0,"name":"<64 hex>","bytes":9,"digest":"<64 hex>","failed":0}\n  then 9 bytes    once per unit, ascending
//!   {"end":4,"digest":"<64 hex>"}\n
//! ```
//! `name` is BLAKE3(manifest, number of the unit): results of one name are results of the same work, wherever they were made,
//! and must be equal. `digest` is BLAKE3 of the unit's bytes, that of the end BLAKE3 of all names and digests.
//!
//! **Invariant:** the bytes of a unit follow from the manifest and its number alone, so the units of all parts, in order, are
//! the bytes of the job that was not cut.

mod error;
mod format;
mod part;
mod shard;
mod union;
mod unit_job;

pub use error::PartError;
pub use shard::Shard;
pub use union::Parts;
pub use unit_job::{Cut, UnitJob, UnitResult};
