//! The answers to one request while they are computed.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use moe_runtime::{
    AnswerOptions, Interrupt, Job, LoopConfig, Output, OutputEvent, OutputStart, Refusal, Sampler, Work,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::ending::{Ending, Usage};
use super::happening::Happening;
use super::order::{Form, Order};
use super::scores::Score;
use super::writer::Writer;
use crate::http::app::App;
use crate::http::engine::Engine;
use crate::http::failure::Failure;
use crate::http::metrics::Metrics;
use crate::load::Drafts;

#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) output: Output,
    /// Scores of the prompt's tokens with their positions, where they were asked for.
    pub(crate) prompt_scores: Vec<(usize, Score)>,
    /// Scores of the answer's tokens.
    pub(crate) scores: Vec<Score>,
    /// Where `scores` holds tokens of the content, not of its calls.
    pub(crate) text_scores: Vec<Range<usize>>,
    pub(crate) ending: Ending,
}

/// The jobs of a request. Dropping it cancels those that are not done.
#[derive(Debug)]
pub(crate) struct Run {
    events: UnboundedReceiver<(usize, Happening)>,
    interrupts: Vec<Interrupt>,
    choices: usize,
    /// Jobs that were submitted and have not ended.
    running: usize,
    /// The orders that were not submitted yet; `None` behind the last one, so that `events` ends with the last job.
    held: Option<Held>,
    deadline: tokio::time::Instant,
}

impl Run {
    /// Submits as many jobs of a request as there are slots; the others follow as these end, so that a long list of
    /// prompts does not fill the queue.
    ///
    /// # Errors
    /// A prompt that is too long, settings out of range, and a queue that takes no more.
    pub(crate) fn begin(app: &App, engine: Arc<Engine>, orders: Vec<Order>) -> Result<Run, Failure> {
        let (to, events) = unbounded_channel();
        let deadline = tokio::time::Instant::now() + app.settings.request_time;
        for order in &orders {
            check_context(&engine, order)?;
        }
        let choices = orders.len();
        let orders = orders.into_iter().enumerate().collect();
        let held = Some(Held { engine, metrics: app.metrics.clone(), orders, to });
        let mut run = Run { events, interrupts: Vec::new(), choices, running: 0, held, deadline };
        run.submit()?;
        Ok(run)
    }

    /// Submits orders until as many of this request run as there are slots. Where the queue is full, the next order stays
    /// for the end of a running job, if there is one.
    fn submit(&mut self) -> Result<(), Failure> {
        let Some(held) = &mut self.held else { return Ok(()) };
        while self.running < held.engine.slots {
            let Some((choice, order)) = held.orders.front() else { break };
            let interrupt = Interrupt::new();
            // A grammar takes time to compile; this thread serves connections too.
            let job = tokio::task::block_in_place(|| held.job(*choice, order.clone(), interrupt.clone()))?;
            match held.engine.queue.submit(job, held.engine.now()) {
                Ok(()) => {}
                Err(Refusal::Full { .. } | Refusal::AccountFull { .. }) if self.running > 0 => return Ok(()),
                Err(refusal) => return Err(refusal.into()),
            }
            held.orders.pop_front();
            self.interrupts.push(interrupt);
            self.running += 1;
        }
        if held.orders.is_empty() {
            self.held = None;
        }
        Ok(())
    }

    /// The next thing that happens, with the number of its answer; `None` behind the end of the last answer. A request that
    /// takes too long is interrupted.
    pub(crate) async fn next(&mut self) -> Option<(usize, Happening)> {
        if self.running == 0 {
            return None;
        }
        let received = match tokio::time::timeout_at(self.deadline, self.events.recv()).await {
            Ok(received) => received,
            Err(_) => {
                self.interrupts.iter().for_each(Interrupt::raise);
                if let Some((choice, _)) = self.held.take().and_then(|mut held| held.orders.pop_front()) {
                    return Some((choice, Happening::Failed(Failure::cancelled())));
                }
                self.events.recv().await
            }
        };
        let (choice, happening) = received?;
        if matches!(happening, Happening::Ended(_) | Happening::Failed(_)) {
            self.running -= 1;
            if let Err(failure) = self.submit() {
                return Some((choice, Happening::Failed(failure)));
            }
        }
        Some((choice, happening))
    }

    /// Waits for the whole answers.
    ///
    /// # Errors
    /// The first failure.
    pub(crate) async fn collect(mut self) -> Result<Vec<Whole>, Failure> {
        let mut parts: Vec<Parts> = std::iter::repeat_with(Parts::default).take(self.choices).collect();
        while let Some((choice, happening)) = self.next().await {
            let parts = &mut parts[choice];
            match happening {
                Happening::Output(events, score) => {
                    let has_text = events.iter().any(|event| matches!(event, OutputEvent::Content(_)));
                    let has_call = events.iter().any(|event| matches!(event, OutputEvent::Call(_)));
                    parts.output.extend(events);
                    parts.scores.extend(score);
                    if has_text {
                        parts.text_scores.push(parts.told..parts.scores.len());
                    }
                    if has_text || has_call {
                        parts.told = parts.scores.len();
                    }
                }
                Happening::PromptScore { position, score } => parts.prompt_scores.push((position, score)),
                Happening::Ended(ending) => parts.ending = Some(ending),
                Happening::Failed(failure) => return Err(failure),
                Happening::Started(..) | Happening::Prompt { .. } => {}
            }
        }
        let whole = |parts: Parts| {
            let Parts { output, prompt_scores, scores, text_scores, told: _, ending } = parts;
            let ending = ending.ok_or_else(|| Failure::broken("the engine stopped: restart the server"))?;
            Ok(Whole { output, prompt_scores, scores, text_scores, ending })
        };
        parts.into_iter().map(whole).collect()
    }
}

/// An answer that is being gathered.
#[derive(Default)]
struct Parts {
    output: Output,
    prompt_scores: Vec<(usize, Score)>,
    scores: Vec<Score>,
    text_scores: Vec<Range<usize>>,
    /// Scores of tokens whose text or call is complete.
    told: usize,
    ending: Option<Ending>,
}

/// Orders that wait for the end of others of their request.
#[derive(Debug)]
struct Held {
    engine: Arc<Engine>,
    metrics: Arc<Metrics>,
    orders: VecDeque<(usize, Order)>,
    to: UnboundedSender<(usize, Happening)>,
}

impl Held {
    /// The job of an order.
    fn job(&self, choice: usize, order: Order, interrupt: Interrupt) -> Result<Job, Failure> {
        let engine = &self.engine;
        let mut writer = Writer::new((engine.clone(), self.metrics.clone()), choice, &order, self.to.clone())?;
        let work = AnswerOptions {
            sampler: sampler(engine, &order)?,
            max_tokens: order.max_tokens,
            stop: engine.tokenizer.stop_ids().to_vec(),
            // A form repeats itself where it has to, as a list of numbers does.
            loops: match &order.rules.form {
                Some(Form { is_whole: true, .. }) => LoopConfig { max_period: 0, ..order.loops },
                _ => order.loops,
            },
            prompt_logits: order.prompt_logprobs,
            drafts: engine
                .drafts
                .as_ref()
                .map(Drafts::speculation)
                .transpose()
                .map_err(|error| Failure::from(&error))?,
        };
        Ok(Job {
            prompt: order.prompt.tokens,
            work: Work::Answer(Box::new(work)),
            priority: order.caller.priority,
            affinity: order.caller.affinity,
            account: order.caller.account,
            interrupt,
            on_event: Box::new(move |event| writer.take(event)),
        })
    }
}

/// The sampler of an order, at the start of its answer.
fn sampler(engine: &Engine, order: &Order) -> Result<Sampler, Failure> {
    let rules = &order.rules;
    let mut sampler =
        Sampler::new(order.sampling)?.with_logit_bias(rules.bias.clone())?.with_thought_budget(rules.thought_budget);
    if let Some(Form { field, grammar, .. }) = &rules.form {
        let compiled = engine.grammars.compile(grammar);
        sampler =
            sampler.with_constraint(Box::new(compiled.map_err(|error| Failure::field(*field, error.to_string()))?));
    }
    let is_thinking = order.prompt.start == OutputStart::Reasoning;
    sampler.begin_answer(engine.format.thought_end().filter(|_| is_thinking));
    Ok(sampler)
}

impl Drop for Run {
    fn drop(&mut self) {
        self.interrupts.iter().for_each(Interrupt::raise);
    }
}

/// The usage of all answers of a request, of which `per_prompt` each have one prompt, which counts once.
pub(crate) fn total_usage<'a>(endings: impl IntoIterator<Item = &'a Ending>, per_prompt: usize) -> Usage {
    let mut total = Usage::default();
    for (number, ending) in endings.into_iter().enumerate() {
        let usage = &ending.usage;
        if number % per_prompt.max(1) == 0 {
            total.prompt += usage.prompt;
            total.cached += usage.cached;
            total.from_disk += usage.from_disk;
        }
        total.answer += usage.answer;
        total.reasoning += usage.reasoning;
    }
    total
}

fn check_context(engine: &Engine, order: &Order) -> Result<(), Failure> {
    let (prompt, n_ctx) = (order.prompt.tokens.len(), engine.facts.n_ctx);
    if prompt == 0 {
        return Err(Failure::invalid("the prompt has no tokens"));
    }
    if prompt > n_ctx || (prompt == n_ctx && order.max_tokens > 0) {
        return Err(Failure::context(prompt, n_ctx));
    }
    Ok(())
}
