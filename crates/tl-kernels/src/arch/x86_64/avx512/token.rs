//! The tokens of AVX-512.

use crate::arch::Isa;
use crate::arch::instruction_set::InstructionSet;
use crate::arch::x86_64::Avx2;

/// Proof of AVX-512 F, BW, DQ and VL, of AVX2, FMA and F16C, and of VNNI where `VNNI` is set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512<const VNNI: bool>(());

impl<const VNNI: bool> InstructionSet for Avx512<VNNI> {
    const ISA: Isa = if VNNI { Isa::Avx512Vnni } else { Isa::Avx512 };
    type ForFloats = Avx512<false>;

    fn detect() -> Option<Self> {
        let supported = Avx2::<false>::detect().is_some()
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && (!VNNI || is_x86_feature_detected!("avx512vnni"));
        supported.then_some(Avx512(()))
    }
    fn for_floats(self) -> Avx512<false> {
        Avx512(())
    }
}
