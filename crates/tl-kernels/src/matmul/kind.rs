//! The names of the algorithms for matrix products.

use std::fmt;

use ternary_core::ActMode;

use crate::simd::{GROUP_ROWS, TILE};

/// An algorithm for matrix products, independent of the level that runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KernelKind {
    /// Dense weights, widened to F32 and multiplied with F32 activations, or multiplied as integers with INT8 ones.
    Dense,
    /// Ternary codes unpacked from the layout of the file and multiplied with INT8 activations (or F32 ones).
    I2s,
    /// The same codes in tiles of 32 rows, in an arena that is written at load.
    Tiles,
    /// Two ternary weights per look-up in a table of activation sums, in a layout made at load.
    Tl1,
    /// Three ternary weights per look-up and sign, in a layout made at load.
    Tl2,
}

impl KernelKind {
    /// Every kernel; of those for ternary weights the default comes first.
    pub const ALL: [KernelKind; 5] =
        [KernelKind::Dense, KernelKind::I2s, KernelKind::Tiles, KernelKind::Tl1, KernelKind::Tl2];

    /// The name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            KernelKind::Dense => "dense",
            KernelKind::I2s => "I2_S",
            KernelKind::Tiles => "I2_S tiles",
            KernelKind::Tl1 => "TL1",
            KernelKind::Tl2 => "TL2",
        }
    }

    /// Rows that the kernel computes together; a piece of a work list is made of whole groups.
    pub(crate) fn group_rows(self) -> usize {
        match self {
            KernelKind::Dense => 16,
            KernelKind::I2s | KernelKind::Tiles => TILE,
            KernelKind::Tl1 | KernelKind::Tl2 => GROUP_ROWS,
        }
    }

    /// Whether the kernel reads weights in a layout of its own, which takes memory and is made at load.
    #[must_use]
    pub fn needs_layout(self) -> bool {
        matches!(self, KernelKind::Tiles | KernelKind::Tl1 | KernelKind::Tl2)
    }

    /// Whether the kernel multiplies ternary weights with activations of this precision.
    #[must_use]
    pub fn takes(self, mode: ActMode) -> bool {
        match self {
            KernelKind::Dense => false,
            KernelKind::I2s => true,
            KernelKind::Tiles | KernelKind::Tl1 | KernelKind::Tl2 => mode != ActMode::F32,
        }
    }
}

impl fmt::Display for KernelKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
