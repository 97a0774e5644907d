//! `bitnet distill`: trains the trits of a student too.

use anyhow::Result;
use rlm_refine::train::Group;

use super::training;
use crate::args::{ShardArgs, TrainingArgs, share};

/// The options of a run through whole models.
const END_TO_END: [&str; 16] = [
    "max_memory",
    "artifact",
    "reward",
    "router_loss",
    "train",
    "optimizer",
    "windows_at_a_time",
    "ce",
    "repair_routers",
    "ewc",
    "grpo",
    "checkpoint_steps",
    "eval_steps",
    "lessons",
    "log",
    "soft",
];

/// Train the trits of a student too.
///
/// They are rounded in every pass from latent weights, which start near the teacher's. With --sequential each routed expert learns
/// by itself to compute what the teacher's does; --tokens, --steps and --windows then count what the models read, of which an expert
/// sees its share.
///
/// It may be interrupted at any time: the same command continues and ends with the same bytes.
#[derive(clap::Args)]
#[command(mut_arg("out", |out| out.required(false).required_unless_present("shard").conflicts_with("shard")))]
#[command(mut_arg("shard", |shard| shard.requires("sequential")))]
pub(crate) struct Args {
    #[command(flatten)]
    training: TrainingArgs,
    /// The share of the run over which latent weights become trits; 0 rounds them from the first step on
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = share)]
    soft: f32,
    /// Train the routed experts one after the other on their recorded inputs, in place of the whole model end to end
    #[arg(long, conflicts_with_all = END_TO_END)]
    sequential: bool,
    #[command(flatten)]
    shard: ShardArgs,
}

/// The groups that are trained unless the options say otherwise.
const GROUPS: [Group; 4] = [Group::Scales, Group::Norms, Group::SharedExperts, Group::LatentTrits];

pub(crate) fn execute(args: &Args) -> Result<()> {
    if args.sequential {
        return training::run_sequential(&args.training, &args.shard);
    }
    training::run(&args.training, args.training.options(&GROUPS, args.soft), None)
}
