//! The named choices of types.

use gguf_bitnet::{TensorClass, TensorType};

/// A named choice of types; sizes are for GLM-4.7-Flash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Preset {
    /// 9.48 GB: everything but routed experts at Q8_0.
    Quality,
    /// 8.98 GB: everything but routed experts at Q6_K.
    #[default]
    Balanced,
    /// 7.68 GB: five trits per byte and Q6_K, for machines with 8 GB.
    EightGigabytes,
    /// 10.7 GB, the layout of phase 1: experts ternary, everything else F16.
    Phase1,
    /// 9.02 GB, the layout of phase 2, for which the speed targets are stated: every linear layer ternary.
    Phase2,
}

impl Preset {
    /// Every preset with its name on the command line and in metadata.
    pub const ALL: [(&'static str, Preset); 5] = [
        ("quality", Preset::Quality),
        ("balanced", Preset::Balanced),
        ("8g", Preset::EightGigabytes),
        ("phase1", Preset::Phase1),
        ("phase2", Preset::Phase2),
    ];

    /// The name on the command line and in metadata.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, preset)| *preset == self).expect("ALL lists every preset").0
    }

    /// The type the preset wants for a matrix of `class`, before the length of its rows is known.
    pub(super) fn wants(self, class: TensorClass) -> TensorType {
        use TensorClass as C;
        use TensorType::{F16, Q6K, Q8_0, Tq1_0, Tq2_0};
        match (self, class) {
            (Preset::EightGigabytes, C::RoutedExpert) => Tq1_0,
            (_, C::RoutedExpert) => Tq2_0,
            (Preset::Phase1 | Preset::Phase2, C::SharedExpert) => Tq2_0,
            (Preset::Phase2, C::DenseFfn | C::Attention) => Tq2_0,
            (Preset::Phase2, C::AttentionKb | C::AttentionVb) => Q8_0,
            (Preset::Phase1 | Preset::Phase2, _) => F16,
            (Preset::Quality, _) => Q8_0,
            (Preset::Balanced | Preset::EightGigabytes, _) => Q6K,
        }
    }
}
