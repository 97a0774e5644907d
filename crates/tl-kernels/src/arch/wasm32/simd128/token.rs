//! The token of SIMD128.

use crate::arch::Isa;
use crate::arch::instruction_set::InstructionSet;

/// SIMD128, which this build has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Simd128(());

impl InstructionSet for Simd128 {
    const ISA: Isa = Isa::Simd128;
    type ForFloats = Simd128;

    fn detect() -> Option<Simd128> {
        Some(Simd128(()))
    }
    fn for_floats(self) -> Simd128 {
        self
    }
}
