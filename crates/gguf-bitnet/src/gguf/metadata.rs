//! GGUF metadata: ordered keys with typed values, their encoding in the file, and typed getters.
//!
//! ```text
//! pair = key: string, type: u32, value
//! ```
//! **Invariant:** keys are unique and not empty, and the order of
//! the file is kept, so a file can be written again byte for byte.

use std::collections::HashMap;

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::error::GgufError;
use super::value::{Array, Put, Value, encode_str};
use crate::error::{Error, Result};

/// The key-value pairs of a file, in its order.
///
/// ```
/// use gguf_bitnet::{Metadata, Value};
/// let mut metadata = Metadata::default();
/// metadata.insert("general.architecture", Value::from("deepseek2"));
/// metadata.insert("deepseek2.block_count", Value::U32(47));
/// assert_eq!(metadata.usize("deepseek2.block_count")?, Some(47));
/// assert_eq!(metadata.u32("deepseek2.expert_count")?, None);
/// assert!(metadata.str("deepseek2.block_count").is_err());
/// # Ok::<(), gguf_bitnet::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    entries: Vec<(String, Value)>,
    index: HashMap<String, usize>,
}

/// Two values are equal when they hold equal pairs in the same order.
impl PartialEq for Metadata {
    fn eq(&self, other: &Metadata) -> bool {
        self.entries == other.entries
    }
}

impl Serialize for Metadata {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.len()))?;
        for (key, value) in self.iter() {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// A typed getter for integers: any stored width is accepted when the number fits.
macro_rules! integer_getter {
    ($($name:ident),*) => {$(
        #[doc = concat!("The integer at `key` as `", stringify!($name), "`; any stored width that fits is accepted.")]
        ///
        /// # Errors
        /// When the value is no integer or does not fit.
        pub fn $name(&self, key: &str) -> Result<Option<$name>> {
            let Some(value) = self.get(key) else { return Ok(None) };
            let expected = stringify!($name);
            let number = value.integer().ok_or_else(|| wrong_type(key, expected, value))?;
            <$name>::try_from(number).map(Some).map_err(|_| out_of_range(key, expected, number))
        }
    )*};
}

impl Metadata {
    /// Number of key-value pairs.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The pairs in file order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The value at `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.index.get(key).map(|&i| &self.entries[i].1)
    }

    /// Whether `key` is present.
    pub fn contains_key(&self, key: &str) -> bool {
        self.index.contains_key(key)
    }

    /// Sets `key`, in place if it is present, else at the end. Returns the value it had.
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<Value>) -> Option<Value> {
        let (key, value) = (key.into(), value.into());
        if let Some(&i) = self.index.get(&key) {
            return Some(std::mem::replace(&mut self.entries[i].1, value));
        }
        self.index.insert(key.clone(), self.entries.len());
        self.entries.push((key, value));
        None
    }

    /// Removes `key` and returns its value.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let i = self.index.get(key).copied()?;
        let (_, value) = self.entries.remove(i);
        self.reindex();
        Some(value)
    }

    /// Keeps the pairs that `keep` accepts.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &Value) -> bool) {
        self.entries.retain(|(key, value)| keep(key, value));
        self.reindex();
    }

    fn reindex(&mut self) {
        self.index = self.entries.iter().enumerate().map(|(i, (key, _))| (key.clone(), i)).collect();
    }

    integer_getter!(u8, u16, u32, u64, i32, i64, usize);

    /// The number at `key`, stored as F32 or F64.
    ///
    /// # Errors
    /// When the value is of another type, or an F64 beyond the range of `f32`.
    pub fn f32(&self, key: &str) -> Result<Option<f32>> {
        match self.get(key) {
            None => Ok(None),
            Some(&Value::F32(v)) => Ok(Some(v)),
            Some(&Value::F64(v)) if (v as f32).is_finite() || !v.is_finite() => Ok(Some(v as f32)),
            Some(Value::F64(v)) => {
                Err(GgufError::MetadataRange { key: key.to_owned(), expected: "f32", got: v.to_string() }.into())
            }
            Some(value) => Err(wrong_type(key, "f32", value)),
        }
    }

    /// The number at `key`, stored as F32 or F64.
    ///
    /// # Errors
    /// When the value is of another type.
    pub fn f64(&self, key: &str) -> Result<Option<f64>> {
        match self.get(key) {
            None => Ok(None),
            Some(&Value::F32(v)) => Ok(Some(v.into())),
            Some(&Value::F64(v)) => Ok(Some(v)),
            Some(value) => Err(wrong_type(key, "f64", value)),
        }
    }

    /// The truth value at `key`.
    ///
    /// # Errors
    /// When the value is of another type.
    pub fn bool(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some(&Value::Bool(v)) => Ok(Some(v)),
            Some(value) => Err(wrong_type(key, "bool", value)),
        }
    }

    /// The string at `key`.
    ///
    /// # Errors
    /// When the value is of another type.
    pub fn str(&self, key: &str) -> Result<Option<&str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(v)) => Ok(Some(v)),
            Some(value) => Err(wrong_type(key, "string", value)),
        }
    }

    /// The array at `key`, of any element type.
    ///
    /// # Errors
    /// When the value is no array.
    pub fn array(&self, key: &str) -> Result<Option<&Array>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(v)) => Ok(Some(v)),
            Some(value) => Err(wrong_type(key, "an array", value)),
        }
    }

    /// The array of strings at `key`.
    ///
    /// # Errors
    /// When the value is of another type.
    pub fn strings(&self, key: &str) -> Result<Option<&[String]>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(Array::String(v))) => Ok(Some(v)),
            Some(value) => Err(wrong_type(key, "an array of string", value)),
        }
    }

    /// The array of F32 at `key`.
    ///
    /// # Errors
    /// When the value is of another type.
    pub fn f32s(&self, key: &str) -> Result<Option<&[f32]>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(Array::F32(v))) => Ok(Some(v)),
            Some(value) => Err(wrong_type(key, "an array of f32", value)),
        }
    }

    /// The array of integers at `key`, stored with any width.
    ///
    /// # Errors
    /// When the value is of another type, or an element does not fit `i64`.
    pub fn i64s(&self, key: &str) -> Result<Option<Vec<i64>>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        Ok(Some(match value {
            Value::Array(Array::U8(v)) => widen(v),
            Value::Array(Array::I8(v)) => widen(v),
            Value::Array(Array::U16(v)) => widen(v),
            Value::Array(Array::I16(v)) => widen(v),
            Value::Array(Array::U32(v)) => widen(v),
            Value::Array(Array::I32(v)) => widen(v),
            Value::Array(Array::I64(v)) => v.clone(),
            Value::Array(Array::U64(v)) => {
                v.iter().map(|&e| i64::try_from(e).map_err(|_| out_of_range(key, "i64", e))).collect::<Result<_>>()?
            }
            value => return Err(wrong_type(key, "an array of integers", value)),
        }))
    }

    /// `found`, or an error that names the key: `metadata.require("a.b", metadata.u32("a.b")?)`.
    ///
    /// # Errors
    /// [`GgufError::MissingKey`].
    pub fn require<T>(&self, key: &str, found: Option<T>) -> Result<T> {
        found.ok_or_else(|| GgufError::MissingKey { key: key.to_owned() }.into())
    }

    /// Appends all pairs as the file stores them.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        for (key, value) in self.iter() {
            encode_str(key, out);
            value.type_id().put(out);
            value.encode(out);
        }
    }
}

fn widen<T: Copy + Into<i64>>(v: &[T]) -> Vec<i64> {
    v.iter().map(|&e| e.into()).collect()
}

fn wrong_type(key: &str, expected: &'static str, value: &Value) -> Error {
    GgufError::MetadataType { key: key.to_owned(), expected, got: value.type_name() }.into()
}

fn out_of_range(key: &str, expected: &'static str, got: impl ToString) -> Error {
    GgufError::MetadataRange { key: key.to_owned(), expected, got: got.to_string() }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Metadata {
        let mut m = Metadata::default();
        m.insert("a.u8", 7u8);
        m.insert("a.i32", -3i32);
        m.insert("a.u64", u64::MAX);
        m.insert("a.f32", 0.5f32);
        m.insert("a.f64", 1e300f64);
        m.insert("a.bool", true);
        m.insert("a.str", "text");
        m.insert("a.strings", vec!["x".to_owned(), "y".to_owned()]);
        m.insert("a.u16s", vec![1u16, 65535]);
        m.insert("a.f32s", vec![1.5f32]);
        m
    }

    #[test]
    fn getters_read_any_width_that_fits() {
        let m = sample();
        assert_eq!(m.u32("a.u8").unwrap(), Some(7));
        assert_eq!(m.i64("a.i32").unwrap(), Some(-3));
        assert_eq!(m.u64("a.u64").unwrap(), Some(u64::MAX));
        assert_eq!(m.f32("a.f32").unwrap(), Some(0.5));
        assert_eq!(m.f64("a.f64").unwrap(), Some(1e300));
        assert_eq!(m.bool("a.bool").unwrap(), Some(true));
        assert_eq!(m.str("a.str").unwrap(), Some("text"));
        assert_eq!(m.strings("a.strings").unwrap().unwrap().len(), 2);
        assert_eq!(m.i64s("a.u16s").unwrap(), Some(vec![1, 65535]));
        assert_eq!(m.f32s("a.f32s").unwrap(), Some(&[1.5][..]));
        assert_eq!(m.array("a.f32s").unwrap().map(Array::len), Some(1));
        assert_eq!(m.str("absent").unwrap(), None);
    }

    #[test]
    fn getters_refuse_wrong_types_and_ranges() {
        let m = sample();
        assert!(matches!(m.u32("a.i32"), Err(Error::Gguf(GgufError::MetadataRange { .. }))));
        assert!(matches!(m.u32("a.u64"), Err(Error::Gguf(GgufError::MetadataRange { .. }))));
        assert!(matches!(m.f32("a.f64"), Err(Error::Gguf(GgufError::MetadataRange { .. }))));
        assert!(matches!(
            m.u32("a.f32"),
            Err(Error::Gguf(GgufError::MetadataType { expected: "u32", got: "f32", .. }))
        ));
        assert!(matches!(m.f32("a.u8"), Err(Error::Gguf(GgufError::MetadataType { .. }))));
        assert!(matches!(m.bool("a.u8"), Err(Error::Gguf(GgufError::MetadataType { .. }))));
        assert!(matches!(
            m.strings("a.u16s"),
            Err(Error::Gguf(GgufError::MetadataType { got: "an array of u16", .. }))
        ));
        assert!(matches!(m.require::<u32>("b", None), Err(Error::Gguf(GgufError::MissingKey { .. }))));
    }

    #[test]
    fn editing_keeps_order_and_index() {
        let mut m = sample();
        let n = m.len();
        assert_eq!(m.insert("a.i32", 5i32), Some(Value::I32(-3)));
        assert_eq!(m.len(), n);
        assert_eq!(m.remove("a.u8"), Some(Value::U8(7)));
        assert_eq!(m.iter().next().unwrap().0, "a.i32");
        assert_eq!(m.str("a.str").unwrap(), Some("text"));
        m.retain(|key, _| key.starts_with("a.s"));
        assert_eq!(m.iter().map(|(k, _)| k).collect::<Vec<_>>(), ["a.str", "a.strings"]);
        assert!(m.get("a.f32").is_none() && m.contains_key("a.str"));
    }

    #[test]
    fn json_has_every_key() {
        assert_eq!(serde_json::to_string(&sample()).unwrap().matches("\"a.").count(), sample().len());
    }
}
