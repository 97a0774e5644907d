//! Parts of a configuration that several architectures spell alike in `config.json`.

use gguf_bitnet::Quantization;
use mla_attention::RopeStyle;
use serde_json::{Map, Value};
use ternary_core::ActMode;

use super::HfKeys;
use crate::error::{Error, Result};
use crate::models::attention::{AttentionConfig, GqaDims, LATENT_NORM_EPS, MlaDims, RopeConfig};
use crate::models::config::{Activation, Architecture, ModelConfig};
use crate::models::error::ConfigError;
use crate::models::experts::{Gating, GroupScore, MoeConfig, RouterConfig, WeightNorm};
use crate::models::limits::{MAX_LAYERS, bad};
use crate::models::table::Presence;

/// Reads everything but the attention, which `attention` reads from the heads and the width, and the routing rule, which
/// `routing` completes.
///
/// # Errors
/// A sentence that names the key.
pub(crate) fn model(
    keys: &HfKeys<'_>,
    arch: &'static Architecture,
    attention: impl FnOnce(&HfKeys<'_>, Heads) -> Result<(AttentionConfig, RopeConfig)>,
    routing: Option<&Routing>,
) -> Result<ModelConfig> {
    let activation = activation(keys, arch.activation)?;
    refuse_unsupported(keys)?;
    let quantization = quantization(keys)?;
    let n_layers = keys.count("num_hidden_layers")?;
    if n_layers > MAX_LAYERS {
        return Err(bad("num_hidden_layers", n_layers, &format!("it must be at most {MAX_LAYERS}")));
    }
    let n_heads = keys.count("num_attention_heads")?;
    let hidden = keys.count("hidden_size")?;
    let (attention, rope) = attention(keys, Heads { n_heads, hidden })?;
    let moe = match routing {
        Some(routing) => experts(keys, routing)?.map(|moe| (moe, routing.dense_layers)),
        None => None,
    };
    let n_dense = match &moe {
        Some((_, default)) => dense_prefix(keys, n_layers, *default)?,
        None => n_layers,
    };
    let config = ModelConfig {
        arch,
        vocab: keys.count("vocab_size")?,
        hidden,
        n_layers,
        n_mtp: keys.optional_count("num_nextn_predict_layers")?.unwrap_or(0),
        reads_mtp: false,
        n_dense,
        dense_ff: if n_dense > 0 { keys.count("intermediate_size")? } else { 0 },
        n_heads,
        rope,
        attention,
        activation,
        moe: moe.map(|(moe, _)| moe).filter(|_| n_dense < n_layers),
        norm_eps: keys.float("rms_norm_eps")?,
        n_ctx: keys.count("max_position_embeddings")?,
        trained_act: quantization.trits.map(|_| ActMode::A8Token),
        head: Presence::known(!keys.flag("tie_word_embeddings", false)?),
        guesses: keys.guesses.list(),
    };
    config.validate()?;
    Ok(config)
}

/// The numbers that every kind of attention needs.
#[derive(Clone, Copy)]
pub(crate) struct Heads {
    pub n_heads: usize,
    pub hidden: usize,
}

/// The routing rules that an architecture's code fixes, or assumes where `config.json` is silent.
pub(crate) struct Routing {
    /// The gating where `scoring_func` is missing.
    pub gating: Gating,
    /// The number by which groups are compared.
    pub group_score: GroupScore,
    /// Whether `topk_method` missing or `greedy` means that groups do not count.
    pub greedy_ignores_groups: bool,
    /// Whether weights are normalised without `norm_topk_prob`; `None`: never, also where the key says so.
    pub normalise: Option<bool>,
    /// The factor where `routed_scaling_factor` is missing.
    pub scaling: f32,
    /// Whether the selection has a bias.
    pub selection_bias: bool,
    /// Dense layers where neither key gives their number.
    pub dense_layers: usize,
}

fn unsupported(feature: String) -> Error {
    ConfigError::Unsupported { feature, remedy: "use a checkpoint of the standard architecture" }.into()
}

fn activation(keys: &HfKeys<'_>, default: Activation) -> Result<Activation> {
    let key = Activation::KEYS[0];
    match keys.text(key)? {
        None => Ok(keys.default(key, default)),
        Some(name) => Activation::by_name(name).ok_or_else(|| unsupported(format!("`hidden_act` = \"{name}\""))),
    }
}

fn refuse_unsupported(keys: &HfKeys<'_>) -> Result<()> {
    if keys.flag("mlp_bias", false)? {
        return Err(unsupported("`mlp_bias` = true".to_owned()));
    }
    Ok(())
}

/// The storage of the weights. The reader of the weights reads it too; a method that changes their names would end in a list
/// of unknown tensors.
fn quantization(keys: &HfKeys<'_>) -> Result<Quantization> {
    match keys.find("quantization_config") {
        None => Ok(Quantization::default()),
        Some(config) => Ok(Quantization::from_config(config).map_err(gguf_bitnet::Error::from)?),
    }
}

/// Latent attention. With `interleaved`, neighbours are rotated even where the file says otherwise.
///
/// # Errors
/// A sentence that names the key.
pub(crate) fn mla(keys: &HfKeys<'_>, interleaved: bool) -> Result<(AttentionConfig, RopeConfig)> {
    if keys.flag("attention_bias", false)? {
        return Err(unsupported("`attention_bias` = true with latent attention".to_owned()));
    }
    let dims = MlaDims {
        // Converters write 0 as well as null for "no compression".
        q_lora: keys.optional_count("q_lora_rank")?.filter(|&rank| rank > 0),
        kv_lora: keys.count("kv_lora_rank")?,
        qk_nope: keys.count("qk_nope_head_dim")?,
        qk_rope: keys.count("qk_rope_head_dim")?,
        v_head: keys.count("v_head_dim")?,
        latent_norm_eps: LATENT_NORM_EPS,
    };
    let (theta, factor) = rotation(keys, None)?;
    if let Some(factor) = factor.filter(|&f| f != 1.0) {
        return Err(bad("partial_rotary_factor", factor, "latent attention rotates all of `qk_rope_head_dim`"));
    }
    let neighbours = interleaved || keys.flag_or_default("rope_interleave", true)?;
    let style = if neighbours { RopeStyle::Interleaved } else { RopeStyle::Halves };
    Ok((AttentionConfig::Mla(dims), RopeConfig { theta, dims: dims.qk_rope, style }))
}

/// Grouped-query attention that rotates halves of the first `partial` (by default) of every head.
///
/// # Errors
/// A sentence that names the key.
pub(crate) fn gqa(keys: &HfKeys<'_>, heads: Heads, partial: f64) -> Result<(AttentionConfig, RopeConfig)> {
    let dims = gqa_dims(keys, heads)?;
    let (theta, factor) = rotation(keys, None)?;
    let factor = factor.unwrap_or_else(|| keys.default("partial_rotary_factor", partial));
    if !(factor > 0.0 && factor <= 1.0) {
        return Err(bad("partial_rotary_factor", factor, "it must be above 0 and at most 1"));
    }
    // Truncation is the rule; the product lies between 0 and `head_dim`.
    let rotated = (dims.head_dim as f64 * factor) as usize;
    Ok((AttentionConfig::Gqa(dims), RopeConfig { theta, dims: rotated, style: RopeStyle::Halves }))
}

/// Grouped-query attention without biases that rotates the halves of whole heads, with the base `theta` by default.
///
/// # Errors
/// A sentence that names the key.
pub(crate) fn gqa_of_whole_heads(keys: &HfKeys<'_>, heads: Heads, theta: f32) -> Result<(AttentionConfig, RopeConfig)> {
    if keys.flag("attention_bias", false)? {
        return Err(unsupported(format!("`attention_bias` = true in {}", keys.arch)));
    }
    let dims = gqa_dims(keys, heads)?;
    let (theta, factor) = rotation(keys, Some(theta))?;
    if let Some(factor) = factor.filter(|&f| f != 1.0) {
        return Err(bad("partial_rotary_factor", factor, &format!("{} rotates whole heads", keys.arch)));
    }
    Ok((AttentionConfig::Gqa(dims), RopeConfig { theta, dims: dims.head_dim, style: RopeStyle::Halves }))
}

/// Refuses attention that does not reach all positions the model was made for; `default` is the width of the window where
/// the key is missing.
///
/// # Errors
/// [`ConfigError::Unsupported`] with the width.
pub(crate) fn refuse_sliding_window(keys: &HfKeys<'_>, default: usize) -> Result<()> {
    let window = match keys.map.get("sliding_window") {
        Some(Value::Null) => return Ok(()),
        _ => keys.count_or_default("sliding_window", default)?,
    };
    if window >= keys.count("max_position_embeddings")? {
        return Ok(());
    }
    Err(ConfigError::Unsupported {
        feature: format!("`sliding_window` = {window}, less than `max_position_embeddings`"),
        remedy: "use a checkpoint whose attention reaches all positions",
    }
    .into())
}

/// The numbers of grouped-query attention.
fn gqa_dims(keys: &HfKeys<'_>, Heads { n_heads, hidden }: Heads) -> Result<GqaDims> {
    let head_dim = match keys.optional_count("head_dim")? {
        Some(dim) => dim,
        None => keys.default("head_dim", hidden.checked_div(n_heads).unwrap_or(0)),
    };
    Ok(GqaDims {
        n_kv_heads: keys.count_or_default("num_key_value_heads", n_heads)?,
        head_dim,
        qk_norm: Presence::known(keys.flag("use_qk_norm", false)?),
        bias: Presence::known(keys.flag("attention_bias", false)?),
    })
}

/// `rope_theta`, by default `default`, and `partial_rotary_factor`, from `rope_parameters` or from the keys beside it.
fn rotation(keys: &HfKeys<'_>, default: Option<f32>) -> Result<(f32, Option<f64>)> {
    let section = match keys.map.get("rope_parameters") {
        Some(Value::Object(section)) => Some(HfKeys { map: section, ..*keys }),
        Some(Value::Null) | None => None,
        Some(other) => return Err(bad("rope_parameters", other, "it must be an object")),
    };
    if let Some(section) = &section {
        refuse_scaling("rope_parameters", section.map)?;
    }
    match keys.map.get("rope_scaling") {
        Some(Value::Object(scaling)) => refuse_scaling("rope_scaling", scaling)?,
        Some(Value::Null) | None => {}
        Some(other) => return Err(bad("rope_scaling", other, "it must be an object or null")),
    }
    let either = |key: &str| -> Result<Option<f64>> {
        let inner = match &section {
            Some(section) => section.optional_double(key)?,
            None => None,
        };
        match (inner, keys.optional_double(key)?) {
            (Some(a), Some(b)) if a != b => Err(ConfigError::Contradiction {
                first: format!("rope_parameters.{key}"),
                second: key.to_owned(),
                detail: format!("{a} and {b}"),
            }
            .into()),
            (a, b) => Ok(a.or(b)),
        }
    };
    let theta = match (either("rope_theta")?, default) {
        (Some(theta), _) => theta as f32,
        (None, Some(default)) => keys.default("rope_theta", default),
        (None, None) => return Err(keys.missing("rope_theta")),
    };
    Ok((theta, either("partial_rotary_factor")?))
}

/// Refuses every kind of position scaling by its name.
fn refuse_scaling(section: &str, map: &Map<String, Value>) -> Result<()> {
    let kind = map.get("rope_type").or_else(|| map.get("type"));
    match kind {
        None | Some(Value::Null) => {}
        Some(Value::String(kind)) if kind == "default" => {}
        Some(kind) => {
            let kind = kind.as_str().map_or_else(|| kind.to_string(), str::to_owned);
            return Err(ConfigError::RopeScaling { key: format!("{section}.rope_type"), kind }.into());
        }
    }
    match map.get("factor") {
        None | Some(Value::Null) => Ok(()),
        Some(factor) if factor.as_f64() == Some(1.0) => Ok(()),
        Some(factor) => {
            Err(ConfigError::RopeScaling { key: format!("{section}.factor"), kind: factor.to_string() }.into())
        }
    }
}

/// The experts, or `None` for a model without.
fn experts(keys: &HfKeys<'_>, rules: &Routing) -> Result<Option<MoeConfig>> {
    let n_experts = match keys.optional_count("n_routed_experts")? {
        Some(n) => Some(n),
        None => keys.optional_count("num_local_experts")?,
    };
    let Some(n_experts) = n_experts.filter(|&n| n > 0) else { return Ok(None) };
    let gating = match keys.text("scoring_func")? {
        None => keys.default("scoring_func", rules.gating),
        Some("softmax") if rules.selection_bias => {
            return Err(ConfigError::Contradiction {
                first: "scoring_func".to_owned(),
                second: "e_score_correction_bias".to_owned(),
                detail: format!("softmax, and the selection bias of {}, which only sigmoid routers have", keys.arch),
            }
            .into());
        }
        Some("sigmoid") => Gating::Sigmoid,
        Some("softmax") => Gating::Softmax,
        Some(other) => {
            return Err(ConfigError::Unsupported {
                feature: format!("`scoring_func` = \"{other}\""),
                remedy: "use a model with a sigmoid or softmax router",
            }
            .into());
        }
    };
    let mut n_group = keys.count_or_default("n_group", 1)?;
    let mut topk_group = keys.count_or_default("topk_group", 1)?;
    let method = keys.text("topk_method")?;
    if method.is_none() && n_group > 1 && rules.greedy_ignores_groups {
        keys.default("topk_method", "greedy");
    }
    match method {
        None | Some("greedy") if rules.greedy_ignores_groups => (n_group, topk_group) = (1, 1),
        None | Some("greedy" | "noaux_tc" | "group_limited_greedy") => {}
        Some(other) => {
            return Err(ConfigError::Unsupported {
                feature: format!("`topk_method` = \"{other}\""),
                remedy: "use a model that selects by greedy, group_limited_greedy or noaux_tc",
            }
            .into());
        }
    }
    // The key is read, and refused when it is no flag, even where the architecture never normalises.
    let stated = match rules.normalise {
        Some(default) => keys.flag_or_default("norm_topk_prob", default)?,
        None => keys.flag("norm_topk_prob", false)?,
    };
    let router = RouterConfig {
        gating,
        n_experts,
        top_k: keys.count("num_experts_per_tok")?,
        n_group,
        topk_group,
        group_score: rules.group_score,
        norm: WeightNorm::normalised(stated && rules.normalise.is_some()),
        scaling: match keys.optional_float("routed_scaling_factor")? {
            Some(scaling) => scaling,
            None => keys.default("routed_scaling_factor", rules.scaling),
        },
        selection_bias: Presence::known(rules.selection_bias),
    };
    let n_shared = match keys.map.get("n_shared_experts") {
        Some(Value::Null) => 0,
        _ => keys.count("n_shared_experts")?,
    };
    Ok(Some(MoeConfig { router, expert_ff: keys.count("moe_intermediate_size")?, n_shared }))
}

/// Number of leading dense layers, from each key that states it; all must agree, and the dense layers must come first.
fn dense_prefix(keys: &HfKeys<'_>, n_layers: usize, default: usize) -> Result<usize> {
    let first = keys.optional_count("first_k_dense_replace")?.map(|n| n.min(n_layers));
    let listed = |key| match keys.find(key) {
        None => Ok(None),
        Some(Value::Array(list)) => listed_prefix(key, list, n_layers).map(Some),
        Some(other) => Err(bad(key, other, "it must be a list")),
    };
    let types = listed("mlp_layer_types")?;
    let (first, frequency) = match keys.find("moe_layer_freq") {
        Some(Value::Number(_)) => (every_nth(keys, n_layers, first)?, None),
        _ => (first, listed("moe_layer_freq")?),
    };
    let stated: Vec<(&str, usize)> =
        [("first_k_dense_replace", first), ("mlp_layer_types", types), ("moe_layer_freq", frequency)]
            .into_iter()
            .filter_map(|(key, n)| Some((key, n?)))
            .collect();
    match stated[..] {
        [] => Ok(keys.default("first_k_dense_replace", default.min(n_layers))),
        [(first, n), ref others @ ..] => match others.iter().find(|other| other.1 != n) {
            None => Ok(n),
            Some((second, m)) => Err(ConfigError::Contradiction {
                first: first.to_owned(),
                second: (*second).to_owned(),
                detail: format!("{n} dense layers and {m} dense layers"),
            }
            .into()),
        },
    }
}

/// The dense layers before the others where `moe_layer_freq` is a number N: of the layers after the `first`, those whose
/// number N divides have experts. With 1 these are all of them, so that the key says nothing of its own.
fn every_nth(keys: &HfKeys<'_>, n_layers: usize, first: Option<usize>) -> Result<Option<usize>> {
    let every = keys.count("moe_layer_freq")?;
    if every <= 1 {
        return match every {
            0 => Err(bad(
                "moe_layer_freq",
                every,
                "it must be a positive number, or a list with an entry for each layer",
            )),
            _ => Ok(first),
        };
    }
    let sparse = |layer: usize| layer >= first.unwrap_or(0) && layer.is_multiple_of(every);
    let prefix = (0..n_layers).take_while(|&layer| !sparse(layer)).count();
    if !(prefix..n_layers).all(sparse) {
        let feature = format!("`moe_layer_freq` = {every}, which puts dense layers between those with experts");
        return Err(unsupported(feature));
    }
    Ok(Some(prefix))
}

/// Number of leading dense layers in a list with an entry for each layer: names, or 0 and 1.
fn listed_prefix(key: &str, list: &[Value], n_layers: usize) -> Result<usize> {
    if list.len() != n_layers {
        return Err(ConfigError::Contradiction {
            first: key.to_owned(),
            second: "num_hidden_layers".to_owned(),
            detail: format!("{} entries and {n_layers} layers", list.len()),
        }
        .into());
    }
    let is_dense = |v: &Value| match (v.as_str(), v.as_u64(), v.as_bool()) {
        (Some("dense"), _, _) | (_, Some(0), _) | (_, _, Some(false)) => Ok(true),
        (Some("sparse"), _, _) | (_, Some(1), _) | (_, _, Some(true)) => Ok(false),
        _ => Err(bad(key, v, "every entry must be \"dense\" or \"sparse\", or 0 or 1")),
    };
    let dense = list.iter().map(is_dense).collect::<Result<Vec<bool>>>()?;
    let prefix = dense.iter().take_while(|&&d| d).count();
    if dense[prefix..].contains(&true) {
        return Err(bad(key, "a dense layer after a sparse one", "the dense layers must be the first ones"));
    }
    Ok(prefix)
}
