//! The table of storage formats, and the type that names one of them.
//!
//! A row of `cols` elements is stored as `cols / block_len` blocks of `block_bytes` bytes. Two kinds
//! have no rows: the I2_S layouts and [`TensorType::BitnetT158Flat`] run over the whole tensor.
//! Source: the GGUF specification and `docs/formats.md`.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use ternary_core::Packing;

use super::format::{Extent, Format};
use super::{
    f8, floats, i2_s, integers, iq1_s, q2_0, q2_k, q3_k, q4_0, q4_1, q4_k, q5_0, q5_1, q5_k, q6_k, q8_0, ternary,
    u8_trits,
};
use super::{iq1_m, iq2_bn, iq2_s, iq2_xs, iq2_xxs, iq3_s, iq3_xxs, iq4_nl, iq4_xs, mxfp4};

/// Declares [`TensorType`] and the table of formats that its variants index.
macro_rules! tensor_types {
    ($($(#[doc = $doc:literal])* $variant:ident = $format:expr,)*) => {
        /// The storage type of a tensor's elements.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum TensorType {
            $($(#[doc = $doc])* $variant,)*
        }

        /// Every type with its format, in the order of the variants.
        const TABLE: &[(TensorType, &dyn Format)] = &[$((TensorType::$variant, &$format)),*];
    };
}

// By ascending id, then the types without one: reports list types in this order.
tensor_types! {
    /// 32-bit floating-point numbers (IEEE binary32).
    F32 = floats::F32,
    /// 16-bit floating-point numbers (IEEE binary16).
    F16 = floats::F16,
    /// 4 bits, one F16 scale per 32.
    Q4_0 = q4_0::Q4_0,
    /// 4 bits, F16 scale and minimum per 32.
    Q4_1 = q4_1::Q4_1,
    /// 5 bits, one F16 scale per 32.
    Q5_0 = q5_0::Q5_0,
    /// 5 bits, F16 scale and minimum per 32.
    Q5_1 = q5_1::Q5_1,
    /// 8 bits, one F16 scale per 32.
    Q8_0 = q8_0::Q8_0,
    /// 2 bits, 4-bit scales and minima per 16, super-blocks of 256.
    Q2K = q2_k::Q2_K,
    /// 3 bits, 6-bit scales per 16, super-blocks of 256.
    Q3K = q3_k::Q3_K,
    /// 4 bits, 6-bit scales and minima per 32, super-blocks of 256.
    Q4K = q4_k::Q4_K,
    /// 5 bits, 6-bit scales and minima per 32, super-blocks of 256.
    Q5K = q5_k::Q5_K,
    /// 6 bits, 8-bit scales per 16, super-blocks of 256.
    Q6K = q6_k::Q6K,
    /// 2.0625 bits: signed octets from a grid of 256, super-blocks of 256.
    Iq2Xxs = iq2_xxs::IQ2_XXS,
    /// 2.3125 bits: signed octets from a grid of 512, super-blocks of 256.
    Iq2Xs = iq2_xs::IQ2_XS,
    /// 3.0625 bits: signed fours from a grid of 256, super-blocks of 256.
    Iq3Xxs = iq3_xxs::IQ3_XXS,
    /// 1.5625 bits: a grid of 2048 ternary octets, super-blocks of 256.
    Iq1S = iq1_s::IQ1_S,
    /// 4 bits that choose one of 16 uneven levels, one F16 scale per 32.
    Iq4Nl = iq4_nl::IQ4_NL,
    /// 3.4375 bits: signed fours from a grid of 512, super-blocks of 256.
    Iq3S = iq3_s::IQ3_S,
    /// 2.5625 bits: signed octets from a grid of 1024, super-blocks of 256.
    Iq2S = iq2_s::IQ2_S,
    /// 4.25 bits: the levels of IQ4_NL, 6-bit scales per 32, super-blocks of 256.
    Iq4Xs = iq4_xs::IQ4_XS,
    /// Signed integers of 8 bits.
    I8 = integers::I8,
    /// Signed integers of 16 bits.
    I16 = integers::I16,
    /// Signed integers of 32 bits.
    I32 = integers::I32,
    /// Signed integers of 64 bits.
    I64 = integers::I64,
    /// 64-bit floating-point numbers (IEEE binary64).
    F64 = floats::F64,
    /// 1.75 bits: the grid of IQ1_S, 3-bit scales per 16, super-blocks of 256.
    Iq1M = iq1_m::IQ1_M,
    /// The upper half of binary32.
    Bf16 = floats::Bf16,
    /// Ternary, five trits per byte, one F16 scale per 256.
    Tq1_0 = ternary::TQ1_0,
    /// Ternary, 2-bit codes, one F16 scale per 256.
    Tq2_0 = ternary::TQ2_0,
    /// Ternary, bitnet.cpp's x86 layout: groups of 128 over the whole tensor, one F32 scale.
    I2s = i2_s::X86,
    /// Ternary, bitnet.cpp's ARM layout: groups of 64 over the whole tensor, one F32 scale.
    I2sArm = i2_s::ARM,
    /// 4-bit floating-point numbers, one power of two per 32.
    Mxfp4 = mxfp4::MXFP4,
    /// Ternary, 2-bit codes four to a byte in order, one F16 scale per 64: llama.cpp's Q2_0.
    Q2_0 = q2_0::Q2_0::<64>,
    /// As [`TensorType::Q2_0`] with one scale per 128, of a fork that gives it the same id.
    Q2_0G128 = q2_0::Q2_0::<128>,
    /// Ternary, ik_llama.cpp's 2-bit codes, one F32 scale per row.
    Iq2Bn = iq2_bn::Iq2Bn,
    /// Ternary, 2-bit codes four to a byte in order, one F16 scale per 256.
    BitnetT158 = ternary::BITNET_T158,
    /// [`TensorType::BitnetT158`] blocks over the flattened tensor, the last one padded: rows do not
    /// start at a block. Only found in craftsman files whose rows are no multiple of 256.
    BitnetT158Flat = ternary::BitnetT158Flat,
    /// 8-bit floating-point numbers with 4 bits of exponent, without infinities (E4M3FN), multiplied by scales beside them.
    F8E4M3 = f8::E4M3,
    /// 8-bit floating-point numbers with 5 bits of exponent, multiplied by scales beside them.
    F8E5M2 = f8::E5M2,
    /// Ternary, 2-bit codes in four planes over the whole matrix, multiplied by a scale beside it: BitNet checkpoints.
    U8Trits = u8_trits::U8Trits,
}

impl TensorType {
    /// Every type this crate reads, by ascending id.
    pub fn all() -> impl Iterator<Item = TensorType> {
        TABLE.iter().map(|&(ty, _)| ty)
    }

    /// The format that the type names.
    pub(crate) fn format(self) -> &'static dyn Format {
        TABLE[self as usize].1
    }

    /// The GGML type id that GGUF files store; `None` for a type that only checkpoints use.
    pub fn id(self) -> Option<u32> {
        self.format().layout().id
    }

    /// The format's name, such as `TQ2_0`.
    pub fn name(self) -> &'static str {
        self.format().layout().name
    }

    /// Elements per block (per group for I2_S).
    pub fn block_len(self) -> usize {
        self.format().layout().block_len
    }

    /// Bytes per block (per group for I2_S).
    pub fn block_bytes(self) -> usize {
        self.format().layout().block_bytes
    }

    /// Whether the layout runs over the whole tensor, so that no single row can be cut out.
    pub(crate) fn is_whole_tensor(self) -> bool {
        !matches!(self.format().extent(), Extent::Rows | Extent::HeadedRows { .. })
    }

    /// Whether every weight is -1, 0 or +1 times a scale.
    pub fn is_ternary(self) -> bool {
        self.format().is_ternary()
    }

    /// The packing of a ternary type whose rows are blocks of 256 weights; `None` for all other types.
    pub fn packing(self) -> Option<Packing> {
        self.format().packing()
    }

    /// Whether [`encode_row`](crate::encode_row) writes the type.
    pub fn is_writable(self) -> bool {
        self.format().encoder().is_some()
    }

    /// Bits per weight, without the tail of a whole-tensor layout.
    pub fn bits_per_weight(self) -> f64 {
        self.block_bytes() as f64 * 8.0 / self.block_len() as f64
    }
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

impl<'de> Deserialize<'de> for TensorType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<TensorType, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_indexed_by_the_variants() {
        for (i, &(ty, _)) in TABLE.iter().enumerate() {
            assert_eq!(ty as usize, i, "{ty}");
            assert_eq!(ty.name().parse::<TensorType>().unwrap(), ty);
        }
        assert!(TABLE.is_sorted_by_key(|(ty, _)| ty.id().unwrap_or(u32::MAX)));
    }

    #[test]
    fn types_of_ternary_rows_name_their_packing() {
        for (ty, packing) in TensorType::all().filter_map(|ty| Some((ty, ty.packing()?))) {
            assert_eq!((ty.name(), ty.block_bytes()), (packing.name(), packing.block_bytes()));
            assert!(ty.is_ternary() && !ty.is_whole_tensor());
        }
        let packed: Vec<_> = TensorType::all().filter(|ty| ty.packing().is_some()).collect();
        assert_eq!(packed, [TensorType::Tq1_0, TensorType::Tq2_0, TensorType::BitnetT158]);
    }
}
