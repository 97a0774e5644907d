//! The loop from a prompt's tokens to an answer's tokens.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use mla_attention::CompressedMlaCache;

use crate::error::Result;
use crate::forward::taps::Taps;
use crate::sessions::drafts::speculation::{DraftStatistics, Speculation};
use crate::sessions::drafts::verify::verify;
use crate::sessions::interrupt::Interrupt;
use crate::sessions::loops::{LoopConfig, LoopDetector, TokenLoop};
use crate::sessions::sampler::Sampler;
use crate::sessions::session::Session;

/// When an answer ends.
#[derive(Clone, Debug)]
pub struct GenerateOptions {
    /// Most tokens that are generated.
    pub max_tokens: usize,
    /// Tokens that end the answer; they are not part of it.
    pub stop: Vec<u32>,
    /// Ends an answer that repeats itself.
    pub loops: LoopConfig,
    /// Ends an answer from another thread, while its prompt is read too.
    pub interrupt: Interrupt,
}

impl Default for GenerateOptions {
    /// 512 tokens, no stop tokens, the default loop detection, no interrupt.
    fn default() -> GenerateOptions {
        GenerateOptions {
            max_tokens: 512,
            stop: Vec::new(),
            loops: LoopConfig::default(),
            interrupt: Interrupt::default(),
        }
    }
}

/// The reason for the end of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// The model chose this stop token.
    StopToken(u32),
    /// The answer has as many tokens as were asked for.
    MaxTokens,
    /// No more tokens fit the context.
    ContextFull,
    /// The callback ended it.
    Callback,
    /// [`GenerateOptions::interrupt`] was raised elsewhere.
    Interrupt,
    /// The answer repeated itself.
    Loop(TokenLoop),
}

impl StopReason {
    /// A word for reports and JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            StopReason::StopToken(_) => "stop",
            StopReason::MaxTokens => "length",
            StopReason::ContextFull => "context",
            StopReason::Callback => "cancelled",
            StopReason::Interrupt => "interrupt",
            StopReason::Loop(_) => "loop",
        }
    }
}

/// The tokens of a run and their times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Tokens of the prompt that were computed.
    pub prompt_tokens: usize,
    /// Tokens of the answer.
    pub generated_tokens: usize,
    /// Time from the start to the first token.
    pub prefill: Duration,
    /// Time from the first token to the end.
    pub decode: Duration,
    /// Steps behind the prompt, and the drafts that they verified.
    pub drafts: DraftStatistics,
}

impl Statistics {
    /// Prompt tokens per second.
    #[must_use]
    pub fn prefill_tokens_per_s(&self) -> f64 {
        per_second(self.prompt_tokens, self.prefill)
    }

    /// Tells subscribers of the domain's events.
    fn trace(&self, reason: StopReason) {
        tracing::info!(
            name: "InferenceCompleted",
            prompt_tokens = self.prompt_tokens,
            generated_tokens = self.generated_tokens,
            reason = reason.name(),
            prefill_tokens_per_s = self.prefill_tokens_per_s(),
            decode_tokens_per_s = self.decode_tokens_per_s(),
            decode_steps = self.drafts.steps,
            drafted_tokens = self.drafts.drafted_tokens,
            accepted_tokens = self.drafts.accepted_tokens,
            "InferenceCompleted"
        );
    }

    /// Generated tokens per second; the first one belongs to the prompt's time.
    #[must_use]
    pub fn decode_tokens_per_s(&self) -> f64 {
        per_second(self.generated_tokens.saturating_sub(1), self.decode)
    }
}

/// Time since its start; always zero on WASM, which has no clock.
struct Clock(Option<Instant>);

impl Clock {
    fn start() -> Clock {
        Clock((!cfg!(target_family = "wasm")).then(Instant::now))
    }

    fn elapsed(&self) -> Duration {
        self.0.map_or(Duration::ZERO, |start| start.elapsed())
    }
}

fn per_second(tokens: usize, time: Duration) -> f64 {
    let seconds = time.as_secs_f64();
    if seconds > 0.0 { tokens as f64 / seconds } else { 0.0 }
}

/// An answer in tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// Its tokens, without the stop token.
    pub tokens: Vec<u32>,
    /// The reason for its end.
    pub reason: StopReason,
    /// Tokens and times of the run.
    pub statistics: Statistics,
}

/// The callbacks of an answer, and the guesses at its tokens.
pub(crate) struct Companions<'a> {
    /// Gets each token of the answer as it comes, and may break.
    pub(crate) on_token: &'a mut dyn FnMut(u32) -> ControlFlow<()>,
    /// Gets the cache with all positions of the prompt, behind the first token of an answer that goes on.
    pub(crate) on_prompt: &'a mut dyn FnMut(&CompressedMlaCache),
    /// The drafts, which have begun with the prompt.
    pub(crate) drafts: Option<&'a mut Speculation>,
}

/// The tokens of an answer so far, and the rules for its end.
struct AnswerTokens<'a> {
    tokens: Vec<u32>,
    options: &'a GenerateOptions,
    loops: LoopDetector,
    on_token: &'a mut dyn FnMut(u32) -> ControlFlow<()>,
}

impl AnswerTokens<'_> {
    /// Takes the token that was chosen; the reason when the answer ends with it.
    fn take(&mut self, token: u32) -> Option<StopReason> {
        if self.options.stop.contains(&token) {
            return Some(StopReason::StopToken(token));
        }
        self.tokens.push(token);
        if (self.on_token)(token).is_break() {
            return Some(StopReason::Callback);
        }
        self.loops.push(token).map(StopReason::Loop)
    }
}

impl Session {
    /// Appends `prompt`, then token after token until a stop token, a limit, a loop, the callback or the interrupt ends
    /// the answer. `on_token` gets each token of the answer as it comes and may break. An interrupt while the prompt is
    /// read leaves the chunks that were read in the session.
    ///
    /// The last token of the answer is not yet part of the session: to go on, append it together with the tokens that
    /// follow.
    ///
    /// # Errors
    /// [`SessionError::ContextFull`](super::error::SessionError::ContextFull) when the prompt alone is too long, and every
    /// failure of [`Session::step`] and [`Sampler::sample`].
    pub fn generate<T: Taps>(
        &mut self,
        prompt: &[u32],
        options: &GenerateOptions,
        sampler: &mut Sampler,
        taps: &mut T,
        on_token: &mut dyn FnMut(u32) -> ControlFlow<()>,
    ) -> Result<Generation> {
        self.generate_with(
            prompt,
            options,
            sampler,
            taps,
            Companions { on_token, on_prompt: &mut |_| {}, drafts: None },
        )
    }

    /// As [`Session::generate`], with one more listener and with drafts. Taps see the rows of drafts that were not accepted
    /// too.
    pub(crate) fn generate_with<T: Taps>(
        &mut self,
        prompt: &[u32],
        options: &GenerateOptions,
        sampler: &mut Sampler,
        taps: &mut T,
        Companions { on_token, on_prompt, mut drafts }: Companions<'_>,
    ) -> Result<Generation> {
        // The clock is read for the statistics only; nothing below depends on it.
        let start = Clock::start();
        let before = self.len();
        let tokens = Vec::with_capacity(options.max_tokens.min(self.n_ctx()));
        let mut answer = AnswerTokens { tokens, options, loops: LoopDetector::new(options.loops), on_token };
        let mut steps = 0;
        // The last token of the answer and the draft that follows it.
        let mut rows = Vec::with_capacity(1 + Speculation::MAX_DRAFT);
        let mut prefill = None;
        if options.max_tokens == 0 {
            self.prefill(prompt, taps)?;
        }
        let reason = loop {
            if let Some(reason) = self.next_rows(&answer, drafts.as_deref_mut(), &mut rows) {
                break reason;
            }
            let first = self.len();
            let logits = match rows.is_empty() {
                true => self.read_prompt(prompt, &options.interrupt, taps, drafts.as_deref_mut())?,
                false => self.verify_unless(&rows, &options.interrupt, taps)?,
            };
            let Some(logits) = logits else { break StopReason::Interrupt };
            let draft = rows.get(1..).unwrap_or_default();
            let mut take = |token, _: &[f32]| {
                prefill.get_or_insert_with(|| start.elapsed());
                if let Some(drafts) = &mut drafts {
                    drafts.push(token);
                }
                answer.take(token)
            };
            let (confirmed, over) = verify(logits, draft, sampler, &mut take);
            if rows.is_empty() {
                if matches!(over, Ok(None)) {
                    on_prompt(self.cache());
                }
            } else {
                self.truncate(first + confirmed);
                steps += 1;
                if let Some(drafts) = &mut drafts {
                    drafts.count(confirmed - 1, 0);
                    drafts.observe(first, self.last_hidden(confirmed));
                }
            }
            if let Some(reason) = over? {
                break reason;
            }
        };
        let total = start.elapsed();
        let prefill = prefill.unwrap_or(total);
        let drafts =
            drafts.map_or(DraftStatistics { steps, ..DraftStatistics::default() }, |drafts| drafts.statistics());
        let statistics = Statistics {
            prompt_tokens: prompt.len().min(self.len() - before),
            generated_tokens: answer.tokens.len(),
            prefill,
            decode: total.saturating_sub(prefill),
            drafts,
        };
        statistics.trace(reason);
        Ok(Generation { tokens: answer.tokens, reason, statistics })
    }

    /// Fills `rows` with the last token of the answer and the draft that follows it; with none for an answer without tokens,
    /// whose prompt comes next. The reason when the answer ends here.
    fn next_rows(
        &self,
        answer: &AnswerTokens<'_>,
        drafts: Option<&mut Speculation>,
        rows: &mut Vec<u32>,
    ) -> Option<StopReason> {
        rows.clear();
        let left = answer.options.max_tokens.saturating_sub(answer.tokens.len());
        if left == 0 {
            return Some(StopReason::MaxTokens);
        }
        let &last = answer.tokens.last()?;
        if self.len() == self.n_ctx() {
            return Some(StopReason::ContextFull);
        }
        rows.push(last);
        if let Some(drafts) = drafts {
            rows.extend_from_slice(drafts.draft((left - 1).min(self.n_ctx() - self.len() - 1), 0));
        }
        None
    }

    /// As [`Session::step_unless`], with the final hidden states for the drafts.
    fn read_prompt<T: Taps>(
        &mut self,
        prompt: &[u32],
        interrupt: &Interrupt,
        taps: &mut T,
        mut drafts: Option<&mut Speculation>,
    ) -> Result<Option<&[f32]>> {
        self.read_unless(prompt, interrupt, taps, &mut |first, hidden| {
            if let Some(drafts) = &mut drafts {
                drafts.observe(first, hidden);
            }
        })
    }
}
