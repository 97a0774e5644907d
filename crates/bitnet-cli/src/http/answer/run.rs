//! The answers to one request while they are computed.

use std::sync::Arc;

use moe_runtime::{AnswerOptions, Interrupt, Job, LoopConfig, Output, OutputStart, Sampler, Work};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::ending::{Ending, Usage};
use super::happening::Happening;
use super::order::{Form, Order};
use super::scores::Score;
use super::writer::Writer;
use crate::http::app::App;
use crate::http::engine::Engine;
use crate::http::failure::Failure;

#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) output: Output,
    /// Scores of the prompt's tokens with their positions, where they were asked for.
    pub(crate) prompt_scores: Vec<(usize, Score)>,
    /// Scores of the answer's tokens.
    pub(crate) scores: Vec<Score>,
    pub(crate) ending: Ending,
}

/// The jobs of a request. Dropping it cancels those that are not done.
#[derive(Debug)]
pub(crate) struct Run {
    events: UnboundedReceiver<(usize, Happening)>,
    interrupts: Vec<Interrupt>,
    /// Answers that have not ended.
    left: usize,
    deadline: tokio::time::Instant,
}

impl Run {
    /// Submits the jobs of a request.
    ///
    /// # Errors
    /// A prompt that is too long, settings out of range, and a queue that takes no more.
    pub(crate) fn begin(app: &App, engine: &Arc<Engine>, orders: Vec<Order>) -> Result<Run, Failure> {
        let (to, events) = unbounded_channel();
        let deadline = tokio::time::Instant::now() + app.settings.request_time;
        let mut run = Run { events, interrupts: Vec::new(), left: orders.len(), deadline };
        for order in &orders {
            check_context(engine, order)?;
        }
        for (choice, order) in orders.into_iter().enumerate() {
            let interrupt = Interrupt::new();
            // A grammar takes time to compile; this thread serves connections too.
            let job = tokio::task::block_in_place(|| job(engine, choice, order, &to, interrupt.clone()))?;
            engine.queue.submit(job, engine.now())?;
            run.interrupts.push(interrupt);
        }
        Ok(run)
    }

    pub(crate) fn choices(&self) -> usize {
        self.interrupts.len()
    }

    /// The next thing that happens, with the number of its answer; `None` behind the end of the last answer. A request that
    /// takes too long is interrupted.
    pub(crate) async fn next(&mut self) -> Option<(usize, Happening)> {
        if self.left == 0 {
            return None;
        }
        let received = match tokio::time::timeout_at(self.deadline, self.events.recv()).await {
            Ok(received) => received,
            Err(_) => {
                self.interrupts.iter().for_each(Interrupt::raise);
                self.events.recv().await
            }
        };
        let (choice, happening) = received?;
        if matches!(happening, Happening::Ended(_) | Happening::Failed(_)) {
            self.left -= 1;
        }
        Some((choice, happening))
    }

    /// Waits for the whole answers.
    ///
    /// # Errors
    /// The first failure.
    pub(crate) async fn collect(mut self, app: &App) -> Result<Vec<Whole>, Failure> {
        let mut parts: Vec<Parts> = std::iter::repeat_with(Parts::default).take(self.choices()).collect();
        while let Some((choice, happening)) = self.next().await {
            let parts = &mut parts[choice];
            match happening {
                Happening::Output(events, score) => {
                    parts.output.extend(events);
                    parts.scores.extend(score);
                }
                Happening::PromptScore { position, score } => parts.prompt_scores.push((position, score)),
                Happening::Ended(ending) => {
                    app.metrics.ended(&ending);
                    parts.ending = Some(ending);
                }
                Happening::Failed(failure) => return Err(failure),
                Happening::Started(_) | Happening::Prompt { .. } => {}
            }
        }
        let whole = |parts: Parts| {
            let Parts { output, prompt_scores, scores, ending } = parts;
            let ending = ending.ok_or_else(|| Failure::broken("the engine stopped: restart the server"))?;
            Ok(Whole { output, prompt_scores, scores, ending })
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
    ending: Option<Ending>,
}

/// The job of an order.
fn job(
    engine: &Arc<Engine>,
    choice: usize,
    order: Order,
    to: &UnboundedSender<(usize, Happening)>,
    interrupt: Interrupt,
) -> Result<Job, Failure> {
    let mut writer = Writer::new(engine.clone(), choice, &order, to.clone())?;
    let work = AnswerOptions {
        sampler: sampler(engine, &order)?,
        max_tokens: order.max_tokens,
        stop: engine.tokenizer.stop_ids().to_vec(),
        // A form repeats itself where it has to, as a list of numbers does.
        loops: if order.rules.form.is_some() { LoopConfig { max_period: 0, ..order.loops } } else { order.loops },
        prompt_logits: order.prompt_logprobs,
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

/// The sampler of an order, at the start of its answer.
fn sampler(engine: &Engine, order: &Order) -> Result<Sampler, Failure> {
    let rules = &order.rules;
    let mut sampler =
        Sampler::new(order.sampling)?.with_logit_bias(rules.bias.clone())?.with_thought_budget(rules.thought_budget);
    if let Some(Form { field, grammar }) = &rules.form {
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
