//! The header of one safetensors file, checked against the file it describes.
//!
//! **Invariant:** [`parse`] returns tensors whose spans lie inside the file, follow each other
//! without overlap or gap, and have exactly the length of shape and type.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};

use super::error::SafetensorsError;
use crate::error::{Error, Locate, Result};
use crate::formats::{FormatError, TensorType};
use crate::source::{SourceError, TensorInfo, ZeroTail};

/// The format's limit for the header.
const HEADER_LIMIT: u64 = 100_000_000;
const LENGTH_BYTES: usize = 8;
/// The most tensors and dimensions that are read: far more than any checkpoint has, and few enough
/// that the memory they take stays in proportion to the header.
const TENSOR_LIMIT: usize = 1 << 20;
const DIMENSION_LIMIT: usize = 8;

/// A tensor and its bytes in the file.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) info: TensorInfo,
    pub(super) span: Range<usize>,
}

/// Whether a file that starts with `prefix` (nine bytes or more) can be a safetensors file.
pub(crate) fn looks_like_safetensors(prefix: &[u8]) -> bool {
    match prefix.split_first_chunk::<LENGTH_BYTES>() {
        Some((length, rest)) => u64::from_le_bytes(*length) <= HEADER_LIMIT && rest.first() == Some(&b'{'),
        None => false,
    }
}

/// Reads and checks the header of a whole file. Tensors come in the order of their data.
pub(super) fn parse(file: &[u8]) -> Result<Vec<Entry>> {
    if file.is_empty() {
        return Err(SourceError::EmptyFile.into());
    }
    let file_bytes = to_u64(file.len());
    let Some((length, rest)) = file.split_first_chunk::<LENGTH_BYTES>() else {
        let need = to_u64(LENGTH_BYTES);
        return Err(SourceError::TruncatedHeader { what: "the header's length", at: 0, need, have: file_bytes }.into());
    };
    let len = u64::from_le_bytes(*length);
    let split = usize::try_from(len).ok().filter(|_| len <= HEADER_LIMIT);
    let Some((json, data)) = split.and_then(|len| rest.split_at_checked(len)) else {
        return Err(SafetensorsError::HeaderLength { len, file_bytes, limit: HEADER_LIMIT }.into());
    };
    let header: Header = serde_json::from_slice(json).map_err(|source| SafetensorsError::HeaderJson { source })?;
    if let Some(name) = header.duplicate {
        return Err(SourceError::DuplicateTensor.in_tensor(name));
    }
    let data_start = file.len() - data.len();
    let mut entries = Vec::with_capacity(header.tensors.len());
    for (name, raw) in header.tensors {
        match check(&raw, data.len()) {
            Ok((ty, shape, span)) => {
                let bytes = to_u64(span.len());
                let info = TensorInfo { name, shape, ty, bytes };
                entries.push(Entry { info, span: data_start + span.start..data_start + span.end });
            }
            Err(error) => return Err(error.in_tensor(name)),
        }
    }
    entries.sort_by_key(|entry| (entry.span.start, entry.span.end));
    check_cover(&entries, data_start, file.len())?;
    Ok(entries)
}

/// The zero bytes in which the header of a file ends, if they are the reason for `error`, with which [`parse`] refused it.
pub(super) fn unwritten_end(path: &Path, file: &[u8], error: &Error) -> Option<ZeroTail> {
    let is_cut_off = |written: &[u8]| match written.split_first_chunk::<LENGTH_BYTES>() {
        Some((length, rest)) => u64::from_le_bytes(*length) > to_u64(rest.len()),
        None => true,
    };
    let is_json = matches!(error.root(), Error::Safetensors(SafetensorsError::HeaderJson { .. }));
    if is_json { ZeroTail::of_unreadable(path, file, is_cut_off) } else { None }
}

/// Type, shape and span (relative to the data) of one tensor.
fn check(raw: &RawTensor, data_len: usize) -> Result<(TensorType, Vec<usize>, Range<usize>)> {
    let ty = tensor_type(&raw.dtype).ok_or_else(|| SafetensorsError::UnsupportedDtype { dtype: raw.dtype.clone() })?;
    let mut shape: Vec<usize> = raw
        .shape
        .iter()
        .map(|&d| usize::try_from(d))
        .collect::<Result<_, _>>()
        .map_err(|_| FormatError::ShapeOverflow { shape: raw.shape.clone() })?;
    if ty == TensorType::U8Trits {
        // Four rows of trits in one of bytes.
        let overflow = || FormatError::ShapeOverflow { shape: raw.shape.clone() };
        match shape.first_mut() {
            Some(rows) => *rows = rows.checked_mul(4).ok_or_else(overflow)?,
            None => shape.push(4),
        }
    }
    let expected = ty.tensor_bytes(&shape)?;
    let (begin, end) = raw.data_offsets;
    let got = end.checked_sub(begin).ok_or(SafetensorsError::ReversedSpan { begin, end })?;
    if got != expected {
        return Err(SafetensorsError::SpanMismatch { expected, got }.into());
    }
    let data_bytes = to_u64(data_len);
    if begin > data_bytes {
        return Err(SourceError::OffsetPastEnd { offset: begin, data_bytes }.into());
    }
    let truncated = || SourceError::TruncatedData { need: got, have: data_bytes - begin };
    if end > data_bytes {
        return Err(truncated().into());
    }
    let begin = usize::try_from(begin).map_err(|_| truncated())?;
    let end = usize::try_from(end).map_err(|_| truncated())?;
    Ok((ty, shape, begin..end))
}

/// Checks that the spans, in ascending order, cover the data without overlap or gap.
fn check_cover(entries: &[Entry], data_start: usize, file_len: usize) -> Result<()> {
    let mut next = data_start;
    let mut before = "";
    for entry in entries {
        if entry.span.start < next {
            let error = SourceError::Overlap { other: before.to_owned() };
            return Err(error.in_tensor(&entry.info.name));
        }
        if entry.span.start > next {
            let (at, bytes) = (to_u64(next - data_start), to_u64(entry.span.start - next));
            return Err(SafetensorsError::Gap { at, bytes }.into());
        }
        next = entry.span.end;
        before = &entry.info.name;
    }
    if next < file_len {
        let (at, bytes) = (to_u64(next - data_start), to_u64(file_len - next));
        return Err(SafetensorsError::Gap { at, bytes }.into());
    }
    Ok(())
}

fn tensor_type(dtype: &str) -> Option<TensorType> {
    Some(match dtype {
        "F64" => TensorType::F64,
        "F32" => TensorType::F32,
        "F16" => TensorType::F16,
        "BF16" => TensorType::Bf16,
        "F8_E4M3" => TensorType::F8E4M3,
        "F8_E5M2" => TensorType::F8E5M2,
        "I8" => TensorType::I8,
        "I16" => TensorType::I16,
        "I32" => TensorType::I32,
        "I64" => TensorType::I64,
        // The only bytes that are read: whether they are trits, `quantization_config` says (scales.rs).
        "U8" => TensorType::U8Trits,
        _ => return None,
    })
}

/// A length in memory as u64, which holds it because no platform has addresses beyond 64 bits.
fn to_u64(len: usize) -> u64 {
    len as u64
}

#[derive(Deserialize)]
struct RawTensor {
    dtype: String,
    #[serde(deserialize_with = "dimensions")]
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// Reads a list of at most [`DIMENSION_LIMIT`] numbers.
fn dimensions<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u64>, D::Error> {
    struct Dimensions;

    impl<'de> Visitor<'de> for Dimensions {
        type Value = Vec<u64>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a shape of at most {DIMENSION_LIMIT} dimensions")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<u64>, A::Error> {
            let mut shape = Vec::new();
            while let Some(length) = seq.next_element()? {
                if shape.len() == DIMENSION_LIMIT {
                    return Err(de::Error::invalid_length(shape.len() + 1, &self));
                }
                shape.push(length);
            }
            Ok(shape)
        }
    }

    deserializer.deserialize_seq(Dimensions)
}

/// The JSON object, in order, with the first name that occurs twice.
struct Header {
    tensors: Vec<(String, RawTensor)>,
    duplicate: Option<String>,
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Header, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut tensors: Vec<(String, RawTensor)> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        let mut duplicate = None;
        while let Some(name) = map.next_key::<String>()? {
            if seen.len() > TENSOR_LIMIT {
                return Err(de::Error::invalid_length(seen.len(), &"fewer tensors"));
            }
            if !seen.insert(name.clone()) {
                duplicate.get_or_insert_with(|| name.clone());
            }
            if name == "__metadata__" {
                map.next_value::<HashMap<String, String>>()?;
            } else {
                tensors.push((name, map.next_value()?));
            }
        }
        Ok(Header { tensors, duplicate })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(json: &str, data: usize) -> Vec<u8> {
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(json.as_bytes());
        bytes.resize(bytes.len() + data, 0x3c);
        bytes
    }

    fn tensor(name: &str, dtype: &str, shape: &str, begin: u64, end: u64) -> String {
        format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}"#)
    }

    /// One file per defect, with the name of its error.
    #[test]
    fn every_defect_has_its_error() {
        let good = tensor("a", "F32", "[2,3]", 0, 24);
        let one = |text: String, data: usize| file(&format!("{{{text}}}"), data);
        let many = |texts: &[&str], data: usize| file(&format!("{{{}}}", texts.join(",")), data);
        let b = |begin: u64, end: u64| tensor("b", "F32", "[2]", begin, end);
        let table: Vec<(&str, Vec<u8>, &str)> = vec![
            ("empty", vec![], "EmptyFile"),
            ("seven bytes", vec![0; 7], "TruncatedHeader"),
            ("header beyond the file", 100u64.to_le_bytes().to_vec(), "HeaderLength"),
            ("huge header", [u64::MAX.to_le_bytes(), *b"{      }"].concat(), "HeaderLength"),
            ("over the limit", [100_000_001u64.to_le_bytes(), *b"{      }"].concat(), "HeaderLength"),
            ("no JSON", file("hello", 0), "HeaderJson"),
            ("a JSON array", file("[]", 0), "HeaderJson"),
            ("no dtype", file(r#"{"a":{"shape":[1],"data_offsets":[0,4]}}"#, 4), "HeaderJson"),
            ("nine dimensions", one(tensor("a", "F32", "[1,1,1,1,1,1,1,1,1]", 0, 4), 4), "HeaderJson"),
            ("negative shape", one(tensor("a", "F32", "[-1]", 0, 4), 4), "HeaderJson"),
            ("fractional shape", one(tensor("a", "F32", "[1.5]", 0, 4), 4), "HeaderJson"),
            ("three offsets", file(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,4]}}"#, 4), "HeaderJson"),
            ("metadata of numbers", file(r#"{"__metadata__":{"a":1}}"#, 0), "HeaderJson"),
            ("bad UTF-8", [3u64.to_le_bytes().to_vec(), b"{\"\xff".to_vec()].concat(), "HeaderJson"),
            ("deep nesting", file(&"{\"a\":".repeat(10_000), 0), "HeaderJson"),
            ("same name twice", many(&[&good, &good], 24), "DuplicateTensor"),
            ("scales of FP4", one(tensor("a", "F8_E8M0", "[4]", 0, 4), 4), "UnsupportedDtype"),
            ("unknown dtype", one(tensor("a", "Q9", "[4]", 0, 4), 4), "UnsupportedDtype"),
            ("shape overflows", one(tensor("a", "F32", "[4294967296,4294967296,2]", 0, 4), 4), "ShapeOverflow"),
            ("bytes overflow", one(tensor("a", "F64", "[4611686018427387904]", 0, 4), 4), "ShapeOverflow"),
            ("reversed offsets", one(tensor("a", "F32", "[1]", 8, 4), 8), "ReversedSpan"),
            ("span too short", one(tensor("a", "F32", "[2]", 0, 4), 4), "SpanMismatch"),
            ("span too long", one(tensor("a", "F32", "[1]", 0, 8), 8), "SpanMismatch"),
            ("starts past the end", one(tensor("a", "F32", "[1]", 100, 104), 8), "OffsetPastEnd"),
            ("data cut off", one(good.clone(), 23), "TruncatedData"),
            ("offset near the limit", one(tensor("a", "F32", "[1]", u64::MAX - 4, u64::MAX), 8), "OffsetPastEnd"),
            ("overlap", many(&[&good, &b(20, 28)], 28), "Overlap"),
            ("same span", many(&[&b(0, 8), &tensor("c", "F32", "[2]", 0, 8)], 8), "Overlap"),
            ("gap", many(&[&good, &b(28, 36)], 36), "Gap"),
            ("gap at the start", one(tensor("a", "F32", "[1]", 4, 8), 8), "Gap"),
            ("bytes behind the last tensor", one(good.clone(), 25), "Gap"),
        ];
        for (what, bytes, variant) in table {
            let error = parse(&bytes).expect_err(what);
            // The variant of the room's enum: `Source(EmptyFile)`.
            let name = format!("{:?}", error.root());
            let inner = name.split_once('(').map_or("", |(_, inner)| inner);
            assert!(inner.starts_with(variant), "{what}: {name}");
            let (text, inner) = (error.to_string(), error.tensor());
            if let Some(tensor) = inner {
                assert!(text.contains(&format!("`{tensor}`")), "{what}: {text}");
            }
        }
    }

    #[test]
    fn tensors_come_in_the_order_of_their_data() {
        let json = format!(
            "{{{},{},\"__metadata__\":{{\"format\":\"pt\"}},{}}}   ",
            tensor("late", "BF16", "[2,2]", 12, 20),
            tensor("scalar", "F32", "[]", 8, 12),
            tensor("early", "I64", "[1]", 0, 8),
        );
        let bytes = file(&json, 20);
        let entries = parse(&bytes).unwrap();
        let names: Vec<_> = entries.iter().map(|entry| entry.info.name.as_str()).collect();
        assert_eq!(names, ["early", "scalar", "late"]);
        assert_eq!(entries[2].span, bytes.len() - 8..bytes.len());
        assert_eq!(entries[2].info.ty, TensorType::Bf16);
        assert_eq!(entries[1].info.shape, [0usize; 0]);
    }

    #[test]
    fn empty_tensors_and_files_without_tensors_are_files() {
        let json = format!("{{{}}}", tensor("none", "F32", "[0,7]", 0, 0));
        assert_eq!(parse(&file(&json, 0)).unwrap().len(), 1);
        assert!(parse(&file("{}", 0)).unwrap().is_empty());
        assert!(looks_like_safetensors(&file("{}", 0)));
        assert!(!looks_like_safetensors(b"GGUF\x03\0\0\0{"));
        assert!(!looks_like_safetensors(b"{}"));
    }

    proptest::proptest! {
        /// No bytes make the parser panic.
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn damaged_headers_are_refused_or_valid(
            at in 0usize..400, value in proptest::num::u8::ANY, cut in 0usize..20,
        ) {
            let json = format!(
                "{{{},{}}}",
                tensor("a", "F32", "[2,3]", 0, 24),
                tensor("b", "BF16", "[4]", 24, 32),
            );
            let mut bytes = file(&json, 32);
            let at = at % bytes.len();
            bytes[at] = value;
            bytes.truncate(bytes.len() - cut / 10);
            if let Ok(entries) = parse(&bytes) {
                proptest::prop_assert!(safetensors::SafeTensors::deserialize(&bytes).is_ok());
                for entry in entries {
                    proptest::prop_assert!(entry.span.end <= bytes.len());
                }
            }
        }
    }
}
