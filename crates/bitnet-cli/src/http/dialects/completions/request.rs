//! From the fields of a request to orders and the shape of their answers.

use moe_runtime::{ControlTokens, OutputStart};

use super::super::envelope::Envelope;
use super::super::prompts::{Written, prompts};
use super::super::sampling::{loops, rules, sampling};
use crate::http::answer::Order;
use crate::http::app::App;
use crate::http::engine::{Engine, Prompt, off_thread};
use crate::http::failure::Failure;
use crate::http::request::{Asked, Fields};

/// Tokens of an answer where the request does not say, as in OpenAI's API.
const DEFAULT_TOKENS: usize = 16;

/// The shape of an answer.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) envelope: Envelope,
    pub(super) stream: bool,
    /// Whether tokens have scores.
    pub(super) logprobs: bool,
    /// The prompt of each answer where it is part of the answer.
    pub(super) echoes: Vec<Option<Echo>>,
}

/// A prompt that is part of its answer.
#[derive(Clone, Debug)]
pub(super) struct Echo {
    pub(super) text: String,
    /// Tokens of the prefix that the model expects before text.
    pub(super) prefix: usize,
    /// Text of the token behind the prefix.
    pub(super) first: String,
}

pub(super) async fn read(app: &App, asked: &Asked) -> Result<(Vec<Order>, Shape), Failure> {
    let (fields, engine) = (asked.fields(), &asked.engine);
    let suffix = suffix(fields, engine)?;
    let sampling = sampling(fields, engine.sampling)?;
    let n = fields.count("n", 1..=engine.slots)?.unwrap_or(1);
    if fields.count("best_of", 1..=usize::MAX)?.is_some_and(|best| best != n) {
        return Err(Failure::field("best_of", "`best_of` has to equal `n`"));
    }
    let max_tokens = fields.count("max_tokens", 0..=usize::MAX)?.unwrap_or(DEFAULT_TOKENS);
    let echo = fields.flag("echo")?.unwrap_or(false);
    let logprobs = fields.count("logprobs", 0..=20)?;
    let rules = rules(fields, engine)?;
    let written = prompts(fields, "prompt")?;
    let prompts: Vec<(Prompt, Echo)> = off_thread(engine, move |engine| {
        let suffix = suffix.map(|text| engine.encode(&text)).transpose()?;
        written.into_iter().map(|written| prompt(engine, written, suffix.as_deref())).collect()
    })
    .await?;
    let (mut orders, mut echoes) = (Vec::new(), Vec::new());
    for (prompt, echoed) in prompts {
        let order = Order {
            prompt,
            sampling,
            rules: rules.clone(),
            max_tokens: max_tokens.min(app.settings.max_tokens),
            loops: loops(),
            tools: None,
            logprobs,
            prompt_logprobs: echo && logprobs.is_some(),
            changed: None,
            caller: asked.caller(),
        };
        orders.extend(order.times(n));
        echoes.extend(std::iter::repeat_n(echo.then_some(echoed), n));
    }
    let shape = Shape {
        envelope: Envelope::new(fields, engine, "cmpl-", n)?,
        stream: fields.flag("stream")?.unwrap_or(false),
        logprobs: logprobs.is_some(),
        echoes,
    };
    Ok((orders, shape))
}

/// The text behind the gap that is to be filled.
fn suffix(fields: Fields<'_>, engine: &Engine) -> Result<Option<String>, Failure> {
    let suffix = fields.text("suffix")?;
    if suffix.is_some() && engine.tokenizer.infill().is_none() {
        fields.refuse("suffix", "this model has no tokens for text between two texts")?;
    }
    if suffix.is_some() && fields.flag("echo")? == Some(true) {
        return Err(Failure::field(
            "echo",
            "`echo` repeats a prompt, and one with a `suffix` is no text: leave one out",
        ));
    }
    Ok(suffix.map(str::to_owned))
}

/// The tokens of a prompt, and the prompt as a part of the answer.
fn prompt(engine: &Engine, written: Written, suffix: Option<&[u32]>) -> Result<(Prompt, Echo), Failure> {
    if let (Some(suffix), Some([before, behind, gap])) = (suffix, engine.tokenizer.infill()) {
        let mut tokens = engine.tokenizer.raw_prefix();
        tokens.push(before);
        tokens.extend(written.tokens(engine, "prompt")?);
        tokens.push(behind);
        let (n, n_ctx) = (tokens.len() + suffix.len() + 1, engine.facts.n_ctx);
        if n > n_ctx {
            return Err(Failure::context(n, n_ctx));
        }
        tokens.extend_from_slice(suffix);
        tokens.push(gap);
        let echo = Echo { text: String::new(), prefix: 0, first: String::new() };
        return Ok((Prompt { tokens, start: OutputStart::Content }, echo));
    }
    let (prompt, text, prefix) = match written {
        Written::Text(text) => (engine.raw_prompt(&text)?, text, engine.tokenizer.raw_prefix().len()),
        written @ Written::Tokens(_) => {
            let tokens = written.tokens(engine, "prompt")?;
            let text = engine.tokenizer.decode(&tokens, ControlTokens::Show);
            (Prompt { tokens, start: OutputStart::Content }, text, 0)
        }
    };
    let first = prompt.tokens.get(prefix).map(|&id| engine.tokenizer.piece(id));
    let first = String::from_utf8_lossy(first.unwrap_or_default()).into_owned();
    Ok((prompt, Echo { text, prefix, first }))
}
