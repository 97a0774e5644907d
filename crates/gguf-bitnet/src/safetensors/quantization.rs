//! The `quantization_config` of a checkpoint's `config.json`: which 8-bit or ternary weights it describes.
//!
//! ```text
//! {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}           DeepSeek, GLM-5
//! {"quant_method": "compressed-tensors", "format": "float-quantized",               GLM-4.5 to 4.7
//!  "config_groups": {"group_0": {"weights": {"type": "float", "num_bits": 8, "strategy": "channel"}}}}
//! {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline"}   BitNet b1.58 2B4T
//! ```
//! The tensors say the rest: a scale of one number is for the whole matrix, one per row for the rows, and a matrix without
//! a scale is not quantised, whatever the list of exceptions says. Sources: the configuration classes `FineGrainedFP8Config`
//! and `BitNetQuantConfig` of transformers (with `BitLinear` and `AutoBitLinear` in `integrations/bitnet.py`) and
//! `QuantizationConfig` of compressed-tensors.

use serde_json::{Map, Value};

use super::error::SafetensorsError;

/// The parts of a `quantization_config` that the tensors do not say themselves.
///
/// ```
/// use gguf_bitnet::Quantization;
/// let config = serde_json::json!({"quant_method": "fp8", "weight_block_size": [128, 64]});
/// assert_eq!(Quantization::from_config(&config)?.block, Some([128, 64]));
/// # Ok::<(), gguf_bitnet::SafetensorsError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quantization {
    /// Rows and columns of the blocks that have a scale each; `None` where scales are for whole matrices or rows.
    pub block: Option<[usize; 2]>,
    /// The form of the matrices in the layers where they are trits; `None` for all other checkpoints.
    pub trits: Option<TritWeights>,
}

/// The form of ternary matrices in a checkpoint. Each has one scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TritWeights {
    /// Numbers, which the model rounds to trits; the scale is the mean of their magnitudes.
    Rounded,
    /// Packed trits beside a `weight_scale` that multiplies them.
    Multiplied,
    /// Packed trits beside a `weight_scale` that divides them.
    Divided,
}

impl Quantization {
    /// Reads a `quantization_config`.
    ///
    /// # Errors
    /// [`SafetensorsError::Quantization`] for another method, format or strategy than those of 8-bit floating-point
    /// and ternary weights, and for a block that is no pair of positive numbers.
    pub fn from_config(config: &Value) -> Result<Quantization, SafetensorsError> {
        let config = config.as_object().ok_or_else(|| unknown("quantization_config", config))?;
        match text(config, "quant_method")? {
            "fp8" => fp8(config),
            "compressed-tensors" => compressed_tensors(config),
            "bitnet" => bitnet(config),
            _ => Err(unknown("quant_method", &config["quant_method"])),
        }
    }
}

fn fp8(config: &Map<String, Value>) -> Result<Quantization, SafetensorsError> {
    match config.get("fmt") {
        None | Some(Value::Null) => {}
        Some(Value::String(format)) if matches!(format.as_str(), "e4m3" | "e5m2") => {}
        Some(other) => return Err(unknown("fmt", other)),
    }
    Ok(Quantization { block: block(config, "weight_block_size")?, trits: None })
}

fn compressed_tensors(config: &Map<String, Value>) -> Result<Quantization, SafetensorsError> {
    is(config, "format", "float-quantized")?;
    let groups = config.get("config_groups").unwrap_or(&Value::Null);
    let groups = groups.as_object().ok_or_else(|| unknown("config_groups", groups))?;
    let mut found = Quantization::default();
    for group in groups.values() {
        let weights = group.get("weights").unwrap_or(&Value::Null);
        let weights = weights.as_object().ok_or_else(|| unknown("weights", weights))?;
        is(weights, "type", "float")?;
        if weights.get("num_bits").and_then(Value::as_u64) != Some(8) {
            return Err(unknown("num_bits", weights.get("num_bits").unwrap_or(&Value::Null)));
        }
        match text(weights, "strategy")? {
            "tensor" | "channel" => {}
            "block" => {
                let one = block(weights, "block_structure")?;
                if one.is_none() || found.block.is_some_and(|before| Some(before) != one) {
                    return Err(unknown("block_structure", weights.get("block_structure").unwrap_or(&Value::Null)));
                }
                found.block = one;
            }
            _ => return Err(unknown("strategy", &weights["strategy"])),
        }
    }
    Ok(found)
}

/// Layers of the class `bitlinear`, the default, divide by their scale whatever the mode is.
fn bitnet(config: &Map<String, Value>) -> Result<Quantization, SafetensorsError> {
    let text_or = |key, default| match config.get(key) {
        None | Some(Value::Null) => Ok(default),
        Some(_) => text(config, key),
    };
    if !matches!(config.get("use_rms_norm"), None | Some(Value::Null | Value::Bool(false))) {
        return Err(unknown("use_rms_norm", &config["use_rms_norm"]));
    }
    let trits = match (text_or("linear_class", "bitlinear")?, text_or("quantization_mode", "offline")?) {
        ("bitlinear", "online" | "offline") => TritWeights::Divided,
        ("autobitlinear", "offline") => TritWeights::Multiplied,
        ("autobitlinear", "online") => TritWeights::Rounded,
        ("bitlinear" | "autobitlinear", _) => return Err(unknown("quantization_mode", &config["quantization_mode"])),
        _ => return Err(unknown("linear_class", &config["linear_class"])),
    };
    if trits == TritWeights::Rounded {
        whole_layers(config)?;
    }
    Ok(Quantization { block: None, trits: Some(trits) })
}

/// Refuses a list of modules that are not rounded, unless it names only those outside of the layers.
fn whole_layers(config: &Map<String, Value>) -> Result<(), SafetensorsError> {
    let key = "modules_to_not_convert";
    let Some(list) = config.get(key).filter(|list| !list.is_null()) else { return Ok(()) };
    let outside = |name: &Value| matches!(name.as_str(), Some("lm_head" | "embed_tokens" | "model.embed_tokens"));
    match list.as_array() {
        Some(names) if names.iter().all(outside) => Ok(()),
        _ => Err(unknown(key, list)),
    }
}

/// Refuses any other text than `wanted` at a key.
fn is(config: &Map<String, Value>, key: &'static str, wanted: &str) -> Result<(), SafetensorsError> {
    if text(config, key)? == wanted { Ok(()) } else { Err(unknown(key, &config[key])) }
}

fn text<'a>(config: &'a Map<String, Value>, key: &'static str) -> Result<&'a str, SafetensorsError> {
    let value = config.get(key).unwrap_or(&Value::Null);
    value.as_str().ok_or_else(|| unknown(key, value))
}

/// A pair of positive numbers, or `None` where the key is missing or null.
fn block(config: &Map<String, Value>, key: &'static str) -> Result<Option<[usize; 2]>, SafetensorsError> {
    let Some(value) = config.get(key).filter(|value| !value.is_null()) else { return Ok(None) };
    let size = |value: &Value| usize::try_from(value.as_u64()?).ok().filter(|&size| size > 0);
    match value.as_array().map(Vec::as_slice) {
        Some([rows, cols]) => match (size(rows), size(cols)) {
            (Some(rows), Some(cols)) => Ok(Some([rows, cols])),
            _ => Err(unknown(key, value)),
        },
        _ => Err(unknown(key, value)),
    }
}

fn unknown(key: &'static str, value: &Value) -> SafetensorsError {
    SafetensorsError::Quantization { key, value: value.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn block_of(config: &Value) -> Option<[usize; 2]> {
        Quantization::from_config(config).unwrap_or_else(|error| panic!("{config}: {error}")).block
    }

    fn weights(weights: &Value) -> Value {
        json!({
            "quant_method": "compressed-tensors", "format": "float-quantized", "ignore": ["lm_head"],
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}
        })
    }

    #[test]
    fn forms_of_ternary_weights_follow_the_class_and_the_mode() {
        use TritWeights::{Divided, Multiplied, Rounded};
        let bitnet = |more: &Value| {
            let mut config = json!({"quant_method": "bitnet"});
            more.as_object().unwrap().iter().for_each(|(key, value)| config[key] = value.clone());
            Quantization::from_config(&config)
        };
        for (config, trits) in [
            (json!({}), Divided),
            (json!({"linear_class": null, "use_rms_norm": false}), Divided),
            (json!({"linear_class": "bitlinear", "quantization_mode": "online"}), Divided),
            (json!({"linear_class": "autobitlinear"}), Multiplied),
            (json!({"linear_class": "autobitlinear", "quantization_mode": "online"}), Rounded),
        ] {
            let want = Quantization { block: None, trits: Some(trits) };
            assert_eq!(bitnet(&config).unwrap(), want, "{config}");
        }
        for (config, key) in [
            (json!({"linear_class": 1}), "linear_class"),
            (json!({"quantization_mode": []}), "quantization_mode"),
            (json!({"use_rms_norm": true}), "use_rms_norm"),
            (json!({"use_rms_norm": "no"}), "use_rms_norm"),
        ] {
            let text = bitnet(&config).unwrap_err().to_string();
            assert!(text.contains(&format!("`{key}`")), "{text}");
        }
    }

    #[test]
    fn both_methods_are_read() {
        assert_eq!(block_of(&json!({"quant_method": "fp8", "activation_scheme": "dynamic"})), None);
        assert_eq!(block_of(&json!({"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": null})), None);
        assert_eq!(
            block_of(&json!({"quant_method": "fp8", "fmt": "e5m2", "weight_block_size": [1, 32]})),
            Some([1, 32])
        );
        for strategy in ["tensor", "channel"] {
            assert_eq!(block_of(&weights(&json!({"type": "float", "num_bits": 8, "strategy": strategy}))), None);
        }
        let blocks = json!({"type": "float", "num_bits": 8, "strategy": "block", "block_structure": [128, 64]});
        assert_eq!(block_of(&weights(&blocks)), Some([128, 64]));
    }

    #[test]
    fn other_methods_are_refused_by_key_and_value() {
        let good = json!({"type": "float", "num_bits": 8, "strategy": "block", "block_structure": [128, 64]});
        let changed = |key: &str, value: Value| {
            let mut config = good.clone();
            config[key] = value;
            weights(&config)
        };
        let mut two = weights(&good);
        two["config_groups"]["group_1"] = json!({"weights": {
            "type": "float", "num_bits": 8, "strategy": "block", "block_structure": [64, 64]}});
        for (config, key, value) in [
            (json!("fp8"), "quantization_config", "fp8"),
            (json!({}), "quant_method", "null"),
            (json!({"quant_method": "gptq"}), "quant_method", "gptq"),
            (json!({"quant_method": "fp8", "fmt": "e8m0"}), "fmt", "e8m0"),
            (json!({"quant_method": "fp8", "weight_block_size": [128]}), "weight_block_size", "[128]"),
            (json!({"quant_method": "fp8", "weight_block_size": [0, 1]}), "weight_block_size", "[0,1]"),
            (json!({"quant_method": "fp8", "weight_block_size": [-1, 1.5]}), "weight_block_size", "[-1,1.5]"),
            (json!({"quant_method": "compressed-tensors", "format": "pack-quantized"}), "format", "pack-quantized"),
            (json!({"quant_method": "compressed-tensors", "format": "float-quantized"}), "config_groups", "null"),
            (changed("type", json!("int")), "type", "int"),
            (changed("num_bits", json!(4)), "num_bits", "4"),
            (changed("strategy", json!("group")), "strategy", "group"),
            (changed("block_structure", json!("128x128")), "block_structure", "128x128"),
            (changed("block_structure", Value::Null), "block_structure", "null"),
            (two, "block_structure", "[64,64]"),
        ] {
            let text = Quantization::from_config(&config).expect_err(&config.to_string()).to_string();
            assert!(text.contains(&format!("`{key}`")) && text.contains(value) && text.contains("BF16"), "{text}");
        }
    }
}
