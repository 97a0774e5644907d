//! Agreement and disagreement between texts.
//!
//! ```text
//! statement.rs    a text as words, numbers, names and a polarity       antonyms.rs    pairs of opposite words
//! relation.rs     two statements and the cosine of their vectors to agreement, contradiction or neither
//! evidence.rs     a graph of chunks (of `behavior_eval::labels`) with the edges that these relations give
//! ```

mod antonyms;
mod evidence;
mod relation;
mod statement;

pub use evidence::evidence;
pub use relation::{Relation, RelationRules, Signal, Signals};
pub use statement::Statement;
