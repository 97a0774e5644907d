//! A ternary model inside a WASM module: a GGUF goes in as bytes, tokens come out one by one.
//!
//! Plain exports, no binding generator: a caller writes into the buffer that [`input`] returns, calls a function, and
//! reads what is at [`output`]. One model at a time, one thread, no file, no clock. `golden.mjs` drives it in Node,
//! `worker.js` in a page; README.md says how to build it.
//!
//! ```text
//! input(n) -> address   the caller writes n bytes there
//! load(mode) -> 0       the bytes become the model (mode 0: F32 activations, 1: INT8 by block)
//! prompt() -> n         the bytes, UTF-8, become a prompt of n tokens; prompt_token(i) tells them
//! next() -> id          the likeliest next token; output() .. + output_len() holds its text; -2 at the end
//!                       -1 from any of them: output() holds the error
//! ```

#![allow(unsafe_code, reason = "exported names cannot be checked for uniqueness; nothing else here is unsafe")]

use std::cell::RefCell;
use std::sync::Arc;

use gguf_bitnet::GgufFile;
use mla_attention::CacheType;
use moe_runtime::SessionError;
use moe_runtime::{
    CraftsmanModel, Error, LoadOptions, ModelFiles, Result, Sampler, SamplerConfig, Session, TextStream, Tokenizer,
};
use ternary_core::{ActMode, Bytes};

const FAILED: i32 = -1;
const ENDED: i32 = -2;
/// Tokens of prompt and answer together.
const CONTEXT: usize = 512;

#[derive(Default)]
struct App {
    input: Vec<u8>,
    output: String,
    generator: Option<Generator>,
}

struct Generator {
    tokenizer: Tokenizer,
    session: Session,
    sampler: Sampler,
    stream: TextStream,
    prompt: Vec<u32>,
    /// Tokens that the session has not computed yet.
    pending: Vec<u32>,
}

thread_local! {
    static APP: RefCell<App> = RefCell::default();
}

impl App {
    fn load(&mut self, act_mode: ActMode) -> Result<i32> {
        self.generator = None;
        let file = GgufFile::from_bytes(Bytes::from(std::mem::take(&mut self.input)))?;
        let files = ModelFiles::from_gguf(Arc::new(file))?;
        let tokenizer = files.tokenizer()?;
        let model =
            CraftsmanModel::from_files(&files, &LoadOptions { act_mode: Some(act_mode), ..LoadOptions::default() })?;
        let n_ctx = CONTEXT.min(model.config().n_ctx);
        self.generator = Some(Generator {
            tokenizer,
            session: Session::new(Arc::new(model), n_ctx, CacheType::F16)?,
            sampler: Sampler::new(SamplerConfig::greedy())?,
            stream: TextStream::default(),
            prompt: Vec::new(),
            pending: Vec::new(),
        });
        Ok(0)
    }

    fn prompt(&mut self) -> Result<i32> {
        let App { input, generator: Some(generator), .. } = self else {
            return Err(Error::Session(SessionError::NoTokens));
        };
        let text = String::from_utf8_lossy(input);
        generator.prompt = [generator.tokenizer.raw_prefix(), generator.tokenizer.encode(&text, false)?].concat();
        generator.pending.clone_from(&generator.prompt);
        generator.session.reset();
        generator.stream = TextStream::default();
        Ok(i32::try_from(generator.prompt.len()).unwrap_or(i32::MAX))
    }

    fn next(&mut self) -> Result<i32> {
        let App { output, generator: Some(generator), .. } = self else {
            return Err(Error::Session(SessionError::NoTokens));
        };
        output.clear();
        let answers = !generator.session.is_empty();
        let token = match generator.session.step(&generator.pending, &mut ()) {
            Err(Error::Session(SessionError::ContextFull { .. })) if answers => return Ok(ENDED),
            logits => generator.sampler.sample(logits?)?,
        };
        if generator.tokenizer.is_stop(token) {
            return Ok(ENDED);
        }
        generator.pending = vec![token];
        *output = generator.stream.push(&generator.tokenizer, token);
        Ok(i32::try_from(token).unwrap_or(i32::MAX))
    }
}

fn with_app(run: impl FnOnce(&mut App) -> Result<i32>) -> i32 {
    APP.with_borrow_mut(|app| {
        run(app).unwrap_or_else(|error| {
            app.output = error.to_string();
            FAILED
        })
    })
}

/// Room for `len` bytes that the caller fills before the next call.
// SAFETY: this name and the names below are each exported once.
#[unsafe(no_mangle)]
pub extern "C" fn input(len: usize) -> *mut u8 {
    APP.with_borrow_mut(|app| {
        app.input.clear();
        app.input.resize(len, 0);
        app.input.as_mut_ptr()
    })
}

/// Takes the input as a GGUF file.
#[unsafe(no_mangle)]
pub extern "C" fn load(mode: u32) -> i32 {
    with_app(|app| app.load(if mode == 0 { ActMode::F32 } else { ActMode::A8Block }))
}

/// Takes the input as the text to continue; the number of its tokens.
#[unsafe(no_mangle)]
pub extern "C" fn prompt() -> i32 {
    with_app(App::prompt)
}

/// Token `index` of the prompt, -1 behind its end.
#[unsafe(no_mangle)]
pub extern "C" fn prompt_token(index: usize) -> i32 {
    let token = |app: &App| app.generator.as_ref()?.prompt.get(index).and_then(|&id| i32::try_from(id).ok());
    APP.with_borrow(|app| token(app).unwrap_or(FAILED))
}

/// The next token of the answer, -2 when the model has ended it or no more tokens fit.
#[unsafe(no_mangle)]
pub extern "C" fn next() -> i32 {
    with_app(App::next)
}

/// Where the text of the last token or error begins.
#[unsafe(no_mangle)]
pub extern "C" fn output() -> *const u8 {
    APP.with_borrow(|app| app.output.as_ptr())
}

/// Length of that text in bytes.
#[unsafe(no_mangle)]
pub extern "C" fn output_len() -> usize {
    APP.with_borrow(|app| app.output.len())
}
