//! A BERT sentence encoder (Devlin et al. 2018; Reimers and Gurevych 2019): the mean of the last hidden states, of unit length.
//!
//! ```text
//! x = LN(word + position + segment)
//! per layer:  x = LN(x + O(attention(Q x, K x, V x)))       every token sees every token of its text
//!             x = LN(x + down(gelu(up(x))))
//! vector = mean over the tokens of x, divided by its length
//! ```
//! The tokens of all texts of a batch lie one after another, `[tokens, hidden]`, without padding: products work on single rows
//! and attention on single texts, so neither time nor a bit depends on what shares the batch.

use std::path::Path;
use std::sync::Arc;

use gguf_bitnet::{SafetensorsDir, read_text};
use ternary_core::Bytes;
use tl_kernels::Pool;
use tl_kernels::math::{gelu_in_place, scale_in_place, softmax_in_place};
use tl_kernels::rows::{Table, dots, weighted_sums};

use super::base::BaseEmbedder;
use super::config::BertConfig;
use super::error::EncoderError;
use super::pieces::Pieces;
use super::projection::{Inputs, RoundingRules};
use super::tokens::{MAX_TOKENIZER_BYTES, Tokens};
use super::vectors::{add, normalise};
use super::weights::{BertWeights, Layer, Norm, Precision};
use crate::error::Result;

/// Tokens that are computed together; it bounds the memory of a call.
const BATCH_TOKENS: usize = 1024;

/// Bytes of memory that a byte of `tokenizer.json` takes at most: each word of the vocabulary stands in several tables.
const BYTES_PER_TOKENIZER_BYTE: u64 = 40;

/// Texts of many kinds, over which the ranges of the inputs are taken, together with [`RANGE_SENTENCE`].
const RANGE_TEXTS: [&str; 28] = [
    "",
    "!?",
    "- -",
    "b",
    "1",
    "no",
    "ok.",
    "(x) -> y",
    "Größe",
    "日本語の文",
    "😀",
    "山山山山山山山山山山山山山山山山",
    "あああああああああ",
    "!!!!!!!!!!!!!!!!",
    "na na na na na na na na",
    "A dog waits at the door.",
    "How many carts may cross the bridge in one hour?",
    "In 1987 the harbour was closed to ships longer than 120 metres.",
    "The drug does not lower blood pressure in adults over 60.",
    "fn add(a: i32, b: i32) -> i32 { a + b }",
    "She bought two tickets, a map and a loaf of bread.",
    "https://example.org/a/b?c=1#d",
    "Returns the number of elements, or an error if the list is empty.",
    "- one\n- two\n- three",
    "Prices rose by 3.5 % while wages fell.",
    "WARNING: THE DOOR IS LOCKED!!!",
    "Café, naïve, coöperate, fiancée",
    "A long sentence goes on, past one comma and the next, without haste, because its writer wanted to see how far a reader follows \
     before the end, which is here, comes into sight.",
];

/// Said [`RANGE_REPEATS`] times, one text of about 290 tokens: more than MiniLM takes.
const RANGE_SENTENCE: &str = "the winter was long and the road to the village lay under snow so that no cart came through before the thaw in \
     spring when men cleared it with shovels and sang ";
const RANGE_REPEATS: usize = 9;

/// An encoder of the BERT family.
///
/// ```
/// use std::sync::Arc;
/// use rlm_embed::encoder::{BaseEmbedder, BertEncoder, Precision, cosine};
/// let folder = fixtures::path("goldens/bert-tiny");
/// let mut encoder = BertEncoder::load(&folder, Precision::F32, Arc::new(tl_kernels::Pool::serial()))?;
/// let vectors = encoder.embed(&["the northern bridge", "the northern bridge"])?;
/// let (a, b) = vectors.split_at(encoder.dims());
/// assert!(a == b && (cosine(a, b) - 1.0).abs() < 1e-6);
/// # Ok::<(), rlm_embed::Error>(())
/// ```
#[derive(Debug)]
pub struct BertEncoder {
    config: BertConfig,
    weights: BertWeights,
    tokens: Box<dyn Tokens>,
    /// Bytes that the tokenizer takes at most.
    tokenizer_bytes: u64,
    pool: Arc<Pool>,
    identity: [u8; 32],
}

/// The files of a checkpoint folder, in memory.
#[derive(Debug)]
pub struct BertParts<'a> {
    /// The text of `config.json`.
    pub config: &'a str,
    /// The text of `tokenizer.json`.
    pub tokenizer: &'a str,
    /// Most tokens of a text, as `sentence_bert_config.json` states them; longer texts lose their end.
    pub max_tokens: usize,
    /// The bytes of `model.safetensors`.
    pub weights: Bytes,
}

/// The tokenizer of a checkpoint folder.
#[cfg(feature = "std")]
fn tokens(json: &str, path: &Path, config: &BertConfig) -> Result<Box<dyn Tokens>> {
    Ok(Box::new(super::wordpiece::WordPiece::read(json, path, config.vocab_size)?))
}

/// The tokenizer of a checkpoint folder.
#[cfg(not(feature = "std"))]
fn tokens(json: &str, path: &Path, config: &BertConfig) -> Result<Box<dyn Tokens>> {
    Ok(Box::new(Pieces::read(json, path, config.vocab_size)?))
}

/// A text in a batch: its tokens are the rows `start .. start + len`.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: usize,
    len: usize,
}

impl BertEncoder {
    /// Loads the checkpoint folder `dir`: `config.json`, `tokenizer.json` and safetensors.
    ///
    /// # Errors
    /// A file that is missing or damaged, a network of another kind, weights of another shape or that are not finite.
    pub fn load(dir: &Path, precision: Precision, pool: Arc<Pool>) -> Result<BertEncoder> {
        let config = BertConfig::read(dir)?;
        let path = dir.join("tokenizer.json");
        let json = read_text(&path, MAX_TOKENIZER_BYTES)?;
        let tokens = tokens(&json, &path, &config)?;
        BertEncoder::of(config, (tokens, &json), (SafetensorsDir::open(dir)?, dir), precision, pool)
    }

    /// An encoder of the files of a checkpoint folder in memory, for programs without files. It has the identity and the vectors of
    /// the one that [`BertEncoder::load`] makes of the same files; its tokenizer is the crate's own.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use rlm_embed::encoder::{BertEncoder, BertParts, Precision};
    /// let read = |name: &str| std::fs::read(fixtures::path("goldens/bert-tiny").join(name)).unwrap();
    /// let [config, tokenizer] = ["config.json", "tokenizer.json"].map(|name| String::from_utf8(read(name)).unwrap());
    /// let weights = read("model.safetensors").into();
    /// let parts = BertParts { config: &config, tokenizer: &tokenizer, max_tokens: 256, weights };
    /// let encoder = BertEncoder::of_parts(parts, Precision::F32, Arc::new(tl_kernels::Pool::serial()))?;
    /// assert_eq!(encoder.token_ids("")?.len(), 2);
    /// # Ok::<(), rlm_embed::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`BertEncoder::load`], and a tokenizer that is no WordPiece of BERT.
    pub fn of_parts(parts: BertParts<'_>, precision: Precision, pool: Arc<Pool>) -> Result<BertEncoder> {
        let config = BertConfig::of_text(parts.config, parts.max_tokens, Path::new("config.json"))?;
        let path = Path::new("tokenizer.json");
        let tokens = Box::new(Pieces::read(parts.tokenizer, path, config.vocab_size)?);
        let weights = (SafetensorsDir::from_bytes(parts.weights)?, Path::new("model.safetensors"));
        BertEncoder::of(config, (tokens, parts.tokenizer), weights, precision, pool)
    }

    fn of(
        config: BertConfig,
        (tokens, json): (Box<dyn Tokens>, &str),
        (source, path): (SafetensorsDir, &Path),
        precision: Precision,
        pool: Arc<Pool>,
    ) -> Result<BertEncoder> {
        let mut hash = blake3::Hasher::new();
        // Widths and layers are those of the tensors, whose names and bytes follow.
        let (heads, eps) = (config.num_attention_heads, config.layer_norm_eps.to_bits());
        let facts = format!("bert {precision:?} tokens {} heads {heads} eps {eps:08x} ", config.max_tokens);
        hash.update(facts.as_bytes()).update(json.as_bytes());
        let weights = BertWeights::read(source, path, &config, precision, &mut hash)?;
        let identity = *hash.finalize().as_bytes();
        let tokenizer_bytes = BYTES_PER_TOKENIZER_BYTE * json.len() as u64;
        let encoder = BertEncoder { config, weights, tokens, tokenizer_bytes, pool, identity };
        if precision == Precision::Q8_0A8 { encoder.rounded(RoundingRules::CHOSEN) } else { Ok(encoder) }
    }

    /// The same encoder with the inputs of its products rounded to INT8, by their ranges over [`RANGE_TEXTS`] and a long text.
    fn rounded(mut self, rules: RoundingRules) -> Result<BertEncoder> {
        let long = RANGE_SENTENCE.repeat(RANGE_REPEATS);
        let texts = RANGE_TEXTS.into_iter().chain([&*long]);
        let tokens: Vec<Vec<u32>> = texts.clone().map(|text| self.token_ids(text)).collect::<Result<_>>()?;
        let mut inputs = Inputs::watching(tokens.iter().map(Vec::len));
        self.forward(&tokens, &mut inputs, &mut Vec::new())?;
        self.weights = self.weights.rounded(&inputs.into_ranges(), rules)?;
        let mut hash = blake3::Hasher::new();
        rules.hash(&mut hash);
        for text in texts {
            hash.update(text.as_bytes()).update(&[0xff]);
        }
        self.identity = *hash.update(&self.identity).finalize().as_bytes();
        Ok(self)
    }

    /// Whether `dir` is the folder of a BERT checkpoint, by its `config.json`.
    #[must_use]
    pub fn is_at(dir: &Path) -> bool {
        BertConfig::is_at(dir)
    }

    /// Most tokens of a text; longer texts lose their end.
    #[must_use]
    pub fn max_tokens(&self) -> usize {
        self.config.max_tokens
    }

    /// The token ids of a text, as the encoder reads it.
    ///
    /// # Errors
    /// A text over the limit of bytes.
    pub fn token_ids(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.tokens.encode(text, self.config.max_tokens)?)
    }

    /// The token ids of a text with those of its end, which the encoder does not read.
    ///
    /// # Errors
    /// A text over the limit of bytes.
    pub fn all_token_ids(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.tokens.encode(text, usize::MAX)?)
    }

    /// Number of token ids.
    #[must_use]
    pub fn vocabulary(&self) -> usize {
        self.config.vocab_size
    }

    /// Number of weights: embeddings, matrices, biases and norms together.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        self.config.parameters()
    }

    /// Bytes of the weights in memory.
    #[must_use]
    pub fn weight_bytes(&self) -> u64 {
        self.weights.memory_bytes()
    }

    /// The vectors of texts that are given as the ids of [`BertEncoder::token_ids`], `[texts, dims]`.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use rlm_embed::encoder::{BaseEmbedder, BertEncoder, Precision};
    /// let folder = fixtures::path("goldens/bert-tiny");
    /// let mut encoder = BertEncoder::load(&folder, Precision::F32, Arc::new(tl_kernels::Pool::serial()))?;
    /// let ids = encoder.token_ids("the northern bridge")?;
    /// assert!(encoder.embed_ids(&[ids])? == encoder.embed(&["the northern bridge"])?);
    /// # Ok::<(), rlm_embed::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`EncoderError::Ids`] for ids that are none of a text.
    pub fn embed_ids(&self, texts: &[Vec<u32>]) -> Result<Vec<f32>> {
        let (rows, most) = (self.config.vocab_size, self.config.max_tokens);
        let is_text = |ids: &Vec<u32>| (2..=most).contains(&ids.len()) && ids.iter().all(|&id| (id as usize) < rows);
        if let Some(ids) = texts.iter().find(|ids| !is_text(ids)) {
            return Err(EncoderError::Ids { got: ids.len(), most, rows }.into());
        }
        let mut vectors = Vec::with_capacity(texts.len() * self.dims());
        let (mut inputs, mut rest) = (Inputs::default(), texts);
        while !rest.is_empty() {
            let ends = rest.iter().scan(0, |n, ids| {
                *n += ids.len();
                Some(*n)
            });
            let fit = ends.take_while(|&n| n <= BATCH_TOKENS).count().max(1);
            let (batch, behind) = rest.split_at(fit);
            self.forward(batch, &mut inputs, &mut vectors)?;
            rest = behind;
        }
        Ok(vectors)
    }

    /// Appends the vectors of texts, given as token ids.
    fn forward(&self, texts: &[Vec<u32>], inputs: &mut Inputs, out: &mut Vec<f32>) -> Result<()> {
        let h = self.config.hidden_size;
        let mut spans = Vec::with_capacity(texts.len());
        let mut n = 0;
        for ids in texts {
            spans.push(Span { start: n, len: ids.len() });
            n += ids.len();
        }
        let mut x = self.embedding(texts)?;
        self.norm_rows(&self.weights.norm, &mut x);
        let mut buffers = Buffers::new(n, &self.config);
        for layer in &self.weights.layers {
            self.layer(layer, &spans, &mut x, &mut buffers, inputs);
        }
        for span in spans {
            let mut mean = vec![0.0; h];
            for row in x[span.start * h..][..span.len * h].chunks_exact(h) {
                add(&mut mean, row);
            }
            scale_in_place(&mut mean, 1.0 / span.len as f32);
            normalise(&mut mean);
            out.extend_from_slice(&mean);
        }
        Ok(())
    }

    /// The sums of word, position and segment embeddings, `[tokens, hidden]`.
    fn embedding(&self, texts: &[Vec<u32>]) -> Result<Vec<f32>> {
        let h = self.config.hidden_size;
        let mut x = vec![0.0; texts.iter().map(Vec::len).sum::<usize>() * h];
        let mut rows = x.chunks_exact_mut(h);
        for ids in texts {
            for ((&id, position), row) in ids.iter().zip(self.weights.positions.chunks_exact(h)).zip(&mut rows) {
                self.weights.words.dequantize_row(id as usize, row)?;
                add(row, &self.weights.segment);
                add(row, position);
            }
        }
        Ok(x)
    }

    fn layer(&self, layer: &Layer, spans: &[Span], x: &mut [f32], b: &mut Buffers, inputs: &mut Inputs) {
        let Buffers { n, q, k, v, mixed, up } = b;
        let (n, h) = (*n, self.config.hidden_size);
        layer.attention.forward(&self.pool, x, n, inputs, [&mut *q, &mut *k, &mut *v]);
        for (y, affine) in [&mut *q, &mut *k, &mut *v].into_iter().zip(&layer.attention.affines) {
            add_bias(y, &affine.bias);
        }
        self.attention(spans, [q, k, v], mixed);
        for (span, row, from) in mixed_rows(spans, self.config.head_dim(), h) {
            q[row..][..span].copy_from_slice(&mixed[from..][..span]);
        }
        layer.output.forward(&self.pool, q, n, inputs, [&mut *k]);
        self.residual(x, k, &layer.output.affines[0].bias, &layer.attention_norm);
        layer.up.forward(&self.pool, x, n, inputs, [&mut *up]);
        let f = self.config.intermediate_size;
        self.pool.chunks_mut(up, f, |_, row| {
            add(row, &layer.up.affines[0].bias);
            gelu_in_place(row);
        });
        layer.down.forward(&self.pool, up, n, inputs, [&mut *k]);
        self.residual(x, k, &layer.down.affines[0].bias, &layer.output_norm);
    }

    /// `x = norm(x + (y + bias))`, row by row.
    fn residual(&self, x: &mut [f32], y: &[f32], bias: &[f32], norm: &Norm) {
        let h = self.config.hidden_size;
        self.pool.chunks_mut(x, h, |t, row| {
            for ((x, y), bias) in row.iter_mut().zip(&y[t * h..][..h]).zip(bias) {
                *x += y + bias;
            }
            norm.apply(row);
        });
    }

    fn norm_rows(&self, norm: &Norm, x: &mut [f32]) {
        self.pool.chunks_mut(x, self.config.hidden_size, |_, row| norm.apply(row));
    }

    /// Softmax attention of each text, head by head; `mixed` gets `[head, token, head_dim]` for each text.
    fn attention(&self, spans: &[Span], [q, k, v]: [&[f32]; 3], mixed: &mut [f32]) {
        let (h, d) = (self.config.hidden_size, self.config.head_dim());
        let mut heads = Vec::with_capacity(spans.len() * self.config.num_attention_heads);
        let mut rest = mixed;
        for &span in spans {
            for head in 0..self.config.num_attention_heads {
                let (out, behind) = rest.split_at_mut(span.len * d);
                rest = behind;
                heads.push(Head { span, column: head * d, out });
            }
        }
        let scale = 1.0 / (d as f32).sqrt();
        self.pool.chunks_mut(&mut heads, 1, |_, heads| {
            for Head { span, column, out } in heads {
                let n = span.len;
                let mut scores = vec![0.0; n * n];
                dots(head_rows(q, *span, *column, [d, h]), head_rows(k, *span, *column, [d, h]), &mut scores);
                for row in scores.chunks_exact_mut(n) {
                    scale_in_place(row, scale);
                    softmax_in_place(row);
                }
                out.fill(0.0);
                weighted_sums(Table::new(&scores, n, n, n), head_rows(v, *span, *column, [d, h]), out);
            }
        });
    }
}

impl BaseEmbedder for BertEncoder {
    fn dims(&self) -> usize {
        self.config.hidden_size
    }

    fn identity(&self) -> [u8; 32] {
        self.identity
    }

    /// Weights, mapped ones included, tokenizer, and the buffers of a call.
    fn memory_bytes(&self, tokens: usize) -> Option<u64> {
        let (h, f) = (self.config.hidden_size, self.config.intermediate_size);
        let tokens = tokens.min(BATCH_TOKENS).max(self.config.max_tokens);
        // The states, queries, keys, values and mixed values of a token; its row between two products; and that row as a product
        // takes it: in F32, or moved, rounded, in two parts and with their sums.
        let forms = if self.weights.is_rounded() { 5 } else { 1 };
        let of_rows = tokens * (5 * h + f + forms * h.max(f));
        let of_scores = self.pool.threads() * self.config.max_tokens.pow(2);
        Some(self.weights.memory_bytes() + self.tokenizer_bytes + 4 * (of_rows + of_scores) as u64)
    }

    fn embed(&mut self, texts: &[&str]) -> Result<Vec<f32>> {
        let ids: Vec<Vec<u32>> = texts.iter().map(|text| self.token_ids(text)).collect::<Result<_>>()?;
        self.embed_ids(&ids)
    }
}

/// One head of one text.
struct Head<'a> {
    span: Span,
    column: usize,
    out: &'a mut [f32],
}

/// The buffers of a batch of `n` tokens.
struct Buffers {
    n: usize,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    mixed: Vec<f32>,
    up: Vec<f32>,
}

impl Buffers {
    fn new(n: usize, config: &BertConfig) -> Buffers {
        let wide = || vec![0.0; n * config.hidden_size];
        let (q, k, v, mixed) = (wide(), wide(), wide(), wide());
        Buffers { n, q, k, v, mixed, up: vec![0.0; n * config.intermediate_size] }
    }
}

/// For each head of each token: its number of values, its place in `[tokens, hidden]`, and its place in `mixed`.
fn mixed_rows(spans: &[Span], d: usize, h: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    spans.iter().flat_map(move |&Span { start, len }| {
        (0..h / d).flat_map(move |head| {
            (0..len).map(move |t| (d, (start + t) * h + head * d, start * h + (head * len + t) * d))
        })
    })
}

/// The columns `column .. column + d` of the rows of a text in `values` `[tokens, h]`.
fn head_rows(values: &[f32], span: Span, column: usize, [d, h]: [usize; 2]) -> Table<'_, f32> {
    Table::new(&values[span.start * h + column..], span.len, d, h)
}

fn add_bias(x: &mut [f32], bias: &[f32]) {
    for row in x.chunks_exact_mut(bias.len()) {
        add(row, bias);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_constants_of_the_rounding_are_a_part_of_the_identity() {
        let tiny = || {
            let folder = fixtures::path("goldens/bert-tiny");
            BertEncoder::load(&folder, Precision::F32, Arc::new(Pool::serial())).unwrap()
        };
        let mut identities: Vec<[u8; 32]> = RoundingRules::variants()
            .map(|rules| tiny().rounded(rules).unwrap().identity())
            .into_iter()
            .chain([tiny().identity()])
            .collect();
        let n = identities.len();
        identities.sort_unstable();
        identities.dedup();
        assert_eq!((identities.len(), n), (6, 6));
    }
}
