//! The sentence encoder beside the model, and the thread that computes its vectors.
//!
//! Its texts wait in a queue of their own, so that they take no slot and no place of the requests to the model. One thread
//! takes them, a few at a time: what it computes shares the pool of the engine, whose workers serve one product at a time and
//! leave a second one to the thread that asks for it. So a step of the model never waits for the encoder; both share the processors.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use moe_runtime::{Job, JobEvent, JobQueue, StopReason};
use rlm_embed::encoder::BertEncoder;

use super::{Engine, Facts};
use crate::http::app::App;
use crate::http::failure::Failure;
use crate::output;

/// A loaded sentence encoder.
#[derive(Debug)]
pub(crate) struct Encoder {
    pub(crate) bert: BertEncoder,
    pub(crate) facts: Facts,
    pub(crate) queue: JobQueue,
}

impl Encoder {
    /// Texts of one request that wait at the same time.
    pub(crate) const TEXTS_AT_ONCE: usize = 16;

    /// Tokens of the texts that are encoded together, unless a single text has more: a text that arrives waits for no more than
    /// these, and so does the end of the server.
    pub(crate) const BATCH_TOKENS: usize = 512;

    /// The tokens of a text, all of which the encoder has to read.
    ///
    /// # Errors
    /// A text that is too long or cannot be cut into tokens.
    pub(crate) fn tokens(&self, text: &str) -> Result<Vec<u32>, Failure> {
        let tokens = self.bert.all_token_ids(text).map_err(|error| Failure::field("input", error.to_string()))?;
        match (tokens.len(), self.facts.n_ctx) {
            (n, n_ctx) if n > n_ctx => Err(Failure::context(n, n_ctx)),
            _ => Ok(tokens),
        }
    }

    /// Encodes the texts of the queue until it is closed and empty. Once `stop` is set, those that wait end without a vector.
    pub(crate) fn serve(&self, app: &App, engine: &Engine, stop: &AtomicBool) {
        while self.queue.wait() {
            let answer = |jobs: Vec<Job>| {
                let (ended, jobs): (Vec<Job>, Vec<Job>) =
                    jobs.into_iter().partition(|job| stop.load(Ordering::Relaxed) || job.interrupt.is_raised());
                ended.into_iter().for_each(|mut job| {
                    let _ = (job.on_event)(JobEvent::Ended(StopReason::Interrupt));
                });
                self.encode(app, jobs);
            };
            while self.queue.answer_next(Encoder::BATCH_TOKENS, || engine.now(), answer) {}
        }
    }

    fn encode(&self, app: &App, jobs: Vec<Job>) {
        let (prompts, owners): (Vec<_>, Vec<_>) = jobs.into_iter().map(|job| (job.prompt, job.on_event)).unzip();
        if prompts.is_empty() {
            return;
        }
        let begun = Instant::now();
        // A defect ends the requests of this batch, whose owners are dropped without an event, and not the thread.
        match catch_unwind(AssertUnwindSafe(|| self.bert.embed_ids(&prompts))) {
            Ok(Ok(vectors)) => {
                app.metrics.encoded(prompts.iter().map(Vec::len).sum(), begun.elapsed());
                for (mut on_event, vector) in owners.into_iter().zip(vectors.chunks_exact(self.facts.hidden)) {
                    let _ = on_event(JobEvent::Embedding(vector));
                }
            }
            Ok(Err(error)) => output::note(format_args!("a text could not be encoded: {error}")),
            Err(_) => {
                output::note("a text could not be encoded: the encoder met a defect of its own; please report it")
            }
        }
    }
}
