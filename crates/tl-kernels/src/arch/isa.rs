//! The instruction set levels that exist, and their names.

use std::fmt;

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
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
