//! The header of one GGUF file: everything in front of the tensor data.
//!
//! ```text
//! "GGUF" | version: u32 | n_tensors: u64 | n_pairs: u64 | pairs | tensor infos | padding | data
//! info = name: string, n_dims: u32, dims: u64 each (fastest first), type: u32, offset: u64
//! ```
//! Offsets count from the start of the data, which is aligned as the tensors are. Versions 2 and 3
//! are the same for little-endian files. Source: the GGUF specification.

use std::collections::HashSet;
use std::path::Path;

use super::cursor::Cursor;
use super::error::GgufError;
use super::metadata::Metadata;
use super::value::{ARRAY_TYPE_ID, Array, Value};
use crate::error::{Error, Locate, Result};
use crate::formats::FormatError;
use crate::source::{SourceError, ZeroTail};

/// First bytes of every file.
pub(crate) const MAGIC: [u8; 4] = *b"GGUF";
/// Alignment where `general.alignment` is absent.
pub(crate) const DEFAULT_ALIGNMENT: u32 = 32;
/// Key of the alignment.
pub(crate) const ALIGNMENT_KEY: &str = "general.alignment";
/// Most dimensions of a tensor.
pub(crate) const MAX_DIMS: usize = 4;

/// Fewest bytes of a pair: length of a one-byte key, the key, a type, a value.
const MIN_PAIR_BYTES: usize = 8 + 1 + 4 + 1;
/// Fewest bytes of a tensor info: length of a one-byte name, the name, number of dimensions, one dimension, type,
/// offset.
const MIN_INFO_BYTES: usize = 8 + 1 + 4 + 8 + 4 + 8;

/// A tensor info as the file states it, not yet checked against the data.
#[derive(Debug)]
pub(super) struct RawInfo {
    pub(super) name: String,
    /// In file order: fastest first by the standard.
    pub(super) dims: Vec<usize>,
    pub(super) type_id: u32,
    /// Offset in bytes from the start of the data.
    pub(super) offset: u64,
}

impl RawInfo {
    /// Number of elements; the product was checked when the info was read.
    pub(super) fn elements(&self) -> u64 {
        self.dims.iter().map(|&d| d as u64).product()
    }
}

/// Whether data of `bytes` bytes fill the span up to the next tensor, with or without their padding.
pub(super) fn fits_span(bytes: u64, span: u64, alignment: u64) -> bool {
    bytes <= span && bytes.checked_next_multiple_of(alignment).is_some_and(|padded| span <= padded)
}

/// The header of one file, parsed.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) metadata: Metadata,
    pub(super) infos: Vec<RawInfo>,
    pub(super) alignment: u64,
    /// Where the tensor data start in the file; may lie after its end when there are none.
    pub(super) data_start: u64,
}

/// Reads the header from the bytes of a whole file.
pub(super) fn parse(file: &[u8]) -> Result<Header> {
    let mut cursor = Cursor::new(file);
    let version = parse_magic(&mut cursor)?;
    let n_tensors = cursor.u64("the tensor count")?;
    let n_pairs = cursor.u64("the number of metadata pairs")?;
    let n_pairs = cursor.check_entries(n_pairs, "metadata pairs", MIN_PAIR_BYTES)?;
    let n_tensors = cursor.check_entries(n_tensors, "tensors", MIN_INFO_BYTES)?;

    let mut metadata = Metadata::default();
    for _ in 0..n_pairs {
        let key = cursor.string("a metadata key")?;
        if key.is_empty() {
            return Err(GgufError::EmptyKey.into());
        }
        let value = parse_value(&mut cursor, key)?;
        if metadata.insert(key, value).is_some() {
            return Err(GgufError::DuplicateKey { key: key.to_owned() }.into());
        }
    }
    let alignment = u64::from(alignment(&metadata)?);

    let n_tensors = cursor.check_entries(n_tensors as u64, "tensors", MIN_INFO_BYTES)?;
    let mut infos = Vec::with_capacity(n_tensors);
    let mut names = HashSet::with_capacity(n_tensors);
    for _ in 0..n_tensors {
        let name = cursor.string("a tensor name")?;
        if name.is_empty() {
            return Err(GgufError::EmptyTensorName.into());
        }
        if !names.insert(name) {
            return Err(SourceError::DuplicateTensor.in_tensor(name));
        }
        infos.push(parse_info(&mut cursor, name).map_err(|e| e.in_tensor(name))?);
    }
    // Cannot overflow: the position is inside of a file, the alignment at most 2^31.
    let data_start = (cursor.position() as u64).next_multiple_of(alignment);
    Ok(Header { version, metadata, infos, alignment, data_start })
}

/// The zero bytes in which the header of a file ends, if they are the reason for `error`, with which [`parse`] refused it.
pub(super) fn unwritten_end(path: &Path, file: &[u8], error: &Error) -> Option<ZeroTail> {
    let is_short = |error: &Error| match error.root() {
        Error::Source(SourceError::TruncatedHeader { .. }) => true,
        Error::Gguf(error) => matches!(
            error,
            GgufError::StringTooLong { .. } | GgufError::CountTooLarge { .. } | GgufError::HeaderTooLong { .. }
        ),
        _ => false,
    };
    let is_cut_off = |written: &[u8]| parse(written).is_err_and(|error| is_short(&error));
    // Zeros are never too long, so another defect stands in front of them.
    if is_short(error) { None } else { ZeroTail::of_unreadable(path, file, is_cut_off) }
}

fn parse_magic(cursor: &mut Cursor<'_>) -> Result<u32> {
    if cursor.left() == 0 {
        return Err(SourceError::EmptyFile.into());
    }
    let magic: [u8; 4] = cursor.array("the magic")?;
    if magic == [b'F', b'U', b'G', b'G'] {
        return Err(GgufError::BigEndian.into());
    }
    if magic != MAGIC {
        return Err(GgufError::BadMagic { got: magic }.into());
    }
    let version = cursor.u32("the version")?;
    match version {
        2 | 3 => Ok(version),
        // A version that is small with its bytes swapped: the file was written for a big-endian machine.
        _ if matches!(version.swap_bytes(), 1..=0xffff) => Err(GgufError::BigEndian.into()),
        _ => Err(GgufError::UnsupportedVersion { version }.into()),
    }
}

/// The alignment a file's metadata ask for.
pub(crate) fn alignment(metadata: &Metadata) -> Result<u32> {
    match metadata.get(ALIGNMENT_KEY) {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(&Value::U32(alignment)) if alignment.is_power_of_two() => Ok(alignment),
        Some(&Value::U32(alignment)) => Err(GgufError::BadAlignment { alignment }.into()),
        Some(other) => Err(GgufError::AlignmentType { got: other.type_name() }.into()),
    }
}

fn parse_info(cursor: &mut Cursor<'_>, name: &str) -> Result<RawInfo> {
    let n_dims = cursor.u32("a dimension count")?;
    let n = usize::try_from(n_dims).ok().filter(|n| (1..=MAX_DIMS).contains(n));
    let Some(n) = n else {
        return Err(GgufError::DimensionCount { n: n_dims.into() }.into());
    };
    let mut raw = Vec::with_capacity(n);
    for dim in 0..n {
        let length = cursor.u64("a dimension")?;
        if length == 0 {
            return Err(SourceError::ZeroDimension { dim }.into());
        }
        raw.push(length);
    }
    let type_id = cursor.u32("a tensor type")?;
    let offset = cursor.u64("a tensor offset")?;
    let product = raw.iter().try_fold(1u64, |n, &d| n.checked_mul(d));
    let dims: Option<Vec<usize>> = raw.iter().map(|&d| usize::try_from(d).ok()).collect();
    match (product, dims) {
        (Some(product), Some(dims)) if isize::try_from(product).is_ok() => {
            Ok(RawInfo { name: name.to_owned(), dims, type_id, offset })
        }
        _ => Err(FormatError::ShapeOverflow { shape: raw }.into()),
    }
}

fn parse_value(cursor: &mut Cursor<'_>, key: &str) -> Result<Value> {
    const WHAT: &str = "a metadata value";
    let id = cursor.u32("a value type")?;
    Ok(match id {
        0 => Value::U8(u8::from_le_bytes(cursor.array(WHAT)?)),
        1 => Value::I8(i8::from_le_bytes(cursor.array(WHAT)?)),
        2 => Value::U16(u16::from_le_bytes(cursor.array(WHAT)?)),
        3 => Value::I16(i16::from_le_bytes(cursor.array(WHAT)?)),
        4 => Value::U32(u32::from_le_bytes(cursor.array(WHAT)?)),
        5 => Value::I32(i32::from_le_bytes(cursor.array(WHAT)?)),
        6 => Value::F32(f32::from_le_bytes(cursor.array(WHAT)?)),
        7 => Value::Bool(truth(cursor.array(WHAT)?, key)?),
        8 => Value::String(cursor.string("a metadata string")?.to_owned()),
        ARRAY_TYPE_ID => Value::Array(parse_array(cursor, key)?),
        10 => Value::U64(u64::from_le_bytes(cursor.array(WHAT)?)),
        11 => Value::I64(i64::from_le_bytes(cursor.array(WHAT)?)),
        12 => Value::F64(f64::from_le_bytes(cursor.array(WHAT)?)),
        _ => return Err(GgufError::UnknownValueType { key: key.to_owned(), id }.into()),
    })
}

fn parse_array(cursor: &mut Cursor<'_>, key: &str) -> Result<Array> {
    let id = cursor.u32("an array's element type")?;
    Ok(match id {
        0 => Array::U8(numbers(cursor, u8::from_le_bytes)?),
        1 => Array::I8(numbers(cursor, i8::from_le_bytes)?),
        2 => Array::U16(numbers(cursor, u16::from_le_bytes)?),
        3 => Array::I16(numbers(cursor, i16::from_le_bytes)?),
        4 => Array::U32(numbers(cursor, u32::from_le_bytes)?),
        5 => Array::I32(numbers(cursor, i32::from_le_bytes)?),
        6 => Array::F32(numbers(cursor, f32::from_le_bytes)?),
        7 => Array::Bool(numbers(cursor, |b: [u8; 1]| b)?.into_iter().map(|b| truth(b, key)).collect::<Result<_>>()?),
        8 => {
            let n = cursor.array_len(8)?;
            let mut strings = Vec::with_capacity(n);
            for _ in 0..n {
                strings.push(cursor.string("a string of a metadata array")?.to_owned());
            }
            Array::String(strings)
        }
        ARRAY_TYPE_ID => return Err(GgufError::NestedArray { key: key.to_owned() }.into()),
        10 => Array::U64(numbers(cursor, u64::from_le_bytes)?),
        11 => Array::I64(numbers(cursor, i64::from_le_bytes)?),
        12 => Array::F64(numbers(cursor, f64::from_le_bytes)?),
        _ => return Err(GgufError::UnknownValueType { key: key.to_owned(), id }.into()),
    })
}

/// Reads a length, then as many numbers of `N` bytes.
fn numbers<const N: usize, T>(cursor: &mut Cursor<'_>, from: impl Fn([u8; N]) -> T) -> Result<Vec<T>> {
    let n = cursor.array_len(N)?;
    // This cannot overflow: the count was checked against the bytes that are left.
    let bytes = cursor.take(n * N, "a metadata array")?;
    Ok(bytes.as_chunks::<N>().0.iter().map(|&b| from(b)).collect())
}

fn truth([byte]: [u8; 1], key: &str) -> Result<bool> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        got => Err(GgufError::InvalidBool { key: key.to_owned(), got }.into()),
    }
}
