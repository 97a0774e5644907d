//! The loaded model as the routes see it, and the thread that computes.

mod encoder;
mod encoder_thread;
mod facts;
mod thread;

use std::sync::Arc;
use std::time::{Duration, Instant};

use moe_runtime::{
    ChatRequest, ChatTemplate, GrammarCompiler, JobQueue, OutputFormat, OutputStart, SamplerConfig, Tokenizer,
};

use super::failure::Failure;
use super::seal::Seal;
use crate::load::Drafts;

pub(crate) use encoder::Encoder;
#[cfg(any(test, fuzzing))]
pub(crate) use encoder_thread::serve_texts;
pub(crate) use facts::Facts;
pub(crate) use thread::{EngineThread, Start};

/// The parts of a loaded model that turn requests into jobs.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) tokenizer: Tokenizer,
    pub(crate) template: Option<ChatTemplate>,
    pub(crate) format: OutputFormat,
    pub(crate) grammars: GrammarCompiler,
    /// How tokens are chosen where a request does not say.
    pub(crate) sampling: SamplerConfig,
    pub(crate) facts: Facts,
    pub(crate) seal: Seal,
    /// Where guesses at the tokens of answers come from; `None` for no guesses.
    pub(crate) drafts: Option<Drafts>,
    pub(crate) queue: JobQueue,
    /// The encoder of `/v1/embeddings`; without one the hidden states of the model take its place.
    pub(crate) encoder: Option<Encoder>,
    /// Requests of one prompt that may run at the same time.
    pub(crate) slots: usize,
    pub(crate) started: Instant,
    /// Most memory that the server planned to take.
    pub(crate) planned_bytes: u64,
}

/// A prompt in tokens, and where its answer begins.
#[derive(Clone, Debug)]
pub(crate) struct Prompt {
    pub(crate) tokens: Vec<u32>,
    pub(crate) start: OutputStart,
}

impl Engine {
    /// The time since the start, for the scheduler.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// The encoder for a request to this `model`: any that does not name the language model.
    pub(crate) fn encoder_for(&self, model: Option<&str>) -> Option<&Encoder> {
        self.encoder.as_ref().filter(|_| model != Some(&*self.facts.id))
    }

    /// The models that clients can name.
    pub(crate) fn models(&self) -> impl Iterator<Item = &Facts> {
        [&self.facts].into_iter().chain(self.encoder.as_ref().map(|encoder| &encoder.facts))
    }

    /// Takes no more jobs; those that wait or run are finished.
    pub(crate) fn close(&self) {
        self.queue.close();
        if let Some(encoder) = &self.encoder {
            encoder.queue.close();
        }
    }

    /// The prompt of a conversation as text. Takes milliseconds for long ones.
    pub(crate) fn render(&self, request: &ChatRequest) -> Result<moe_runtime::ChatPrompt, Failure> {
        let template = self
            .template
            .as_ref()
            .ok_or_else(|| Failure::invalid("the model has no chat template: use /v1/completions"))?;
        template.prompt(request).map_err(|error| Failure::from(&error))
    }

    /// The prompt of a conversation in tokens.
    pub(crate) fn chat_prompt(&self, request: &ChatRequest) -> Result<Prompt, Failure> {
        let rendered = self.render(request)?;
        let tokens = self.tokenizer.encode_prompt(&rendered).map_err(|error| Failure::from(&error))?;
        Ok(Prompt { tokens, start: self.format.start_of(&rendered) })
    }

    /// The prompt of a text that is continued, with the prefix that the model expects.
    pub(crate) fn raw_prompt(&self, text: &str) -> Result<Prompt, Failure> {
        let mut tokens = self.tokenizer.raw_prefix();
        tokens.extend(self.encode(text)?);
        Ok(Prompt { tokens, start: OutputStart::Content })
    }

    /// The tokens of a text, all of it words.
    pub(crate) fn encode(&self, text: &str) -> Result<Vec<u32>, Failure> {
        self.tokenizer.encode(text, false).map_err(|error| Failure::from(&error))
    }
}

/// Runs work of milliseconds apart from the threads that serve connections.
pub(crate) async fn off_thread<T: Send + 'static>(
    engine: &Arc<Engine>,
    work: impl FnOnce(&Engine) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let engine = engine.clone();
    let done = tokio::task::spawn_blocking(move || work(&engine)).await;
    done.map_err(|_| Failure::broken("the request could not be read: please report it"))?
}
