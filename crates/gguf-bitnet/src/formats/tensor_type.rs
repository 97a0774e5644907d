//! GGML element types: ids, names, block lengths and sizes.
//!
//! A row of `cols` elements is stored as `cols / block_len` blocks of `block_bytes` bytes. Two kinds
//! have no rows: the I2_S layouts and [`TensorType::BitnetT158Flat`] run over the whole tensor.
//! Source: the GGUF specification and `docs/formats.md`.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::error::{Error, Result};

/// How the elements of a tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TensorType {
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// 4 bits, one F16 scale per 32.
    Q4_0,
    /// 4 bits, F16 scale and minimum per 32.
    Q4_1,
    /// 5 bits, one F16 scale per 32.
    Q5_0,
    /// 5 bits, F16 scale and minimum per 32.
    Q5_1,
    /// 8 bits, one F16 scale per 32.
    Q8_0,
    /// 2 bits, 4-bit scales and minima per 16, super-blocks of 256.
    Q2K,
    /// 3 bits, 6-bit scales per 16, super-blocks of 256.
    Q3K,
    /// 4 bits, 6-bit scales and minima per 32, super-blocks of 256.
    Q4K,
    /// 5 bits, 6-bit scales and minima per 32, super-blocks of 256.
    Q5K,
    /// 6 bits, 8-bit scales per 16, super-blocks of 256.
    Q6K,
    /// 1.5625 bits: a grid of 2048 ternary octets, super-blocks of 256.
    Iq1S,
    /// 8-bit integers.
    I8,
    /// 16-bit integers.
    I16,
    /// 32-bit integers.
    I32,
    /// 64-bit integers.
    I64,
    /// IEEE binary64.
    F64,
    /// The upper half of binary32.
    Bf16,
    /// Ternary, five trits per byte, one F16 scale per 256.
    Tq1_0,
    /// Ternary, 2-bit codes, one F16 scale per 256.
    Tq2_0,
    /// Ternary, bitnet.cpp's x86 layout: groups of 128 over the whole tensor, one F32 scale.
    I2s,
    /// Ternary, bitnet.cpp's ARM layout: groups of 64 over the whole tensor, one F32 scale.
    I2sArm,
    /// Ternary, 2-bit codes four to a byte in order, one F16 scale per 256.
    BitnetT158,
    /// [`TensorType::BitnetT158`] blocks over the flattened tensor, the last one padded: rows do not
    /// start at a block. Only found in craftsman files whose rows are no multiple of 256.
    BitnetT158Flat,
}

/// One row of the table below: type, id, name, block length, block bytes.
type Entry = (TensorType, u32, &'static str, usize, usize);

/// Every type, by ascending id.
const TABLE: [Entry; 25] = [
    (TensorType::F32, 0, "F32", 1, 4),
    (TensorType::F16, 1, "F16", 1, 2),
    (TensorType::Q4_0, 2, "Q4_0", 32, 18),
    (TensorType::Q4_1, 3, "Q4_1", 32, 20),
    (TensorType::Q5_0, 6, "Q5_0", 32, 22),
    (TensorType::Q5_1, 7, "Q5_1", 32, 24),
    (TensorType::Q8_0, 8, "Q8_0", 32, 34),
    (TensorType::Q2K, 10, "Q2_K", 256, 84),
    (TensorType::Q3K, 11, "Q3_K", 256, 110),
    (TensorType::Q4K, 12, "Q4_K", 256, 144),
    (TensorType::Q5K, 13, "Q5_K", 256, 176),
    (TensorType::Q6K, 14, "Q6_K", 256, 210),
    (TensorType::Iq1S, 19, "IQ1_S", 256, 50),
    (TensorType::I8, 24, "I8", 1, 1),
    (TensorType::I16, 25, "I16", 1, 2),
    (TensorType::I32, 26, "I32", 1, 4),
    (TensorType::I64, 27, "I64", 1, 8),
    (TensorType::F64, 28, "F64", 1, 8),
    (TensorType::Bf16, 30, "BF16", 1, 2),
    (TensorType::Tq1_0, 34, "TQ1_0", 256, 54),
    (TensorType::Tq2_0, 35, "TQ2_0", 256, 66),
    (TensorType::I2s, 36, "I2_S", 128, 32),
    (TensorType::I2sArm, 36, "I2_S_ARM", 64, 16),
    (TensorType::BitnetT158, 158, "BITNET_T158", 256, 66),
    (TensorType::BitnetT158Flat, 158, "BITNET_T158_FLAT", 256, 66),
];

/// Ids of the format that are named in errors but not decoded.
const UNSUPPORTED: [(u32, &str); 19] = [
    (4, "Q4_2"),
    (5, "Q4_3"),
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (29, "IQ1_M"),
    (31, "Q4_0_4_4"),
    (32, "Q4_0_4_8"),
    (33, "Q4_0_8_8"),
    (39, "MXFP4"),
    (40, "NVFP4"),
    (41, "Q1_0"),
    (42, "Q2_0"),
];

/// Bytes after the packed codes of an I2_S tensor; the first four are its F32 scale.
pub(crate) const I2S_TAIL_BYTES: u64 = 32;

impl TensorType {
    /// Every type this crate reads, by ascending id.
    pub fn all() -> impl Iterator<Item = TensorType> {
        TABLE.iter().map(|entry| entry.0)
    }

    fn entry(self) -> &'static Entry {
        // The table lists the variants in the order of their declaration.
        &TABLE[self as usize]
    }

    /// The GGML type id that is stored in files.
    pub fn id(self) -> u32 {
        self.entry().1
    }

    /// The type with a GGML id; I2_S is taken for the x86 layout, BITNET_T158 for the one by rows.
    ///
    /// # Errors
    /// [`Error::UnsupportedType`] for a type of the format that is not decoded here,
    /// [`Error::UnknownType`] for any other id.
    pub fn from_id(id: u32) -> Result<TensorType> {
        if let Some(entry) = TABLE.iter().find(|entry| entry.1 == id) {
            return Ok(entry.0);
        }
        match UNSUPPORTED.iter().find(|entry| entry.0 == id) {
            Some(&(id, name)) => Err(Error::UnsupportedType { id, name }),
            // bitnet.cpp's 37 and 38 are layouts of single builds; they are never guessed.
            None => Err(Error::UnknownType { id }),
        }
    }

    /// The format's name, such as `TQ2_0`.
    pub fn name(self) -> &'static str {
        self.entry().2
    }

    /// Elements per block (per group for I2_S).
    pub fn block_len(self) -> usize {
        self.entry().3
    }

    /// Bytes per block (per group for I2_S).
    pub fn block_bytes(self) -> usize {
        self.entry().4
    }

    /// Whether the layout runs over the whole tensor, so that no single row can be cut out.
    pub fn is_whole_tensor(self) -> bool {
        matches!(self, TensorType::I2s | TensorType::I2sArm | TensorType::BitnetT158Flat)
    }

    /// Whether every weight is -1, 0 or +1 times a scale.
    pub fn is_ternary(self) -> bool {
        matches!(
            self,
            TensorType::Tq1_0
                | TensorType::Tq2_0
                | TensorType::I2s
                | TensorType::I2sArm
                | TensorType::BitnetT158
                | TensorType::BitnetT158Flat
        )
    }

    /// Whether [`encode_row`](crate::encode_row) writes the type.
    pub fn is_writable(self) -> bool {
        matches!(
            self,
            TensorType::F32
                | TensorType::F16
                | TensorType::Bf16
                | TensorType::Q8_0
                | TensorType::Q6K
                | TensorType::Tq1_0
                | TensorType::Tq2_0
                | TensorType::BitnetT158
        )
    }

    /// Bits per weight, without the tail of a whole-tensor layout.
    pub fn bits_per_weight(self) -> f64 {
        self.block_bytes() as f64 * 8.0 / self.block_len() as f64
    }

    /// Bytes of one row of `cols` elements.
    ///
    /// ```
    /// # use gguf_bitnet::TensorType;
    /// assert_eq!(TensorType::Tq2_0.row_bytes(512)?, 132);
    /// assert!(TensorType::Tq2_0.row_bytes(192).is_err());
    /// # Ok::<(), gguf_bitnet::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the row does not divide into blocks, the type has no rows, or the size overflows.
    pub fn row_bytes(self, cols: usize) -> Result<usize> {
        if self.is_whole_tensor() {
            return Err(Error::NoRows { ty: self });
        }
        let block = self.block_len();
        if !cols.is_multiple_of(block) {
            return Err(Error::RowNotBlocks { cols, ty: self, block });
        }
        (cols / block).checked_mul(self.block_bytes()).ok_or_else(|| overflow(&[cols]))
    }

    /// Bytes of a whole tensor of a row-major shape (empty for a scalar).
    ///
    /// # Errors
    /// When a row does not divide into blocks, or the size overflows.
    pub fn tensor_bytes(self, shape: &[usize]) -> Result<u64> {
        let elements = shape
            .iter()
            .try_fold(1u64, |n, &d| n.checked_mul(u64::try_from(d).ok()?))
            .filter(|&n| i64::try_from(n).is_ok())
            .ok_or_else(|| overflow(shape))?;
        let block = self.block_len() as u64;
        let blocks = match self {
            TensorType::BitnetT158Flat => elements.div_ceil(block),
            TensorType::I2s | TensorType::I2sArm => {
                if !elements.is_multiple_of(block) {
                    return Err(Error::NotGroups { elements, ty: self, group: block });
                }
                elements / block
            }
            _ => {
                let cols = shape.last().copied().unwrap_or(1);
                self.row_bytes(cols)?;
                elements / block
            }
        };
        let tail = if matches!(self, TensorType::I2s | TensorType::I2sArm) { I2S_TAIL_BYTES } else { 0 };
        blocks
            .checked_mul(self.block_bytes() as u64)
            .and_then(|bytes| bytes.checked_add(tail))
            .filter(|&bytes| isize::try_from(bytes).is_ok())
            .ok_or_else(|| overflow(shape))
    }
}

fn overflow(shape: &[usize]) -> Error {
    Error::ShapeOverflow { shape: shape.iter().map(|&d| d as u64).collect() }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for TensorType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// The name given is no tensor type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is no tensor type: use a GGUF name such as F16, BF16, Q8_0, Q6_K, TQ1_0 or TQ2_0")]
pub struct UnknownTypeName {
    /// What was given.
    pub name: String,
}

impl FromStr for TensorType {
    type Err = UnknownTypeName;

    /// Reads a name in either case, with `-` for `_` allowed.
    fn from_str(name: &str) -> Result<TensorType, UnknownTypeName> {
        let plain = name.replace('-', "_");
        TABLE
            .iter()
            .find(|entry| entry.2.eq_ignore_ascii_case(&plain))
            .map(|entry| entry.0)
            .ok_or_else(|| UnknownTypeName { name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_indexed_by_the_variants() {
        for (i, entry) in TABLE.iter().enumerate() {
            assert_eq!(entry.0 as usize, i, "{}", entry.2);
            assert_eq!(entry.0.name().parse::<TensorType>().unwrap(), entry.0);
        }
    }

    #[test]
    fn ids_read_back_to_their_type() {
        for ty in TensorType::all() {
            let back = TensorType::from_id(ty.id()).unwrap();
            match ty {
                TensorType::I2sArm => assert_eq!(back, TensorType::I2s),
                TensorType::BitnetT158Flat => assert_eq!(back, TensorType::BitnetT158),
                _ => assert_eq!(back, ty),
            }
        }
        assert_eq!(TensorType::from_id(30).unwrap(), TensorType::Bf16);
    }

    #[test]
    fn ids_of_known_but_unsupported_types_are_named() {
        for (id, name) in [(16, "IQ2_XXS"), (21, "IQ3_S"), (23, "IQ4_XS"), (39, "MXFP4"), (40, "NVFP4"), (41, "Q1_0")] {
            let error = TensorType::from_id(id).unwrap_err();
            assert!(matches!(error, Error::UnsupportedType { .. }));
            assert!(error.to_string().contains(name), "{error}");
        }
        for id in [37, 38, 43, 157, 159, u32::MAX] {
            assert!(matches!(TensorType::from_id(id), Err(Error::UnknownType { .. })), "{id}");
        }
    }

    #[test]
    fn sizes_follow_the_blocks() {
        assert_eq!(TensorType::Q8_0.row_bytes(64).unwrap(), 68);
        assert_eq!(TensorType::Tq1_0.bits_per_weight(), 1.6875);
        assert_eq!(TensorType::Tq2_0.bits_per_weight(), 2.0625);
        assert_eq!(TensorType::Tq2_0.tensor_bytes(&[3, 2, 512]).unwrap(), 6 * 132);
        assert_eq!(TensorType::F32.tensor_bytes(&[]).unwrap(), 4);
        assert_eq!(TensorType::I2s.tensor_bytes(&[4, 64]).unwrap(), 256 / 4 + 32);
        assert_eq!(TensorType::BitnetT158Flat.tensor_bytes(&[3, 100]).unwrap(), 2 * 66);
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        assert!(matches!(TensorType::Tq2_0.tensor_bytes(&[4, 192]), Err(Error::RowNotBlocks { .. })));
        assert!(matches!(TensorType::I2s.tensor_bytes(&[1, 100]), Err(Error::NotGroups { .. })));
        assert!(matches!(TensorType::I2s.row_bytes(128), Err(Error::NoRows { .. })));
        assert!(matches!(TensorType::F32.tensor_bytes(&[usize::MAX, 2]), Err(Error::ShapeOverflow { .. })));
        assert!(matches!(TensorType::F64.tensor_bytes(&[1 << 31, 1 << 31]), Err(Error::ShapeOverflow { .. })));
    }
}
