//! Prompts as Python gives them: a text, tokens, or a conversation as JSON.

use std::ops::ControlFlow;
use std::sync::Arc;

use moe_runtime::{
    ChatPrompt, ChatRequest, CraftsmanBackend, Error, GenerateOptions, Interrupt, OutputEvent, PartOptions,
    PartedAnswer, Prompt, Sampler, SessionError, StopStrings, TextError, ToolSchemas,
};
use pyo3::prelude::*;

use crate::errors::usage;
use crate::loaded::Loaded;
use crate::options::Sampling;

/// A text or tokens to continue, or a conversation to answer.
pub(crate) enum Ask {
    Text { text: String, parse_special: bool },
    Tokens(Vec<u32>),
    Chat(ChatRequest),
}

/// A prompt on its way from Python: one of a text, a list of tokens, and a JSON object of a conversation.
#[derive(FromPyObject)]
pub(crate) enum PyAsk {
    #[pyo3(transparent)]
    Tokens(Vec<u32>),
    #[pyo3(transparent)]
    Text((String, bool)),
    #[pyo3(transparent)]
    Chat(String),
}

impl PyAsk {
    /// The prompt that was meant.
    pub(crate) fn read(self) -> PyResult<Ask> {
        Ok(match self {
            PyAsk::Tokens(tokens) => Ask::Tokens(tokens),
            PyAsk::Text((text, parse_special)) => Ask::Text { text, parse_special },
            PyAsk::Chat(json) => Ask::Chat(ChatRequest::from_json(&json).map_err(|error| usage(error.to_string()))?),
        })
    }
}

/// The rendered prompt of a conversation.
///
/// # Errors
/// A model without a chat template, and a template that refuses.
pub(crate) fn rendered(loaded: &Loaded, request: &ChatRequest) -> Result<ChatPrompt, Error> {
    let Some(template) = &loaded.template else {
        let reason = "the model has none; give a text in place of messages".to_owned();
        return Err(Error::Text(TextError::ChatTemplate { reason }));
    };
    template.prompt(request)
}

/// Number of tokens of a prompt.
pub(crate) fn count(loaded: &Loaded, ask: &Ask) -> Result<usize, Error> {
    let count = |prompt: Prompt<'_>| Ok(prompt.tokens(&loaded.tokenizer)?.len());
    match ask {
        Ask::Tokens(tokens) => Ok(tokens.len()),
        Ask::Text { text, parse_special } => count(raw(text, *parse_special)),
        Ask::Chat(request) => count(Prompt::Rendered(&rendered(loaded, request)?)),
    }
}

/// Answers a prompt; `on_part` gets the parts of the answer.
pub(crate) fn answer(
    backend: &mut CraftsmanBackend,
    loaded: &Loaded,
    (ask, sampling): (&Ask, &Sampling),
    interrupt: &Interrupt,
    on_part: &mut dyn FnMut(&OutputEvent) -> ControlFlow<()>,
) -> Result<PartedAnswer, Error> {
    let sampler = Sampler::new(sampling.config(loaded.sampling))?.with_thought_budget(sampling.think_budget);
    let mut sampler = sampler.with_logit_bias(sampling.logit_bias())?;
    let generate = GenerateOptions {
        max_tokens: sampling.max_tokens,
        loops: sampling.loops(),
        interrupt: interrupt.clone(),
        ..GenerateOptions::default()
    };
    let mut options = PartOptions { generate, stops: StopStrings::new(sampling.stop.clone())?, tools: None };
    match ask {
        Ask::Tokens(tokens) if tokens.is_empty() => Err(Error::Session(SessionError::NoTokens)),
        Ask::Tokens(tokens) => backend.answer_tokens(tokens, &mut sampler, &options, on_part),
        Ask::Text { text, parse_special } => backend.answer(raw(text, *parse_special), &mut sampler, &options, on_part),
        Ask::Chat(request) => {
            let prompt = rendered(loaded, request)?;
            options.tools = (!request.tools.is_empty()).then(|| Arc::new(ToolSchemas::new(&request.tools)));
            backend.answer(Prompt::Rendered(&prompt), &mut sampler, &options, on_part)
        }
    }
}

fn raw(text: &str, parse_special: bool) -> Prompt<'_> {
    if parse_special { Prompt::RawWithMarkers(text) } else { Prompt::Raw(text) }
}
