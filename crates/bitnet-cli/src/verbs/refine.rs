//! `bitnet refine`: trains what is small of a student, its trits frozen, to predict as its teacher does.

use std::path::PathBuf;

use anyhow::Result;
use rlm_refine::train::Group;

use super::training::{self, AdapterStart};
use crate::args::{TrainingArgs, path_not_stream, whole};
use crate::exit::UsageError;

const ADAPTER: &str = "an adapter is mapped from a file: write its name";

/// Train what is small of a student towards its teacher; its trits stay.
///
/// Scales, norms and shared experts learn to predict as the teacher does, end to end. With --train adapter, an adapter does so
/// in their place: the student stays as it is, and --out is an adapter for it. With --train sidecar, the adapter corrects the
/// residual stream beside the feed-forward part of each layer.
///
/// It may be interrupted at any time: the same command continues and ends with the same bytes.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    training: TrainingArgs,
    /// Train this adapter of the student further, as one that `bitnet adapt` made
    #[arg(long, value_name = "FILE", conflicts_with = "rank", value_parser = path_not_stream(ADAPTER))]
    adapter: Option<PathBuf>,
    /// The rank of an adapter that starts from nothing (--train adapter or sidecar without --adapter) [default: 1, of sidecars 32]
    #[arg(long, value_name = "R", value_parser = whole::<usize>(1..=64))]
    rank: Option<usize>,
}

/// The groups that are trained unless the options say otherwise. Training the router by divergence alone costs routing agreement.
const GROUPS: [Group; 3] = [Group::Scales, Group::Norms, Group::SharedExperts];

pub(crate) fn execute(args: &Args) -> Result<()> {
    let options = args.training.options(&GROUPS, 0.0);
    let start = match (&args.adapter, args.rank) {
        (Some(path), _) => Some(AdapterStart::From(path)),
        (None, rank) if options.groups.iter().any(|group| group.is_of_adapter()) => {
            Some(AdapterStart::Blank { groups: options.groups.clone(), rank })
        }
        (None, Some(_)) => {
            let text = "--rank is that of an adapter: train one with --train adapter or --train sidecar";
            return Err(UsageError::new(text).into());
        }
        (None, None) => None,
    };
    training::run(&args.training, options, start)
}
