//! The interface for programs that use a model: text in, text or a vector out.
//!
//! **Invariant:** an answer depends on its prompt, its options and its sampler alone, never on earlier calls.

use std::ops::ControlFlow;
use std::path::Path;

use crate::error::Result;
use crate::load::loader::LoadOptions;
use crate::models::registry::special_tokens;
use crate::sessions::generate::{GenerateOptions, Generation};
use crate::sessions::sampler::Sampler;
use crate::text::prompt::ChatPrompt;
use crate::text::tokenizer::Tokenizer;

/// Receives the pieces of an answer and may end it.
pub type OnText<'a> = dyn FnMut(&str) -> ControlFlow<()> + 'a;

/// A text to continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prompt<'a> {
    /// The output of a chat template. The template's control tokens are tokens; content is words.
    Rendered(&'a ChatPrompt),
    /// A text without a conversation, words only. The prefix that the model expects before raw text is put in front of it.
    Raw(&'a str),
    /// As [`Prompt::Raw`], but texts of control tokens in it become those tokens. Not for text of strangers.
    RawWithMarkers(&'a str),
}

impl<'a> Prompt<'a> {
    /// The text without any prefix.
    #[must_use]
    pub fn text(self) -> &'a str {
        match self {
            Prompt::Rendered(prompt) => prompt.text(),
            Prompt::Raw(text) | Prompt::RawWithMarkers(text) => text,
        }
    }

    /// The tokens of the prompt, with the prefix that the model of `tokenizer` expects before raw text.
    ///
    /// # Errors
    /// Text that cannot be encoded.
    pub fn tokens(self, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
        let (text, parse_special) = match self {
            Prompt::Rendered(prompt) => return tokenizer.encode_prompt(prompt),
            Prompt::Raw(text) => (text, false),
            Prompt::RawWithMarkers(text) => (text, true),
        };
        let mut tokens = tokenizer.raw_prefix();
        let text = tokenizer.encode(text, parse_special)?;
        if parse_special && text.starts_with(&tokens) {
            return Ok(text);
        }
        tokens.extend(text);
        Ok(tokens)
    }

    /// Whether the answer begins inside a thought, which the template has opened.
    #[must_use]
    pub fn opens_thought(self) -> bool {
        self.thought().is_some()
    }

    /// Start and end of the thought that the template has opened.
    pub(crate) fn thought(self) -> Option<[&'static str; 2]> {
        match self {
            Prompt::Raw(_) | Prompt::RawWithMarkers(_) => None,
            Prompt::Rendered(prompt) => {
                special_tokens().filter_map(|tokens| tokens.thought).find(|[start, _]| prompt.ends_with(start))
            }
        }
    }
}

/// A model that answers prompts and turns texts into vectors.
///
/// [`CraftsmanBackend`](crate::CraftsmanBackend) runs a model; [`ScriptedBackend`](crate::ScriptedBackend) answers fixed
/// texts, for tests of programs that are generic over this trait.
pub trait InferenceBackend {
    /// Loads the model at `path` for contexts of up to `n_ctx` tokens.
    ///
    /// # Errors
    /// One sentence that names the file, the defect and the remedy.
    fn load(path: &Path, n_ctx: usize, options: &LoadOptions) -> Result<Self>
    where
        Self: Sized;

    /// The architectures that can be loaded, by the name in `config.json` and by the name in a GGUF.
    fn supported_architectures() -> Vec<&'static str>
    where
        Self: Sized;

    /// Tokens that a prompt and its answer have room for.
    fn n_ctx(&self) -> usize;

    /// Number of tokens of `prompt`.
    ///
    /// # Errors
    /// Text that cannot be encoded.
    fn count_tokens(&self, prompt: Prompt<'_>) -> Result<usize>;

    /// Continues `prompt`; `on_text` gets each piece of the answer and may end it. The markup of a thought is part of the
    /// answer when the prompt opens the thought, and left out otherwise.
    ///
    /// # Errors
    /// A prompt that does not fit, and every failure of the forward pass.
    fn generate(
        &mut self,
        prompt: Prompt<'_>,
        sampler: &mut Sampler,
        options: &GenerateOptions,
        on_text: &mut OnText<'_>,
    ) -> Result<Generation>;

    /// The mean of the final hidden states of `text`, `[hidden]`.
    ///
    /// # Errors
    /// Text that has no tokens or does not fit.
    fn embed(&mut self, text: &str) -> Result<Vec<f32>>;
}
