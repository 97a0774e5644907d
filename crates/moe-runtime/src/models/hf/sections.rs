//! The section of a `config.json` that describes the language model.
//!
//! Multimodal checkpoints nest it: `{"model_type": ..., "text_config": {...}, "vision_config": {...}}`.

use std::borrow::Cow;

use serde_json::{Map, Value};

/// Keys of the section, in the order in which they are looked for.
const SECTIONS: [&str; 3] = ["text_config", "llm_config", "language_config"];

/// The language model's keys: the map itself, or a nested section with the keys around it that it does not have, or
/// has as null (such as `tie_word_embeddings` and `quantization_config`). A map of a type that `is_known` is not searched for a section.
pub(crate) fn language_model<'a>(
    map: &'a Map<String, Value>,
    is_known: impl Fn(&str) -> bool,
) -> Cow<'a, Map<String, Value>> {
    let kind = |map: &Map<String, Value>| map.get("model_type").and_then(Value::as_str).is_some_and(&is_known);
    let section = SECTIONS.iter().find_map(|key| map.get(*key)?.as_object());
    match section {
        Some(section) if !kind(map) || kind(section) => {
            let mut joined = section.clone();
            for (key, value) in map.iter().filter(|(_, value)| !value.is_object() || !is_section(value)) {
                if joined.get(key).is_none_or(Value::is_null) {
                    joined.insert(key.clone(), value.clone());
                }
            }
            Cow::Owned(joined)
        }
        _ => Cow::Borrowed(map),
    }
}

/// Whether a value describes a part of a multimodal model.
fn is_section(value: &Value) -> bool {
    value.get("hidden_size").is_some() || value.get("model_type").is_some()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(config: &Value) -> Map<String, Value> {
        language_model(config.as_object().unwrap(), |name| name == "glm4_moe_lite").into_owned()
    }

    #[test]
    fn a_nested_section_is_completed_by_the_keys_around_it() {
        let config = json!({
            "model_type": "glm_pictures", "tie_word_embeddings": true, "hidden_size": 1,
            "quantization_config": { "bits": 4 },
            "text_config": { "model_type": "glm4_moe_lite", "hidden_size": 256, "tie_word_embeddings": null },
            "vision_config": { "hidden_size": 9, "model_type": "glm_eyes" },
        });
        let joined = of(&config);
        assert_eq!(joined["model_type"], "glm4_moe_lite");
        assert_eq!(joined["hidden_size"], 256);
        assert_eq!(joined["tie_word_embeddings"], true);
        assert_eq!(joined["quantization_config"]["bits"], 4);
        assert!(!joined.contains_key("vision_config") && !joined.contains_key("text_config"));
        // A section without a type of its own has that of the whole.
        assert_eq!(of(&json!({ "model_type": "x", "language_config": { "a": 1 } }))["model_type"], "x");
    }

    #[test]
    fn a_configuration_of_a_language_model_stays_as_it_is() {
        let config = json!({ "model_type": "glm4_moe_lite", "hidden_size": 256, "text_config": { "hidden_size": 1 } });
        assert_eq!(of(&config)["hidden_size"], 256);
        assert_eq!(of(&json!({ "model_type": "llama" }))["model_type"], "llama");
    }
}
