//! The events of answers, which the engine's thread sends to a route.

use moe_runtime::{JobStart, OutputEvent};

use super::ending::Ending;
use super::scores::Score;
use crate::http::failure::Failure;

/// An event of one of the answers.
#[derive(Debug)]
pub(crate) enum Happening {
    Started(JobStart),
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
