//! The events of answers, which the engine's thread sends to a route.

use moe_runtime::{JobStart, OutputEvent};

use super::ending::Ending;
use super::scores::Score;
use crate::http::failure::Failure;

/// An event of one of the answers.
#[derive(Debug)]
pub(crate) enum Happening {
    /// It has a slot; tokens of its prompt that are not cached are computed for this reason.
    Started(JobStart, &'static str),
    /// So many tokens of the prompt are read.
    Prompt {
        done: usize,
    },
    /// The score of the prompt's token at a position.
    PromptScore {
        position: usize,
        score: Score,
    },
    /// More of the answer, and the score of the token that it came with.
    Output(Vec<OutputEvent>, Option<Score>),
    Ended(Ending),
    Failed(Failure),
}
