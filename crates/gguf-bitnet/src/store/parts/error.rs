//! Parts that cannot be joined.

use std::path::PathBuf;

/// A defect of a part, or of a set of parts.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the sentence of a variant says what its fields are")]
pub enum PartError {
    /// Another kind of file.
    #[error("is no part of a job: give files that --part wrote")]
    NotAPart,
    /// A part of a later version.
    #[error("is a part of version {found}, and this program reads version 1: merge with the program that wrote it")]
    Version { found: u64 },
    /// A part whose bytes are not those that were written.
    #[error("is cut off or damaged ({what}): copy it again, or run its shard again")]
    Damaged { what: String },
    /// A part of other inputs or settings.
    #[error(
        "belongs to another job than {}: its `{key}` is {found}, that of the other is {first_value}: give parts of one job",
        first.display()
    )]
    OtherJob { first: PathBuf, key: String, found: String, first_value: String },
    /// A part of the same job that was cut in another way.
    #[error(
        "is shard {found} and {} is shard {first_shard}: parts that were cut differently overlap; give parts of one cut",
        first.display()
    )]
    Overlap { first: PathBuf, found: String, first_shard: String },
    /// Shards without a part.
    #[error("{missing} missing: run what is missing with --shard, then merge all parts again")]
    Missing { missing: String },
    /// Two results of one unit that are not equal.
    #[error(
        "holds unit {unit} with other bytes than {}: one of the two machines computed wrongly; run shard {shard} again on \
         both and keep out the one whose bytes change",
        first.display()
    )]
    Differs { first: PathBuf, unit: usize, shard: String },
}
