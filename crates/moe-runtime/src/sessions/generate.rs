//! The loop from a prompt's tokens to an answer's tokens.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use mla_attention::CompressedMlaCache;

use crate::error::{Error, Result};
use crate::forward::taps::Taps;
use crate::sessions::error::SessionError;
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
}

impl Statistics {
    /// Prompt tokens per second.
    #[must_use]
    pub fn prefill_tokens_per_s(&self) -> f64 {
        per_second(self.prompt_tokens, self.prefill)
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

/// The callbacks of an answer.
pub(crate) struct Listeners<'a> {
    /// Gets each token of the answer as it comes, and may break.
    pub(crate) on_token: &'a mut dyn FnMut(u32) -> ControlFlow<()>,
    /// Gets the cache with all positions of the prompt, behind the first token of an answer that goes on.
    pub(crate) on_prompt: &'a mut dyn FnMut(&CompressedMlaCache),
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
    /// [`SessionError::ContextFull`] when the prompt alone is too long, and every failure of [`Session::step`] and
    /// [`Sampler::sample`].
    pub fn generate<T: Taps>(
        &mut self,
        prompt: &[u32],
        options: &GenerateOptions,
        sampler: &mut Sampler,
        taps: &mut T,
        on_token: &mut dyn FnMut(u32) -> ControlFlow<()>,
    ) -> Result<Generation> {
        self.generate_for(prompt, options, sampler, taps, Listeners { on_token, on_prompt: &mut |_| {} })
    }

    /// As [`Session::generate`], for one more listener.
    pub(crate) fn generate_for<T: Taps>(
        &mut self,
        prompt: &[u32],
        options: &GenerateOptions,
        sampler: &mut Sampler,
        taps: &mut T,
        Listeners { on_token, on_prompt }: Listeners<'_>,
    ) -> Result<Generation> {
        // The clock is read for the statistics only; nothing below depends on it.
        let start = Clock::start();
        let mut detector = LoopDetector::new(options.loops);
        let mut tokens = Vec::with_capacity(options.max_tokens.min(self.n_ctx()));
        let mut prefill = None;
        let before = self.len();
        let mut pending: &[u32] = prompt;
        let mut last;
        let reason = loop {
            if options.max_tokens <= tokens.len() {
                if tokens.is_empty() {
                    self.prefill(prompt, taps)?;
                }
                break StopReason::MaxTokens;
            }
            let logits = match self.step_unless(pending, &options.interrupt, taps) {
                Err(Error::Session(SessionError::ContextFull { .. })) if !tokens.is_empty() => {
                    break StopReason::ContextFull;
                }
                other => other?,
            };
            let Some(logits) = logits else { break StopReason::Interrupt };
            let token = sampler.sample(logits)?;
            prefill.get_or_insert_with(|| start.elapsed());
            if options.stop.contains(&token) {
                break StopReason::StopToken(token);
            }
            tokens.push(token);
            if on_token(token).is_break() {
                break StopReason::Callback;
            }
            if tokens.len() == 1 {
                on_prompt(self.cache());
            }
            if let Some(found) = detector.push(token) {
                break StopReason::Loop(found);
            }
            last = [token];
            pending = &last;
        };
        let total = start.elapsed();
        let prefill = prefill.unwrap_or(total);
        let statistics = Statistics {
            prompt_tokens: prompt.len().min(self.len() - before),
            generated_tokens: tokens.len(),
            prefill,
            decode: total.saturating_sub(prefill),
        };
        tracing::info!(
            name: "InferenceCompleted",
            prompt_tokens = statistics.prompt_tokens,
            generated_tokens = statistics.generated_tokens,
            reason = reason.name(),
            prefill_tokens_per_s = statistics.prefill_tokens_per_s(),
            decode_tokens_per_s = statistics.decode_tokens_per_s(),
            "InferenceCompleted"
        );
        Ok(Generation { tokens, reason, statistics })
    }
}
