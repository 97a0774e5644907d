//! A sentence encoder and the search over a text inside a WASM module: a checkpoint goes in as bytes, the nearest passages come out.
//!
//! Plain exports, no binding generator: a caller writes into the buffer that [`input`] returns, calls a function, and reads what is
//! at [`output`]. One encoder at a time, one thread, no file, no clock. `golden.mjs` drives it in Node, `worker.js` in a page.
//!
//! ```text
//! input(n) -> address        the caller writes n bytes there
//! config() tokenizer()       the bytes are config.json, tokenizer.json
//! load(precision, tokens)    the bytes are model.safetensors: 0 in F32, 1 in Q8_0; texts are cut after so many tokens
//! text(words) -> n           the bytes are a text, cut into n passages of at most so many words; earlier ones are forgotten
//! embed(i) -> 0              passage i, in order, becomes a vector
//! query(k) -> n              the bytes are a query; the n <= k nearest passages, of which found(i) and score(i) tell
//! vector() -> address        the last vector, dims() floats
//!                            -1 from any of them: output() holds the error
//! ```

#![allow(unsafe_code, reason = "exported names cannot be checked for uniqueness; nothing else here is unsafe")]

use std::cell::RefCell;
use std::sync::Arc;

use rlm_embed::Result;
use rlm_embed::encoder::{BaseEmbedder, BertEncoder, BertParts, Precision};
use rlm_embed::store::{FlatNeighborStore, Neighbor, NeighborRetriever, NewChunk, cut};
use tl_kernels::Pool;

const FAILED: i32 = -1;

#[derive(Default)]
struct App {
    input: Vec<u8>,
    config: String,
    tokenizer: String,
    output: String,
    encoder: Option<BertEncoder>,
    passages: Vec<String>,
    store: Option<FlatNeighborStore>,
    vector: Vec<f32>,
    found: Vec<Neighbor>,
}

thread_local! {
    static APP: RefCell<App> = RefCell::default();
}

impl App {
    fn take_text(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.input)).into_owned()
    }

    fn load(&mut self, precision: Precision, max_tokens: usize) -> Result<i32> {
        let weights = std::mem::take(&mut self.input).into();
        let parts = BertParts { config: &self.config, tokenizer: &self.tokenizer, max_tokens, weights };
        self.encoder = Some(BertEncoder::of_parts(parts, precision, Arc::new(Pool::serial()))?);
        self.text(1)
    }

    /// Cuts the input into passages, and makes an empty store for them.
    fn text(&mut self, max_words: usize) -> Result<i32> {
        self.passages = cut(&self.take_text(), max_words.max(1));
        self.found.clear();
        let (dims, identity) =
            self.encoder.as_ref().map_or((1, [0; 32]), |encoder| (encoder.dims(), encoder.identity()));
        self.store = Some(FlatNeighborStore::in_memory(dims, identity, Arc::new(Pool::serial())));
        Ok(count(self.passages.len()))
    }

    fn embed(&mut self, i: usize) -> Result<i32> {
        let App { encoder: Some(encoder), store: Some(store), .. } = self else { return Ok(FAILED) };
        let Some(text) = self.passages.get(i) else { return Ok(FAILED) };
        self.vector = encoder.embed(&[text])?;
        store.add(&[NewChunk { id: &i.to_string(), source: "", text }], &self.vector)?;
        Ok(0)
    }

    fn query(&mut self, k: usize) -> Result<i32> {
        let text = self.take_text();
        let App { encoder: Some(encoder), store: Some(store), .. } = self else { return Ok(FAILED) };
        self.vector = encoder.embed(&[&text])?;
        self.found = store.nearest(&self.vector, k);
        Ok(count(self.found.len()))
    }
}

fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

fn with_app(run: impl FnOnce(&mut App) -> Result<i32>) -> i32 {
    APP.with_borrow_mut(|app| {
        app.output = "load an encoder and a text first".to_owned();
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

/// Takes the input as `config.json`.
#[unsafe(no_mangle)]
pub extern "C" fn config() {
    APP.with_borrow_mut(|app| app.config = app.take_text());
}

/// Takes the input as `tokenizer.json`.
#[unsafe(no_mangle)]
pub extern "C" fn tokenizer() {
    APP.with_borrow_mut(|app| app.tokenizer = app.take_text());
}

/// Takes the input as the weights of the encoder.
#[unsafe(no_mangle)]
pub extern "C" fn load(precision: u32, max_tokens: usize) -> i32 {
    with_app(|app| {
        let precision = match precision {
            0 => Precision::F32,
            1 => Precision::Q8_0,
            _ => {
                app.output = format!("precision {precision} is neither 0, F32, nor 1, Q8_0");
                return Ok(FAILED);
            }
        };
        app.load(precision, max_tokens)
    })
}

/// Takes the input as a text; the number of its passages.
#[unsafe(no_mangle)]
pub extern "C" fn text(max_words: usize) -> i32 {
    with_app(|app| app.text(max_words))
}

/// Embeds a passage, which was not embedded before.
#[unsafe(no_mangle)]
pub extern "C" fn embed(i: usize) -> i32 {
    with_app(|app| app.embed(i))
}

/// Takes the input as a query; the number of passages that were found.
#[unsafe(no_mangle)]
pub extern "C" fn query(k: usize) -> i32 {
    with_app(|app| app.query(k))
}

/// Puts the text of the passage that was found in place `i`, the nearest first, at `output`; -1 behind the last one.
#[unsafe(no_mangle)]
pub extern "C" fn found(i: usize) -> i32 {
    with_app(|app| {
        let (Some(found), Some(store)) = (app.found.get(i), &app.store) else { return Ok(FAILED) };
        app.output = store.chunk(found.row).text.to_owned();
        Ok(0)
    })
}

/// The cosine of the passage that was found in place `i`.
#[unsafe(no_mangle)]
pub extern "C" fn score(i: usize) -> f32 {
    APP.with_borrow(|app| app.found.get(i).map_or(f32::NAN, |found| found.score))
}

/// Number of values in a vector, 0 before an encoder is loaded.
#[unsafe(no_mangle)]
pub extern "C" fn dims() -> usize {
    APP.with_borrow(|app| app.encoder.as_ref().map_or(0, BaseEmbedder::dims))
}

/// Where the last vector begins.
#[unsafe(no_mangle)]
pub extern "C" fn vector() -> *const f32 {
    APP.with_borrow(|app| app.vector.as_ptr())
}

/// Where the text of the last passage or error begins.
#[unsafe(no_mangle)]
pub extern "C" fn output() -> *const u8 {
    APP.with_borrow(|app| app.output.as_ptr())
}

/// Length of that text in bytes.
#[unsafe(no_mangle)]
pub extern "C" fn output_len() -> usize {
    APP.with_borrow(|app| app.output.len())
}
