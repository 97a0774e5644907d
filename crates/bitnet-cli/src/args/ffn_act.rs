//! `--ffn-act`: the function inside feed-forward parts, for files that do not name the right one.

use clap::ValueEnum;
use moe_runtime::ModelFiles;
use moe_runtime::models::Activation;

#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct FfnAct {
    /// Function on the gates of feed-forward parts, in place of the one that the model's files name or leave open
    #[arg(long, value_enum, value_name = "NAME")]
    ffn_act: Option<Name>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Name {
    /// The square of the positive part: BitNet b1.58 2B4T
    Relu2,
    /// x / (1 + exp(-x))
    Silu,
}

impl FfnAct {
    /// The function in place of the model's own.
    pub(super) fn asked(self) -> Option<Name> {
        self.ffn_act
    }

    /// Gives the model the function that was asked for.
    pub(crate) fn apply(self, files: &mut ModelFiles) {
        match self.ffn_act {
            None => {}
            Some(Name::Relu2) => files.config.set_activation(Activation::SquaredRelu),
            Some(Name::Silu) => files.config.set_activation(Activation::Silu),
        }
    }
}
