//! GGUF metadata values: thirteen types, their encoding in the file, and their display.
//!
//! ```text
//! string = length: u64, UTF-8 bytes
//! array  = element type: u32, length: u64, elements (no arrays of arrays)
//! ```
//! All numbers are little-endian.

use std::fmt;

use serde::ser::{Serialize, SerializeSeq, Serializer};

use crate::error::Result;

/// One metadata value of any of the thirteen types.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the variants are the format's type names")]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// The elements of an array value.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the variants are the format's type names")]
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    Bool(Vec<bool>),
    String(Vec<String>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F64(Vec<f64>),
}

/// Type id of an array value.
pub(crate) const ARRAY_TYPE_ID: u32 = 9;

/// Runs `$body` with `$v` bound to the element vector of any type.
macro_rules! each_array {
    ($array:expr, $v:ident => $body:expr) => {
        match $array {
            Array::U8($v) => $body,
            Array::I8($v) => $body,
            Array::U16($v) => $body,
            Array::I16($v) => $body,
            Array::U32($v) => $body,
            Array::I32($v) => $body,
            Array::F32($v) => $body,
            Array::Bool($v) => $body,
            Array::String($v) => $body,
            Array::U64($v) => $body,
            Array::I64($v) => $body,
            Array::F64($v) => $body,
        }
    };
}

impl Array {
    /// Number of elements of the array.
    pub fn len(&self) -> usize {
        each_array!(self, v => v.len())
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn element_type(&self) -> (u32, &'static str, &'static str) {
        match self {
            Array::U8(_) => (0, "u8", "an array of u8"),
            Array::I8(_) => (1, "i8", "an array of i8"),
            Array::U16(_) => (2, "u16", "an array of u16"),
            Array::I16(_) => (3, "i16", "an array of i16"),
            Array::U32(_) => (4, "u32", "an array of u32"),
            Array::I32(_) => (5, "i32", "an array of i32"),
            Array::F32(_) => (6, "f32", "an array of f32"),
            Array::Bool(_) => (7, "bool", "an array of bool"),
            Array::String(_) => (8, "string", "an array of string"),
            Array::U64(_) => (10, "u64", "an array of u64"),
            Array::I64(_) => (11, "i64", "an array of i64"),
            Array::F64(_) => (12, "f64", "an array of f64"),
        }
    }
}

impl Value {
    /// The format's id of the value's type.
    pub(crate) fn type_id(&self) -> u32 {
        match self {
            Value::U8(_) => 0,
            Value::I8(_) => 1,
            Value::U16(_) => 2,
            Value::I16(_) => 3,
            Value::U32(_) => 4,
            Value::I32(_) => 5,
            Value::F32(_) => 6,
            Value::Bool(_) => 7,
            Value::String(_) => 8,
            Value::Array(_) => ARRAY_TYPE_ID,
            Value::U64(_) => 10,
            Value::I64(_) => 11,
            Value::F64(_) => 12,
        }
    }

    /// The type in words, for messages.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::U8(_) => "u8",
            Value::I8(_) => "i8",
            Value::U16(_) => "u16",
            Value::I16(_) => "i16",
            Value::U32(_) => "u32",
            Value::I32(_) => "i32",
            Value::F32(_) => "f32",
            Value::Bool(_) => "bool",
            Value::String(_) => "string",
            Value::Array(array) => array.element_type().2,
            Value::U64(_) => "u64",
            Value::I64(_) => "i64",
            Value::F64(_) => "f64",
        }
    }

    /// The value if it is an integer of any width; every one fits `i128`.
    pub(crate) fn integer(&self) -> Option<i128> {
        Some(match *self {
            Value::U8(v) => v.into(),
            Value::I8(v) => v.into(),
            Value::U16(v) => v.into(),
            Value::I16(v) => v.into(),
            Value::U32(v) => v.into(),
            Value::I32(v) => v.into(),
            Value::U64(v) => v.into(),
            Value::I64(v) => v.into(),
            _ => return None,
        })
    }

    /// Appends the value as the file stores it after its type id.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Value::U8(v) => v.put(out),
            Value::I8(v) => v.put(out),
            Value::U16(v) => v.put(out),
            Value::I16(v) => v.put(out),
            Value::U32(v) => v.put(out),
            Value::I32(v) => v.put(out),
            Value::F32(v) => v.put(out),
            Value::Bool(v) => v.put(out),
            Value::String(v) => v.put(out),
            Value::U64(v) => v.put(out),
            Value::I64(v) => v.put(out),
            Value::F64(v) => v.put(out),
            Value::Array(array) => {
                array.element_type().0.put(out);
                (array.len() as u64).put(out);
                each_array!(array, v => v.iter().for_each(|e| e.put(out)));
            }
        }
    }
}

/// A value that the format can store. It is appended in little-endian order.
pub(crate) trait Put {
    fn put(&self, out: &mut Vec<u8>);
}

macro_rules! put_number {
    ($($ty:ty),*) => {$(
        impl Put for $ty {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
        }
    )*};
}

put_number!(u8, i8, u16, i16, u32, i32, f32, u64, i64, f64);

impl Put for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
}

impl Put for String {
    fn put(&self, out: &mut Vec<u8>) {
        encode_str(self, out);
    }
}

/// Appends a string as the file stores it.
pub(crate) fn encode_str(s: &str, out: &mut Vec<u8>) {
    (s.len() as u64).put(out);
    out.extend_from_slice(s.as_bytes());
}

macro_rules! value_from {
    ($($ty:ty => $variant:ident),* $(,)?) => {$(
        impl From<$ty> for Value {
            fn from(v: $ty) -> Value {
                Value::$variant(v)
            }
        }
        impl From<Vec<$ty>> for Value {
            fn from(v: Vec<$ty>) -> Value {
                Value::Array(Array::$variant(v))
            }
        }
    )*};
}

value_from!(
    u8 => U8, i8 => I8, u16 => U16, i16 => I16, u32 => U32, i32 => I32, f32 => F32,
    bool => Bool, String => String, u64 => U64, i64 => I64, f64 => F64,
);

impl From<&str> for Value {
    fn from(v: &str) -> Value {
        Value::String(v.to_owned())
    }
}

/// The form for messages and listings, in which long arrays and strings are shortened.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        const CHARS: usize = 120;
        match self {
            Value::U8(v) => v.fmt(f),
            Value::I8(v) => v.fmt(f),
            Value::U16(v) => v.fmt(f),
            Value::I16(v) => v.fmt(f),
            Value::U32(v) => v.fmt(f),
            Value::I32(v) => v.fmt(f),
            Value::F32(v) => v.fmt(f),
            Value::Bool(v) => v.fmt(f),
            Value::U64(v) => v.fmt(f),
            Value::I64(v) => v.fmt(f),
            Value::F64(v) => v.fmt(f),
            Value::String(v) => match v.char_indices().nth(CHARS) {
                Some((end, _)) => write!(f, "{:?}... ({} bytes)", &v[..end], v.len()),
                None => write!(f, "{v:?}"),
            },
            Value::Array(array) if array.len() > SHOWN => {
                write!(f, "[{} x {}]", array.len(), array.element_type().1)
            }
            Value::Array(array) => each_array!(array, v => f.debug_list().entries(v).finish()),
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::U8(v) => v.serialize(serializer),
            Value::I8(v) => v.serialize(serializer),
            Value::U16(v) => v.serialize(serializer),
            Value::I16(v) => v.serialize(serializer),
            Value::U32(v) => v.serialize(serializer),
            Value::I32(v) => v.serialize(serializer),
            Value::F32(v) => v.serialize(serializer),
            Value::Bool(v) => v.serialize(serializer),
            Value::String(v) => v.serialize(serializer),
            Value::U64(v) => v.serialize(serializer),
            Value::I64(v) => v.serialize(serializer),
            Value::F64(v) => v.serialize(serializer),
            Value::Array(array) => {
                let mut seq = serializer.serialize_seq(Some(array.len()))?;
                each_array!(array, v => v.iter().try_for_each(|e| seq.serialize_element(e)))?;
                seq.end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_shortens_and_json_does_not() {
        let long = Value::from(vec![1u32; 100]);
        assert_eq!(long.to_string(), "[100 x u32]");
        assert_eq!(Value::from(vec![true, false]).to_string(), "[true, false]");
        assert!(Value::from("é".repeat(200).as_str()).to_string().contains("400 bytes"));
        assert_eq!(serde_json::to_value(&long).unwrap().as_array().unwrap().len(), 100);
    }

    #[test]
    fn values_are_stored_as_the_format_says() {
        let stored = |value: Value| {
            let mut out = Vec::new();
            value.encode(&mut out);
            (value.type_id(), out)
        };
        assert_eq!(stored(Value::I16(-2)), (3, vec![0xfe, 0xff]));
        assert_eq!(stored(Value::from("ab")), (8, vec![2, 0, 0, 0, 0, 0, 0, 0, b'a', b'b']));
        let array = vec![7, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0];
        assert_eq!(stored(Value::from(vec![true, false])), (9, array));
    }
}
