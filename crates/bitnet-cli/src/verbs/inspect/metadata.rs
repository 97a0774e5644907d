//! The metadata of a GGUF, on lines and as JSON.

use anyhow::Result;
use gguf_bitnet::{Metadata, Value as MetadataValue};
use serde_json::{Value, json};

use crate::output;

/// Prints all pairs but those of a gate report, which have lines of their own.
pub(super) fn print_metadata(metadata: &Metadata) -> Result<()> {
    let pairs = metadata.iter().filter(|(key, _)| !key.starts_with("craftsman.gates."));
    pairs
        .into_iter()
        .try_for_each(|(key, value)| output::line(format_args!("{} = {}", output::name(key), short_value(value))))
}

/// All pairs, with the lengths of long arrays in place of the arrays.
pub(super) fn metadata_json(metadata: &Metadata) -> Value {
    metadata.iter().map(|(key, value)| (key.to_owned(), json_value(value))).collect()
}

/// A value for JSON: long arrays (the vocabulary) as their length.
fn json_value(value: &MetadataValue) -> Value {
    match value {
        MetadataValue::Array(array) if array.len() > 64 => json!({ "array_of": array.len() }),
        // Goes through the decimal form, because widening to F64 would print more digits than the F32 has.
        MetadataValue::F32(number) => json!(number.to_string().parse::<f64>().ok()),
        other => serde_json::to_value(other).unwrap_or(Value::Null),
    }
}

/// A value on one line.
fn short_value(value: &MetadataValue) -> String {
    let text = json_value(value).to_string();
    match text.char_indices().nth(100) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
