//! The thread of the sentence encoder.
//!
//! Its texts wait in a queue of their own, so that they take no slot and no place of the requests to the model. One thread
//! takes them, a few at a time: what it computes shares the pool of the engine, whose workers serve one product at a time and
//! leave a second one to the thread that asks for it. So a step of the model does not stand still, but beside texts it may have
//! one thread alone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use moe_runtime::{Job, JobEvent, StopReason};

use super::{Encoder, Engine};
use crate::http::app::App;
use crate::output;

/// Encodes the texts of the queue until it is closed and empty. Once `stop` is set, those that wait end without a vector.
pub(crate) fn serve_texts(encoder: &Encoder, app: &App, engine: &Engine, stop: &AtomicBool) {
    while encoder.queue.wait() {
        let answer = |jobs: Vec<Job>| {
            let (ended, jobs): (Vec<Job>, Vec<Job>) =
                jobs.into_iter().partition(|job| stop.load(Ordering::Relaxed) || job.interrupt.is_raised());
            ended.into_iter().for_each(|mut job| {
                let _ = (job.on_event)(JobEvent::Ended(StopReason::Interrupt));
            });
            encode(encoder, app, jobs);
        };
        while encoder.queue.answer_next(Encoder::BATCH_TOKENS, || engine.now(), answer) {}
    }
}

fn encode(encoder: &Encoder, app: &App, jobs: Vec<Job>) {
    let (prompts, owners): (Vec<_>, Vec<_>) = jobs.into_iter().map(|job| (job.prompt, job.on_event)).unzip();
    if prompts.is_empty() {
        return;
    }
    let begun = Instant::now();
    // A defect ends the requests of this batch, whose owners are dropped without an event, and not the thread.
    match catch_unwind(AssertUnwindSafe(|| encoder.bert.embed_ids(&prompts))) {
        Ok(Ok(vectors)) => {
            app.metrics.encoded(prompts.iter().map(Vec::len).sum(), begun.elapsed());
            for (mut on_event, vector) in owners.into_iter().zip(vectors.chunks_exact(encoder.facts.hidden)) {
                let _ = on_event(JobEvent::Embedding(vector));
            }
        }
        Ok(Err(error)) => output::note(format_args!("a text could not be encoded: {error}")),
        Err(_) => output::note("a text could not be encoded: the encoder met a defect of its own; please report it"),
    }
}
