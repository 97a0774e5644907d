//! The backend of this crate: a session and the tokenizer of its model.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use mla_attention::{CacheBlock, CacheType, CompressedMlaCache};

use crate::error::Result;
use crate::forward::model::CraftsmanModel;
use crate::load::files::ModelFiles;
use crate::load::loader::LoadOptions;
use crate::models::registry::architecture_names;
use crate::prompt_cache::{PromptCache, PromptKey};
use crate::sessions::backend::{InferenceBackend, OnText, Prompt};
use crate::sessions::drafts::speculation::Speculation;
use crate::sessions::generate::{Companions, GenerateOptions, Generation};
use crate::sessions::interrupt::Interrupt;
use crate::sessions::sampler::Sampler;
use crate::sessions::session::Session;
use crate::text::tokenizer::{ControlTokens, TextStream, Tokenizer};

/// Receives the tokens of an answer, with the tokenizer that they belong to, and may end it.
pub type OnToken<'a> = dyn FnMut(&Tokenizer, u32) -> ControlFlow<()> + 'a;

/// Runs any model of the supported architectures on the CPU.
///
/// Tokens that a prompt has in common with the call before, or with a prompt cache, are not computed again; the results
/// are the same to the bit.
#[derive(Debug)]
pub struct CraftsmanBackend {
    tokenizer: Arc<Tokenizer>,
    session: Session,
    /// The tokens that the session holds.
    held: Vec<u32>,
    /// How often the adapters had changed when the first of these tokens was computed; `None` while there is none.
    held_since: Option<u64>,
    /// Beginnings of prompts that earlier runs computed, and the key of those with the adapters of `held_since`.
    prompts: Option<(PromptCache, PromptKey)>,
    /// Guesses at the tokens of answers.
    drafts: Option<Speculation>,
}

impl CraftsmanBackend {
    /// A backend over a session and the tokenizer of its model, which the backends of a model may share.
    #[must_use]
    pub fn new(mut session: Session, tokenizer: impl Into<Arc<Tokenizer>>) -> CraftsmanBackend {
        session.reset();
        let tokenizer = tokenizer.into();
        CraftsmanBackend { tokenizer, session, held: Vec::new(), held_since: None, prompts: None, drafts: None }
    }

    /// The same backend, which takes the beginnings of prompts from a cache and leaves there what it computes. The key is
    /// that of the session's model and cache; the adapters in it count only until the session's own are known.
    #[must_use]
    pub fn with_prompt_cache(self, prompts: Option<(PromptCache, PromptKey)>) -> CraftsmanBackend {
        CraftsmanBackend { prompts, held_since: None, ..self }
    }

    /// The same backend, which lets several tokens of an answer be verified in one step where they can be guessed. Answers stay
    /// the same.
    #[must_use]
    pub fn with_drafts(self, drafts: Option<Speculation>) -> CraftsmanBackend {
        CraftsmanBackend { drafts, ..self }
    }

    /// The tokenizer of the model.
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The model that answers.
    #[must_use]
    pub fn model(&self) -> &Arc<CraftsmanModel> {
        self.session.model()
    }

    /// The tokens of the sequence: those of the last call, and of the calls before it that they follow.
    #[must_use]
    pub fn tokens(&self) -> &[u32] {
        &self.held
    }

    /// The session, for its facts: the cache, the length of the context, the adapters.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Removes the tokens from position `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.session.truncate(len);
        self.held.truncate(len);
    }

    /// Appends `tokens` to the sequence and returns the logits `[vocab]` that follow the last one; `None` when `interrupt`
    /// was raised. The whole chunks before that are part of the sequence then.
    ///
    /// # Errors
    /// As [`Session::step`]; the sequence is then as before.
    pub fn append(&mut self, tokens: &[u32], interrupt: &Interrupt) -> Result<Option<&[f32]>> {
        if self.held.is_empty() {
            self.held_since = Some(self.session.adapters().counted().0);
        }
        let before = self.session.len();
        let is_whole = self.session.step_unless(tokens, interrupt, &mut ())?.is_some();
        self.held.extend_from_slice(&tokens[..self.session.len() - before]);
        Ok(is_whole.then(|| self.session.last_logits()))
    }

    /// Replaces the sequence by the positions of `blocks`, whose tokens are `tokens`.
    pub(super) fn take_blocks(&mut self, blocks: &[Arc<CacheBlock>], tokens: &[u32]) -> Result<()> {
        self.truncate(0);
        self.session.resume(blocks)?;
        self.held.extend_from_slice(tokens);
        self.held_since = Some(self.session.adapters().counted().0);
        Ok(())
    }

    /// As [`Prompt::tokens`].
    ///
    /// # Errors
    /// Text that cannot be encoded.
    pub fn encode(&self, prompt: Prompt<'_>) -> Result<Vec<u32>> {
        prompt.tokens(&self.tokenizer)
    }

    /// The token that ends the thought which `prompt` has opened.
    pub(super) fn thought_end(&self, prompt: Prompt<'_>) -> Option<u32> {
        prompt.thought().and_then(|[_, end]| self.tokenizer.token_to_id(end))
    }

    /// Continues the tokens of a prompt until a stop token of the model or of the options; `on_token` gets each token of the
    /// answer and may end it. Before it, the caller begins the answer of `sampler`.
    ///
    /// # Errors
    /// As [`InferenceBackend::generate`]; the sequence is then a beginning of `prompt`.
    pub fn generate_tokens(
        &mut self,
        prompt: &[u32],
        sampler: &mut Sampler,
        options: &GenerateOptions,
        on_token: &mut OnToken<'_>,
    ) -> Result<Generation> {
        let common = self.resume(prompt)?;
        let mut options = options.clone();
        options.stop.extend_from_slice(self.tokenizer.stop_ids());
        let CraftsmanBackend { tokenizer, session, prompts, held_since, drafts, .. } = self;
        let mut drafts = drafts.as_mut();
        if let Some(drafts) = &mut drafts {
            drafts.begin(prompt);
        }
        let slot = session.adapters().clone();
        // A process that is killed during a long answer leaves its prompt.
        let mut on_prompt = |cache: &CompressedMlaCache| {
            if *held_since == Some(slot.counted().0) {
                keep(prompts, prompt, cache);
            }
        };
        let mut on_token = |token| on_token(tokenizer, token);
        let companions = Companions { on_token: &mut on_token, on_prompt: &mut on_prompt, drafts };
        let generation = session.generate_with(&prompt[common..], &options, sampler, &mut (), companions);
        let generation = generation.inspect_err(|_| {
            // The tokens of the positions behind these are lost with the answer.
            session.truncate(common);
        })?;
        self.held.extend_from_slice(&prompt[common..]);
        self.held.extend_from_slice(&generation.tokens);
        self.held.truncate(self.session.len());
        // Positions that were computed while the adapters changed have no name.
        if self.held_since == Some(self.session.adapters().counted().0) {
            keep(&mut self.prompts, &self.held, self.session.cache());
        }
        Ok(generation)
    }

    /// Brings the session to the longest beginning of `prompt` that it or the prompt cache holds, at most all but the last
    /// token, and returns its length. Tokens that were computed with other adapters than the next ones are none of them.
    fn resume(&mut self, prompt: &[u32]) -> Result<usize> {
        let (changes, adapters) = self.session.adapters().counted();
        if self.held_since != Some(changes) {
            self.held.clear();
            self.held_since = Some(changes);
            self.prompts = self.prompts.take().map(|(cache, key)| (cache, key.with_adapters(adapters.as_deref())));
        }
        let equal = self.held.iter().zip(prompt).take_while(|(a, b)| a == b).count();
        let common = equal.min(prompt.len().saturating_sub(1));
        if let Some((cache, key)) = &mut self.prompts {
            let own = self.session.cache().full_blocks();
            let prefix = cache.prefix(key, prompt, &own[..own.len().min(common / CompressedMlaCache::BLOCK)]);
            let tokens = prefix.tokens();
            if tokens > common && tokens < self.session.n_ctx() {
                self.held.clear();
                self.session.resume(&prefix.blocks)?;
                self.held.extend_from_slice(&prompt[..tokens]);
                return Ok(tokens);
            }
        }
        self.session.truncate(common);
        self.held.truncate(common);
        Ok(common)
    }
}

/// Leaves the full blocks of `cache`, whose first tokens are `tokens`, in a prompt cache.
fn keep(prompts: &mut Option<(PromptCache, PromptKey)>, tokens: &[u32], cache: &CompressedMlaCache) {
    if let Some((prompts, key)) = prompts {
        prompts.insert(key, tokens, cache.full_blocks());
    }
}

impl InferenceBackend for CraftsmanBackend {
    fn load(path: &Path, n_ctx: usize, options: &LoadOptions) -> Result<CraftsmanBackend> {
        let files = ModelFiles::open(path)?;
        let tokenizer = files.tokenizer()?;
        let model = Arc::new(CraftsmanModel::from_files(&files, options)?);
        Ok(CraftsmanBackend::new(Session::new(model, n_ctx, CacheType::F16)?, tokenizer))
    }

    fn supported_architectures() -> Vec<&'static str> {
        architecture_names()
    }

    fn n_ctx(&self) -> usize {
        self.session.n_ctx()
    }

    fn count_tokens(&self, prompt: Prompt<'_>) -> Result<usize> {
        Ok(self.encode(prompt)?.len())
    }

    fn generate(
        &mut self,
        prompt: Prompt<'_>,
        sampler: &mut Sampler,
        options: &GenerateOptions,
        on_text: &mut OnText<'_>,
    ) -> Result<Generation> {
        let tokens = self.encode(prompt)?;
        let shown = if prompt.opens_thought() { ControlTokens::Markup } else { ControlTokens::Hide };
        sampler.begin_answer(self.thought_end(prompt));
        let mut text = TextStream::new(shown);
        let mut on_token = |tokenizer: &Tokenizer, token| match text.push(tokenizer, token) {
            piece if piece.is_empty() => ControlFlow::Continue(()),
            piece => on_text(&piece),
        };
        let generation = self.generate_tokens(&tokens, sampler, options, &mut on_token)?;
        let rest = text.finish();
        if !rest.is_empty() {
            // The answer has ended, so a request of the callback to end it has no effect.
            let _ = on_text(&rest);
        }
        Ok(generation)
    }
    fn embed(&mut self, text: &str) -> Result<Vec<f32>> {
        let tokens = self.tokenizer.encode(text, false)?;
        self.session.reset();
        self.held.clear();
        let mean = self.session.mean_hidden(&tokens);
        self.session.reset();
        mean
    }
}
