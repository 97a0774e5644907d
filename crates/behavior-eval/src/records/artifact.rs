//! Teacher artifacts: what a teacher answered and decided, recorded once and read many times.
//!
//! ```text
//!   ROOT/<key>/artifact.bin          key = BLAKE3 of the identities of model and suite and of all settings
//!
//!   "CRAFTTA1" | u64 length | header, JSON: model, suite, settings, columns
//!   per prompt: its columns, one after the other, without gaps      tokens, answer, ids, weights, margins, ...
//!   index, JSON: per prompt the lengths and BLAKE3 hashes of its columns
//!   u64 length of the index | BLAKE3 of the index | "CRAFTTAE"
//! ```
//!
//! All numbers are little-endian; `docs/formats.md` has every column. A file is made by a resumable job, one unit per
//! prompt, and appears when it is whole.
//!
//! **Invariant:** an artifact never changes. Other inputs have another key; what is damaged, or of another model, suite
//! or setting, is refused with the reason and never overwritten.
//!
//! **Invariant:** no length is believed before it was compared with the size of the file, and no column before its hash
//! was. Memory: the index, and the columns of one prompt at a time.

mod layout;
mod reader;
mod record;
mod sparse_logits;
mod spec;
mod writer;

pub use layout::PromptEntry;
pub use reader::TeacherArtifact;
pub(crate) use record::open_recorded;
pub use record::{open_or_record, record, rounded};
pub use sparse_logits::SparseLogits;
pub use spec::{ArtifactSpec, Columns, LogitsAt};
pub use writer::{ArtifactWriter, TeacherRecord};
