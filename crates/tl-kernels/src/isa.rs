//! Instruction set levels: what exists, what this machine has, what a run uses.
//!
//! **Invariant:** the level in use is never above what the hardware supports. `TL_ISA` is read once and
//! may lower the level; a name it does not know, or a level above the hardware, changes nothing.

use std::fmt;
use std::sync::OnceLock;

use crate::arch::Level;
use crate::error::{Error, Result};

/// An instruction set level. Within a processor family the order is the order of preference; a machine may lack a level
/// below its highest. No machine has levels of two families, and every machine has [`Isa::Scalar`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// Portable Rust, on every machine.
    Scalar,
    /// AVX2 with FMA and F16C.
    Avx2,
    /// AVX2 with the 256-bit dot products of AVX-VNNI.
    AvxVnni,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// AVX-512 with the VNNI dot products.
    Avx512Vnni,
    /// NEON, on every 64-bit ARM.
    Neon,
    /// NEON with the dot product extension.
    NeonDotprod,
    /// WASM SIMD128, in builds that have it.
    Simd128,
}

impl Isa {
    /// Every level, lowest first, whether this machine has it or not.
    pub const ALL: [Isa; 8] =
        [Isa::Scalar, Isa::Avx2, Isa::AvxVnni, Isa::Avx512, Isa::Avx512Vnni, Isa::Neon, Isa::NeonDotprod, Isa::Simd128];

    /// The highest level of this machine.
    #[must_use]
    pub fn detect() -> Isa {
        let highest = Isa::ALL.into_iter().rev().find(|isa| isa.is_supported());
        highest.unwrap_or(Isa::Scalar)
    }

    /// The level new kernels use: [`Isa::detect`], lowered by the environment variable `TL_ISA`, which is
    /// read at the first call only.
    #[must_use]
    pub fn current() -> Isa {
        static CURRENT: OnceLock<Isa> = OnceLock::new();
        *CURRENT.get_or_init(|| lowered(Isa::detect(), std::env::var("TL_ISA").ok().as_deref(), Isa::is_supported))
    }

    /// Whether this machine can run the level.
    #[must_use]
    pub fn is_supported(self) -> bool {
        Level::of(self).is_some()
    }

    /// The next lower level of this machine, `None` below [`Isa::Scalar`].
    #[must_use]
    pub fn lower(self) -> Option<Isa> {
        Isa::ALL.into_iter().rev().find(|&isa| isa < self && isa.is_supported())
    }

    /// The name used by `TL_ISA`, benchmarks and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::AvxVnni => "avxvnni",
            Isa::Avx512 => "avx512",
            Isa::Avx512Vnni => "avx512vnni",
            Isa::Neon => "neon",
            Isa::NeonDotprod => "neon-dotprod",
            Isa::Simd128 => "simd128",
        }
    }

    /// The level of this name.
    ///
    /// # Errors
    /// [`Error::UnknownIsa`] for any other name.
    pub fn from_name(name: &str) -> Result<Isa> {
        let found = Isa::ALL.into_iter().find(|isa| isa.name() == name);
        let known = "scalar, avx2, avxvnni, avx512, avx512vnni, neon, neon-dotprod, simd128";
        found.ok_or_else(|| Error::UnknownIsa { name: name.to_owned(), known })
    }

    /// Proof that this machine has the level, for dispatch.
    pub(crate) fn level(self) -> Result<Level> {
        Level::of(self).ok_or(Error::UnsupportedIsa { isa: self, detected: Isa::detect() })
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `detected`, lowered to the level `wanted` names if the machine has such a level and it is lower.
fn lowered(detected: Isa, wanted: Option<&str>, has: impl Fn(Isa) -> bool) -> Isa {
    let Some(wanted) = wanted.map(str::trim).filter(|name| !name.is_empty()) else {
        return detected;
    };
    match Isa::from_name(wanted) {
        Ok(isa) if has(isa) => isa.min(detected),
        Ok(_) => detected,
        Err(error) => {
            tracing::warn!(%error, "TL_ISA is ignored");
            detected
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_lowers_and_never_raises() {
        let x86 = |isa| isa <= Isa::Avx512;
        assert_eq!(lowered(Isa::Avx512, Some("avx2"), x86), Isa::Avx2);
        assert_eq!(lowered(Isa::Avx512, Some("scalar"), x86), Isa::Scalar);
        assert_eq!(lowered(Isa::Avx512, Some("avx512vnni"), x86), Isa::Avx512);
        assert_eq!(lowered(Isa::Avx512, Some("neon"), x86), Isa::Avx512);
        assert_eq!(lowered(Isa::Avx512, Some(""), x86), Isa::Avx512);
        assert_eq!(lowered(Isa::Avx512, None, x86), Isa::Avx512);
        let without_avxvnni = |isa| isa <= Isa::Avx512Vnni && isa != Isa::AvxVnni;
        assert_eq!(lowered(Isa::Avx512Vnni, Some("avxvnni"), without_avxvnni), Isa::Avx512Vnni);
        let without_avx512 = |isa| isa <= Isa::AvxVnni;
        assert_eq!(lowered(Isa::AvxVnni, Some("avx512"), without_avx512), Isa::AvxVnni);
        assert_eq!(lowered(Isa::AvxVnni, Some("avx2"), without_avx512), Isa::Avx2);
        let arm = |isa| matches!(isa, Isa::Scalar | Isa::Neon | Isa::NeonDotprod);
        assert_eq!(lowered(Isa::NeonDotprod, Some("neon"), arm), Isa::Neon);
        assert_eq!(lowered(Isa::NeonDotprod, Some("avx2"), arm), Isa::NeonDotprod);
    }

    #[test]
    fn names_go_both_ways_and_levels_are_ordered() {
        for isa in Isa::ALL {
            assert_eq!(Isa::from_name(isa.name()).unwrap(), isa);
        }
        assert!(Isa::ALL.is_sorted());
        assert_eq!(Isa::Scalar.lower(), None);
        let down: Vec<Isa> = std::iter::successors(Some(Isa::detect()), |isa| isa.lower()).collect();
        assert!(down.iter().all(|isa| isa.is_supported()) && down.ends_with(&[Isa::Scalar]), "{down:?}");
        assert!(Isa::from_name("sse9").is_err());
    }

    #[test]
    fn every_machine_has_the_scalar_level_and_the_current_one() {
        assert!(Isa::Scalar.is_supported());
        assert!(Isa::detect().is_supported());
        assert!(Isa::current() <= Isa::detect());
    }
}
