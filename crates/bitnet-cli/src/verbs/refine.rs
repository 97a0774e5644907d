//! `bitnet refine`: trains what is small of a student, its trits frozen, to predict as its teacher does.

use anyhow::Result;
use rlm_refine::train::Group;

use super::training;
use crate::args::TrainingArgs;

/// Train what is small of a student towards its teacher; its trits stay.
///
/// Scales, norms and shared experts learn to predict as the teacher does, end to end.
///
/// It may be interrupted at any time: the same command continues and ends with the same bytes.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    training: TrainingArgs,
}

/// The groups that are trained unless the options say otherwise. Training the router by divergence alone costs routing agreement.
const GROUPS: [Group; 3] = [Group::Scales, Group::Norms, Group::SharedExperts];

pub(crate) fn execute(args: &Args) -> Result<()> {
    training::run(&args.training, args.training.options(&GROUPS, 0.0))
}
