//! A piece of work for the model, and what its owner learns about it.

use std::fmt;
use std::ops::ControlFlow;

use crate::error::Error;
use crate::sessions::drafts::speculation::Speculation;
use crate::sessions::generate::StopReason;
use crate::sessions::interrupt::Interrupt;
use crate::sessions::loops::LoopConfig;
use crate::sessions::sampler::Sampler;

/// Receives the events of a job on the thread of the scheduler, and may end the job.
pub type OnJobEvent = dyn FnMut(JobEvent<'_>) -> ControlFlow<()> + Send;

/// The order between jobs that wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Priority {
    /// A person waits for it.
    #[default]
    Interactive,
    /// It runs when no interactive job waits.
    Batch,
}

/// The result that is computed for a prompt.
#[derive(Debug)]
pub enum Work {
    /// Tokens that continue the prompt.
    Answer(Box<AnswerOptions>),
    /// The mean of the final hidden states of the prompt.
    Embed,
}

/// How an answer is chosen and when it ends.
#[derive(Debug)]
pub struct AnswerOptions {
    /// Chooses the tokens, at the start of an answer.
    pub sampler: Sampler,
    /// Most tokens of the answer; 0 computes the prompt alone.
    pub max_tokens: usize,
    /// Tokens that end the answer; they are not part of it.
    pub stop: Vec<u32>,
    /// Ends an answer that repeats itself.
    pub loops: LoopConfig,
    /// Whether the owner gets the logits of the prompt's positions too. The whole prompt is then computed.
    pub prompt_logits: bool,
    /// Guesses at the tokens, which are verified in one step where no prompt is read beside it.
    pub drafts: Option<Speculation>,
}

/// A prompt and its work.
pub struct Job {
    /// The tokens of the prompt, at least one.
    pub prompt: Vec<u32>,
    /// The result that is computed for it.
    pub work: Work,
    /// Its place among jobs that wait.
    pub priority: Priority,
    /// Jobs of one account and key run in the order of their arrival; keys take turns.
    pub affinity: String,
    /// The account that the limits of [`QueueLimits`](super::QueueLimits) are counted for.
    pub account: String,
    /// Ends this job alone, in the queue or between two layers.
    pub interrupt: Interrupt,
    /// Receives the events. The last one is [`JobEvent::Ended`] or [`JobEvent::Failed`]; a refused job has none.
    pub on_event: Box<OnJobEvent>,
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Job { prompt, work, priority, account, .. } = self;
        let mut out = f.debug_struct("Job");
        out.field("prompt_tokens", &prompt.len()).field("work", work).field("priority", priority);
        out.field("account", account).finish_non_exhaustive()
    }
}

/// The beginning of a job in its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobStart {
    /// Number of the slot.
    pub slot: usize,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of it whose positions are held already and are not computed again.
    pub cached_tokens: usize,
    /// The part of `cached_tokens` that was read from files.
    pub disk_tokens: usize,
    /// Whether the tokens behind them were computed before, and had to give way to other prompts.
    pub is_evicted: bool,
}

/// News of a job, for its owner.
#[derive(Debug)]
#[non_exhaustive]
pub enum JobEvent<'a> {
    /// It has a slot.
    Started(JobStart),
    /// So many tokens of its prompt have positions now.
    Prompt {
        /// Tokens that have positions.
        done: usize,
    },
    /// The logits `[vocab]` that follow a position of the prompt, where they were asked for.
    PromptLogits {
        /// The position in the prompt.
        position: usize,
        /// They predict the token at `position + 1`.
        logits: &'a [f32],
    },
    /// The next token of the answer, and the logits `[vocab]` that it was chosen from.
    Token {
        /// Its id in the vocabulary of the model.
        token: u32,
        /// As the model computed them.
        logits: &'a [f32],
    },
    /// The mean of the final hidden states, `[hidden]`.
    Embedding(&'a [f32]),
    /// The job is over.
    Ended(StopReason),
    /// The job could not be computed.
    Failed(&'a Error),
}
