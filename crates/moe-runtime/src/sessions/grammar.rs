//! Answers that follow a JSON schema, a regular expression or a grammar, by the crate `llguidance`.
//!
//! ```text
//!  vocabulary ──once──► trie of tokens ─┐
//!  grammar ──compile, within limits──► parser ──before each token──► the tokens that may come next
//! ```
//!
//! Grammars are input of strangers. Their text has at most [`GrammarCompiler::MAX_BYTES`], a reference may not leave its
//! schema, and the crate counts the work of compiling and of each step against the limits below.

mod calls;

use std::fmt;
use std::sync::{Arc, LazyLock};

use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{ApproximateTokEnv, INVALID_TOKEN, InferenceCapabilities, SimpleVob, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value as Json, json};

use crate::error::{Error, Result};
use crate::sessions::error::SessionError;
use crate::sessions::sampler::TokenConstraint;
use crate::text::tokenizer::{TokenType, Tokenizer};

/// Most bytes of a vocabulary: the trie counts its nodes in 24 bits.
const MAX_VOCABULARY_BYTES: usize = 8 << 20;
/// Longer tokens never come next: a path of the trie has a bounded length.
const MAX_TOKEN_BYTES: usize = 255;
/// Longest reason in an error message, in characters; it may quote a grammar.
const MAX_REASON: usize = 300;

/// The rule of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Grammar {
    /// An object in JSON, with any keys.
    JsonObject,
    /// JSON that a schema describes. References begin with `#/`. The key `x-guidance` of its root, which holds options
    /// of llguidance, is replaced: there may be at most 16 characters of white space between two parts of the JSON.
    JsonSchema(Json),
    /// A text that a regular expression matches as a whole.
    Regex(String),
    /// A text of a grammar in llguidance's form of Lark, whose first rule is `start`. `<name>` is a control token.
    Lark(String),
}

/// Compiles grammars for the vocabulary of a model.
///
/// The trie of the vocabulary is built with the first grammar, which takes seconds for a large one.
///
/// ```
/// use moe_runtime::{Grammar, GrammarCompiler, Sampler, SamplerConfig, Tokenizer};
/// let tokenizer = Tokenizer::bytes();
/// let compiler = GrammarCompiler::of_model(&tokenizer);
/// let digits = compiler.compile(&Grammar::Regex("[0-9]+".to_owned()))?;
/// let mut sampler = Sampler::new(SamplerConfig::greedy())?.with_constraint(Box::new(digits));
/// let mut logits = vec![0.0; tokenizer.vocab_size()];
/// logits[usize::from(b'x')] = 9.0;
/// logits[usize::from(b'7')] = 1.0;
/// assert_eq!(sampler.sample(&logits)?, u32::from(b'7'));
/// # Ok::<(), moe_runtime::Error>(())
/// ```
pub struct GrammarCompiler {
    factory: LazyLock<Factory, Box<dyn FnOnce() -> Factory + Send>>,
}

type Factory = std::result::Result<ParserFactory, String>;

impl fmt::Debug for GrammarCompiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrammarCompiler").finish_non_exhaustive()
    }
}

impl GrammarCompiler {
    /// Longest text of a grammar, in bytes.
    pub const MAX_BYTES: usize = 64 << 10;

    /// A compiler for the vocabulary of a model.
    #[must_use]
    pub fn of_model(tokenizer: &Tokenizer) -> GrammarCompiler {
        let words = words(tokenizer);
        let stops = tokenizer.stop_ids().to_vec();
        GrammarCompiler { factory: LazyLock::new(Box::new(move || factory(&words, &stops))) }
    }

    /// The constraint of one answer.
    ///
    /// # Errors
    /// [`SessionError::Grammar`] for a grammar that is too long, cannot be parsed, refers to another document or takes too
    /// much work, and for a vocabulary of more than 8 MiB.
    pub fn compile(&self, grammar: &Grammar) -> Result<GrammarConstraint> {
        let bytes = match grammar {
            Grammar::JsonObject => 0,
            Grammar::JsonSchema(schema) => schema.to_string().len(),
            Grammar::Regex(text) | Grammar::Lark(text) => text.len(),
        };
        if bytes > Self::MAX_BYTES {
            return Err(unusable(format!("it has {bytes} bytes, more than the {} allowed", Self::MAX_BYTES)));
        }
        if let Grammar::JsonSchema(schema) = grammar
            && let Some(reference) = outside_reference(schema)
        {
            return Err(unusable(format!("`{reference}` lies outside of the schema, and references begin with `#/`")));
        }
        let factory = self.factory.as_ref().map_err(unusable)?;
        let grammar = match grammar {
            Grammar::JsonObject => TopLevelGrammar::from_json_schema(with_short_gaps(json!({"type": "object"}))),
            Grammar::JsonSchema(schema) => TopLevelGrammar::from_json_schema(with_short_gaps(schema.clone())),
            Grammar::Regex(text) => TopLevelGrammar::from_regex(text),
            Grammar::Lark(text) => TopLevelGrammar::from_lark(text.clone()),
        };
        let parser = factory.create_parser(grammar).map_err(unusable)?;
        let mut matcher = Matcher::new(Ok(parser));
        let mask = matcher.compute_mask_or_eos().map_err(unusable)?;
        Ok(GrammarConstraint { matcher, mask })
    }
}

/// A reference of a schema to another document.
fn outside_reference(schema: &Json) -> Option<&str> {
    let mut places = vec![schema];
    while let Some(place) = places.pop() {
        match place {
            Json::Array(items) => places.extend(items),
            Json::Object(members) => {
                let reference = members.get("$ref").and_then(Json::as_str);
                if let Some(reference) = reference.filter(|reference| !reference.starts_with('#')) {
                    return Some(reference);
                }
                places.extend(members.values());
            }
            _ => {}
        }
    }
    None
}

/// The schema with a limit on the white space between two parts of its JSON: a small model writes it without end, or until
/// it counts as a loop. Takes the place of a key `x-guidance` that the schema had.
fn with_short_gaps(mut schema: Json) -> Json {
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("x-guidance".to_owned(), json!({"whitespace_pattern": "[ \\n\\r\\t]{1,16}"}));
    }
    schema
}

/// The bytes of each token; empty for one that never comes next. Control tokens and markup are not text: they bear a mark
/// that no text has.
fn words(tokenizer: &Tokenizer) -> Vec<Vec<u8>> {
    let word = |id: u32| {
        let piece = tokenizer.piece(id);
        let is_text = match tokenizer.token_type(id) {
            Some(TokenType::Normal | TokenType::Byte) => true,
            Some(TokenType::UserDefined) => !tokenizer.is_markup(id),
            Some(TokenType::Control) => false,
            Some(TokenType::Unknown | TokenType::Unused) | None => return Vec::new(),
        };
        let has_mark = piece.contains(&TokTrie::SPECIAL_TOKEN_MARKER);
        if piece.is_empty() || piece.len() > MAX_TOKEN_BYTES || has_mark {
            Vec::new()
        } else if is_text {
            piece.to_vec()
        } else {
            [&[TokTrie::SPECIAL_TOKEN_MARKER], piece].concat()
        }
    };
    (0..).take(tokenizer.vocab_size()).map(word).collect()
}

fn factory(words: &[Vec<u8>], stops: &[u32]) -> Factory {
    let total: usize = words.iter().map(Vec::len).sum();
    let Some(n_words) = u32::try_from(words.len()).ok().filter(|_| total <= MAX_VOCABULARY_BYTES) else {
        return Err(format!("the vocabulary has {total} bytes, more than the {MAX_VOCABULARY_BYTES} allowed"));
    };
    let stops: Vec<u32> = stops.iter().copied().filter(|&id| id < n_words).collect();
    let mut trie = TokTrie::from(&TokRxInfo::new(n_words, INVALID_TOKEN), words);
    if !stops.is_empty() {
        trie = trie.with_eos_tokens(&stops);
    }
    let env = Arc::new(ApproximateTokEnv::new(trie));
    let slices = SlicedBiasComputer::json_slices();
    let made = ParserFactory::new(&(env as _), InferenceCapabilities::default(), &slices);
    let mut factory = made.map_err(|error| error.to_string())?;
    factory.quiet();
    *factory.limits_mut() = ParserLimits {
        max_lexer_states: 50_000,
        max_grammar_size: 200_000,
        verbose_errors: false,
        ..ParserLimits::default()
    };
    Ok(factory)
}

fn unusable(reason: impl fmt::Display) -> Error {
    let reason = reason.to_string();
    let reason = reason.lines().next().unwrap_or_default().chars().take(MAX_REASON).collect();
    Error::Session(SessionError::Grammar { reason })
}

/// The constraint of one answer by a [`Grammar`].
pub struct GrammarConstraint {
    matcher: Matcher,
    mask: SimpleVob,
}

impl fmt::Debug for GrammarConstraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrammarConstraint").field("stopped", &self.matcher.is_stopped()).finish_non_exhaustive()
    }
}

impl TokenConstraint for GrammarConstraint {
    fn restart(&mut self) {
        // A matcher that cannot be reset reports it with the next mask.
        let _ = self.matcher.reset();
    }

    fn allowed(&mut self) -> Result<&[u32]> {
        self.mask = self.matcher.compute_mask_or_eos().map_err(unusable)?;
        Ok(self.mask.as_slice())
    }

    fn take(&mut self, token: u32) -> Result<()> {
        // Behind its end only tokens that end the answer are allowed.
        if self.matcher.is_stopped() && !self.matcher.is_error() {
            return Ok(());
        }
        self.matcher.consume_token(token).map_err(unusable)
    }
}
