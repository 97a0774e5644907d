//! `--preset`, `--ternary` and `--tensor-type`: which type each tensor gets, for `quantize` and `synth`.

use clap::ValueEnum;
use gguf_bitnet::TensorType;
use rlm_refine::{Override, Preset, Recipe, Ternary};

#[derive(clap::Args)]
pub(crate) struct RecipeArgs {
    /// Starting point of the types; balanced where none is given
    #[arg(long, value_enum)]
    preset: Option<PresetName>,
    /// The ternary type in place of the preset's; `none` makes every matrix F16
    #[arg(long, value_enum)]
    ternary: Option<TernaryName>,
    /// Exceptions, for example 'blk\.0\..*=Q8_0'; the last match wins
    #[arg(long = "tensor-type", value_name = "REGEX=TYPE", value_parser = Override::parse)]
    tensor_types: Vec<Override>,
}

#[derive(Clone, Copy, ValueEnum)]
enum PresetName {
    /// 9.48 GB for GLM-4.7-Flash: all but routed experts at Q8_0
    Quality,
    /// 8.98 GB: all but routed experts at Q6_K
    Balanced,
    /// 7.68 GB: five trits per byte, the rest at Q6_K
    #[value(name = "8g")]
    EightGigabytes,
    /// 10.7 GB: experts ternary, all else F16
    Phase1,
    /// 9.02 GB: every linear layer ternary, embedding and head F16
    Phase2,
}

#[derive(Clone, Copy, ValueEnum)]
enum TernaryName {
    /// 2.0625 bits per weight
    #[value(name = "tq2_0")]
    Tq2_0,
    /// 1.6875 bits per weight
    #[value(name = "tq1_0")]
    Tq1_0,
    /// 2.25 bits per weight, blocks of 64 for rows that are no multiple of 256
    #[value(name = "q2_0")]
    Q2_0,
    /// 2.0625 bits per weight, a type of our own that other engines refuse
    BitnetT158,
    /// No ternary tensor at all
    None,
}

impl RecipeArgs {
    /// The first of these options that was given.
    pub(crate) fn given(&self) -> Option<&'static str> {
        let given = [
            ("--preset", self.preset.is_some()),
            ("--ternary", self.ternary.is_some()),
            ("--tensor-type", !self.tensor_types.is_empty()),
        ];
        given.into_iter().find(|(_, is_given)| *is_given).map(|(option, _)| option)
    }

    /// The recipe that these options describe.
    pub(crate) fn recipe(&self) -> Recipe {
        let preset = match self.preset.unwrap_or(PresetName::Balanced) {
            PresetName::Quality => Preset::Quality,
            PresetName::Balanced => Preset::Balanced,
            PresetName::EightGigabytes => Preset::EightGigabytes,
            PresetName::Phase1 => Preset::Phase1,
            PresetName::Phase2 => Preset::Phase2,
        };
        let ternary = match self.ternary {
            Option::None => Ternary::Preset,
            Some(TernaryName::Tq2_0) => Ternary::Packed(TensorType::Tq2_0),
            Some(TernaryName::Tq1_0) => Ternary::Packed(TensorType::Tq1_0),
            Some(TernaryName::Q2_0) => Ternary::Packed(TensorType::Q2_0),
            Some(TernaryName::BitnetT158) => Ternary::Packed(TensorType::BitnetT158),
            Some(TernaryName::None) => Ternary::None,
        };
        Recipe { preset, ternary, overrides: self.tensor_types.clone(), ..Recipe::default() }
    }
}
