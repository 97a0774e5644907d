//! The tokens of NEON.

use crate::arch::Isa;
use crate::arch::instruction_set::InstructionSet;

/// Proof of NEON, and of the dot product extension where `DOTPROD` is set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Neon<const DOTPROD: bool>(());

impl<const DOTPROD: bool> InstructionSet for Neon<DOTPROD> {
    const ISA: Isa = if DOTPROD { Isa::NeonDotprod } else { Isa::Neon };
    type ForFloats = Neon<false>;

    fn detect() -> Option<Self> {
        let supported = std::arch::is_aarch64_feature_detected!("neon")
            && (!DOTPROD || std::arch::is_aarch64_feature_detected!("dotprod"));
        supported.then_some(Neon(()))
    }
    fn for_floats(self) -> Neon<false> {
        Neon(())
    }
}
