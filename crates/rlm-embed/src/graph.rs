//! Agreement and disagreement between texts.
//!
//! ```text
//! statement.rs    a text as sentences with words, numbers, names, polarity      antonyms.rs    pairs of opposite words
//! relation.rs     two statements and the cosine of their vectors to agreement, contradiction or neither
//! evidence.rs     a graph of chunks (of `behavior_eval::labels`) with the edges that these relations give
//! ```

mod antonyms;
mod evidence;
mod relation;
mod statement;

pub use evidence::{Evidence, Passage};
pub use relation::{Comparison, Relation, RelationRules, Signal, Signals};
pub use statement::{Sentence, Statement};
