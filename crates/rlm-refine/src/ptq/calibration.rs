//! The tokens that a student is calibrated on: windows of texts and conversations.
//!
//! ```text
//! text                 [prefix | 254 tokens] [prefix | 254 tokens] ...
//! chat, JSON lines     one window per conversation, rendered by the model's template, cut at 256 tokens
//! ```
//! Every source gives the same number of tokens where it has them, taken at even distances, or so that each expert of the
//! model sees enough of them. The model's own generations can be one more source.
//!
//! **Invariant:** no window holds 64 tokens in a row of an excluded text.

use std::collections::HashSet;

use moe_runtime::{ChatRequest, ChatTemplate, ModelFiles, Tokenizer};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tl_kernels::Pool;

use super::coverage::{choose, expert_tokens, spread};
use super::error::PtqError;
use super::generations::generate;
use super::spans::{aligned_spans, spans};
use crate::error::Result;

/// A text, with the name that messages call it by.
#[derive(Clone, Debug)]
pub struct NamedText {
    /// The file that it was read from.
    pub name: String,
    /// Plain text, or one JSON object with `messages` per line.
    pub text: String,
}

/// How windows are cut.
#[derive(Clone, Copy, Debug)]
pub struct WindowOptions {
    /// Most tokens of a window, its prefix included.
    pub window_tokens: usize,
    /// Most tokens of all windows.
    pub max_tokens: usize,
    /// Tokens that each expert is to see where the texts give them; 0 takes windows at even distances.
    pub expert_tokens: u32,
    /// Tokens that the model generates itself.
    pub generated_tokens: usize,
    /// Seed of the generations.
    pub seed: u64,
}

impl Default for WindowOptions {
    fn default() -> Self {
        Self { window_tokens: 256, max_tokens: 128 << 10, expert_tokens: 0, generated_tokens: 0, seed: 0 }
    }
}

/// The windows of a calibration.
#[derive(Clone, Debug)]
pub struct Calibration {
    pub(crate) windows: Vec<Vec<u32>>,
    /// One report per source.
    pub sources: Vec<SourceReport>,
    /// Fingerprints of the windows' runs of 64 tokens.
    pub spans: Vec<u64>,
    /// BLAKE3 of all windows.
    pub blake3: String,
    /// BLAKE3 of the texts and options that ask for these windows of a model.
    pub(super) request: String,
    /// BLAKE3 of the model, where an unfinished job had kept the windows.
    pub(super) model: Option<String>,
}

/// The share of one source.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SourceReport {
    /// The file that its text was read from.
    pub name: String,
    /// Windows that it holds.
    pub windows: usize,
    /// Windows that were left out because they overlap an excluded text.
    pub excluded: usize,
    /// Windows that are used.
    pub used: usize,
    /// Tokens that are used.
    pub tokens: usize,
}

impl Calibration {
    /// Cuts `sources` into windows of the tokens of a model, without those that overlap a text of `exclude`.
    ///
    /// # Errors
    /// A conversation that cannot be rendered, a model without a template for conversations, no window at all, or a model
    /// that cannot be run to generate or to route tokens.
    pub fn new(
        files: &ModelFiles,
        pool: &Pool,
        sources: &[NamedText],
        exclude: &[NamedText],
        options: WindowOptions,
    ) -> Result<Self> {
        let tokenizer = files.tokenizer()?;
        let cutter = Cutter { template: ChatTemplate::of_model(&tokenizer)?, tokenizer, options };
        let mut excluded = HashSet::new();
        for text in exclude {
            for window in cutter.sequences(text)? {
                excluded.extend(spans(&window));
            }
        }
        let mut all = Vec::new();
        for source in sources {
            all.push((source.name.clone(), cutter.windows(source)?));
        }
        if options.generated_tokens > 0 {
            let windows = generate(files, pool, options.window_tokens, options.generated_tokens, options.seed)?;
            all.push(("generations of the model".to_owned(), windows));
        }
        let mut found = Vec::new();
        for (name, windows) in all {
            let all = windows.len();
            let fresh: Vec<_> =
                windows.into_iter().filter(|w| !spans(w).iter().any(|span| excluded.contains(span))).collect();
            found.push((SourceReport { name, windows: all, excluded: all - fresh.len(), used: 0, tokens: 0 }, fresh));
        }
        let shares =
            shares(&found.iter().map(|(_, w)| w.iter().map(Vec::len).sum()).collect::<Vec<_>>(), options.max_tokens);
        let (mut windows, mut reports) = (Vec::new(), Vec::new());
        for ((mut report, fresh), share) in found.into_iter().zip(shares) {
            let used = if options.expert_tokens > 0 {
                covering(files, pool, fresh, options.expert_tokens, share)?
            } else {
                evenly(fresh, share)
            };
            report.used = used.len();
            report.tokens = used.iter().map(Vec::len).sum();
            reports.push(report);
            windows.extend(used);
        }
        if windows.is_empty() {
            return Err(PtqError::NoTokens.into());
        }
        Ok(Self::of(windows, reports, request(sources, exclude, options)))
    }

    /// The calibration on these windows.
    pub(super) fn of(windows: Vec<Vec<u32>>, sources: Vec<SourceReport>, request: String) -> Self {
        let mut hasher = blake3::Hasher::new();
        for window in &windows {
            hasher.update(&(window.len() as u64).to_le_bytes());
            window.iter().for_each(|token| {
                hasher.update(&token.to_le_bytes());
            });
        }
        let spans = windows.iter().flat_map(|window| aligned_spans(window)).collect();
        Self { windows, sources, spans, blake3: hasher.finalize().to_string(), request, model: None }
    }

    /// The windows of all sources, source after source.
    #[must_use]
    pub fn windows(&self) -> &[Vec<u32>] {
        &self.windows
    }

    /// Windows at even distances with at most `max_tokens` in all; the first, cut, where it alone has more.
    pub(crate) fn sample(&self, max_tokens: usize) -> Vec<Vec<u32>> {
        let sample = evenly(self.windows.clone(), max_tokens.min(self.tokens()));
        match self.windows.first() {
            Some(first) if sample.is_empty() => vec![first[..first.len().min(max_tokens)].to_vec()],
            _ => sample,
        }
    }

    /// Tokens of all windows.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.windows.iter().map(Vec::len).sum()
    }
}

/// BLAKE3 of everything but the model that windows depend on.
pub(super) fn request(sources: &[NamedText], exclude: &[NamedText], options: WindowOptions) -> String {
    let mut hasher = blake3::Hasher::new();
    let WindowOptions { window_tokens, max_tokens, expert_tokens, generated_tokens, seed } = options;
    let expert_tokens = u64::from(expert_tokens);
    for number in [window_tokens as u64, max_tokens as u64, expert_tokens, generated_tokens as u64, seed] {
        hasher.update(&number.to_le_bytes());
    }
    for texts in [sources, exclude] {
        hasher.update(&(texts.len() as u64).to_le_bytes());
        for NamedText { name, text } in texts {
            for part in [name, text] {
                hasher.update(&(part.len() as u64).to_le_bytes());
                hasher.update(part.as_bytes());
            }
        }
    }
    hasher.finalize().to_string()
}

struct Cutter {
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    options: WindowOptions,
}

impl Cutter {
    /// A source as sequences of tokens: a text is one, each conversation another.
    fn sequences(&self, source: &NamedText) -> Result<Vec<Vec<u32>>> {
        if !is_chat(&source.text) {
            return Ok(vec![self.tokenizer.encode(&source.text, false)?]);
        }
        let Some(template) = &self.template else {
            return Err(PtqError::NoTemplate { name: source.name.clone() }.into());
        };
        let lines = source.text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        lines
            .map(|(i, line)| {
                let invalid =
                    |reason: String| PtqError::Conversation { name: source.name.clone(), line: i + 1, reason };
                let request = chat_request(line).map_err(invalid)?;
                let prompt = template.prompt(&request).map_err(|error| invalid(error.to_string()))?;
                Ok(self.tokenizer.encode_prompt(&prompt)?)
            })
            .collect()
    }

    fn windows(&self, source: &NamedText) -> Result<Vec<Vec<u32>>> {
        let most = self.options.window_tokens;
        if is_chat(&source.text) {
            let mut windows = self.sequences(source)?;
            windows.iter_mut().for_each(|window| window.truncate(most));
            windows.retain(|window| !window.is_empty());
            return Ok(windows);
        }
        let prefix = self.tokenizer.raw_prefix();
        let text = self.sequences(source)?.concat();
        let body = most.saturating_sub(prefix.len()).max(1);
        Ok(text.chunks(body).map(|body| [&prefix[..], body].concat()).collect())
    }
}

/// Whether a text is JSON lines of conversations: its first line is an object with `messages`.
fn is_chat(text: &str) -> bool {
    let first = text.lines().find(|line| !line.trim().is_empty());
    first.and_then(|line| serde_json::from_str::<Value>(line).ok()).is_some_and(|line| line.get("messages").is_some())
}

fn chat_request(line: &str) -> Result<ChatRequest, String> {
    let mut line: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let mut list = |key: &str| match line.get_mut(key).map(Value::take) {
        Some(Value::Array(values)) => Ok(values),
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(_) => Err(format!("`{key}` is no list")),
    };
    let (messages, tools) = (list("messages")?, list("tools")?);
    if messages.is_empty() {
        return Err("it has no `messages`".to_owned());
    }
    Ok(ChatRequest { messages, tools, ..ChatRequest::default() })
}

/// Divides `total` among sources that have at most `available` each: equally, and what one lacks goes to the others.
fn shares(available: &[usize], total: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..available.len()).collect();
    order.sort_by_key(|&i| available[i]);
    let (mut shares, mut left) = (vec![0; available.len()], total);
    for (done, &i) in order.iter().enumerate() {
        shares[i] = available[i].min(left / (order.len() - done));
        left -= shares[i];
    }
    shares
}

/// Windows at even distances with at most `max_tokens` in all.
fn evenly(windows: Vec<Vec<u32>>, max_tokens: usize) -> Vec<Vec<u32>> {
    let lengths: Vec<usize> = windows.iter().map(Vec::len).collect();
    kept(windows, &spread(&lengths, max_tokens))
}

/// Windows with at most `max_tokens` in all from twice as many, so that each expert sees `enough` tokens where it can.
fn covering(
    files: &ModelFiles,
    pool: &Pool,
    windows: Vec<Vec<u32>>,
    enough: u32,
    max_tokens: usize,
) -> Result<Vec<Vec<u32>>> {
    let windows = evenly(windows, 2 * max_tokens);
    let lengths: Vec<usize> = windows.iter().map(Vec::len).collect();
    let counts = expert_tokens(files, pool, &windows)?;
    Ok(kept(windows, &choose(&lengths, &counts, enough, max_tokens)))
}

/// The windows with these numbers, which ascend.
fn kept(windows: Vec<Vec<u32>>, numbers: &[usize]) -> Vec<Vec<u32>> {
    let mut numbers = numbers.iter().peekable();
    windows.into_iter().enumerate().filter(|(i, _)| numbers.next_if(|n| **n == *i).is_some()).map(|(_, w)| w).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_share_the_tokens() {
        assert_eq!(shares(&[100, 10, 100], 90), [40, 10, 40]);
        assert_eq!(shares(&[5, 5], 100), [5, 5]);
        let windows: Vec<Vec<u32>> = (0..10).map(|i| vec![i; 4]).collect();
        let firsts = evenly(windows, 20).iter().map(|w| w[0]).collect::<Vec<_>>();
        assert_eq!(firsts, [1, 3, 5, 7, 9]);
    }
}
