//! The manifest of a job: the inputs and settings of the finished units, compared with the present ones.

use std::path::Path;

use serde_json::Value;

use crate::error::Result;
use crate::store::StoreError;
use crate::store::read::read_bytes;

/// Most bytes of a manifest.
const MAX_BYTES: u64 = 64 << 20;

/// The text of a manifest as it is stored.
pub(super) fn pretty(manifest: &Value) -> String {
    format!("{manifest:#}\n")
}

/// Checks that the stored manifest equals this one.
pub(super) fn check_manifest(path: &Path, manifest: &Value) -> Result<()> {
    let damaged = |what| StoreError::JobDamaged { what };
    let stored = read_bytes(path, MAX_BYTES).map_err(|_| damaged("its manifest.json is missing or no manifest"))?;
    let stored: Value = serde_json::from_slice(&stored).map_err(|_| damaged("its manifest.json is not JSON"))?;
    // The manifest is written as text and parsed again, as the stored one was, so that both have the same form.
    let given: Value =
        serde_json::from_str(&pretty(manifest)).map_err(|_| damaged("its manifest cannot be compared"))?;
    match first_difference(&stored, &given) {
        None => Ok(()),
        Some((key, stored, given)) => Err(StoreError::ManifestMismatch { key, stored, given }.into()),
    }
}

/// Dotted path of the first key in which two manifests differ, and both values as text.
#[must_use]
pub fn first_difference(stored: &Value, given: &Value) -> Option<(String, String, String)> {
    let text = |value: Option<&Value>| value.map_or("absent".to_owned(), Value::to_string);
    difference(stored, given).map(|(key, stored, given)| (key, text(stored), text(given)))
}

/// Dotted path and both values of the first difference.
fn difference<'a>(stored: &'a Value, given: &'a Value) -> Option<(String, Option<&'a Value>, Option<&'a Value>)> {
    let join = |key: &str, inner: String| {
        if inner.is_empty() { key.to_owned() } else { format!("{key}.{inner}") }
    };
    let inner = |key: &str, old: Option<&'a Value>, new: Option<&'a Value>| match (old, new) {
        (Some(old), Some(new)) => difference(old, new).map(|(path, old, new)| (join(key, path), old, new)),
        (None, None) => None,
        (old, new) => Some((key.to_owned(), old, new)),
    };
    match (stored, given) {
        (Value::Object(old), Value::Object(new)) => {
            let gone = old.keys().filter(|key| !new.contains_key(*key));
            new.keys().chain(gone).find_map(|key| inner(key, old.get(key), new.get(key)))
        }
        (Value::Array(old), Value::Array(new)) => {
            (0..old.len().max(new.len())).find_map(|i| inner(&i.to_string(), old.get(i), new.get(i)))
        }
        (old, new) if old == new => None,
        (old, new) => Some((String::new(), Some(old), Some(new))),
    }
}
