//! The kernels that exist, by type of the weights, instruction set level and precision of the activations.
//!
//! | weights | activations | kernels, the default first |
//! |---|---|---|
//! | F32, F16, BF16 | F32 | dense |
//! | Q8_0, Q6_K, Q2_0 | F32 or INT8 | dense |
//! | ternary | F32 | I2_S |
//! | ternary | INT8 | I2_S, I2_S tiles, TL1, TL2 |
//!
//! Each of them runs on every level; TL1 and TL2 fall back to portable look-ups where a level has none of its own.
//!
//! **Invariant:** every kernel listed for a type gives the same bits, so the choice changes speed alone.

use ternary_core::{ActMode, Packing};

use crate::arch::Isa;
use crate::matmul::{DenseType, KernelKind};

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
            ("Q2_0", ActMode::A8Token, vec![Dense]),
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
