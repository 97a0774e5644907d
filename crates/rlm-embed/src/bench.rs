//! The worth of the recursion: claims with paraphrases and contradictions, measured with the encoder alone and with the loop.
//!
//! ```text
//! cached.rs      an encoder that encodes no text twice
//! claims.rs      the claims of a file, and the store of their texts
//! measure.rs     figures of every claim, for the encoder alone and for each variant of the recursion
//! fit.rs         the weights of the merge and the thresholds, fitted on splits that are not reported
//! flags.rs       contradiction flags: precision and recall per kind of pair
//! ```

mod cached;
mod claims;
mod fit;
mod flags;
mod measure;

pub use cached::CachedEmbedder;
pub use claims::{Claim, ClaimSet, Kind, Other, parse_claims};
pub use fit::{Fitted, fit_rules, fit_weights};
pub use flags::{FlagCounts, flagged_distractors, flags};
pub use measure::{ClaimFigures, measure};
