//! Typed reads of the keys of a `config.json`.

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::guess::Guesses;
use crate::models::error::ConfigError;
use crate::models::limits::{MAX_DIM, bad};

/// Typed reads of one JSON object; `null` reads as absent.
#[derive(Clone, Copy)]
pub(crate) struct HfKeys<'a> {
    pub(crate) map: &'a Map<String, Value>,
    /// The `model_type`, for messages.
    pub(crate) arch: &'static str,
    pub(crate) guesses: &'a Guesses,
}

impl<'a> HfKeys<'a> {
    pub(crate) fn find(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    /// Records that the key is missing, and gives the value that is taken in its place: the default of the architecture in
    /// transformers.
    pub(crate) fn default<T: ToString>(&self, key: &str, value: T) -> T {
        self.guesses.take(key, value, format!("the default of {} in transformers", self.arch))
    }

    pub(super) fn missing(&self, key: &str) -> Error {
        ConfigError::MissingKey { key: key.to_owned(), arch: self.arch }.into()
    }

    pub(crate) fn optional_count(&self, key: &str) -> Result<Option<usize>> {
        let Some(value) = self.find(key) else { return Ok(None) };
        let count = value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|&n| n <= MAX_DIM);
        match count {
            Some(n) => Ok(Some(n)),
            None => Err(bad(key, value, &format!("it must be a whole number from 0 to {}", MAX_DIM))),
        }
    }

    pub(crate) fn count(&self, key: &str) -> Result<usize> {
        self.optional_count(key)?.ok_or_else(|| self.missing(key))
    }

    /// A count whose default is recorded.
    pub(crate) fn count_or_default(&self, key: &str, default: usize) -> Result<usize> {
        Ok(self.optional_count(key)?.unwrap_or_else(|| self.default(key, default)))
    }

    pub(crate) fn optional_double(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.find(key) else { return Ok(None) };
        match value.as_f64().filter(|&x| x.abs() <= f64::from(f32::MAX)) {
            Some(x) => Ok(Some(x)),
            None => Err(bad(key, value, "it must be a finite number")),
        }
    }

    pub(crate) fn optional_float(&self, key: &str) -> Result<Option<f32>> {
        Ok(self.optional_double(key)?.map(|x| x as f32))
    }

    pub(crate) fn float(&self, key: &str) -> Result<f32> {
        self.optional_float(key)?.ok_or_else(|| self.missing(key))
    }

    pub(crate) fn flag(&self, key: &str, default: bool) -> Result<bool> {
        match self.find(key) {
            None => Ok(default),
            Some(Value::Bool(b)) => Ok(*b),
            Some(other) => Err(bad(key, other, "it must be true or false")),
        }
    }

    /// As [`HfKeys::flag`], for a rule that changes results: its default is recorded.
    pub(crate) fn flag_or_default(&self, key: &str, default: bool) -> Result<bool> {
        if self.find(key).is_none() {
            self.default(key, default);
        }
        self.flag(key, default)
    }

    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        match self.find(key) {
            None => Ok(None),
            Some(Value::String(s)) => Ok(Some(s)),
            Some(other) => Err(bad(key, other, "it must be a string")),
        }
    }
}
