//! A resumable job: an output file that grows unit by unit and survives a kill at any moment.
//!
//! ```text
//! OUT.partial/manifest.json   inputs and settings, written first
//! OUT.partial/data            the output so far: the units' bytes, one after the other
//! OUT.partial/journal.jsonl   one checked line per finished unit (see `journal.rs`)
//! OUT.partial/state.N         what the caller needs to continue, where units do not follow from the inputs alone
//! OUT                         appears by rename when the job is committed
//! ```
//!
//! **Invariant:** a unit is in the journal only after its bytes are on the disk, and a line counts only if its
//! checksum, which covers all lines before it, is right. A kill or a power cut can also leave a torn line, bytes
//! without a line, or a line without bytes; the next [`Job::open`] cuts these off and so continues from exactly the
//! units that are whole. As the caller makes each unit's bytes from the inputs in the manifest alone, the result is
//! byte-identical.
//!
//! Committing writes a last line, renames the data, flushes the directory and moves the job's directory out of the way
//! in one step. After a kill between any two of these, the next `open` of the same job takes the remaining steps, and
//! [`Job::is_committed`] is then true.
//!
//! ```
//! use std::io::Write;
//! use gguf_bitnet::Job;
//! # let dir = tempfile::tempdir().unwrap();
//! # let out = dir.path().join("sum.txt");
//! let manifest = serde_json::json!({ "input": "abc", "upper": true });
//! let mut job = Job::open(&out, &manifest, false)?;
//! for i in job.units().len()..3 {
//!     job.append(serde_json::json!({ "unit": i }), |data| data.write_all(&[b'A' + i as u8]))?;
//! }
//! job.commit(&out)?;
//! assert_eq!(std::fs::read(&out).unwrap(), b"ABC");
//! # Ok::<(), gguf_bitnet::Error>(())
//! ```

mod data;
mod directory;
mod journal;
mod manifest;
mod resumable;

pub use data::JobUnit;
pub use manifest::first_difference;
pub use resumable::Job;
