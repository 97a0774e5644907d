//! One sequence of tokens over a model, and the answers that are made with it.
//!
//! **Invariant:** one answer at a time has the backend; another call gets an exception.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::thread;

use moe_runtime::{
    ChatRequest, CraftsmanBackend, GenerateOptions, InferenceBackend, Interrupt, OutputEvent, PartOptions,
    PartedAnswer, Prompt, Sampler, StopStrings, TextError, ToolSchemas,
};
use napi::bindgen_prelude::AsyncTask;
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi::{Env, Result, Status, Task};
use napi_derive::napi;

use crate::loaded::Loaded;
use crate::options::{NativeSampling, failed, locked, usage};

/// Most tokens of an answer where nothing is given.
const DEFAULT_TOKENS: usize = 512;

/// A part of an answer, or its end.
#[napi(object)]
pub struct NativeMessage {
    /// `content`, `reasoning`, `call`, `end` or `error`.
    pub kind: String,
    /// The text, the name of a tool, the reason of the end, or the sentence of the failure.
    pub text: String,
    /// The arguments of a call as JSON.
    pub arguments: Option<String>,
    /// At the end: tokens of the prompt, those that were computed, and tokens of the answer.
    pub counts: Option<Vec<u32>>,
}

/// Receives the parts of an answer on the event loop.
type OnMessage = ThreadsafeFunction<NativeMessage, (), NativeMessage, Status, false>;

enum State {
    Free(Box<CraftsmanBackend>),
    Taken(Interrupt),
    Disposed,
}

/// A sequence over a loaded model.
#[napi]
pub struct NativeSequence {
    loaded: Arc<Loaded>,
    state: Arc<Mutex<State>>,
}

/// A backend in use; it goes back when this value is dropped.
struct Taken {
    backend: Option<Box<CraftsmanBackend>>,
    state: Arc<Mutex<State>>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut state = locked(&self.state);
        *state = match (std::mem::replace(&mut *state, State::Disposed), self.backend.take()) {
            // A backend that panicked may hold half of a token.
            (State::Taken(_), Some(backend)) if !thread::panicking() => State::Free(backend),
            _ => State::Disposed,
        };
    }
}

/// A text to continue, or a conversation to answer.
enum Ask {
    Text(String),
    Chat(ChatRequest),
}

/// An answer that is being made.
#[napi]
pub struct NativeAnswer {
    interrupt: Interrupt,
}

#[napi]
impl NativeAnswer {
    /// Ends the answer within two layers of a forward pass.
    #[napi]
    pub fn cancel(&self) {
        self.interrupt.raise();
    }
}

#[napi]
impl NativeSequence {
    /// Begins an answer to a text, or to a conversation as a JSON object with `messages`, `tools`, `thinking` and `now`.
    /// The last message is an `end` or an `error`; the sequence is free then.
    #[napi]
    pub fn start(
        &self,
        text: Option<String>,
        conversation: Option<String>,
        sampling: NativeSampling,
        on_message: OnMessage,
    ) -> Result<NativeAnswer> {
        let ask = match (text, conversation) {
            (Some(text), None) => Ask::Text(text),
            (None, Some(json)) => Ask::Chat(ChatRequest::from_json(&json).map_err(|error| usage(error.to_string()))?),
            _ => return Err(usage("give a text or a conversation")),
        };
        let interrupt = Interrupt::new();
        let (mut taken, loaded, own) = (self.take(&interrupt)?, self.loaded.clone(), interrupt.clone());
        thread::spawn(move || {
            let Some(backend) = taken.backend.as_mut() else { return };
            let send = |message| {
                // A loop that has ended takes no message, and the answer ends.
                match on_message.call(message, ThreadsafeFunctionCallMode::NonBlocking) {
                    Status::Ok => ControlFlow::Continue(()),
                    _ => ControlFlow::Break(()),
                }
            };
            let made = answer(backend, &loaded, (&ask, &sampling), &own, &mut |part| send(message_of(part)));
            drop(taken);
            let _ = send(last_message(made));
        });
        Ok(NativeAnswer { interrupt })
    }

    /// The mean of the final hidden states of a text, on a thread of libuv.
    #[napi(ts_return_type = "Promise<number[]>")]
    pub fn embed(&self, text: String) -> Result<AsyncTask<EmbedTask>> {
        Ok(AsyncTask::new(EmbedTask { taken: Some(self.take(&Interrupt::new())?), text }))
    }

    /// Number of tokens that the sequence holds.
    #[napi]
    pub fn token_count(&self) -> Result<u32> {
        match &*locked(&self.state) {
            State::Free(backend) => Ok(u32::try_from(backend.tokens().len()).unwrap_or(u32::MAX)),
            state => Err(refusal(state)),
        }
    }

    /// Removes every token, so that the next prompt is computed from its beginning.
    #[napi]
    pub fn clear(&self) -> Result<()> {
        match &mut *locked(&self.state) {
            State::Free(backend) => {
                backend.truncate(0);
                Ok(())
            }
            state => Err(refusal(state)),
        }
    }

    /// Ends the answer that is being made, and gives the memory back.
    #[napi]
    pub fn dispose(&self) {
        let state = std::mem::replace(&mut *locked(&self.state), State::Disposed);
        if let State::Taken(interrupt) = &state {
            interrupt.raise();
        }
    }
}

impl NativeSequence {
    pub(crate) fn new(loaded: Arc<Loaded>, backend: CraftsmanBackend) -> NativeSequence {
        NativeSequence { loaded, state: Arc::new(Mutex::new(State::Free(Box::new(backend)))) }
    }

    /// Takes the backend for work that `interrupt` ends.
    fn take(&self, interrupt: &Interrupt) -> Result<Taken> {
        let mut state = locked(&self.state);
        match std::mem::replace(&mut *state, State::Disposed) {
            State::Free(backend) => {
                *state = State::Taken(interrupt.clone());
                Ok(Taken { backend: Some(backend), state: self.state.clone() })
            }
            other => {
                let refused = refusal(&other);
                *state = other;
                Err(refused)
            }
        }
    }
}

fn refusal(state: &State) -> napi::Error {
    match state {
        State::Taken(_) => usage("the sequence is answering; await its answer, or abort it"),
        _ => usage("the sequence is disposed of; get another one from the context"),
    }
}

/// Computes the vector of a text away from the event loop.
pub struct EmbedTask {
    taken: Option<Taken>,
    text: String,
}

impl Task for EmbedTask {
    type Output = Vec<f32>;
    type JsValue = Vec<f64>;

    fn compute(&mut self) -> Result<Vec<f32>> {
        let mut taken = self.taken.take();
        let backend = taken.as_mut().and_then(|taken| taken.backend.as_mut());
        backend.ok_or_else(|| refusal(&State::Disposed))?.embed(&self.text).map_err(failed)
    }

    fn resolve(&mut self, _env: Env, vector: Vec<f32>) -> Result<Vec<f64>> {
        Ok(vector.into_iter().map(f64::from).collect())
    }
}

fn answer(
    backend: &mut CraftsmanBackend,
    loaded: &Loaded,
    (ask, sampling): (&Ask, &NativeSampling),
    interrupt: &Interrupt,
    on_part: &mut dyn FnMut(&OutputEvent) -> ControlFlow<()>,
) -> moe_runtime::Result<PartedAnswer> {
    let mut sampler = Sampler::new(sampling.config(loaded.sampling))?;
    let generate = GenerateOptions {
        max_tokens: sampling.max_tokens.map_or(DEFAULT_TOKENS, |tokens| tokens as usize),
        loops: sampling.loops(),
        interrupt: interrupt.clone(),
        ..GenerateOptions::default()
    };
    let stops = StopStrings::new(sampling.stop.clone().unwrap_or_default())?;
    let mut options = PartOptions { generate, stops, tools: None };
    match ask {
        Ask::Text(text) => backend.answer(Prompt::Raw(text), &mut sampler, &options, on_part),
        Ask::Chat(request) => {
            let Some(template) = &loaded.template else {
                let reason = "the model has none; continue a text with `complete`".to_owned();
                return Err(TextError::ChatTemplate { reason }.into());
            };
            options.tools = (!request.tools.is_empty()).then(|| Arc::new(ToolSchemas::new(&request.tools)));
            backend.answer(Prompt::Rendered(&template.prompt(request)?), &mut sampler, &options, on_part)
        }
    }
}

fn message_of(part: &OutputEvent) -> NativeMessage {
    let (kind, text, arguments) = match part {
        OutputEvent::Content(text) => ("content", text, None),
        OutputEvent::Reasoning(text) => ("reasoning", text, None),
        OutputEvent::Call(call) => ("call", &call.name, Some(call.arguments.clone())),
    };
    NativeMessage { kind: kind.to_owned(), text: text.clone(), arguments, counts: None }
}

fn last_message(made: moe_runtime::Result<PartedAnswer>) -> NativeMessage {
    let message =
        |kind: &str, text: String, counts| NativeMessage { kind: kind.to_owned(), text, arguments: None, counts };
    match made {
        Err(error) => message("error", error.to_string(), None),
        Ok(answer) => {
            let computed = answer.generation.statistics.prompt_tokens;
            let counts = [answer.prompt_tokens, computed, answer.generation.tokens.len()];
            let counts = counts.map(|n| u32::try_from(n).unwrap_or(u32::MAX));
            message("end", answer.reason_name().to_owned(), Some(counts.to_vec()))
        }
    }
}
