//! Instruction set levels and the dispatch to them. One file per level; all `unsafe` of the kernels is here.
//!
//! **Invariant:** a token type (`Scalar`, `Avx2`, `Neon`, ..) has a private field and its constructor
//! returns it only where the hardware supports the level: holding one proves support.

pub(crate) mod int8;
pub(crate) mod lut;

mod base3;
mod integer;
mod scalar;
mod table;
mod tile;

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "vector instructions, behind tokens that prove support")]
mod avx2;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "vector instructions, behind tokens that prove support")]
mod avx512;

#[cfg(target_arch = "aarch64")]
#[allow(unsafe_code, reason = "vector instructions, behind tokens that prove support")]
mod neon;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
#[allow(unsafe_code, reason = "loads and stores of vectors")]
mod wasm;

use crate::isa::Isa;
use crate::vector::{Kernel, Simd};

#[cfg(target_arch = "aarch64")]
use neon::Neon;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
use wasm::Simd128;
#[cfg(target_arch = "x86_64")]
use {avx2::Avx2, avx512::Avx512};

pub(crate) use scalar::Scalar;

/// A level this machine is known to support.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Level {
    Scalar(Scalar),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2<false>),
    #[cfg(target_arch = "x86_64")]
    AvxVnni(Avx2<true>),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512<false>),
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(Avx512<true>),
    #[cfg(target_arch = "aarch64")]
    Neon(Neon<false>),
    #[cfg(target_arch = "aarch64")]
    NeonDotprod(Neon<true>),
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    Simd128(Simd128),
}

impl Level {
    /// The level of `isa`, `None` where this machine (or this build) lacks it.
    pub(crate) fn of(isa: Isa) -> Option<Level> {
        match isa {
            Isa::Scalar => Some(Level::Scalar(Scalar::new())),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Avx2::<false>::new().map(Level::Avx2),
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => Avx2::<true>::new().map(Level::AvxVnni),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Avx512::<false>::new().map(Level::Avx512),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => Avx512::<true>::new().map(Level::Avx512Vnni),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => Neon::<false>::new().map(Level::Neon),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDotprod => Neon::<true>::new().map(Level::NeonDotprod),
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Isa::Simd128 => Some(Level::Simd128(Simd128::new())),
            // The levels of the other processor families.
            _ => None,
        }
    }

    /// The name of this level.
    pub(crate) fn isa(self) -> Isa {
        match self {
            Level::Scalar(_) => Isa::Scalar,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2(_) => Isa::Avx2,
            #[cfg(target_arch = "x86_64")]
            Level::AvxVnni(_) => Isa::AvxVnni,
            #[cfg(target_arch = "x86_64")]
            Level::Avx512(_) => Isa::Avx512,
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Vnni(_) => Isa::Avx512Vnni,
            #[cfg(target_arch = "aarch64")]
            Level::Neon(_) => Isa::Neon,
            #[cfg(target_arch = "aarch64")]
            Level::NeonDotprod(_) => Isa::NeonDotprod,
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Level::Simd128(_) => Isa::Simd128,
        }
    }

    /// Runs `kernel` on this level.
    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            Level::Scalar(s) => s.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2(s) => s.run(kernel),
            // Float kernels are the same code with and without integer dot products: compile them once.
            #[cfg(target_arch = "x86_64")]
            Level::AvxVnni(s) if K::INTEGER => s.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Level::AvxVnni(s) => s.without_vnni().run(kernel),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512(s) => s.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Vnni(s) if K::INTEGER => s.run(kernel),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Vnni(s) => s.without_vnni().run(kernel),
            #[cfg(target_arch = "aarch64")]
            Level::Neon(s) => s.run(kernel),
            #[cfg(target_arch = "aarch64")]
            Level::NeonDotprod(s) if K::INTEGER => s.run(kernel),
            #[cfg(target_arch = "aarch64")]
            Level::NeonDotprod(s) => s.without_dotprod().run(kernel),
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Level::Simd128(s) => s.run(kernel),
        }
    }
}

/// Writes trait methods whose bodies may use the vector instructions of the level `Self`.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! vector_methods {
    ($(fn $name:ident($self:ident $(, $arg:ident : $ty:ty)* $(,)?) $(-> $ret:ty)? $body:block)*) => {$(
        #[inline(always)]
        fn $name($self $(, $arg: $ty)*) $(-> $ret)? {
            // SAFETY: `self` is a token, so this machine has the instructions. Memory is reached only
            // through the array references among the arguments, for as many bytes as the array has, and
            // by instructions that accept any address.
            unsafe { $body }
        }
    )*};
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use vector_methods;
