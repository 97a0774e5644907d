//! Parts of a configuration that several architectures spell alike in GGUF metadata.

use mla_attention::RopeStyle;
use ternary_core::ActMode;

use super::GgufKeys;
use crate::error::Result;
use crate::models::attention::{AttentionConfig, GqaDims, LATENT_NORM_EPS, MlaDims, RopeConfig};
use crate::models::config::{Activation, Architecture, ModelConfig};
use crate::models::error::ConfigError;
use crate::models::experts::{Gating, GroupScore, MoeConfig, RouterConfig, WeightNorm};
use crate::models::limits::bad;
use crate::models::table::Presence;

/// Base of the frequencies where the file does not say.
const DEFAULT_THETA: f32 = 10_000.0;

/// Reads everything but the attention, which `attention` reads. `gating` counts where the file does not state it.
///
/// # Errors
/// A sentence that names the key.
pub(crate) fn model(
    keys: &GgufKeys<'_>,
    arch: &'static Architecture,
    attention: impl FnOnce(&GgufKeys<'_>, Heads) -> Result<(AttentionConfig, RopeConfig)>,
    gating: Gating,
) -> Result<ModelConfig> {
    let n_layers = keys.trunk_layers()?;
    let vocab = keys.vocab()?;
    let hidden = keys.count("embedding_length")?;
    refuse_rope_scaling(keys)?;
    let n_heads =
        keys.per_layer("attention.head_count", 0..n_layers)?.ok_or_else(|| keys.missing("attention.head_count"))?;
    let moe_present = keys.has_experts()?;
    let n_dense = match keys.optional_count("leading_dense_block_count")? {
        _ if !moe_present => n_layers,
        None => keys.guess("leading_dense_block_count", 0, "the default of the format"),
        Some(n) if n <= n_layers => n,
        Some(n) => {
            let rule = format!("the model has {n_layers} layers");
            return Err(bad(&keys.key("leading_dense_block_count"), n, &rule));
        }
    };
    let dense_ff = match n_dense {
        0 => 0,
        _ => keys.per_layer("feed_forward_length", 0..n_dense)?.ok_or_else(|| keys.missing("feed_forward_length"))?,
    };
    let moe = if n_dense < n_layers {
        Some(experts(keys, n_dense..n_layers, keys.gating_or(gating, arch.hf_name())?)?)
    } else {
        None
    };
    let (attention, rope) = attention(keys, Heads { n_heads, hidden, n_layers })?;
    let epsilon = keys.float("attention.layer_norm_rms_epsilon")?;
    let config = ModelConfig {
        arch,
        vocab,
        hidden,
        n_layers,
        n_mtp: keys.mtp_blocks()?,
        reads_mtp: false,
        n_dense,
        dense_ff,
        n_heads,
        attention,
        rope,
        activation: arch.activation,
        moe,
        norm_eps: epsilon.ok_or_else(|| keys.missing("attention.layer_norm_rms_epsilon"))?,
        n_ctx: keys.count("context_length")?,
        trained_act: trained_act(keys)?,
        head: Presence::Detect,
        guesses: keys.guesses.list(),
    };
    config.validate()?;
    Ok(config)
}

/// The key of the scales of activations that ternary matrices were trained or made for: `token` or `block`.
const ACTIVATION_SCALES: &str = "craftsman.bitnet.activation_scales";

fn trained_act(keys: &GgufKeys<'_>) -> Result<Option<ActMode>> {
    Ok((keys.metadata.str(ACTIVATION_SCALES)? == Some("token")).then_some(ActMode::A8Token))
}

/// The function on the gates, for architectures whose files may name it: `default`, which is recorded with `reason`, where a
/// file does not.
///
/// # Errors
/// A sentence that names the key and the functions that are computed.
pub(crate) fn activation(keys: &GgufKeys<'_>, default: Activation, reason: &str) -> Result<Activation> {
    let stem = Activation::KEYS[1];
    let key = keys.key(stem);
    let Some(name) = keys.metadata.str(&key)? else { return Ok(keys.guess(stem, default, reason)) };
    Activation::by_name(name).ok_or_else(|| {
        let names = Activation::ALL.map(Activation::name).join(" or ");
        bad(&key, format!("\"{name}\""), &format!("it must be {names}"))
    })
}

/// Refuses a file with experts, for architectures without them.
///
/// # Errors
/// [`ConfigError::Unsupported`].
pub(crate) fn refuse_experts(keys: &GgufKeys<'_>) -> Result<()> {
    if !keys.has_experts()? {
        return Ok(());
    }
    Err(ConfigError::Unsupported {
        feature: format!("`{}`: a {} model with experts", keys.key("expert_count"), keys.arch),
        remedy: "use a dense model of this architecture",
    }
    .into())
}

/// The numbers that every kind of attention needs.
#[derive(Clone, Copy)]
pub(crate) struct Heads {
    pub n_heads: usize,
    pub hidden: usize,
    pub n_layers: usize,
}

fn refuse_rope_scaling(keys: &GgufKeys<'_>) -> Result<()> {
    if keys.tensors.rope_factors {
        return Err(ConfigError::RopeScaling { key: "rope_freqs.weight".to_owned(), kind: "llama3".to_owned() }.into());
    }
    match keys.metadata.str(&keys.key("rope.scaling.type"))? {
        None | Some("none") => {}
        Some(kind) => {
            return Err(ConfigError::RopeScaling { key: keys.key("rope.scaling.type"), kind: kind.to_owned() }.into());
        }
    }
    for stem in ["rope.scaling.factor", "rope.scale_linear"] {
        if let Some(factor) = keys.float(stem)?.filter(|&f| f != 1.0 && f != 0.0) {
            return Err(ConfigError::RopeScaling { key: keys.key(stem), kind: factor.to_string() }.into());
        }
    }
    Ok(())
}

/// The base of the frequencies.
fn theta(keys: &GgufKeys<'_>) -> Result<f32> {
    let stated = keys.float("rope.freq_base")?;
    Ok(stated.unwrap_or_else(|| keys.guess("rope.freq_base", DEFAULT_THETA, "the default of the format")))
}

/// Latent attention, which rotates neighbours in every GGUF.
///
/// # Errors
/// A sentence that names the key.
pub(crate) fn mla(keys: &GgufKeys<'_>, _: Heads) -> Result<(AttentionConfig, RopeConfig)> {
    let theta = theta(keys)?;
    let qk_rope = keys.count("rope.dimension_count")?;
    let kv_lora = keys.count("attention.kv_lora_rank")?;
    let split = (keys.optional_count("attention.key_length_mla")?, keys.optional_count("attention.value_length_mla")?);
    let (key_stem, q_head, v_head) = match split {
        (Some(_), None) => return Err(keys.missing("attention.value_length_mla")),
        (None, Some(_)) => return Err(keys.missing("attention.key_length_mla")),
        (Some(key), Some(value)) => {
            keys.agree("attention.key_length", kv_lora + qk_rope)?;
            keys.agree("attention.value_length", kv_lora)?;
            ("attention.key_length_mla", key, value)
        }
        (None, None) => {
            ("attention.key_length", keys.count("attention.key_length")?, keys.count("attention.value_length")?)
        }
    };
    let qk_nope = q_head.checked_sub(qk_rope).ok_or_else(|| {
        bad(&keys.key(key_stem), q_head, &format!("it must be at least the {qk_rope} rotated dimensions"))
    })?;
    let dims = MlaDims {
        q_lora: keys.optional_count("attention.q_lora_rank")?.filter(|&rank| rank > 0),
        kv_lora,
        qk_nope,
        qk_rope,
        v_head,
        latent_norm_eps: LATENT_NORM_EPS,
    };
    Ok((AttentionConfig::Mla(dims), RopeConfig { theta, dims: qk_rope, style: RopeStyle::Interleaved }))
}

/// Grouped-query attention that rotates halves; the file's tensors tell whether it has norms of heads and biases.
///
/// # Errors
/// A sentence that names the key.
pub(crate) fn gqa(keys: &GgufKeys<'_>, heads: Heads) -> Result<(AttentionConfig, RopeConfig)> {
    let Heads { n_heads, hidden, n_layers } = heads;
    let theta = theta(keys)?;
    let default_width = hidden.checked_div(n_heads).unwrap_or(0);
    let head_dim = keys.optional_count("attention.key_length")?;
    let head_dim = head_dim.unwrap_or_else(|| {
        keys.guess("attention.key_length", default_width, "the width of the model divided by its heads")
    });
    keys.agree("attention.value_length", head_dim)?;
    let dims = GqaDims {
        n_kv_heads: keys
            .per_layer("attention.head_count_kv", 0..n_layers)?
            .unwrap_or_else(|| keys.guess("attention.head_count_kv", n_heads, "one head of keys per head of queries")),
        head_dim,
        qk_norm: Presence::Detect,
        bias: Presence::Detect,
    };
    let rotated = keys.optional_count("rope.dimension_count")?;
    let rotated = rotated.unwrap_or_else(|| keys.guess("rope.dimension_count", head_dim, "the whole head is rotated"));
    Ok((AttentionConfig::Gqa(dims), RopeConfig { theta, dims: rotated, style: RopeStyle::Halves }))
}

fn experts(keys: &GgufKeys<'_>, layers: std::ops::Range<usize>, gating: Gating) -> Result<MoeConfig> {
    let top_k = keys.per_layer("expert_used_count", layers)?;
    let n_group = match keys.optional_count("expert_group_count")? {
        Some(n) => n.max(1),
        None => keys.guess("expert_group_count", 1, "without the key, experts are not grouped"),
    };
    let topk_group = match n_group {
        1 => 1,
        _ => keys.count("expert_group_used_count")?,
    };
    let normalised = keys.metadata.bool(&keys.key("expert_weights_norm"))?;
    let normalised =
        normalised.unwrap_or_else(|| keys.guess("expert_weights_norm", false, "the default of the format"));
    let scaling = match keys.float("expert_weights_scale")? {
        Some(scale) if scale != 0.0 => scale,
        Some(_) => keys.guess("expert_weights_scale", 1.0, "the file says 0, which means that there is no scale"),
        None => keys.guess("expert_weights_scale", 1.0, "the default of the format"),
    };
    let router = RouterConfig {
        gating,
        n_experts: keys.count("expert_count")?,
        top_k: top_k.ok_or_else(|| keys.missing("expert_used_count"))?,
        n_group,
        topk_group,
        group_score: if gating == Gating::Sigmoid { GroupScore::TopTwoSum } else { GroupScore::Max },
        norm: WeightNorm::normalised(normalised),
        scaling,
        selection_bias: Presence::Detect,
    };
    let n_shared = keys.optional_count("expert_shared_count")?.unwrap_or(0);
    Ok(MoeConfig { router, expert_ff: keys.count("expert_feed_forward_length")?, n_shared })
}
