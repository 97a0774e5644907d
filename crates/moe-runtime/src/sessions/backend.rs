//! The one interface that library users need: a model by its path, text in, text or a vector out.
//!
//! **Invariant:** calls do not influence each other; every call starts with an empty context.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use mla_attention::CacheType;

use crate::error::{Error, Result};
use crate::forward::model::CraftsmanModel;
use crate::forward::taps::Taps;
use crate::load::files::ModelFiles;
use crate::load::loader::LoadOptions;
use crate::sessions::generate::{GenerateOptions, Generation, generate};
use crate::sessions::sampler::{Sampler, SamplerConfig};
use crate::sessions::session::Session;
use crate::text::tokenizer::{ControlTokens, TextStream, Tokenizer};

/// Something that loads a model and answers with it.
pub trait InferenceBackend {
    /// Loads the model at `path` for contexts of up to `n_ctx` tokens.
    ///
    /// # Errors
    /// One sentence that names the file, what is wrong and what to do.
    fn load(path: &Path, n_ctx: usize, options: &LoadOptions) -> Result<Self>
    where
        Self: Sized;

    /// The architectures it runs, by the name in `config.json` and by the name in a GGUF.
    fn supported_architectures() -> &'static [&'static str]
    where
        Self: Sized;

    /// Continues `prompt`, which may contain the model's special tokens; `on_text` gets each piece of the answer and
    /// may break.
    ///
    /// # Errors
    /// A prompt that does not fit, or what the forward pass refuses.
    fn generate(
        &mut self,
        prompt: &str,
        sampling: SamplerConfig,
        options: &GenerateOptions,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Generation>;

    /// The mean of the final hidden states of `text`, `[hidden]`.
    ///
    /// # Errors
    /// Text that has no tokens or does not fit.
    fn embed(&mut self, text: &str) -> Result<Vec<f32>>;
}

/// The backend of this crate: any model of the family on the CPU.
#[derive(Debug)]
pub struct CraftsmanBackend {
    tokenizer: Tokenizer,
    session: Session,
}

impl CraftsmanBackend {
    /// A backend over a session and the tokenizer of its model.
    #[must_use]
    pub fn new(session: Session, tokenizer: Tokenizer) -> CraftsmanBackend {
        CraftsmanBackend { tokenizer, session }
    }

    /// The tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The session.
    pub fn session_mut(&mut self) -> &mut Session {
        &mut self.session
    }
}

impl InferenceBackend for CraftsmanBackend {
    fn load(path: &Path, n_ctx: usize, options: &LoadOptions) -> Result<CraftsmanBackend> {
        let files = ModelFiles::open(path)?;
        let tokenizer = files.tokenizer()?;
        let model = Arc::new(CraftsmanModel::from_files(&files, options)?);
        Ok(CraftsmanBackend::new(Session::new(model, n_ctx, CacheType::F16)?, tokenizer))
    }

    fn supported_architectures() -> &'static [&'static str] {
        &["glm4_moe_lite", "glm4_moe", "deepseek_v2", "deepseek_v3", "deepseek2", "glm4moe"]
    }

    fn generate(
        &mut self,
        prompt: &str,
        sampling: SamplerConfig,
        options: &GenerateOptions,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Generation> {
        let tokens = self.tokenizer.encode(prompt, true)?;
        let mut options = options.clone();
        options.stop.extend_from_slice(self.tokenizer.stop_ids());
        let mut sampler = Sampler::new(sampling)?;
        let mut text = TextStream::new(ControlTokens::Hide);
        let tokenizer = &self.tokenizer;
        self.session.reset();
        let mut on_token = |token| match text.push(tokenizer, token) {
            piece if piece.is_empty() => ControlFlow::Continue(()),
            piece => on_text(&piece),
        };
        let generation = generate(&mut self.session, &tokens, &options, &mut sampler, &mut (), &mut on_token)?;
        let rest = text.finish();
        if !rest.is_empty() {
            // The answer is over: there is nothing left to break off.
            let _ = on_text(&rest);
        }
        Ok(generation)
    }

    fn embed(&mut self, text: &str) -> Result<Vec<f32>> {
        let tokens = self.tokenizer.encode(text, true)?;
        self.session.reset();
        mean_hidden(&mut self.session, &tokens)
    }
}

/// The mean of the final hidden states of `tokens`, which are appended to `session`; `[hidden]`.
///
/// # Errors
/// As [`Session::prefill`].
pub fn mean_hidden(session: &mut Session, tokens: &[u32]) -> Result<Vec<f32>> {
    struct Mean {
        sum: Vec<f64>,
    }
    impl Taps for Mean {
        fn final_hidden(&mut self, _first: usize, x: &[f32]) {
            for row in x.chunks_exact(self.sum.len()) {
                for (sum, &x) in self.sum.iter_mut().zip(row) {
                    *sum += f64::from(x);
                }
            }
        }
    }
    if tokens.is_empty() {
        return Err(Error::NoTokens);
    }
    let mut mean = Mean { sum: vec![0.0; session.model().config().hidden] };
    session.prefill(tokens, &mut mean)?;
    Ok(mean.sum.iter().map(|sum| (sum / tokens.len() as f64) as f32).collect())
}
