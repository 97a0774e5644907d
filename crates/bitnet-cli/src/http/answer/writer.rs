//! On the engine's thread: the tokens of a job become the parts of an answer.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use moe_runtime::{AnswerReader, JobEvent, Logprobs, OutputParser, StopReason, StopStrings};
use tokio::sync::mpsc::UnboundedSender;

use super::ending::{Ending, Finish, Timings, Usage};
use super::happening::Happening;
use super::order::Order;
use super::scores::Score;
use crate::http::engine::Engine;
use crate::http::failure::Failure;
use crate::http::metrics::Metrics;
use crate::http::tally::Tally;

/// Takes the events of one job and sends what the routes need.
pub(super) struct Writer {
    engine: Arc<Engine>,
    /// The number of the answer among those of its request.
    choice: usize,
    to: UnboundedSender<(usize, Happening)>,
    reader: AnswerReader,
    stops: Vec<String>,
    /// How many of the most likely tokens are told beside each token; `None` for no scores.
    logprobs: Option<usize>,
    /// The tokens of the prompt whose scores are told, behind those of the prefix.
    prompt: Vec<u32>,
    usage: Usage,
    /// Why tokens of the prompt are computed, unless they had to give way.
    miss: &'static str,
    tally: Option<Arc<Tally>>,
    /// Tokens of the prompt that have positions.
    read: usize,
    metrics: Arc<Metrics>,
    submitted: Instant,
    started: Option<Instant>,
    first_token: Option<Instant>,
}

impl Writer {
    /// # Errors
    /// Stop strings that are too many or too long.
    pub(super) fn new(
        (engine, metrics): (Arc<Engine>, Arc<Metrics>),
        choice: usize,
        order: &Order,
        to: UnboundedSender<(usize, Happening)>,
    ) -> Result<Writer, Failure> {
        let mut parser = OutputParser::new(&engine.format, order.prompt.start);
        if let Some(tools) = &order.tools {
            parser = parser.with_tools(tools.clone());
        }
        let stops = StopStrings::new(order.rules.stops.clone()).map_err(|error| Failure::from(&error))?;
        let prompt = if order.prompt_logprobs { order.prompt.tokens.clone() } else { Vec::new() };
        Ok(Writer {
            engine,
            choice,
            to,
            reader: AnswerReader::new(parser, stops),
            stops: order.rules.stops.clone(),
            logprobs: order.logprobs,
            prompt,
            usage: Usage { prompt: order.prompt.tokens.len(), ..Usage::default() },
            miss: match order.changed {
                _ if order.prompt_logprobs => "scored",
                Some(changed) => changed.name(),
                None => "new",
            },
            tally: order.caller.tally.clone(),
            read: 0,
            metrics,
            submitted: Instant::now(),
            started: None,
            first_token: None,
        })
    }

    /// Takes an event; breaks when the answer is over, or the request that it belongs to is gone.
    pub(super) fn take(&mut self, event: JobEvent<'_>) -> ControlFlow<()> {
        match event {
            JobEvent::Started(start) => {
                self.started = Some(Instant::now());
                self.usage.cached = start.cached_tokens;
                self.usage.from_disk = start.disk_tokens;
                self.read = start.cached_tokens;
                if start.is_evicted {
                    self.miss = "evicted";
                }
                self.send(Happening::Started(start, self.miss))
            }
            JobEvent::Prompt { done } => {
                self.read = done;
                self.send(Happening::Prompt { done })
            }
            JobEvent::PromptLogits { position, logits } => self.prompt_score(position, logits),
            JobEvent::Token { token, logits } => self.token(token, logits),
            JobEvent::Ended(reason) => {
                match self.started {
                    Some(started) => self.end(reason, started),
                    None => self.end_in_queue(),
                }
                ControlFlow::Break(())
            }
            JobEvent::Failed(error) => {
                self.tally.iter().for_each(|tally| tally.ended("failed"));
                self.send(Happening::Failed(Failure::from(error)))
            }
            _ => ControlFlow::Continue(()),
        }
    }

    /// The score of the prompt's token behind `position`.
    fn prompt_score(&mut self, position: usize, logits: &[f32]) -> ControlFlow<()> {
        let (Some(&token), Some(top)) = (self.prompt.get(position + 1), self.logprobs) else {
            return ControlFlow::Continue(());
        };
        let score = Score::of(&self.engine.tokenizer, &Logprobs::of(logits, token, top));
        self.send(Happening::PromptScore { position: position + 1, score })
    }

    fn token(&mut self, token: u32, logits: &[f32]) -> ControlFlow<()> {
        self.first_token.get_or_insert_with(Instant::now);
        self.usage.answer += 1;
        let was_reasoning = self.reader.parser().is_reasoning();
        let mut events = Vec::new();
        let stopped = self.reader.push(&self.engine.tokenizer, token, &mut events).is_break();
        self.usage.reasoning = self.reader.parser().n_reasoning_tokens();
        let scored = self.logprobs.filter(|_| !was_reasoning && !stopped);
        let score = scored.map(|top| Score::of(&self.engine.tokenizer, &Logprobs::of(logits, token, top)));
        if !events.is_empty() || score.is_some() {
            self.send(Happening::Output(events, score))?;
        }
        if stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Ends a job that never had a slot, so that it has no answer.
    fn end_in_queue(&self) {
        let timings = Timings { queued: self.submitted.elapsed(), ..Timings::default() };
        self.metrics.cancelled("queue");
        self.count(&Ending { finish: Finish::Cancelled, usage: Usage::default(), timings, miss: self.miss });
        let _ = self.send(Happening::Failed(Failure::cancelled()));
    }

    fn end(&mut self, reason: StopReason, started: Instant) {
        let mut events = Vec::new();
        let stopped_by = self.reader.finish(&mut events);
        if !events.is_empty() {
            // A request that is gone takes neither these events nor the ending.
            let _ = self.send(Happening::Output(events, None));
        }
        let stop = stopped_by.and_then(|index| self.stops.get(index));
        let finish = match (stop, Finish::of(reason)) {
            (Some(stop), _) => Finish::StopString(stop.clone()),
            (None, Finish::Stop) if self.reader.parser().n_calls() > 0 => Finish::Calls,
            (None, finish) => finish,
        };
        let now = Instant::now();
        let first_token = self.first_token.unwrap_or(now);
        let timings =
            Timings { queued: started - self.submitted, prompt: first_token - started, answer: now - first_token };
        // A cancelled job may have read a part of its prompt only.
        let counted = Usage { prompt: self.read.max(self.usage.cached), ..self.usage };
        if finish == Finish::Cancelled {
            self.metrics.cancelled(if self.first_token.is_some() { "decode" } else { "prefill" });
        }
        let ending = Ending { finish, usage: self.usage, timings, miss: self.miss };
        self.count(&Ending { usage: counted, ..ending.clone() });
        let _ = self.send(Happening::Ended(ending));
    }

    fn count(&self, ending: &Ending) {
        self.metrics.ended(ending);
        self.tally.iter().for_each(|tally| tally.ended(ending.finish.name()));
    }

    fn send(&self, happening: Happening) -> ControlFlow<()> {
        match self.to.send((self.choice, happening)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }
}
