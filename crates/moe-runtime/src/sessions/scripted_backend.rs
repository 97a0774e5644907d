//! A backend that answers fixed texts, for tests of programs that are generic over [`InferenceBackend`].

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::path::Path;

use crate::error::{Error, Result};
use crate::load::loader::LoadOptions;
use crate::sessions::backend::{InferenceBackend, OnText, Prompt};
use crate::sessions::error::SessionError;
use crate::sessions::generate::{GenerateOptions, Generation, Statistics, StopReason};
use crate::sessions::sampler::Sampler;

/// Bytes that a text can have: the width of a scripted embedding.
const BYTES: usize = 256;

/// Most bytes of a script.
const MAX_SCRIPT_BYTES: u64 = 16 << 20;

/// Answers the texts of a script, one for each call, and remembers the prompts.
///
/// A character counts as a token and is one piece of the answer.
///
/// ```
/// use std::ops::ControlFlow;
/// use moe_runtime::{GenerateOptions, InferenceBackend, Prompt, Sampler, SamplerConfig, ScriptedBackend};
/// let mut backend = ScriptedBackend::new(["Because air scatters blue light."]);
/// let mut sampler = Sampler::new(SamplerConfig::greedy())?;
/// let mut answer = String::new();
/// backend.generate(Prompt::Raw("Why is the sky blue?"), &mut sampler, &GenerateOptions::default(), &mut |piece| {
///     answer.push_str(piece);
///     ControlFlow::Continue(())
/// })?;
/// assert_eq!(answer, "Because air scatters blue light.");
/// assert_eq!(backend.prompts(), ["Why is the sky blue?"]);
/// # Ok::<(), moe_runtime::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ScriptedBackend {
    answers: VecDeque<String>,
    prompts: Vec<String>,
    n_ctx: usize,
}

impl ScriptedBackend {
    /// A backend that answers `answers` in their order.
    pub fn new<T: Into<String>>(answers: impl IntoIterator<Item = T>) -> ScriptedBackend {
        ScriptedBackend {
            answers: answers.into_iter().map(Into::into).collect(),
            prompts: Vec::new(),
            n_ctx: usize::MAX,
        }
    }

    /// The same backend with room for `n_ctx` characters.
    #[must_use]
    pub fn with_context(self, n_ctx: usize) -> ScriptedBackend {
        ScriptedBackend { n_ctx, ..self }
    }

    /// The prompts of all calls so far.
    #[must_use]
    pub fn prompts(&self) -> &[String] {
        &self.prompts
    }
}

impl InferenceBackend for ScriptedBackend {
    /// Reads a text file; each line is an answer.
    fn load(path: &Path, n_ctx: usize, _: &LoadOptions) -> Result<ScriptedBackend> {
        let text = gguf_bitnet::read_text(path, MAX_SCRIPT_BYTES)?;
        Ok(ScriptedBackend::new(text.lines()).with_context(n_ctx))
    }

    fn supported_architectures() -> Vec<&'static str> {
        vec!["scripted"]
    }

    fn n_ctx(&self) -> usize {
        self.n_ctx
    }

    fn count_tokens(&self, prompt: Prompt<'_>) -> Result<usize> {
        Ok(prompt.text().chars().count())
    }

    /// # Errors
    /// [`SessionError::ContextFull`] for a prompt that is too long, [`SessionError::ScriptEnded`] when there is no answer
    /// left.
    fn generate(
        &mut self,
        prompt: Prompt<'_>,
        _: &mut Sampler,
        options: &GenerateOptions,
        on_text: &mut OnText<'_>,
    ) -> Result<Generation> {
        let prompt_tokens = self.count_tokens(prompt)?;
        if prompt_tokens > self.n_ctx {
            return Err(Error::Session(SessionError::ContextFull { have: self.n_ctx, need: prompt_tokens }));
        }
        self.prompts.push(prompt.text().to_owned());
        let calls = self.prompts.len();
        let answer = self.answers.pop_front().ok_or(Error::Session(SessionError::ScriptEnded { calls }))?;
        let mut tokens = Vec::new();
        let mut reason = StopReason::StopToken(0);
        for character in answer.chars() {
            if options.interrupt.is_raised() {
                reason = StopReason::Interrupt;
                break;
            }
            if prompt_tokens + tokens.len() >= self.n_ctx {
                reason = StopReason::ContextFull;
                break;
            }
            if tokens.len() >= options.max_tokens {
                reason = StopReason::MaxTokens;
                break;
            }
            tokens.push(u32::from(character));
            if on_text(character.encode_utf8(&mut [0; 4])) == ControlFlow::Break(()) {
                reason = StopReason::Callback;
                break;
            }
        }
        let statistics = Statistics { prompt_tokens, generated_tokens: tokens.len(), ..Statistics::default() };
        Ok(Generation { tokens, reason, statistics })
    }

    /// The share of each byte in `text`, `[256]`: equal texts have equal vectors.
    fn embed(&mut self, text: &str) -> Result<Vec<f32>> {
        if text.is_empty() {
            return Err(Error::Session(SessionError::NoTokens));
        }
        let mut shares = vec![0.0; BYTES];
        for byte in text.bytes() {
            shares[usize::from(byte)] += 1.0 / text.len() as f32;
        }
        Ok(shares)
    }
}
