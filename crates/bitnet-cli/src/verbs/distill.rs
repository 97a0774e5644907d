//! `bitnet distill`: trains the trits of a student too.

use anyhow::Result;
use rlm_refine::train::Group;

use super::training;
use crate::args::{TrainingArgs, share};

/// Train the trits of a student too.
///
/// They are rounded in every pass from latent weights, which start near the teacher's.
///
/// It may be interrupted at any time: the same command continues and ends with the same bytes.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    training: TrainingArgs,
    /// The share of the run over which latent weights become trits; 0 rounds them from the first step on
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    soft: f32,
}

/// The groups that are trained unless the options say otherwise.
const GROUPS: [Group; 4] = [Group::Scales, Group::Norms, Group::SharedExperts, Group::LatentTrits];

pub(crate) fn execute(args: &Args) -> Result<()> {
    training::run(&args.training, args.training.options(&GROUPS, args.soft))
}
