//! Bounds of every number that a configuration may state, and the checks that name the key which breaks one.

use super::error::ConfigError;
use crate::error::{Error, Result};

/// Largest width, count or position that a configuration may state.
pub(crate) const MAX_DIM: usize = 1 << 28;
/// Largest number of layers that a configuration may state.
pub(crate) const MAX_LAYERS: usize = 4096;
/// Largest number of experts per layer that a configuration may state.
pub(crate) const MAX_EXPERTS: usize = 1 << 16;

pub(crate) fn within(key: &str, value: usize, low: usize, high: usize) -> Result<()> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(bad(key, value, &format!("it must lie between {low} and {high}")))
}

pub(crate) fn positive(key: &str, value: f32) -> Result<()> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    Err(bad(key, value, "it must be a positive finite number"))
}

pub(crate) fn bad(key: &str, value: impl ToString, rule: &str) -> Error {
    ConfigError::BadValue { key: key.to_owned(), value: value.to_string(), rule: rule.to_owned() }.into()
}
