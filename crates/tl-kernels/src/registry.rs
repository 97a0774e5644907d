//! Which kernels exist: by type of the weights, instruction set level and precision of the activations.
//!
//! | weights | activations | kernels, the default first |
//! |---|---|---|
//! | dense | F32 | dense |
//! | ternary | F32 | I2_S |
//! | ternary | INT8 | I2_S, I2_S tiles, TL1, TL2 |
//!
//! Each of them exists on every level.
//!
//! **Invariant:** every kernel listed for a type gives the same bits. Which one runs is a question of speed.

use std::fmt;

use ternary_core::{ActMode, Packing};

use crate::arch::lut::GROUP_ROWS;
use crate::format::DenseType;
use crate::isa::Isa;
use crate::tile::TILE;

/// An algorithm for matrix products, on whichever level it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KernelKind {
    /// Dense weights: widened to F32 on their way into fused multiply-adds, or with INT8 activations multiplied as integers.
    Dense,
    /// Ternary codes unpacked from the layout of the file and multiplied with INT8 activations (or F32 ones).
    I2s,
    /// The same codes in tiles of 32 rows, in an arena written at load.
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

/// The kernels that a machine can run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelRegistry {
    levels: Vec<Isa>,
}

impl KernelRegistry {
    /// The kernels of this machine up to the level in force ([`Isa::current`]).
    #[must_use]
    pub fn current() -> KernelRegistry {
        KernelRegistry::up_to(Isa::current())
    }

    /// The kernels of this machine up to a level.
    #[must_use]
    pub fn up_to(highest: Isa) -> KernelRegistry {
        let levels = std::iter::successors(Some(highest), |isa| isa.lower());
        KernelRegistry { levels: levels.filter(|isa| isa.is_supported()).collect() }
    }

    /// Their levels, the highest first.
    #[must_use]
    pub fn levels(&self) -> &[Isa] {
        &self.levels
    }

    /// The types of weights that kernels read as they are.
    pub fn weight_types() -> impl Iterator<Item = &'static str> {
        DenseType::ALL.into_iter().map(DenseType::name).chain(Packing::ALL.into_iter().map(Packing::name))
    }

    /// The kernels for weights of the type called `weights` and these activations, the default first.
    pub fn kernels(&self, weights: &str, mode: ActMode) -> impl Iterator<Item = KernelKind> + use<> {
        let ternary = Packing::ALL.iter().any(|packing| packing.name() == weights);
        let dense = DenseType::ALL.iter().any(|ty| ty.name() == weights);
        KernelKind::ALL
            .into_iter()
            .filter(move |kernel| if ternary { kernel.takes(mode) } else { dense && *kernel == KernelKind::Dense })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_its_kernels() {
        use KernelKind::{Dense, I2s, Tiles, Tl1, Tl2};
        let registry = KernelRegistry::current();
        for (weights, mode, expected) in [
            ("TQ2_0", ActMode::A8Block, vec![I2s, Tiles, Tl1, Tl2]),
            ("TQ1_0", ActMode::A8Token, vec![I2s, Tiles, Tl1, Tl2]),
            ("BITNET_T158", ActMode::F32, vec![I2s]),
            ("F16", ActMode::F32, vec![Dense]),
            ("Q6_K", ActMode::A8Block, vec![Dense]),
            ("Q4_K", ActMode::A8Block, vec![]),
        ] {
            assert_eq!(registry.kernels(weights, mode).collect::<Vec<_>>(), expected, "{weights} {mode:?}");
        }
        let types: Vec<_> = KernelRegistry::weight_types().collect();
        assert!(types.contains(&"F32") && types.contains(&"TQ1_0"));
    }

    #[test]
    fn levels_end_at_the_scalar_one_and_start_where_asked() {
        assert_eq!(KernelRegistry::up_to(Isa::Scalar).levels(), [Isa::Scalar]);
        let all = KernelRegistry::up_to(Isa::detect());
        assert_eq!(all.levels().first(), Some(&Isa::detect()));
        assert_eq!(all.levels().last(), Some(&Isa::Scalar));
    }
}
