//! The thread in the place of the scheduler: it answers each job with the tokens of the script.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use moe_runtime::{AnswerOptions, Job, JobEvent, JobQueue, JobStart, StopReason, Work};

/// The tokens that every answer has until it is ended, and the widths of logits and of vectors.
#[derive(Debug, Default)]
pub(super) struct Script {
    pub(super) tokens: Mutex<Vec<u32>>,
    pub(super) vocab: usize,
    pub(super) hidden: usize,
}

/// Answers the jobs of `queue` until it is closed.
pub(super) fn play(queue: &JobQueue, script: &Arc<Script>) {
    let logits = vec![0.0; script.vocab];
    while queue.wait() {
        let answer = |jobs: Vec<Job>| {
            let tokens = script.tokens.lock().unwrap_or_else(PoisonError::into_inner).clone();
            jobs.into_iter().for_each(|job| perform(job, &tokens, &logits, script.hidden));
        };
        while queue.answer_next(0, || Duration::ZERO, answer) {}
    }
}

fn perform(job: Job, tokens: &[u32], logits: &[f32], hidden: usize) {
    let Job { prompt, work, mut on_event, .. } = job;
    let mut breaks = |event: JobEvent<'_>| on_event(event).is_break();
    let start = JobStart { slot: 0, prompt_tokens: prompt.len(), cached_tokens: 0, disk_tokens: 0, is_evicted: false };
    let reason = match work {
        _ if breaks(JobEvent::Started(start)) => StopReason::Callback,
        Work::Answer(options) => answer(prompt.len(), &options, tokens, logits, &mut breaks),
        Work::Embed => {
            breaks(JobEvent::Embedding(&vec![0.5; hidden]));
            StopReason::MaxTokens
        }
    };
    breaks(JobEvent::Ended(reason));
}

fn answer(
    prompt_tokens: usize,
    options: &AnswerOptions,
    tokens: &[u32],
    logits: &[f32],
    breaks: &mut dyn FnMut(JobEvent<'_>) -> bool,
) -> StopReason {
    for position in 0..if options.prompt_logits { prompt_tokens } else { 0 } {
        if breaks(JobEvent::PromptLogits { position, logits }) {
            return StopReason::Callback;
        }
    }
    if breaks(JobEvent::Prompt { done: prompt_tokens }) {
        return StopReason::Callback;
    }
    for &token in tokens.iter().take(options.max_tokens) {
        if options.stop.contains(&token) {
            return StopReason::StopToken(token);
        }
        if breaks(JobEvent::Token { token, logits }) {
            return StopReason::Callback;
        }
    }
    match options.stop.first() {
        Some(&stop) if tokens.len() < options.max_tokens => StopReason::StopToken(stop),
        _ => StopReason::MaxTokens,
    }
}
