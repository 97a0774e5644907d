//! The facts of a BERT encoder in the files beside its weights.
//!
//! `config.json` has the shape of the network, `sentence_bert_config.json` the number of tokens after which a text is cut, and
//! `1_Pooling/config.json` how token vectors become one: only the mean is supported.

use std::path::Path;

use gguf_bitnet::{MAX_CONFIG_BYTES, read_text, read_text_if_any};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::error::EncoderError;
use crate::error::Result;

/// The shape of the network.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct BertConfig {
    pub(super) hidden_size: usize,
    pub(super) num_hidden_layers: usize,
    pub(super) num_attention_heads: usize,
    pub(super) intermediate_size: usize,
    pub(super) vocab_size: usize,
    pub(super) max_position_embeddings: usize,
    pub(super) type_vocab_size: usize,
    #[serde(default = "default_eps")]
    pub(super) layer_norm_eps: f32,
    #[serde(default = "default_act")]
    hidden_act: String,
    #[serde(default = "default_model")]
    model_type: String,
    #[serde(default = "default_positions")]
    position_embedding_type: String,
    /// Most tokens of a text, [CLS] and [SEP] included.
    #[serde(skip)]
    pub(super) max_tokens: usize,
}

fn default_eps() -> f32 {
    1e-12
}
fn default_act() -> String {
    "gelu".to_owned()
}
fn default_model() -> String {
    "bert".to_owned()
}
fn default_positions() -> String {
    "absolute".to_owned()
}

#[derive(Deserialize)]
struct SentenceConfig {
    max_seq_length: Option<usize>,
}

#[derive(Deserialize)]
struct PoolingConfig {
    #[serde(default)]
    pooling_mode_mean_tokens: bool,
}

/// Largest width of a layer; the largest BERT has 1,024 and 4,096.
const MAX_WIDTH: usize = 16_384;
/// Most layers and heads.
const MAX_COUNT: usize = 65_536;
/// Most positions: attention holds a table of this many squared for each head that is computed.
const MAX_POSITIONS: usize = 8192;
/// Tokens of a text where no file says otherwise.
const DEFAULT_TOKENS: usize = 512;

impl BertConfig {
    /// Reads the files of the checkpoint folder `dir`.
    ///
    /// # Errors
    /// A file that cannot be read, or a network of another kind.
    pub(super) fn read(dir: &Path) -> Result<BertConfig> {
        let path = dir.join("config.json");
        let sentence: Option<SentenceConfig> = parse_if_any(&dir.join("sentence_bert_config.json"))?;
        let wanted = sentence.and_then(|config| config.max_seq_length).unwrap_or(DEFAULT_TOKENS);
        let config = BertConfig::of_text(&read_text(&path, MAX_CONFIG_BYTES)?, wanted, &path)?;
        let path = dir.join("1_Pooling/config.json");
        if parse_if_any::<PoolingConfig>(&path)?.is_some_and(|pooling| !pooling.pooling_mode_mean_tokens) {
            let supported = "true (the mean over the tokens)";
            return Err(unsupported(&path, "pooling_mode_mean_tokens", "false", supported).into());
        }
        Ok(config)
    }

    /// Reads the text of a `config.json`, which `path` names in messages.
    ///
    /// # Errors
    /// As [`BertConfig::read`].
    pub(super) fn of_text(text: &str, max_tokens: usize, path: &Path) -> Result<BertConfig, EncoderError> {
        let mut config: BertConfig = parse(path, text)?;
        config.check(path)?;
        config.max_tokens = max_tokens.clamp(2, config.max_position_embeddings);
        Ok(config)
    }

    /// Whether the `config.json` in `dir` names this kind of network.
    pub(super) fn is_at(dir: &Path) -> bool {
        #[derive(Deserialize)]
        struct Kind {
            model_type: String,
        }
        let text = read_text_if_any(&dir.join("config.json"), MAX_CONFIG_BYTES).ok().flatten();
        let kind = text.and_then(|text| serde_json::from_str::<Kind>(&text).ok());
        kind.is_some_and(|kind| kind.model_type == "bert")
    }

    /// Values of a head.
    pub(super) fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    /// Number of weights of the network.
    pub(super) fn parameters(&self) -> u64 {
        let wide = |n: usize| n as u64;
        let (h, f) = (wide(self.hidden_size), wide(self.intermediate_size));
        let embedding =
            (wide(self.vocab_size) + wide(self.max_position_embeddings) + wide(self.type_vocab_size) + 2) * h;
        // Four matrices [h, h] and two between h and f, their biases, and two norms.
        embedding + wide(self.num_hidden_layers) * (4 * h * (h + 1) + 2 * h * f + f + h + 4 * h)
    }

    fn check(&self, path: &Path) -> Result<(), EncoderError> {
        for (key, got, supported) in [
            ("model_type", &self.model_type, "bert"),
            ("hidden_act", &self.hidden_act, "gelu"),
            ("position_embedding_type", &self.position_embedding_type, "absolute"),
        ] {
            if got != supported {
                return Err(unsupported(path, key, got, supported));
            }
        }
        let counts = [
            ("hidden_size", self.hidden_size, MAX_WIDTH),
            ("intermediate_size", self.intermediate_size, MAX_WIDTH),
            ("num_hidden_layers", self.num_hidden_layers, MAX_COUNT),
            ("num_attention_heads", self.num_attention_heads, MAX_COUNT),
            ("type_vocab_size", self.type_vocab_size, MAX_COUNT),
            ("vocab_size", self.vocab_size, u32::MAX as usize),
        ];
        for (key, got, most) in counts {
            if got == 0 || got > most {
                return Err(unsupported(path, key, &got.to_string(), "a positive number of usual size"));
            }
        }
        if !(2..=MAX_POSITIONS).contains(&self.max_position_embeddings) {
            let got = self.max_position_embeddings.to_string();
            return Err(unsupported(path, "max_position_embeddings", &got, "2 to 8192"));
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            let got = self.num_attention_heads.to_string();
            return Err(unsupported(path, "num_attention_heads", &got, "a divisor of hidden_size"));
        }
        if !(self.layer_norm_eps > 0.0 && self.layer_norm_eps < 1.0) {
            let got = self.layer_norm_eps.to_string();
            return Err(unsupported(path, "layer_norm_eps", &got, "a number between 0 and 1"));
        }
        Ok(())
    }
}

fn unsupported(path: &Path, key: &'static str, got: &str, supported: &'static str) -> EncoderError {
    EncoderError::Unsupported { path: path.to_owned(), key, got: got.chars().take(60).collect(), supported }
}

fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, EncoderError> {
    serde_json::from_str(text).map_err(|error| EncoderError::Parse { path: path.to_owned(), reason: error.to_string() })
}

fn parse_if_any<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    Ok(match read_text_if_any(path, MAX_CONFIG_BYTES)? {
        Some(text) => Some(parse(path, &text)?),
        None => None,
    })
}
