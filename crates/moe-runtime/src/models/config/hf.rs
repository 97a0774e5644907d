//! A model's configuration out of a checkpoint's `config.json`.
//!
//! Where transformers fixes a rule in code and not in the file, the rule is fixed here too: `glm4_moe_lite`, `glm4_moe`
//! and `deepseek_v3` select with a bias whatever `topk_method` says, and `deepseek_v2` never normalises its weights.

use serde_json::{Map, Value};

use super::{
    Arch, AttentionConfig, Gating, GroupScore, LATENT_NORM_EPS, MAX_LAYERS, ModelConfig, MoeConfig, Presence,
    RopeConfig, RopeStyle, RouterConfig, WEIGHT_SUM_EPS, WeightNorm, bad,
};
use crate::error::{Error, Result};

const KNOWN: &str = "glm4_moe_lite, glm4_moe, deepseek_v2 and deepseek_v3";

impl ModelConfig {
    /// Reads the text of a `config.json`.
    ///
    /// # Errors
    /// [`Error::ConfigJson`] when it is no JSON; otherwise as [`ModelConfig::from_hf`].
    pub fn from_hf_str(text: &str) -> Result<ModelConfig> {
        let json: Value = serde_json::from_str(text).map_err(|e| Error::ConfigJson { reason: e.to_string() })?;
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
            return Err(Error::ConfigJson { reason: "it is not an object".to_owned() });
        };
        let arch = architecture(map)?;
        let keys = Keys { map, arch };
        refuse_unsupported(&keys)?;
        let n_layers = keys.count("num_hidden_layers")?;
        if n_layers > MAX_LAYERS {
            return Err(bad("num_hidden_layers", n_layers, &format!("it must be at most {MAX_LAYERS}")));
        }
        let n_heads = keys.count("num_attention_heads")?;
        let hidden = keys.count("hidden_size")?;
        let attention = attention(&keys, n_heads, hidden)?;
        let moe = moe(&keys)?;
        let n_dense = if moe.is_some() { dense_prefix(&keys, n_layers)? } else { n_layers };
        let config = ModelConfig {
            arch,
            vocab: keys.count("vocab_size")?,
            hidden,
            n_layers,
            n_mtp: keys.optional_count("num_nextn_predict_layers")?.unwrap_or(0),
            n_dense,
            dense_ff: if n_dense > 0 { keys.count("intermediate_size")? } else { 0 },
            n_heads,
            rope: rope(&keys, &attention)?,
            attention,
            moe: moe.filter(|_| n_dense < n_layers),
            norm_eps: keys.float("rms_norm_eps")?,
            n_ctx: keys.count("max_position_embeddings")?,
            head: if keys.flag("tie_word_embeddings", false)? { Presence::Absent } else { Presence::Required },
        };
        config.validate()?;
        Ok(config)
    }
}

fn architecture(map: &Map<String, Value>) -> Result<Arch> {
    let name = match map.get("model_type") {
        Some(Value::String(name)) => name.as_str(),
        Some(other) => return Err(bad("model_type", other, "it must be a string")),
        None => return Err(Error::MissingKey { key: "model_type".to_owned(), arch: "every checkpoint" }),
    };
    [Arch::Glm4MoeLite, Arch::Glm4Moe, Arch::DeepseekV2, Arch::DeepseekV3]
        .into_iter()
        .find(|arch| arch.hf_name() == name)
        .ok_or_else(|| Error::UnsupportedArchitecture { got: name.to_owned(), known: KNOWN })
}

fn refuse_unsupported(keys: &Keys<'_>) -> Result<()> {
    let unsupported =
        |feature: String| Err(Error::Unsupported { feature, remedy: "use a checkpoint of the standard architecture" });
    if let Some(act) = keys.text("hidden_act")?
        && act != "silu"
    {
        return unsupported(format!("`hidden_act` = \"{act}\""));
    }
    if keys.flag("mlp_bias", false)? {
        return unsupported("`mlp_bias` = true".to_owned());
    }
    if keys.flag("attention_bias", false)? && keys.arch != Arch::Glm4Moe {
        return unsupported("`attention_bias` = true with latent attention".to_owned());
    }
    if let Some(every) = keys.optional_count("moe_layer_freq")?
        && every != 1
    {
        return unsupported(format!("`moe_layer_freq` = {every}"));
    }
    if keys.map.get("quantization_config").is_some_and(|v| !v.is_null()) {
        return Err(Error::Unsupported {
            feature: "`quantization_config` in config.json".to_owned(),
            remedy: "use the BF16 or F16 checkpoint, or a GGUF",
        });
    }
    Ok(())
}

fn attention(keys: &Keys<'_>, n_heads: usize, hidden: usize) -> Result<AttentionConfig> {
    if keys.arch == Arch::Glm4Moe {
        let head_dim = match keys.optional_count("head_dim")? {
            Some(dim) => dim,
            None => hidden.checked_div(n_heads).unwrap_or(0),
        };
        return Ok(AttentionConfig::Gqa {
            n_kv_heads: keys.optional_count("num_key_value_heads")?.unwrap_or(n_heads),
            head_dim,
            qk_norm: present(keys.flag("use_qk_norm", false)?),
            bias: present(keys.flag("attention_bias", false)?),
        });
    }
    // 0 as well as null is how converters write "no compression".
    let q_lora = keys.optional_count("q_lora_rank")?.filter(|&rank| rank > 0);
    Ok(AttentionConfig::Mla {
        q_lora,
        kv_lora: keys.count("kv_lora_rank")?,
        qk_nope: keys.count("qk_nope_head_dim")?,
        qk_rope: keys.count("qk_rope_head_dim")?,
        v_head: keys.count("v_head_dim")?,
        latent_norm_eps: LATENT_NORM_EPS,
    })
}

fn rope(keys: &Keys<'_>, attention: &AttentionConfig) -> Result<RopeConfig> {
    let section = match keys.map.get("rope_parameters") {
        Some(Value::Object(section)) => Some(Keys { map: section, arch: keys.arch }),
        Some(Value::Null) | None => None,
        Some(other) => return Err(bad("rope_parameters", other, "it must be an object")),
    };
    if let Some(section) = &section {
        plain_rope("rope_parameters", section.map)?;
    }
    match keys.map.get("rope_scaling") {
        Some(Value::Object(scaling)) => plain_rope("rope_scaling", scaling)?,
        Some(Value::Null) | None => {}
        Some(other) => return Err(bad("rope_scaling", other, "it must be an object or null")),
    }
    let either = |key: &str| -> Result<Option<f64>> {
        let inner = match &section {
            Some(section) => section.optional_double(key)?,
            None => None,
        };
        match (inner, keys.optional_double(key)?) {
            (Some(a), Some(b)) if a != b => Err(Error::Contradiction {
                first: format!("rope_parameters.{key}"),
                second: key.to_owned(),
                detail: format!("{a} and {b}"),
            }),
            (a, b) => Ok(a.or(b)),
        }
    };
    let missing = || Error::MissingKey { key: "rope_theta".to_owned(), arch: keys.arch.hf_name() };
    let theta = either("rope_theta")?.ok_or_else(missing)? as f32;
    let factor = either("partial_rotary_factor")?;
    match *attention {
        AttentionConfig::Mla { qk_rope, .. } => {
            if let Some(factor) = factor.filter(|&f| f != 1.0) {
                return Err(bad("partial_rotary_factor", factor, "latent attention rotates all of `qk_rope_head_dim`"));
            }
            // The complex-number form of deepseek_v2 turns neighbours, always.
            let neighbours = keys.arch == Arch::DeepseekV2 || keys.flag("rope_interleave", true)?;
            let style = if neighbours { RopeStyle::Interleaved } else { RopeStyle::Halves };
            Ok(RopeConfig { theta, dims: qk_rope, style })
        }
        AttentionConfig::Gqa { head_dim, .. } => {
            let factor = factor.unwrap_or(0.5);
            if !(factor > 0.0 && factor <= 1.0) {
                return Err(bad("partial_rotary_factor", factor, "it must be above 0 and at most 1"));
            }
            // Truncation is the rule; the product lies between 0 and `head_dim`.
            let dims = (head_dim as f64 * factor) as usize;
            Ok(RopeConfig { theta, dims, style: RopeStyle::Halves })
        }
    }
}

/// Refuses every kind of position scaling by its name.
fn plain_rope(section: &str, map: &Map<String, Value>) -> Result<()> {
    let kind = map.get("rope_type").or_else(|| map.get("type"));
    match kind {
        None | Some(Value::Null) => {}
        Some(Value::String(kind)) if kind == "default" => {}
        Some(kind) => {
            let kind = kind.as_str().map_or_else(|| kind.to_string(), str::to_owned);
            return Err(Error::RopeScaling { key: format!("{section}.rope_type"), kind });
        }
    }
    match map.get("factor") {
        None | Some(Value::Null) => Ok(()),
        Some(factor) if factor.as_f64() == Some(1.0) => Ok(()),
        Some(factor) => Err(Error::RopeScaling { key: format!("{section}.factor"), kind: factor.to_string() }),
    }
}

fn moe(keys: &Keys<'_>) -> Result<Option<MoeConfig>> {
    let n_experts = match keys.optional_count("n_routed_experts")? {
        Some(n) => Some(n),
        None => keys.optional_count("num_local_experts")?,
    };
    let Some(n_experts) = n_experts.filter(|&n| n > 0) else { return Ok(None) };
    let sigmoid_family = keys.arch != Arch::DeepseekV2;
    let gating = match keys.text("scoring_func")? {
        None if sigmoid_family => Gating::Sigmoid,
        None => Gating::Softmax,
        Some("sigmoid") => Gating::Sigmoid,
        Some("softmax") => Gating::Softmax,
        Some(other) => {
            return Err(Error::Unsupported {
                feature: format!("`scoring_func` = \"{other}\""),
                remedy: "use a model with a sigmoid or softmax router",
            });
        }
    };
    let mut n_group = keys.optional_count("n_group")?.unwrap_or(1);
    let mut topk_group = keys.optional_count("topk_group")?.unwrap_or(1);
    match keys.text("topk_method")? {
        None | Some("greedy") if !sigmoid_family => (n_group, topk_group) = (1, 1),
        None | Some("greedy" | "noaux_tc" | "group_limited_greedy") => {}
        Some(other) => {
            return Err(Error::Unsupported {
                feature: format!("`topk_method` = \"{other}\""),
                remedy: "use a model that selects by greedy, group_limited_greedy or noaux_tc",
            });
        }
    }
    let (norm_default, scaling_default) = match keys.arch {
        Arch::Glm4MoeLite => (true, 1.8),
        Arch::Glm4Moe => (true, 1.0),
        Arch::DeepseekV2 => (false, 1.0),
        Arch::DeepseekV3 => (true, 2.5),
    };
    let normalised = keys.flag("norm_topk_prob", norm_default)? && sigmoid_family;
    let router = RouterConfig {
        gating,
        n_experts,
        top_k: keys.count("num_experts_per_tok")?,
        n_group,
        topk_group,
        group_score: if sigmoid_family { GroupScore::TopTwoSum } else { GroupScore::Max },
        norm: if normalised { WeightNorm::Sum { eps: WEIGHT_SUM_EPS } } else { WeightNorm::None },
        scaling: keys.optional_float("routed_scaling_factor")?.unwrap_or(scaling_default),
        selection_bias: present(sigmoid_family),
    };
    let n_shared = match keys.map.get("n_shared_experts") {
        Some(Value::Null) => 0,
        _ => keys.count("n_shared_experts")?,
    };
    Ok(Some(MoeConfig { router, expert_ff: keys.count("moe_intermediate_size")?, n_shared }))
}

/// Number of leading dense layers, from either key; both must agree, and the dense layers must come first.
fn dense_prefix(keys: &Keys<'_>, n_layers: usize) -> Result<usize> {
    let stated = keys.optional_count("first_k_dense_replace")?.map(|n| n.min(n_layers));
    let listed = match keys.map.get("mlp_layer_types") {
        None | Some(Value::Null) => None,
        Some(Value::Array(types)) => Some(listed_prefix(types, n_layers)?),
        Some(other) => return Err(bad("mlp_layer_types", other, "it must be a list")),
    };
    match (stated, listed) {
        (Some(a), Some(b)) if a != b => Err(Error::Contradiction {
            first: "first_k_dense_replace".to_owned(),
            second: "mlp_layer_types".to_owned(),
            detail: format!("{a} dense layers and {b} dense layers"),
        }),
        (Some(n), _) | (None, Some(n)) => Ok(n),
        (None, None) => Ok(match keys.arch {
            Arch::Glm4MoeLite | Arch::Glm4Moe => 1,
            Arch::DeepseekV2 => 0,
            Arch::DeepseekV3 => 3,
        }
        .min(n_layers)),
    }
}

fn listed_prefix(types: &[Value], n_layers: usize) -> Result<usize> {
    const KEY: &str = "mlp_layer_types";
    if types.len() != n_layers {
        return Err(Error::Contradiction {
            first: KEY.to_owned(),
            second: "num_hidden_layers".to_owned(),
            detail: format!("{} entries and {n_layers} layers", types.len()),
        });
    }
    let is_dense = |v: &Value| match v.as_str() {
        Some("dense") => Ok(true),
        Some("sparse") => Ok(false),
        _ => Err(bad(KEY, v, "every entry must be \"dense\" or \"sparse\"")),
    };
    let dense = types.iter().map(is_dense).collect::<Result<Vec<bool>>>()?;
    let prefix = dense.iter().take_while(|&&d| d).count();
    if dense[prefix..].contains(&true) {
        return Err(bad(KEY, "a dense layer after a sparse one", "the dense layers must be the first ones"));
    }
    Ok(prefix)
}

fn present(yes: bool) -> Presence {
    if yes { Presence::Required } else { Presence::Absent }
}

/// Typed reads of one JSON object; `null` reads as absent.
struct Keys<'a> {
    map: &'a Map<String, Value>,
    arch: Arch,
}

impl<'a> Keys<'a> {
    fn find(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    fn missing(&self, key: &str) -> Error {
        Error::MissingKey { key: key.to_owned(), arch: self.arch.hf_name() }
    }

    fn optional_count(&self, key: &str) -> Result<Option<usize>> {
        let Some(value) = self.find(key) else { return Ok(None) };
        let count = value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|&n| n <= super::MAX_DIM);
        match count {
            Some(n) => Ok(Some(n)),
            None => Err(bad(key, value, &format!("it must be a whole number from 0 to {}", super::MAX_DIM))),
        }
    }

    fn count(&self, key: &str) -> Result<usize> {
        self.optional_count(key)?.ok_or_else(|| self.missing(key))
    }

    fn optional_double(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.find(key) else { return Ok(None) };
        match value.as_f64().filter(|&x| x.abs() <= f64::from(f32::MAX)) {
            Some(x) => Ok(Some(x)),
            None => Err(bad(key, value, "it must be a finite number")),
        }
    }

    fn optional_float(&self, key: &str) -> Result<Option<f32>> {
        Ok(self.optional_double(key)?.map(|x| x as f32))
    }

    fn float(&self, key: &str) -> Result<f32> {
        self.optional_float(key)?.ok_or_else(|| self.missing(key))
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.find(key) {
            None => Ok(default),
            Some(Value::Bool(b)) => Ok(*b),
            Some(other) => Err(bad(key, other, "it must be true or false")),
        }
    }

    fn text(&self, key: &str) -> Result<Option<&'a str>> {
        match self.find(key) {
            None => Ok(None),
            Some(Value::String(s)) => Ok(Some(s)),
            Some(other) => Err(bad(key, other, "it must be a string")),
        }
    }
}
