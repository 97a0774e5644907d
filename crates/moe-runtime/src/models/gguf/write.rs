//! Writes a model's configuration as GGUF metadata.

use gguf_bitnet::Metadata;

use crate::error::Result;
use crate::models::attention::{AttentionConfig, GqaDims, MlaDims};
use crate::models::config::{Activation, ModelConfig};
use crate::models::error::ConfigError;
use crate::models::experts::{Gating, MoeConfig, WeightNorm};
use crate::models::limits::bad;
use crate::models::table::Presence;

impl ModelConfig {
    /// The `general.architecture` key and the keys of the architecture for the blocks of this model that are read.
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
    /// [`ConfigError::Unsupported`] when the format has no key for a property of this model (for example latent attention
    /// that rotates halves): a model is written only if the metadata read back as the same model.
    pub fn to_gguf_metadata(&self) -> Result<Metadata> {
        let mut out = Metadata::default();
        out.insert("general.architecture", self.arch.gguf_name);
        let mut writer = Writer { arch: self.arch.gguf_name, out };
        writer.dimensions(self)?;
        writer.attention(self)?;
        if let Some(moe) = &self.moe {
            writer.experts(moe)?;
        }
        let mut read_back = ModelConfig::from_gguf(&writer.out)?;
        let activation = format!("{}.{}", self.arch.gguf_name, Activation::KEYS[1]);
        if read_back.guesses.iter().any(|guess| guess.key == activation) {
            writer.out.insert(activation, self.activation.name());
            read_back = ModelConfig::from_gguf(&writer.out)?;
        }
        if read_back != self.as_read_from_gguf(&read_back) {
            return Err(ConfigError::Unsupported {
                feature: format!(
                    "a GGUF of this {} model: the format cannot express all of its rules",
                    self.arch.hf_name
                ),
                remedy: "use it from its checkpoint directory",
            }
            .into());
        }
        Ok(writer.out)
    }

    /// This model with the details that a GGUF leaves to its tensors left open, and as the architecture of `read_back`
    /// where both share the name in GGUF.
    fn as_read_from_gguf(&self, read_back: &ModelConfig) -> ModelConfig {
        let mut config = self.clone();
        if config.arch.gguf_name == read_back.arch.gguf_name {
            config.arch = read_back.arch;
        }
        (config.n_mtp, config.reads_mtp) = (usize::from(config.reads_mtp), false);
        config.trained_act = read_back.trained_act;
        config.guesses.clone_from(&read_back.guesses);
        config.head = Presence::Detect;
        config.attention = config.attention.as_read_from_gguf();
        if let Some(moe) = &mut config.moe {
            moe.router.selection_bias = Presence::Detect;
        }
        config
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
        self.count("block_count", config.n_blocks())?;
        if config.reads_mtp {
            self.count("nextn_predict_layers", 1)?;
        }
        self.count("context_length", config.n_ctx)?;
        self.count("embedding_length", config.hidden)?;
        if config.n_dense > 0 {
            self.count("feed_forward_length", config.dense_ff)?;
        } else if let Some(moe) = &config.moe {
            // Readers insist on the key even where no layer is dense.
            self.count("feed_forward_length", moe.expert_ff)?;
        }
        if config.moe.is_some() {
            self.count("leading_dense_block_count", config.n_dense)?;
        }
        self.count("vocab_size", config.vocab)?;
        self.count("attention.head_count", config.n_heads)?;
        self.float("attention.layer_norm_rms_epsilon", config.norm_eps);
        self.float("rope.freq_base", config.rope.theta);
        self.count("rope.dimension_count", config.rope.dims)
    }

    fn attention(&mut self, config: &ModelConfig) -> Result<()> {
        match config.attention {
            AttentionConfig::Mla(MlaDims { q_lora, kv_lora, qk_nope, qk_rope, v_head, .. }) => {
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
            AttentionConfig::Gqa(GqaDims { n_kv_heads, head_dim, .. }) => {
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
