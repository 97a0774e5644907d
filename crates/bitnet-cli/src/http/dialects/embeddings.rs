//! `/v1/embeddings`: the vectors of the sentence encoder or, without one, the mean of the final hidden states; of length 1 both.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::json;
use super::prompts::{Written, prompts};
use crate::http::answer::{Way, vectors};
use crate::http::app::App;
use crate::http::engine::{Encoder, Engine, off_thread};
use crate::http::failure::Failure;
use crate::http::number::short;
use crate::http::request::Asked;

/// Turns texts into vectors.
pub(crate) async fn embeddings(State(app): State<Arc<App>>, request: Request) -> Result<Response, Failure> {
    let asked = Asked::read(&app, request).await?;
    let (fields, engine) = (asked.fields(), &asked.engine);
    let as_base64 = match fields.text("encoding_format")? {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => {
            return Err(Failure::field("encoding_format", "`encoding_format` has to be \"float\" or \"base64\""));
        }
    };
    let encoder = engine.encoder_for(fields.get("model").and_then(Value::as_str));
    let (by_encoder, hidden) = (encoder.is_some(), encoder.map_or(&engine.facts, |encoder| &encoder.facts).hidden);
    if fields.count("dimensions", 1..=usize::MAX)?.is_some_and(|dimensions| dimensions != hidden) {
        let message = format!("`dimensions` has to be {hidden}: vectors of this model cannot be cut");
        return Err(Failure::field("dimensions", message));
    }
    let written = prompts(fields, "input")?;
    let tokens_of_all = move |engine: &Engine| match engine.encoder.as_ref().filter(|_| by_encoder) {
        Some(encoder) => written.into_iter().map(|text| encoder_tokens(encoder, text)).collect(),
        None => written.into_iter().map(|text| tokens(engine, text)).collect(),
    };
    let texts: Vec<Vec<u32>> = off_thread(engine, tokens_of_all).await?;
    let n_tokens: usize = texts.iter().map(Vec::len).sum();
    let caller = asked.caller();
    let engine = asked.into_engine();
    let (id, vectors) = match engine.encoder.as_ref().filter(|_| by_encoder) {
        Some(encoder) => {
            let way = Way { queue: &encoder.queue, at_once: Encoder::TEXTS_AT_ONCE };
            // They have length 1 already, and keep their bits.
            (&encoder.facts.id, vectors(&app, &engine, way, texts, &caller).await?)
        }
        None => {
            let way = Way { queue: &engine.queue, at_once: engine.slots };
            let vectors = vectors(&app, &engine, way, texts, &caller).await?;
            (&engine.facts.id, vectors.into_iter().map(unit).collect())
        }
    };
    let data: Vec<Value> = vectors.iter().enumerate().map(|(i, vector)| object(i, vector, as_base64)).collect();
    Ok(json(&json!({
        "object": "list",
        "data": data,
        "model": id,
        "usage": { "prompt_tokens": n_tokens, "total_tokens": n_tokens },
    })))
}

fn tokens(engine: &Engine, text: Written) -> Result<Vec<u32>, Failure> {
    let (tokens, n_ctx) = (text.tokens(engine, "input")?, engine.facts.n_ctx);
    match tokens.len() {
        0 => Err(Failure::field("input", "`input` has a text without tokens")),
        n if n > n_ctx => Err(Failure::context(n, n_ctx)),
        _ => Ok(tokens),
    }
}

fn encoder_tokens(encoder: &Encoder, text: Written) -> Result<Vec<u32>, Failure> {
    match text {
        Written::Text(text) => encoder.tokens(&text),
        // Ids of another tokenizer would stand for other words.
        Written::Tokens(_) => Err(Failure::field(
            "input",
            "`input` has token ids, and the sentence encoder reads texts: send texts; in LangChain set \
             check_embedding_ctx_length=False",
        )),
    }
}

/// A vector of length 1. A vector of zeros stays.
fn unit(mut vector: Vec<f32>) -> Vec<f32> {
    let length = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
    vector
}

/// The vector as numbers, or as base64 of little-endian F32.
fn object(index: usize, vector: &[f32], as_base64: bool) -> Value {
    let embedding: Value = match as_base64 {
        true => STANDARD.encode(vector.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>()).into(),
        false => vector.iter().map(|&x| short(x)).collect(),
    };
    json!({ "object": "embedding", "index": index, "embedding": embedding })
}
