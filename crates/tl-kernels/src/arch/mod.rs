//! Instruction set levels and the dispatch to them. One file per level; all `unsafe` of the kernels is here.
//!
//! **Invariant:** a token type ([`Scalar`], `Avx2`, `Avx512`) has a private field and its constructor
//! returns it only where the hardware supports the level: holding one proves support.

mod scalar;

use crate::isa::Isa;
use crate::vector::{Kernel, Simd};

pub(crate) use scalar::Scalar;

/// A level this machine is known to support.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Level {
    Scalar(Scalar),
}

impl Level {
    /// The level of `isa`, `None` where this machine (or this build) lacks it.
    pub(crate) fn of(isa: Isa) -> Option<Level> {
        match isa {
            Isa::Scalar => Some(Level::Scalar(Scalar::new())),
            _ => None,
        }
    }

    /// The name of this level.
    pub(crate) fn isa(self) -> Isa {
        match self {
            Level::Scalar(_) => Isa::Scalar,
        }
    }

    /// Runs `kernel` on this level.
    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            Level::Scalar(s) => s.run(kernel),
        }
    }
}
