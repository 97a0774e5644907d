//! A job in its slot: from the prompt's positions to the tokens of the answer.

use std::ops::ControlFlow;
use std::time::Duration;

use super::job::{AnswerOptions, Job, JobEvent, Work};
use crate::error::Result;
use crate::sessions::drafts::verify::verify;
use crate::sessions::generate::StopReason;
use crate::sessions::loops::LoopDetector;

/// A job that has a slot.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) job: Job,
    /// The time of its start.
    pub(super) started: Duration,
    /// Tokens whose positions were there at the start.
    pub(super) cached: usize,
    /// The last token of the answer, which has no position yet, and the draft that follows it in the step.
    next: Vec<u32>,
    /// The last token of the answer that was chosen.
    newest: Option<u32>,
    answer_tokens: usize,
    loops: Option<LoopDetector>,
    /// The sum of the final hidden states of an embedding, `[hidden]`.
    sum: Vec<f64>,
}

impl Running {
    pub(super) fn new(job: Job, started: Duration, cached: usize, hidden: usize) -> Running {
        let mut job = job;
        let (loops, sum) = match &mut job.work {
            Work::Answer(options) => {
                if let Some(drafts) = &mut options.drafts {
                    drafts.begin(&job.prompt);
                }
                (Some(LoopDetector::new(options.loops)), Vec::new())
            }
            Work::Embed => (None, vec![0.0; hidden]),
        };
        Running { job, started, cached, next: Vec::new(), newest: None, answer_tokens: 0, loops, sum }
    }

    /// Whether the prompt's positions can be taken from elsewhere: nothing is computed from those.
    pub(super) fn may_resume(work: &Work) -> bool {
        matches!(work, Work::Answer(options) if !options.prompt_logits)
    }

    pub(super) fn wants_prompt_logits(&self) -> bool {
        matches!(&self.job.work, Work::Answer(options) if options.prompt_logits)
    }

    /// The tokens that follow the first `held` of the sequence.
    pub(super) fn pending(&self, held: usize) -> &[u32] {
        match self.job.prompt.get(held..) {
            Some(rest) if !rest.is_empty() => rest,
            _ => &self.next,
        }
    }

    /// Whether the prompt has tokens without positions.
    pub(super) fn is_reading(&self, held: usize) -> bool {
        held < self.job.prompt.len()
    }

    /// Tokens of the answer that were chosen.
    pub(super) fn answer_tokens(&self) -> usize {
        self.answer_tokens
    }

    /// Tokens that were computed for the job.
    pub(super) fn computed_tokens(&self, held: usize) -> u64 {
        (held.saturating_sub(self.cached)) as u64
    }

    /// Tells the owner; [`StopReason::Callback`] when it ends the job.
    pub(super) fn tell(&mut self, event: JobEvent<'_>) -> Option<StopReason> {
        match (self.job.on_event)(event) {
            ControlFlow::Continue(()) => None,
            ControlFlow::Break(()) => Some(StopReason::Callback),
        }
    }

    /// Tells the owner of `n` rows of the prompt from position `first` on, with what it asked for: the logits and the final
    /// hidden states of these rows.
    pub(super) fn read(
        &mut self,
        (first, n): (usize, usize),
        logits: &[f32],
        hidden: &[f32],
        vocab: usize,
    ) -> Option<StopReason> {
        self.observe(first, hidden);
        if !self.sum.is_empty() {
            for row in hidden.chunks_exact(self.sum.len()) {
                self.sum.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
            }
        }
        if self.wants_prompt_logits() {
            for (row, logits) in logits.chunks_exact(vocab).enumerate() {
                let over = self.tell(JobEvent::PromptLogits { position: first + row, logits });
                if over.is_some() {
                    return over;
                }
            }
        }
        self.tell(JobEvent::Prompt { done: first + n })
    }

    /// Hands the final hidden states `[n, hidden]` of the positions from `first` on to the source of drafts.
    pub(super) fn observe(&mut self, first: usize, hidden: &[f32]) {
        if let Work::Answer(options) = &mut self.job.work
            && let Some(drafts) = &mut options.drafts
        {
            drafts.observe(first, hidden);
        }
    }

    /// Adds a draft of at most `room` tokens to the last token of the answer, for a step that has `beside` other rows; the
    /// number of its tokens.
    pub(super) fn draft(&mut self, room: usize, beside: usize) -> usize {
        let Work::Answer(options) = &mut self.job.work else { return 0 };
        let left = options.max_tokens.saturating_sub(self.answer_tokens + 1);
        let Some(drafts) = &mut options.drafts else { return 0 };
        self.next.truncate(1);
        self.next.extend_from_slice(drafts.draft(room.min(left), beside));
        self.next.len() - 1
    }

    /// Takes the logits `[rows, vocab]` that follow the prompt, or the last token of the answer and its draft. Returns the
    /// rows whose tokens are part of the sequence, and the reason when the job is over; [`Running::go_on`] comes next.
    ///
    /// # Errors
    /// Beside the rows: logits that no token can be chosen from.
    pub(super) fn take(&mut self, logits: &[f32], beside: usize) -> (usize, Result<Option<StopReason>>) {
        let Running { job, next, newest, answer_tokens, loops, .. } = self;
        let Work::Answer(options) = &mut job.work else {
            return (1, Ok(Some(self.finish_embedding())));
        };
        let AnswerOptions { sampler, max_tokens, stop, drafts, .. } = &mut **options;
        if *max_tokens == 0 {
            return (1, Ok(Some(StopReason::MaxTokens)));
        }
        let draft = next.get(1..).unwrap_or_default();
        let mut take = |token, logits: &[f32]| {
            if stop.contains(&token) {
                return Some(StopReason::StopToken(token));
            }
            *newest = Some(token);
            *answer_tokens += 1;
            if let Some(drafts) = drafts {
                drafts.push(token);
            }
            if (job.on_event)(JobEvent::Token { token, logits }).is_break() {
                return Some(StopReason::Callback);
            }
            let repeats = loops.as_mut().and_then(|loops| loops.push(token));
            let at_end = (*answer_tokens >= *max_tokens).then_some(StopReason::MaxTokens);
            repeats.map(StopReason::Loop).or(at_end)
        };
        let (confirmed, over) = verify(logits, draft, sampler, &mut take);
        if let Some(drafts) = drafts
            && !next.is_empty()
        {
            drafts.count(confirmed - 1, beside);
        }
        (confirmed, over)
    }

    /// Goes on behind the newest token, once the rows before it are part of the sequence.
    pub(super) fn go_on(&mut self) {
        self.next.clear();
        self.next.extend(self.newest);
    }

    /// Tells the owner the vector. The job is over, so its wish to end it has no effect.
    fn finish_embedding(&mut self) -> StopReason {
        let n = self.job.prompt.len() as f64;
        let mean: Vec<f32> = self.sum.iter().map(|sum| (sum / n) as f32).collect();
        let _ = self.tell(JobEvent::Embedding(&mean));
        StopReason::MaxTokens
    }
}
