//! Logarithms of probabilities of tokens, with the texts of the tokens.

use moe_runtime::{Logprobs, TokenLogprob, Tokenizer};
use serde_json::{Map, Value, json};

use crate::http::number::short;

/// A token with its score, and the most likely ones in its place.
#[derive(Clone, Debug)]
pub(crate) struct Score {
    chosen: Scored,
    top: Vec<Scored>,
}

#[derive(Clone, Debug)]
struct Scored {
    bytes: Vec<u8>,
    logprob: f32,
}

impl Score {
    pub(super) fn of(tokenizer: &Tokenizer, logprobs: &Logprobs) -> Score {
        let scored = |token: &TokenLogprob| Scored {
            bytes: tokenizer.piece(token.token).to_vec(),
            // JSON has no infinity.
            logprob: token.logprob.max(-9999.0),
        };
        Score { chosen: scored(&logprobs.chosen), top: logprobs.top.iter().map(scored).collect() }
    }

    /// As the chat route shows it.
    pub(crate) fn chat(&self) -> Value {
        let mut object = self.chosen.object();
        object["top_logprobs"] = self.top.iter().map(Scored::object).collect();
        object
    }
}

impl Scored {
    /// The bytes as text; those that are no UTF-8 are replaced.
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    fn object(&self) -> Value {
        json!({ "token": self.text(), "logprob": short(self.logprob), "bytes": self.bytes })
    }
}

/// Scores as the completion route shows them: four lists of the same length.
#[derive(Clone, Debug, Default)]
pub(crate) struct ScoreLists {
    tokens: Vec<Value>,
    token_logprobs: Vec<Value>,
    top_logprobs: Vec<Value>,
    text_offset: Vec<Value>,
    /// Characters of the tokens so far.
    offset: usize,
}

impl ScoreLists {
    /// Adds a token without a score: the first one of a prompt.
    pub(crate) fn push_unscored(&mut self, text: &str) {
        self.add(text, Value::Null, Value::Null);
    }

    pub(crate) fn push(&mut self, score: &Score) {
        // Of tokens with the same text the most likely one counts.
        let mut top = Map::new();
        for scored in &score.top {
            top.entry(scored.text()).or_insert_with(|| short(scored.logprob));
        }
        self.add(&score.chosen.text(), short(score.chosen.logprob), top.into());
    }

    fn add(&mut self, text: &str, logprob: Value, top: Value) {
        self.tokens.push(text.into());
        self.token_logprobs.push(logprob);
        self.top_logprobs.push(top);
        self.text_offset.push(self.offset.into());
        self.offset += text.chars().count();
    }

    /// The object, whose lists are then empty; the offset goes on.
    pub(crate) fn take(&mut self) -> Value {
        json!({
            "tokens": std::mem::take(&mut self.tokens),
            "token_logprobs": std::mem::take(&mut self.token_logprobs),
            "top_logprobs": std::mem::take(&mut self.top_logprobs),
            "text_offset": std::mem::take(&mut self.text_offset),
        })
    }
}
