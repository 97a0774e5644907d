//! The fields of a JSON object from outside, taken one by one, so that a fault names its field.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::json::parse;
use super::lines::LineFault;

/// The fields of an object that have not been taken yet.
pub(crate) struct Fields {
    object: Map<String, Value>,
    /// Where the object stands in the line, as names with dots; empty for the line itself.
    path: String,
}

impl Fields {
    /// The fields of a line.
    pub(crate) fn parse(line: &str) -> Result<Self, LineFault> {
        Self::of(parse(line)?, "")
    }

    /// The fields of the value at `path`.
    pub(crate) fn of(value: Value, path: &str) -> Result<Self, LineFault> {
        let reason = format!("{} instead of an object", kind(&value));
        match value {
            Value::Object(object) => Ok(Self { object, path: path.to_owned() }),
            _ if path.is_empty() => Err(LineFault::NotJson { reason }),
            _ => Err(LineFault::field(path, reason)),
        }
    }

    /// The fault of a field.
    pub(crate) fn wrong(&self, name: &str, reason: &str) -> LineFault {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        LineFault::field(path, reason)
    }

    /// A field that must be there.
    pub(crate) fn take<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, LineFault> {
        let value = self.object.shift_remove(name).ok_or_else(|| self.wrong(name, "it is missing"))?;
        T::deserialize(value).map_err(|error| self.wrong(name, &error.to_string()))
    }

    /// A text of at least one character.
    pub(crate) fn take_text(&mut self, name: &str) -> Result<String, LineFault> {
        match self.take(name)? {
            text if String::is_empty(&text) => Err(self.wrong(name, "it is empty")),
            text => Ok(text),
        }
    }

    /// A field that may be missing or null.
    pub(crate) fn take_optional<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, LineFault> {
        if self.object.contains_key(name) { self.take(name) } else { Ok(None) }
    }

    /// The fields that are left.
    pub(crate) fn rest(&mut self) -> Map<String, Value> {
        std::mem::take(&mut self.object)
    }
}

/// The name of a JSON type, with its article.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
