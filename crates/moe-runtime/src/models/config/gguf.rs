//! A model's configuration out of GGUF metadata, and back into it.
//!
//! Rules that a reader cannot guess from the key names:
//!
//! - `block_count` includes MTP blocks: trunk layers = `block_count` - `nextn_predict_layers`.
//! - Latent attention in the split form exactly if both `key_length_mla` and `value_length_mla` exist; older files give
//!   the head widths as `key_length` and `value_length` and one key-value head per query head.
//! - `expert_gating_func`: 1 softmax, 2 sigmoid, 0 as if missing. Missing in `deepseek2`: sigmoid for the shape of
//!   GLM-4.7-Flash, softmax otherwise. `glm4moe` always was sigmoid.
//! - `expert_weights_scale` missing or 0 means 1; `expert_weights_norm` missing means false.

use gguf_bitnet::{Metadata, Value};

use super::{
    Arch, AttentionConfig, Gating, GroupScore, LATENT_NORM_EPS, MAX_DIM, MAX_LAYERS, ModelConfig, MoeConfig, Presence,
    RopeConfig, RopeStyle, RouterConfig, WEIGHT_SUM_EPS, WeightNorm, bad,
};
use crate::error::{Error, Result};

const KNOWN: &str = "deepseek2 and glm4moe";
/// Base of the frequencies where the file does not say.
const DEFAULT_THETA: f32 = 10_000.0;
/// Vocabulary of GLM-4.7-Flash, which tells it from DeepSeek-V2 in files without a gating function.
const GLM_VOCAB: usize = 154_880;

impl ModelConfig {
    /// Reads the metadata of a GGUF; the vocabulary's size comes from `vocab_size` or the token list.
    ///
    /// # Errors
    /// A sentence that names the key: missing, of the wrong type, out of range, contradicting another, or asking for
    /// something that this runtime refuses by name.
    pub fn from_gguf(metadata: &Metadata) -> Result<ModelConfig> {
        ModelConfig::from_gguf_sized(metadata, None)
    }

    /// As [`ModelConfig::from_gguf`], for files that give the vocabulary's size by nothing but the rows of `token_embd`.
    ///
    /// # Errors
    /// As [`ModelConfig::from_gguf`].
    pub fn from_gguf_sized(metadata: &Metadata, embedding_rows: Option<usize>) -> Result<ModelConfig> {
        let arch = match metadata.str("general.architecture")? {
            Some("deepseek2") => "deepseek2",
            Some("glm4moe") => "glm4moe",
            Some(other) => return Err(Error::UnsupportedArchitecture { got: other.to_owned(), known: KNOWN }),
            None => return Err(Error::MissingKey { key: "general.architecture".to_owned(), arch: "every GGUF" }),
        };
        Keys { metadata, arch }.config(embedding_rows)
    }

    /// The `general.architecture`, `deepseek2.*` or `glm4moe.*` keys of this model, without MTP blocks.
    ///
    /// ```
    /// let text = std::fs::read_to_string(fixtures::path("goldens/glm-tiny/config.json"))?;
    /// let config = moe_runtime::models::ModelConfig::from_hf_str(&text)?;
    /// let metadata = config.to_gguf_metadata()?;
    /// assert_eq!(metadata.u32("deepseek2.attention.key_length_mla")?, Some(96));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the format has no way to say what this model does (for example latent attention
    /// that rotates halves): what is written reads back as the same model, or it is not written.
    pub fn to_gguf_metadata(&self) -> Result<Metadata> {
        let mut out = Metadata::default();
        out.insert("general.architecture", self.arch.gguf_name());
        let mut writer = Writer { arch: self.arch.gguf_name(), out };
        writer.dimensions(self)?;
        writer.attention(self)?;
        if let Some(moe) = &self.moe {
            writer.experts(moe)?;
        }
        let read_back = ModelConfig::from_gguf(&writer.out)?;
        if read_back != self.as_read_from_gguf() {
            return Err(Error::Unsupported {
                feature: format!(
                    "a GGUF of this {} model: the format cannot express all of its rules",
                    self.arch.hf_name()
                ),
                remedy: "use it from its checkpoint directory",
            });
        }
        Ok(writer.out)
    }

    /// This model with the details that a GGUF leaves to its tensors left open.
    fn as_read_from_gguf(&self) -> ModelConfig {
        let mut config = self.clone();
        config.n_mtp = 0;
        config.head = Presence::Detect;
        if config.arch == Arch::DeepseekV3 {
            config.arch = Arch::Glm4MoeLite;
        }
        if let AttentionConfig::Gqa { qk_norm, bias, .. } = &mut config.attention {
            (*qk_norm, *bias) = (Presence::Detect, Presence::Detect);
        }
        match &mut config.moe {
            Some(moe) => moe.router.selection_bias = Presence::Detect,
            None => config.arch = if config.arch == Arch::Glm4Moe { Arch::Glm4Moe } else { Arch::DeepseekV2 },
        }
        config
    }
}

/// Typed reads of one architecture's keys.
struct Keys<'a> {
    metadata: &'a Metadata,
    arch: &'static str,
}

impl Keys<'_> {
    fn config(&self, embedding_rows: Option<usize>) -> Result<ModelConfig> {
        let blocks = self.count("block_count")?;
        let n_mtp = self.optional_count("nextn_predict_layers")?.unwrap_or(0);
        let n_layers = match blocks.checked_sub(n_mtp) {
            Some(n) if (1..=MAX_LAYERS).contains(&n) => n,
            _ => {
                let rule = format!("less the {n_mtp} MTP blocks it must lie between 1 and {MAX_LAYERS}");
                return Err(bad(&self.key("block_count"), blocks, &rule));
            }
        };
        let vocab = self.vocab(embedding_rows)?;
        let hidden = self.count("embedding_length")?;
        self.refuse_rope_scaling()?;
        let n_heads =
            self.per_layer("attention.head_count", 0..n_layers)?.ok_or_else(|| self.missing("attention.head_count"))?;
        let moe_present = self.optional_count("expert_count")?.is_some_and(|n| n > 0);
        let n_dense = match self.optional_count("leading_dense_block_count")? {
            _ if !moe_present => n_layers,
            None => 0,
            Some(n) if n <= n_layers => n,
            Some(n) => {
                return Err(bad(
                    &self.key("leading_dense_block_count"),
                    n,
                    &format!("the model has {n_layers} layers"),
                ));
            }
        };
        let dense_ff = match n_dense {
            0 => 0,
            _ => {
                self.per_layer("feed_forward_length", 0..n_dense)?.ok_or_else(|| self.missing("feed_forward_length"))?
            }
        };
        let moe = if n_dense < n_layers { Some(self.moe(n_dense, n_layers, vocab)?) } else { None };
        let arch = self.family(moe.as_ref())?;
        let (attention, rope) = self.attention(arch, hidden, n_heads, n_layers)?;
        let config = ModelConfig {
            arch,
            vocab,
            hidden,
            n_layers,
            n_mtp,
            n_dense,
            dense_ff,
            n_heads,
            attention,
            rope,
            moe,
            norm_eps: self
                .float("attention.layer_norm_rms_epsilon")?
                .ok_or_else(|| self.missing("attention.layer_norm_rms_epsilon"))?,
            n_ctx: self.count("context_length")?,
            head: Presence::Detect,
        };
        config.validate()?;
        Ok(config)
    }

    fn vocab(&self, embedding_rows: Option<usize>) -> Result<usize> {
        if let Some(vocab) = self.optional_count("vocab_size")? {
            return Ok(vocab);
        }
        let tokens = self.metadata.strings("tokenizer.ggml.tokens")?.map(<[String]>::len);
        tokens.or(embedding_rows).ok_or_else(|| self.missing("vocab_size"))
    }

    /// The family that this file's numbers belong to; the format has one name for three.
    fn family(&self, moe: Option<&MoeConfig>) -> Result<Arch> {
        if self.arch == "glm4moe" {
            return Ok(Arch::Glm4Moe);
        }
        if moe.is_none_or(|moe| moe.router.gating == Gating::Softmax) {
            return Ok(Arch::DeepseekV2);
        }
        let deepseek = self.metadata.str("tokenizer.ggml.pre")?.is_some_and(|pre| pre.starts_with("deepseek"));
        Ok(if deepseek { Arch::DeepseekV3 } else { Arch::Glm4MoeLite })
    }

    fn refuse_rope_scaling(&self) -> Result<()> {
        match self.metadata.str(&self.key("rope.scaling.type"))? {
            None | Some("none") => {}
            Some(kind) => {
                return Err(Error::RopeScaling { key: self.key("rope.scaling.type"), kind: kind.to_owned() });
            }
        }
        for stem in ["rope.scaling.factor", "rope.scale_linear"] {
            if let Some(factor) = self.float(stem)?.filter(|&f| f != 1.0 && f != 0.0) {
                return Err(Error::RopeScaling { key: self.key(stem), kind: factor.to_string() });
            }
        }
        Ok(())
    }

    fn attention(
        &self,
        arch: Arch,
        hidden: usize,
        n_heads: usize,
        n_layers: usize,
    ) -> Result<(AttentionConfig, RopeConfig)> {
        let theta = self.float("rope.freq_base")?.unwrap_or(DEFAULT_THETA);
        if arch == Arch::Glm4Moe {
            let default_width = hidden.checked_div(n_heads).unwrap_or(0);
            let head_dim = self.optional_count("attention.key_length")?.unwrap_or(default_width);
            self.agree("attention.value_length", head_dim)?;
            let attention = AttentionConfig::Gqa {
                n_kv_heads: self.per_layer("attention.head_count_kv", 0..n_layers)?.unwrap_or(n_heads),
                head_dim,
                qk_norm: Presence::Detect,
                bias: Presence::Detect,
            };
            let dims = self.optional_count("rope.dimension_count")?.unwrap_or(head_dim);
            return Ok((attention, RopeConfig { theta, dims, style: RopeStyle::Halves }));
        }
        let qk_rope = self.count("rope.dimension_count")?;
        let kv_lora = self.count("attention.kv_lora_rank")?;
        let split =
            (self.optional_count("attention.key_length_mla")?, self.optional_count("attention.value_length_mla")?);
        let (key_stem, q_head, v_head) = match split {
            (Some(key), Some(value)) => {
                self.agree("attention.key_length", kv_lora + qk_rope)?;
                self.agree("attention.value_length", kv_lora)?;
                ("attention.key_length_mla", key, value)
            }
            _ => ("attention.key_length", self.count("attention.key_length")?, self.count("attention.value_length")?),
        };
        let qk_nope = q_head.checked_sub(qk_rope).ok_or_else(|| {
            bad(&self.key(key_stem), q_head, &format!("it must be at least the {qk_rope} rotated dimensions"))
        })?;
        let attention = AttentionConfig::Mla {
            q_lora: self.optional_count("attention.q_lora_rank")?.filter(|&rank| rank > 0),
            kv_lora,
            qk_nope,
            qk_rope,
            v_head,
            latent_norm_eps: LATENT_NORM_EPS,
        };
        Ok((attention, RopeConfig { theta, dims: qk_rope, style: RopeStyle::Interleaved }))
    }

    fn moe(&self, n_dense: usize, n_layers: usize, vocab: usize) -> Result<MoeConfig> {
        let gating = self.gating(n_layers, vocab)?;
        let top_k = self.per_layer("expert_used_count", n_dense..n_layers)?;
        let n_group = self.optional_count("expert_group_count")?.filter(|&n| n > 0).unwrap_or(1);
        let topk_group = match n_group {
            1 => 1,
            _ => self.count("expert_group_used_count")?,
        };
        let normalised = self.metadata.bool(&self.key("expert_weights_norm"))?.unwrap_or(false);
        let router = RouterConfig {
            gating,
            n_experts: self.count("expert_count")?,
            top_k: top_k.ok_or_else(|| self.missing("expert_used_count"))?,
            n_group,
            topk_group,
            group_score: if gating == Gating::Sigmoid { GroupScore::TopTwoSum } else { GroupScore::Max },
            norm: if normalised { WeightNorm::Sum { eps: WEIGHT_SUM_EPS } } else { WeightNorm::None },
            scaling: self.float("expert_weights_scale")?.filter(|&s| s != 0.0).unwrap_or(1.0),
            selection_bias: Presence::Detect,
        };
        let n_shared = self.optional_count("expert_shared_count")?.unwrap_or(0);
        Ok(MoeConfig { router, expert_ff: self.count("expert_feed_forward_length")?, n_shared })
    }

    fn gating(&self, n_layers: usize, vocab: usize) -> Result<Gating> {
        let unsupported = |name: &str| {
            Err(Error::Unsupported {
                feature: format!("`{}`: {name}", self.key("expert_gating_func")),
                remedy: "use a model with a sigmoid (2) or softmax (1) router",
            })
        };
        match self.optional_count("expert_gating_func")? {
            None | Some(0) if self.arch == "glm4moe" => Ok(Gating::Sigmoid),
            None | Some(0) if matches!(n_layers, 47 | 48) && vocab == GLM_VOCAB => Ok(Gating::Sigmoid),
            None | Some(0 | 1) => Ok(Gating::Softmax),
            Some(2) => Ok(Gating::Sigmoid),
            Some(3) => unsupported("3, softmax over the selected logits"),
            Some(4) => unsupported("4, sqrt(softplus)"),
            Some(other) => unsupported(&format!("unknown function {other}")),
        }
    }

    /// An optional key that restates a number known from elsewhere.
    fn agree(&self, stem: &str, expected: usize) -> Result<()> {
        match self.optional_count(stem)? {
            Some(got) if got != expected => {
                Err(bad(&self.key(stem), got, &format!("the other attention keys make it {expected}")))
            }
            _ => Ok(()),
        }
    }

    fn key(&self, stem: &str) -> String {
        format!("{}.{stem}", self.arch)
    }

    fn missing(&self, stem: &str) -> Error {
        Error::MissingKey { key: self.key(stem), arch: self.arch }
    }

    fn optional_count(&self, stem: &str) -> Result<Option<usize>> {
        let key = self.key(stem);
        match self.metadata.u64(&key)? {
            None => Ok(None),
            Some(n) => match usize::try_from(n) {
                Ok(n) if n <= MAX_DIM => Ok(Some(n)),
                _ => Err(bad(&key, n, &format!("it must be at most {MAX_DIM}"))),
            },
        }
    }

    fn count(&self, stem: &str) -> Result<usize> {
        self.optional_count(stem)?.ok_or_else(|| self.missing(stem))
    }

    fn float(&self, stem: &str) -> Result<Option<f32>> {
        Ok(self.metadata.f32(&self.key(stem))?)
    }

    /// A count that may be one number or a list with one per block; the blocks in `layers` must agree.
    fn per_layer(&self, stem: &str, layers: std::ops::Range<usize>) -> Result<Option<usize>> {
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
            return Err(Error::Unsupported {
                feature: format!("`{key}` that differs between layers ({first} and {other})"),
                remedy: "use a model whose layers are alike",
            });
        }
        match usize::try_from(first) {
            Ok(n) if n <= MAX_DIM => Ok(Some(n)),
            _ => Err(bad(&key, first, &format!("it must lie between 0 and {MAX_DIM}"))),
        }
    }
}

/// Writes the keys of one architecture.
struct Writer {
    arch: &'static str,
    out: Metadata,
}

impl Writer {
    fn count(&mut self, stem: &str, value: usize) -> Result<()> {
        let key = format!("{}.{stem}", self.arch);
        let value = u32::try_from(value).map_err(|_| bad(&key, value, "it must fit 32 bits"))?;
        self.out.insert(key, value);
        Ok(())
    }

    fn float(&mut self, stem: &str, value: f32) {
        self.out.insert(format!("{}.{stem}", self.arch), value);
    }

    fn dimensions(&mut self, config: &ModelConfig) -> Result<()> {
        self.count("block_count", config.n_layers)?;
        self.count("context_length", config.n_ctx)?;
        self.count("embedding_length", config.hidden)?;
        if config.n_dense > 0 {
            self.count("feed_forward_length", config.dense_ff)?;
        } else if let Some(moe) = &config.moe {
            // Readers insist on the key even where no layer is dense.
            self.count("feed_forward_length", moe.expert_ff)?;
        }
        self.count("leading_dense_block_count", config.n_dense)?;
        self.count("vocab_size", config.vocab)?;
        self.count("attention.head_count", config.n_heads)?;
        self.float("attention.layer_norm_rms_epsilon", config.norm_eps);
        self.float("rope.freq_base", config.rope.theta);
        self.count("rope.dimension_count", config.rope.dims)
    }

    fn attention(&mut self, config: &ModelConfig) -> Result<()> {
        match config.attention {
            AttentionConfig::Mla { q_lora, kv_lora, qk_nope, qk_rope, v_head, .. } => {
                self.count("attention.head_count_kv", 1)?;
                if let Some(rank) = q_lora {
                    self.count("attention.q_lora_rank", rank)?;
                }
                self.count("attention.kv_lora_rank", kv_lora)?;
                self.count("attention.key_length", kv_lora + qk_rope)?;
                self.count("attention.value_length", kv_lora)?;
                self.count("attention.key_length_mla", qk_nope + qk_rope)?;
                self.count("attention.value_length_mla", v_head)
            }
            AttentionConfig::Gqa { n_kv_heads, head_dim, .. } => {
                self.count("attention.head_count_kv", n_kv_heads)?;
                self.count("attention.key_length", head_dim)?;
                self.count("attention.value_length", head_dim)
            }
        }
    }

    fn experts(&mut self, moe: &MoeConfig) -> Result<()> {
        let router = &moe.router;
        self.count("expert_count", router.n_experts)?;
        self.count("expert_used_count", router.top_k)?;
        self.count("expert_shared_count", moe.n_shared)?;
        self.count("expert_feed_forward_length", moe.expert_ff)?;
        self.count("expert_group_count", router.n_group)?;
        self.count("expert_group_used_count", router.topk_group)?;
        self.count("expert_gating_func", if router.gating == Gating::Softmax { 1 } else { 2 })?;
        self.float("expert_weights_scale", router.scaling);
        self.out.insert(format!("{}.expert_weights_norm", self.arch), router.norm != WeightNorm::None);
        Ok(())
    }
}
