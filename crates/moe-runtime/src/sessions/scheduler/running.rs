//! A job in its slot: from the prompt's positions to the tokens of the answer.

use std::ops::ControlFlow;
use std::time::Duration;

use super::job::{AnswerOptions, Job, JobEvent, Work};
use crate::error::Result;
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
    /// The last token of the answer, which has no position yet.
    last: Option<u32>,
    answer_tokens: usize,
    loops: Option<LoopDetector>,
    /// The sum of the final hidden states of an embedding, `[hidden]`.
    sum: Vec<f64>,
}

impl Running {
    pub(super) fn new(job: Job, started: Duration, cached: usize, hidden: usize) -> Running {
        let (loops, sum) = match &job.work {
            Work::Answer(options) => (Some(LoopDetector::new(options.loops)), Vec::new()),
            Work::Embed => (None, vec![0.0; hidden]),
        };
        Running { job, started, cached, last: None, answer_tokens: 0, loops, sum }
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
            _ => self.last.as_slice(),
        }
    }

    /// Whether the prompt has tokens without positions.
    pub(super) fn is_reading(&self, held: usize) -> bool {
        held < self.job.prompt.len()
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

    /// Goes on behind the prompt or the last token, with the logits `[vocab]` that follow; the reason when the job is over.
    ///
    /// # Errors
    /// Logits that no token can be chosen from.
    pub(super) fn go_on(&mut self, logits: &[f32]) -> Result<Option<StopReason>> {
        let Work::Answer(options) = &mut self.job.work else {
            return Ok(Some(self.finish_embedding()));
        };
        let AnswerOptions { sampler, max_tokens, stop, .. } = &mut **options;
        if *max_tokens == 0 {
            return Ok(Some(StopReason::MaxTokens));
        }
        let token = sampler.sample(logits)?;
        if stop.contains(&token) {
            return Ok(Some(StopReason::StopToken(token)));
        }
        let max_tokens = *max_tokens;
        self.last = Some(token);
        self.answer_tokens += 1;
        if let Some(reason) = self.tell(JobEvent::Token { token, logits }) {
            return Ok(Some(reason));
        }
        let repeats = self.loops.as_mut().and_then(|loops| loops.push(token));
        let at_end = (self.answer_tokens >= max_tokens).then_some(StopReason::MaxTokens);
        Ok(repeats.map(StopReason::Loop).or(at_end))
    }

    /// Tells the owner the vector. The job is over, so its wish to end it has no effect.
    fn finish_embedding(&mut self) -> StopReason {
        let n = self.job.prompt.len() as f64;
        let mean: Vec<f32> = self.sum.iter().map(|sum| (sum / n) as f32).collect();
        let _ = self.tell(JobEvent::Embedding(&mean));
        StopReason::MaxTokens
    }
}
