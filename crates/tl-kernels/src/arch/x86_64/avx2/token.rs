//! The tokens of AVX2.

use crate::arch::Isa;
use crate::arch::instruction_set::InstructionSet;

/// Proof of AVX2, FMA and F16C, and of AVX-VNNI where `VNNI` is set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2<const VNNI: bool>(());

impl<const VNNI: bool> InstructionSet for Avx2<VNNI> {
    const ISA: Isa = if VNNI { Isa::AvxVnni } else { Isa::Avx2 };
    type ForFloats = Avx2<false>;

    fn detect() -> Option<Self> {
        let supported = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
            && (!VNNI || is_x86_feature_detected!("avxvnni"));
        supported.then_some(Avx2(()))
    }
    fn for_floats(self) -> Avx2<false> {
        Avx2(())
    }
}
