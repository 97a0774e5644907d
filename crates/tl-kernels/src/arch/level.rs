//! The levels of this machine: detection, the level in use, and the dispatch of kernels.
//!
//! **Invariant:** the level in use is never above the highest one of the hardware. `TL_ISA` is read once and may lower
//! the level; an unknown name, or a level above the hardware's, changes nothing.

use std::sync::OnceLock;

use super::instruction_set::InstructionSet;
use super::{Isa, Scalar};
use crate::error::{Error, Result};
use crate::simd::{Kernel, Simd};

/// Writes [`Level`] for the instruction sets of this processor family: one line each, and always [`Scalar`].
macro_rules! levels {
    ($($name:ident($token:ty)),* $(,)?) => {
        /// A level this machine is known to support.
        #[derive(Debug, Clone, Copy)]
        pub(crate) enum Level {
            Scalar(Scalar),
            $($name($token),)*
        }

        impl Level {
            /// The level of `isa`, `None` where this machine (or this build) lacks it.
            pub(crate) fn of(isa: Isa) -> Option<Level> {
                match isa {
                    Scalar::ISA => Scalar::detect().map(Level::Scalar),
                    $(<$token>::ISA => <$token>::detect().map(Level::$name),)*
                    // The levels of the other processor families.
                    _ => None,
                }
            }

            /// The name of this level.
            pub(crate) fn isa(self) -> Isa {
                match self {
                    Level::Scalar(_) => Scalar::ISA,
                    $(Level::$name(_) => <$token>::ISA,)*
                }
            }

            /// Runs `kernel` on this level.
            #[inline]
            pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
                match self {
                    Level::Scalar(s) if K::INTEGER => s.run(kernel),
                    Level::Scalar(s) => s.for_floats().run(kernel),
                    $(
                        Level::$name(s) if K::INTEGER => s.run(kernel),
                        Level::$name(s) => s.for_floats().run(kernel),
                    )*
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
use super::x86_64::{Avx2, Avx512};
#[cfg(target_arch = "x86_64")]
levels! {
    Avx2(Avx2<false>),
    AvxVnni(Avx2<true>),
    Avx512(Avx512<false>),
    Avx512Vnni(Avx512<true>),
}

#[cfg(target_arch = "aarch64")]
use super::aarch64::Neon;
#[cfg(target_arch = "aarch64")]
levels! {
    Neon(Neon<false>),
    NeonDotprod(Neon<true>),
}

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
use super::wasm32::Simd128;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
levels! {
    Simd128(Simd128),
}

#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    all(target_arch = "wasm32", target_feature = "simd128")
)))]
levels! {}

impl Level {
    /// The level of this process.
    pub(crate) fn current() -> Level {
        Isa::current().level().expect("the current level is supported")
    }
}

impl Isa {
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

    /// The level of this name.
    ///
    /// # Errors
    /// [`Error::UnknownIsa`] for any other name.
    pub fn from_name(name: &str) -> Result<Isa> {
        let found = Isa::ALL.into_iter().find(|isa| isa.name() == name);
        let known = || Isa::ALL.map(Isa::name).join(", ");
        found.ok_or_else(|| Error::UnknownIsa { name: name.to_owned(), known: known() })
    }

    /// Proof that this machine has the level, for dispatch.
    pub(crate) fn level(self) -> Result<Level> {
        Level::of(self).ok_or(Error::UnsupportedIsa { isa: self, detected: Isa::detect() })
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
