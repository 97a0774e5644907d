//! Typed reads of the metadata keys that start with an architecture's name.

use gguf_bitnet::{Metadata, TensorInfo, Value};

use crate::error::{Error, Result};
use crate::guess::Guesses;
use crate::models::error::ConfigError;
use crate::models::experts::Gating;
use crate::models::limits::{MAX_DIM, MAX_LAYERS, bad};

/// Typed reads of one architecture's keys.
pub(crate) struct GgufKeys<'a> {
    pub(crate) metadata: &'a Metadata,
    /// The `general.architecture`, with which every key starts.
    pub(crate) arch: &'static str,
    pub(crate) tensors: TensorFacts,
    pub(crate) guesses: Guesses,
}

/// Facts that only the tensors of a file tell.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TensorFacts {
    /// Rows of the embedding, for files that do not give the size of the vocabulary in another way.
    pub(crate) embedding_rows: Option<usize>,
    /// Whether there is a bias for the selection of experts, which only sigmoid routers have.
    pub(crate) selection_bias: bool,
    /// Whether matrices of layers are ternary.
    pub(crate) ternary_layers: bool,
    /// Whether there are factors on the frequencies of the rotation.
    pub(crate) rope_factors: bool,
}

impl TensorFacts {
    pub(crate) fn of(tensors: &[TensorInfo]) -> TensorFacts {
        let embedding = tensors.iter().find(|info| info.name == "token_embd.weight");
        TensorFacts {
            embedding_rows: embedding.map(TensorInfo::rows),
            selection_bias: tensors.iter().any(|info| info.name.contains(SELECTION_BIAS)),
            ternary_layers: tensors.iter().any(|info| info.ty.is_ternary() && info.name.starts_with("blk.")),
            rope_factors: tensors.iter().any(|info| info.name == "rope_freqs.weight"),
        }
    }
}

/// The stem of the selection bias in every spelling.
const SELECTION_BIAS: &str = ".exp_probs_b";

impl GgufKeys<'_> {
    /// MTP blocks at the end of the file.
    pub(crate) fn mtp_blocks(&self) -> Result<usize> {
        Ok(self.optional_count("nextn_predict_layers")?.unwrap_or(0))
    }

    /// Layers of plain decoding: all blocks but the MTP blocks.
    pub(crate) fn trunk_layers(&self) -> Result<usize> {
        let (blocks, n_mtp) = (self.count("block_count")?, self.mtp_blocks()?);
        match blocks.checked_sub(n_mtp) {
            Some(n) if (1..=MAX_LAYERS).contains(&n) => Ok(n),
            _ => {
                let rule = format!("less the {n_mtp} MTP blocks it must lie between 1 and {MAX_LAYERS}");
                Err(bad(&self.key("block_count"), blocks, &rule))
            }
        }
    }

    /// The size of the vocabulary: stated, else that of the token list, else the rows of the embedding.
    pub(crate) fn vocab(&self) -> Result<usize> {
        if let Some(vocab) = self.optional_count("vocab_size")? {
            return Ok(vocab);
        }
        let tokens = self.metadata.strings("tokenizer.ggml.tokens")?.map(<[String]>::len);
        tokens.or(self.tensors.embedding_rows).ok_or_else(|| self.missing("vocab_size"))
    }

    /// Whether the file has experts.
    pub(crate) fn has_experts(&self) -> Result<bool> {
        Ok(self.optional_count("expert_count")?.is_some_and(|n| n > 0))
    }

    /// The gating that the file states or its tensors imply; `None` where it leaves that to the architecture.
    ///
    /// # Errors
    /// A selection bias beside a stated softmax, and an unknown function.
    pub(crate) fn gating(&self) -> Result<Option<Gating>> {
        match (self.stated_gating()?, self.tensors.selection_bias) {
            (Some(Gating::Softmax), true) => Err(ConfigError::Contradiction {
                first: self.key("expert_gating_func"),
                second: "blk.N.exp_probs_b".to_owned(),
                detail: "1, softmax, and a selection bias, which only sigmoid routers have".to_owned(),
            }
            .into()),
            (None, true) => Ok(Some(Gating::Sigmoid)),
            (stated, _) => Ok(stated),
        }
    }

    /// As [`GgufKeys::gating`], with `default`, the router of the architecture `whose`, where neither says it. Records a
    /// gating that is not stated.
    pub(crate) fn gating_or(&self, default: Gating, whose: &str) -> Result<Gating> {
        let gating = self.gating()?.unwrap_or(default);
        if self.stated_gating()?.is_some() {
            return Ok(gating);
        }
        let reason = match self.tensors.selection_bias {
            true => "the file has a selection bias (exp_probs_b), which only sigmoid routers have".to_owned(),
            false => format!("the router of {whose}, which the other keys describe"),
        };
        Ok(self.guess("expert_gating_func", gating, reason))
    }

    /// Records that the key is missing, and gives the value that is taken in its place.
    pub(crate) fn guess<T: ToString>(&self, stem: &str, value: T, reason: impl Into<String>) -> T {
        self.guesses.take(self.key(stem), value, reason)
    }

    /// The gating that the file states.
    fn stated_gating(&self) -> Result<Option<Gating>> {
        let unsupported = |name: &str| {
            Err(ConfigError::Unsupported {
                feature: format!("`{}`: {name}", self.key("expert_gating_func")),
                remedy: "use a model with a sigmoid (2) or softmax (1) router",
            }
            .into())
        };
        match self.optional_count("expert_gating_func")? {
            None | Some(0) => Ok(None),
            Some(1) => Ok(Some(Gating::Softmax)),
            Some(2) => Ok(Some(Gating::Sigmoid)),
            Some(3) => unsupported("3, softmax over the selected logits"),
            Some(4) => unsupported("4, sqrt(softplus)"),
            Some(other) => unsupported(&format!("unknown function {other}")),
        }
    }

    /// An optional key that restates a number known from elsewhere.
    pub(crate) fn agree(&self, stem: &str, expected: usize) -> Result<()> {
        match self.optional_count(stem)? {
            Some(got) if got != expected => {
                Err(bad(&self.key(stem), got, &format!("the other attention keys make it {expected}")))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn key(&self, stem: &str) -> String {
        format!("{}.{stem}", self.arch)
    }

    pub(crate) fn missing(&self, stem: &str) -> Error {
        ConfigError::MissingKey { key: self.key(stem), arch: self.arch }.into()
    }

    pub(crate) fn optional_count(&self, stem: &str) -> Result<Option<usize>> {
        let key = self.key(stem);
        match self.metadata.u64(&key)? {
            None => Ok(None),
            Some(n) => match usize::try_from(n) {
                Ok(n) if n <= MAX_DIM => Ok(Some(n)),
                _ => Err(bad(&key, n, &format!("it must be at most {MAX_DIM}"))),
            },
        }
    }

    pub(crate) fn count(&self, stem: &str) -> Result<usize> {
        self.optional_count(stem)?.ok_or_else(|| self.missing(stem))
    }

    pub(crate) fn float(&self, stem: &str) -> Result<Option<f32>> {
        Ok(self.metadata.f32(&self.key(stem))?)
    }

    /// A count that may be one number or a list with one per block; the blocks in `layers` must agree.
    pub(crate) fn per_layer(&self, stem: &str, layers: std::ops::Range<usize>) -> Result<Option<usize>> {
        let key = self.key(stem);
        if !matches!(self.metadata.get(&key), Some(Value::Array(_))) {
            return self.optional_count(stem);
        }
        let list = self.metadata.i64s(&key)?.unwrap_or_default();
        let Some(values) = list.get(layers.clone()) else {
            let rule = format!("it must have an entry for each of the {} layers", layers.end);
            return Err(bad(&key, format!("a list of {}", list.len()), &rule));
        };
        let Some(&first) = values.first() else { return Ok(None) };
        if let Some(other) = values.iter().find(|&&v| v != first) {
            return Err(ConfigError::Unsupported {
                feature: format!("`{key}` that differs between layers ({first} and {other})"),
                remedy: "use a model whose layers are alike",
            }
            .into());
        }
        match usize::try_from(first) {
            Ok(n) if n <= MAX_DIM => Ok(Some(n)),
            _ => Err(bad(&key, first, &format!("it must lie between 0 and {MAX_DIM}"))),
        }
    }
}
