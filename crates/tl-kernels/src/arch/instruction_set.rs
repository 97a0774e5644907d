//! An instruction set as the dispatch sees it: a token that proves support, and a name.

use super::Isa;
use crate::simd::Simd;

/// A level as a token type with a private field.
///
/// **Invariant:** [`InstructionSet::detect`] alone makes a token, and only where the machine supports the level: holding
/// one proves support.
pub(crate) trait InstructionSet: Simd {
    /// The name of the level.
    const ISA: Isa;
    /// The level that runs kernels without products of integers. Levels that differ in integer dot products alone
    /// share it, so that such kernels are compiled once.
    type ForFloats: Simd;

    /// The token, where this machine supports the level.
    fn detect() -> Option<Self>;
    /// The token for kernels without products of integers.
    fn for_floats(self) -> Self::ForFloats;
}
