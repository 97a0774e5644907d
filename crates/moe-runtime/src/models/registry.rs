//! Every architecture that this runtime knows, and the way from a file to its configuration.
//!
//! A new architecture is one file in this folder and one line in [`ARCHITECTURES`].

use std::borrow::Cow;

use gguf_bitnet::{Metadata, TensorInfo};
use serde_json::{Map, Value};

use super::config::{Architecture, ModelConfig};
use super::error::ConfigError;
use super::gguf::{GgufKeys, TensorFacts};
use super::hf::HfKeys;
use super::hf::sections;
use super::limits::bad;
use super::tokens::SpecialTokens;
use super::{bitnet, deepseek, glm4_moe, glm4_moe_lite, llama};
use crate::error::Result;
use crate::guess::Guesses;

/// Every architecture. Where several share a name in GGUF, the first that claims a file reads it.
pub(crate) static ARCHITECTURES: [&Architecture; 8] = [
    &glm4_moe_lite::GLM4_MOE_LITE,
    &glm4_moe::GLM4_MOE,
    &deepseek::V2,
    &deepseek::V3,
    &llama::LLAMA,
    &llama::MISTRAL,
    &bitnet::BITNET,
    &bitnet::MAINLINE,
];

/// The special tokens of every architecture. A tokenizer looks all of them up by text, because its files do not say which
/// architecture they belong to.
pub(crate) fn special_tokens() -> impl Iterator<Item = &'static SpecialTokens> + Clone {
    ARCHITECTURES.iter().map(|arch| arch.tokens)
}

/// The names of all architectures, by `config.json` and by GGUF, each once.
pub(crate) fn architecture_names() -> Vec<&'static str> {
    let mut names = Vec::new();
    for name in ARCHITECTURES.iter().flat_map(|arch| [arch.hf_name, arch.gguf_name]) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Lists `name` of every architecture, each once, for the message that refuses an unknown architecture.
fn known(name: impl Fn(&Architecture) -> &'static str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for arch in ARCHITECTURES {
        if !names.contains(&name(arch)) {
            names.push(name(arch));
        }
    }
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => names.concat(),
    }
}

/// The keys of the language model in a `config.json`.
pub(crate) fn language_model(config: &Map<String, Value>) -> Cow<'_, Map<String, Value>> {
    sections::language_model(config, |name| ARCHITECTURES.iter().any(|arch| arch.hf_name == name))
}

impl ModelConfig {
    /// Reads the text of a `config.json`.
    ///
    /// # Errors
    /// [`ConfigError::ConfigJson`] when it is no JSON; otherwise as [`ModelConfig::from_hf`].
    pub fn from_hf_str(text: &str) -> Result<ModelConfig> {
        let json: Value = serde_json::from_str(text).map_err(|e| ConfigError::ConfigJson { reason: e.to_string() })?;
        ModelConfig::from_hf(&json)
    }

    /// Reads a parsed `config.json`.
    ///
    /// ```
    /// let text = std::fs::read_to_string(fixtures::path("goldens/glm-tiny/config.json"))?;
    /// let config = moe_runtime::models::ModelConfig::from_hf_str(&text)?;
    /// assert_eq!((config.n_layers, config.n_dense, config.hidden), (2, 1, 256));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// A sentence that names the key: missing, of the wrong type, out of range, contradicting another, or asking for
    /// something that this runtime refuses by name.
    pub fn from_hf(json: &Value) -> Result<ModelConfig> {
        let Some(map) = json.as_object() else {
            return Err(ConfigError::ConfigJson { reason: "it is not an object".to_owned() }.into());
        };
        let map = &*language_model(map);
        let name = match map.get("model_type") {
            Some(Value::String(name)) => name.as_str(),
            Some(other) => return Err(bad("model_type", other, "it must be a string")),
            None => {
                return Err(ConfigError::MissingKey { key: "model_type".to_owned(), arch: "every checkpoint" }.into());
            }
        };
        let Some(arch) = ARCHITECTURES.iter().find(|arch| arch.hf_name == name) else {
            return Err(ConfigError::UnsupportedArchitecture {
                got: name.to_owned(),
                known: known(Architecture::hf_name),
            }
            .into());
        };
        (arch.from_hf)(&HfKeys { map, arch: arch.hf_name, guesses: &Guesses::default() })
    }

    /// Reads the metadata of a GGUF; the vocabulary's size comes from `vocab_size` or the token list.
    ///
    /// # Errors
    /// A sentence that names the key: missing, of the wrong type, out of range, contradicting another, or asking for
    /// something that this runtime refuses by name.
    pub fn from_gguf(metadata: &Metadata) -> Result<ModelConfig> {
        ModelConfig::from_gguf_with(metadata, &[])
    }

    /// As [`ModelConfig::from_gguf`], with the tensors of the file: they give the vocabulary's size and tell the kind of
    /// router where the metadata do not.
    ///
    /// # Errors
    /// As [`ModelConfig::from_gguf`].
    pub fn from_gguf_with(metadata: &Metadata, tensors: &[TensorInfo]) -> Result<ModelConfig> {
        let tensors = TensorFacts::of(tensors);
        let Some(name) = metadata.str("general.architecture")? else {
            return Err(ConfigError::MissingKey { key: "general.architecture".to_owned(), arch: "every GGUF" }.into());
        };
        for arch in ARCHITECTURES.iter().filter(|arch| arch.gguf_name == name) {
            let keys = GgufKeys { metadata, arch: arch.gguf_name, tensors, guesses: Guesses::default() };
            if (arch.claims_gguf)(&keys)? {
                return (arch.from_gguf)(&keys);
            }
        }
        Err(ConfigError::UnsupportedArchitecture { got: name.to_owned(), known: known(Architecture::gguf_name) }.into())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use gguf_bitnet::{Piece, Result, Scope, SplitDims, TensorInfo, TensorNameMapper, TensorSource, TensorType};
    use ternary_core::Bytes;

    use super::*;
    use crate::models::table::TensorRow;

    /// One stored tensor of zeros.
    struct Single([TensorInfo; 1]);

    impl TensorSource for Single {
        fn tensors(&self) -> &[TensorInfo] {
            &self.0
        }
        fn index_of(&self, name: &str) -> Option<usize> {
            (self.0[0].name == name).then_some(0)
        }
        fn bytes(&self, _: usize) -> Result<Bytes> {
            Ok(vec![0; 64].into())
        }
        fn release(&self, _: usize) {}
        fn prefetch(&self, _: usize) {}
        fn path(&self) -> &Path {
            Path::new("single")
        }
    }

    fn mapper(arch: &Architecture) -> TensorNameMapper {
        let names = arch.tensors.iter().map(|row| &row.names);
        TensorNameMapper::new(names, SplitDims { n_heads: 1, qk_nope: 1, v_head: 1, paired: 2 }, 8)
    }

    /// The canonical names that the mapper gives to a stored tensor called `name` of shape `[2; dims]`.
    fn held(arch: &Architecture, name: &str, dims: usize) -> Vec<String> {
        let info = TensorInfo { name: name.to_owned(), shape: vec![2; dims], ty: TensorType::F32, bytes: 4 << dims };
        let catalog = mapper(arch).map(Arc::new(Single([info]))).expect("one tensor fits itself");
        catalog.tensors().iter().map(|tensor| tensor.name.clone()).collect()
    }

    #[test]
    fn every_row_of_every_architecture_is_found_under_both_spellings() {
        for arch in ARCHITECTURES {
            for row in arch.tensors {
                let canonical = row.names.canonical_name(7);
                let label = format!("{arch:?}: {canonical}");
                assert_eq!(mapper(arch).class(&canonical), row.names.class(), "{label}");
                for stored in [canonical.clone(), row.names.gguf_name(7)] {
                    assert_eq!(
                        held(arch, &stored, row.shape.len()),
                        std::slice::from_ref(&canonical),
                        "{label} as {stored}"
                    );
                }
                let apart = row.names.is_per_expert() || row.names.checkpoint_piece() != Piece::Whole;
                let dims = if apart { 2 } else { row.shape.len() };
                let stored = row.names.checkpoint_name(7, None);
                assert!(held(arch, &stored, dims).contains(&canonical), "{label} as {stored}");
            }
        }
    }

    #[test]
    fn no_two_rows_of_an_architecture_are_the_same_tensor() {
        for arch in ARCHITECTURES {
            for (i, row) in arch.tensors.iter().enumerate() {
                let same = |other: &TensorRow| {
                    other.names.scope() == row.names.scope() && other.names.name() == row.names.name()
                };
                assert!(!arch.tensors[i + 1..].iter().any(same), "{arch:?}: {}", row.names.name());
            }
            let globals = arch.tensors.iter().take_while(|row| row.names.scope() == Scope::Model).count();
            assert!(arch.tensors[globals..].iter().all(|row| row.names.scope() == Scope::Layer), "{arch:?}");
        }
    }

    #[test]
    fn feed_forward_tensors_are_found_stacked_apart_and_fused() {
        let routed = |proj: &str| format!("blk.2.ffn_{proj}_exps.weight");
        let both = |stem: &str| vec![format!("blk.2.ffn_gate{stem}.weight"), format!("blk.2.ffn_up{stem}.weight")];
        let cases = [
            ("model.layers.2.mlp.experts.0.up_proj.weight", 2, vec![routed("up")]),
            ("blk.2.ffn_gate.0.weight", 2, vec![routed("gate")]),
            ("blk.2.ffn_up.0.weight", 2, vec![routed("up")]),
            ("blk.2.ffn_down.0.weight", 2, vec![routed("down")]),
            ("model.layers.2.mlp.experts.gate_proj", 3, vec![routed("gate")]),
            ("model.layers.2.mlp.experts.up_proj", 3, vec![routed("up")]),
            ("model.layers.2.mlp.experts.down_proj", 3, vec![routed("down")]),
            ("model.layers.2.mlp.experts.gate_proj.weight", 3, vec![routed("gate")]),
            ("model.layers.2.mlp.experts.up_proj.weight", 3, vec![routed("up")]),
            ("model.layers.2.mlp.experts.down_proj.weight", 3, vec![routed("down")]),
            ("model.layers.2.mlp.experts.gate_up_proj", 3, both("_exps")),
            ("model.layers.2.mlp.experts.gate_up_proj.weight", 3, both("_exps")),
            ("model.layers.2.mlp.experts.0.gate_up_proj.weight", 2, both("_exps")),
            ("blk.2.ffn_gate_up_exps.weight", 3, both("_exps")),
            ("model.layers.2.mlp.gate_up_proj.weight", 2, both("")),
            ("model.layers.2.mlp.shared_experts.gate_up_proj.weight", 2, both("_shexp")),
            ("blk.2.exp_probs_b.weight", 1, vec!["blk.2.exp_probs_b.bias".to_owned()]),
            ("blk.2.exp_probs_b", 1, vec!["blk.2.exp_probs_b.bias".to_owned()]),
        ];
        for arch in ARCHITECTURES {
            let has = |name: &String| arch.tensors.iter().any(|row| row.names.canonical_name(2) == *name);
            for (stored, dims, expected) in &cases {
                let expected: Vec<&String> = expected.iter().filter(|name| has(name)).collect();
                assert!(held(arch, stored, *dims).iter().eq(expected), "{arch:?}: {stored}");
            }
        }
    }
}
