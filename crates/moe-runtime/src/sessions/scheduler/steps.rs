//! The scheduler itself: fills slots from the queue, and computes one step of all of them at a time.

use std::sync::Arc;
use std::time::Duration;

use mla_attention::{CacheType, CompressedMlaCache};

use super::job::JobEvent;
use super::job_queue::JobQueue;
use super::limits::QueueLimits;
use super::report::{ExpertCount, SlotStatus, StepReport};
use super::running::Running;
use super::slot::Slot;
use super::speed::{Rows, StepSpeed};
use crate::adapters::set::AdapterSet;
use crate::error::{Error, Result};
use crate::forward::model::{CraftsmanModel, LOGIT_ROWS};
use crate::prompt_cache::{PromptCache, PromptKey};
use crate::sessions::generate::StopReason;
use crate::sessions::step::{Logits, Step, StepSegment};

/// Slots, queue, and the share of answers in a step.
#[derive(Clone, Copy, Debug)]
pub struct SchedulerOptions {
    /// Sequences that run at the same time, at least 1.
    pub slots: usize,
    /// Tokens of a sequence.
    pub n_ctx: usize,
    /// Type of the numbers in the caches.
    pub cache_type: CacheType,
    /// Most rows of prompts in a step without answers.
    pub chunk: usize,
    /// Most rows of prompts in a step with answers.
    pub prompt_rows: usize,
    /// The share of the time of such a step that belongs to the answers, above 0 and at most 1: as many rows ride along as the
    /// measured times allow.
    pub decode_share: f64,
    /// Limits of the queue.
    pub limits: QueueLimits,
}

/// Runs the jobs of a [`JobQueue`] over one model.
///
/// ```
/// use std::ops::ControlFlow;
/// use std::sync::{Arc, Mutex};
/// use std::time::Duration;
/// use mla_attention::CacheType;
/// use moe_runtime::{
///     AnswerOptions, CraftsmanModel, Interrupt, Job, JobEvent, LoadOptions, LoopConfig, Priority, QueueLimits, Sampler,
///     SamplerConfig, Scheduler, SchedulerOptions, Work,
/// };
///
/// let model = CraftsmanModel::load(&fixtures::path("goldens/glm-tiny"), &LoadOptions::default())?;
/// let limits = QueueLimits::default();
/// let options = SchedulerOptions {
///     slots: 2, n_ctx: 64, cache_type: CacheType::F16, chunk: 256, prompt_rows: 64, decode_share: 0.5, limits,
/// };
/// let mut scheduler = Scheduler::new(Arc::new(model), options)?;
/// let tokens = Arc::new(Mutex::new(Vec::new()));
/// let seen = tokens.clone();
/// let sampler = Sampler::new(SamplerConfig::greedy())?;
/// let (stop, loops) = (Vec::new(), LoopConfig::default());
/// let answer = AnswerOptions { sampler, max_tokens: 5, stop, loops, prompt_logits: false, drafts: None };
/// let job = Job {
///     prompt: vec![1, 2, 3],
///     work: Work::Answer(Box::new(answer)),
///     priority: Priority::Interactive,
///     affinity: String::new(),
///     account: String::new(),
///     interrupt: Interrupt::new(),
///     on_event: Box::new(move |event| {
///         if let JobEvent::Token { token, .. } = event {
///             seen.lock().unwrap().push(token);
///         }
///         ControlFlow::Continue(())
///     }),
/// };
/// scheduler.queue().submit(job, Duration::ZERO).expect("the queue is empty");
/// while scheduler.advance(Duration::ZERO).is_some() {}
/// assert_eq!(tokens.lock().unwrap().len(), 5);
/// # Ok::<(), moe_runtime::Error>(())
/// ```
#[derive(Debug)]
pub struct Scheduler {
    queue: JobQueue,
    options: SchedulerOptions,
    step: Step,
    /// The cache of each slot.
    caches: Vec<CompressedMlaCache>,
    slots: Vec<Slot>,
    /// Beginnings of prompts beside those in the slots.
    prompts: Option<(PromptCache, PromptKey)>,
    speed: StepSpeed,
    /// Starts of jobs so far.
    uses: u64,
    /// Slot and rows of each segment of the step.
    segments: Vec<(usize, usize)>,
}

impl Scheduler {
    /// A scheduler with empty slots.
    ///
    /// # Errors
    /// A context that the model was not made for, and memory for the slots that cannot be had.
    pub fn new(model: Arc<CraftsmanModel>, options: SchedulerOptions) -> Result<Scheduler> {
        let n = options.slots.max(1);
        let step = Step::new(model);
        let caches = (0..n).map(|_| step.new_cache(options.n_ctx, options.cache_type)).collect::<Result<_>>()?;
        let slots = std::iter::repeat_with(Slot::default).take(n).collect();
        let (queue, speed) = (JobQueue::new(options.limits, n), StepSpeed::new(n));
        Ok(Scheduler { queue, options, step, caches, slots, prompts: None, speed, uses: 0, segments: Vec::new() })
    }

    /// The same scheduler, which takes the beginnings of prompts from a cache and leaves there what it computes. The key is
    /// that of the model, the caches and the adapters.
    #[must_use]
    pub fn with_prompt_cache(self, prompts: Option<(PromptCache, PromptKey)>) -> Scheduler {
        Scheduler { prompts, ..self }
    }

    /// The same scheduler with adapters for all jobs.
    #[must_use]
    pub fn with_adapters(mut self, adapters: Option<Arc<AdapterSet>>) -> Scheduler {
        self.step.set_adapters(adapters);
        self
    }

    /// The queue that jobs are submitted to, from any thread.
    #[must_use]
    pub fn queue(&self) -> &JobQueue {
        &self.queue
    }

    /// The layout of the caches, for the key of a prompt cache.
    #[must_use]
    pub fn cache_layout(&self) -> &Arc<mla_attention::CacheLayout> {
        self.caches[0].layout()
    }

    /// Bytes of the prompt cache in memory and on disk.
    #[must_use]
    pub fn prompt_cache_bytes(&self) -> [u64; 2] {
        self.prompts.as_ref().map_or([0; 2], |(cache, _)| cache.bytes())
    }

    /// Blocks of the prompt cache in memory and on disk.
    #[must_use]
    pub fn prompt_cache_blocks(&self) -> [usize; 2] {
        self.prompts.as_ref().map_or([0; 2], |(cache, _)| cache.n_blocks())
    }

    /// The slots in their order.
    pub fn slots(&self) -> impl Iterator<Item = SlotStatus> {
        let of_job = |running: &Running| (running.job.prompt.len(), running.answer_tokens());
        let running = move |slot: &Slot| slot.running.as_ref().map(of_job);
        self.slots.iter().map(move |slot| SlotStatus { held_tokens: slot.held.len(), running: running(slot) })
    }

    /// The share of all positions of the slots that running jobs take.
    #[must_use]
    pub fn usage(&self) -> f64 {
        let running = self.slots().filter(|slot| slot.running.is_some()).map(|slot| slot.held_tokens);
        running.sum::<usize>() as f64 / (self.slots.len() * self.options.n_ctx.max(1)) as f64
    }

    /// Tokens that the slots hold, running and kept ones.
    #[must_use]
    pub fn held_tokens(&self) -> usize {
        self.slots.iter().map(|slot| slot.held.len()).sum()
    }

    /// Computes one step of all jobs that have a slot, after giving free slots to jobs that wait; `None` when there is nothing
    /// to compute. `now` is the time since some start, which never falls.
    ///
    /// An error of the step ends the jobs in it, whose owners get the error.
    pub fn advance(&mut self, now: Duration) -> Option<StepReport> {
        self.speed.ended(now);
        self.queue.end_waiting(false);
        self.end_interrupted(now);
        self.fill(now);
        let rows = self.add_segments(now);
        if self.segments.is_empty() {
            return None;
        }
        self.speed.begun(rows, now);
        let mut report = StepReport {
            sequences: self.segments.len(),
            prompt_rows: rows.prompts,
            answer_rows: rows.answers,
            draft_rows: rows.drafts,
            ..StepReport::default()
        };
        let mut experts = ExpertCount::default();
        let computed = self.step.run(&mut self.caches, &mut experts);
        (report.expert_layers, report.distinct_experts) = (experts.layers, experts.distinct);
        match computed {
            Ok(()) => {
                let beside = rows.answers.saturating_sub(1);
                for segment in 0..self.segments.len() {
                    report.accepted_rows += self.take_result(segment, beside, now);
                }
            }
            Err(error) => {
                for (slot, _) in std::mem::take(&mut self.segments) {
                    self.end(slot, Err(&error), now);
                }
            }
        }
        Some(report)
    }

    /// Ends all jobs, those that wait too.
    pub fn end_all(&mut self, now: Duration) {
        self.queue.end_waiting(true);
        for slot in 0..self.slots.len() {
            self.end(slot, Ok(StopReason::Interrupt), now);
        }
    }

    fn end_interrupted(&mut self, now: Duration) {
        for slot in 0..self.slots.len() {
            if self.slots[slot].running.as_ref().is_some_and(|running| running.job.interrupt.is_raised()) {
                self.end(slot, Ok(StopReason::Interrupt), now);
            }
        }
    }

    /// Gives free slots to jobs that wait: to each the slot that holds most of its prompt, or the one that was used longest
    /// ago.
    fn fill(&mut self, now: Duration) {
        while self.slots.iter().any(|slot| slot.running.is_none()) {
            let Some(job) = self.queue.pop() else { return };
            let free = self.slots.iter().enumerate().filter(|(_, slot)| slot.running.is_none());
            let best = free.max_by_key(|(_, slot)| (slot.common(&job.prompt), std::cmp::Reverse(slot.last_use)));
            let Some((number, _)) = best else { return };
            let config = self.step.model().config();
            let sizes = (config.vocab, config.hidden);
            let account = job.account.clone();
            let slot = &mut self.slots[number];
            self.uses += 1;
            slot.last_use = self.uses;
            let place = (number, &mut self.caches[number]);
            if slot.begin(job, place, self.prompts.as_mut(), sizes, now).is_none() {
                self.queue.finished(&account, 0, Duration::ZERO, now);
            }
        }
    }

    /// Adds the next rows of every job to the step.
    fn add_segments(&mut self, now: Duration) -> Rows {
        self.step.clear();
        self.segments.clear();
        let (mut rows, mut reading) = (Rows::default(), Vec::new());
        let answering = self.answering();
        let (mut room, beside) = (self.draft_room(answering), answering.saturating_sub(1));
        for number in 0..self.slots.len() {
            let slot = &mut self.slots[number];
            let Some(running) = &mut slot.running else { continue };
            if running.is_reading(slot.held.len()) {
                reading.push((running.pending(slot.held.len()).len(), number));
            } else if slot.held.len() >= self.options.n_ctx {
                self.end(number, Ok(StopReason::ContextFull), now);
            } else {
                let drafts = running.draft(room.min(self.options.n_ctx - slot.held.len() - 1), beside);
                if self.add(number, 1 + drafts, now) {
                    rows.answers += 1;
                    rows.drafts += drafts;
                    room -= drafts;
                }
            }
        }
        let SchedulerOptions { chunk, prompt_rows, decode_share, .. } = self.options;
        let mut left = match rows.answers {
            0 => chunk.max(1),
            answers => self.speed.prompt_rows(answers, decode_share, prompt_rows),
        };
        // Prompts share the rows; what a short one leaves goes to the longer ones.
        reading.sort_unstable();
        for (done, &(pending, number)) in reading.iter().enumerate() {
            let share = left.div_ceil(reading.len() - done);
            let wants_logits = self.slots[number].running.as_ref().is_some_and(|r| r.wants_prompt_logits());
            let most = if wants_logits { LOGIT_ROWS } else { usize::MAX };
            let n = pending.min(share).min(most);
            if n > 0 && self.add(number, n, now) {
                left -= n;
                rows.prompts += n;
            }
        }
        rows
    }

    /// Jobs whose prompt has been read.
    fn answering(&self) -> usize {
        let is_answering = |slot: &&Slot| slot.running.as_ref().is_some_and(|r| !r.is_reading(slot.held.len()));
        self.slots.iter().filter(is_answering).count()
    }

    /// Tokens of drafts that fit a step of `answering` jobs: none while prompts are read, whose rows take the time that drafts
    /// would, and as many as the buffer of logits holds.
    fn draft_room(&self, answering: usize) -> usize {
        let running = self.slots.iter().filter(|slot| slot.running.is_some()).count();
        if running > answering { 0 } else { LOGIT_ROWS.saturating_sub(answering) }
    }

    /// Adds `n` tokens of a slot to the step; whether they fit. A job that cannot go on is over.
    fn add(&mut self, number: usize, n: usize, now: Duration) -> bool {
        let slot = &self.slots[number];
        let Some(running) = &slot.running else { return false };
        let pending = running.pending(slot.held.len());
        // The last token of an answer and its draft are never cut: each of their rows has logits.
        let is_answer = !running.is_reading(slot.held.len());
        let logits = match (running.wants_prompt_logits() || is_answer, n == pending.len()) {
            (true, _) => Logits::All,
            (false, true) => Logits::Last,
            (false, false) => Logits::None,
        };
        let segment = StepSegment { cache: number, tokens: &pending[..n], logits, interrupt: &running.job.interrupt };
        match self.step.add(&self.caches, &segment) {
            Ok(_) => {
                self.segments.push((number, n));
                true
            }
            Err(error) => {
                self.end(number, Err(&error), now);
                false
            }
        }
    }

    /// Hands the result of a segment to its job, in a step of `beside` other answers; the tokens of its draft that became part
    /// of the answer.
    fn take_result(&mut self, segment: usize, beside: usize, now: Duration) -> usize {
        let (number, n) = self.segments[segment];
        if self.step.is_interrupted(segment) {
            self.end(number, Ok(StopReason::Interrupt), now);
            return 0;
        }
        let slot = &mut self.slots[number];
        let first = slot.held.len();
        let Some(running) = &mut slot.running else { return 0 };
        let logits = self.step.logits(segment);
        let vocab = self.step.model().config().vocab;
        let mut accepted = 0;
        let result = if running.is_reading(first) {
            slot.extend(n, &self.caches[number], self.prompts.as_mut());
            let Some(running) = &mut slot.running else { return 0 };
            let over = running.read((first, n), logits, self.step.hidden(segment), vocab);
            if over.is_none() && !running.is_reading(slot.held.len()) {
                let (_, over) = running.take(&logits[logits.len().saturating_sub(vocab)..], beside);
                running.go_on();
                over
            } else {
                Ok(over)
            }
        } else {
            let (confirmed, over) = running.take(logits, beside);
            accepted = confirmed - 1;
            running.observe(first, self.step.hidden_rows(segment, confirmed));
            // The prompt cache gets no position of a token that was not accepted.
            self.caches[number].truncate(first + confirmed);
            slot.extend(confirmed, &self.caches[number], self.prompts.as_mut());
            slot.running.iter_mut().for_each(Running::go_on);
            over
        };
        match result {
            Ok(None) => {}
            Ok(Some(reason)) => self.end(number, Ok(reason), now),
            Err(error) => self.end(number, Err(&error), now),
        }
        accepted
    }

    /// Takes the job out of a slot, whose sequence stays for the next one.
    fn end(&mut self, number: usize, result: std::result::Result<StopReason, &Error>, now: Duration) {
        let slot = &mut self.slots[number];
        let Some(mut running) = slot.running.take() else { return };
        let tokens = running.computed_tokens(slot.held.len());
        self.queue.finished(&running.job.account, tokens, now.saturating_sub(running.started), now);
        let event = match result {
            Ok(reason) => JobEvent::Ended(reason),
            Err(error) => JobEvent::Failed(error),
        };
        // The job is over, so a wish of its owner to end it has no effect.
        let _ = running.tell(event);
    }
}
