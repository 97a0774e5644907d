//! The run behind `distill --sequential`, with its progress and its report.

use anyhow::Result;
use gguf_bitnet::{Job, Shard, peak_rss_bytes};
use rlm_refine::train::{DistilledExpert, SequentialExpertDistiller, SequentialProgress, SequentialReport};
use serde_json::json;

use super::usage_of_source;
use crate::args::{ShardArgs, TrainingArgs};
use crate::exit::UsageError;
use crate::load;
use crate::output::{self, Progress, size};

/// Trains the experts one after the other, or those of the layers of a shard.
pub(in crate::verbs) fn run(args: &TrainingArgs, shard: &ShardArgs) -> Result<()> {
    let (shard, part) = shard.given().unzip();
    let out = part.unwrap_or(args.out());
    let options = args.sequential();
    if options.steps == 0 {
        return Err(UsageError::new("--steps 0 trains nothing").into());
    }
    Job::check(out, args.force)?;
    let student = load::open(&args.model.model)?;
    let pool = args.threads.pool()?;
    // The options demand a teacher and texts.
    let teacher = load::open(args.teacher.as_deref().unwrap_or_default())?;
    let calibration = args.windows(&student, &pool)?;
    let distiller = SequentialExpertDistiller::new(&student, &teacher, &calibration, options, &pool);
    let mut progress: Option<Progress> = None;
    let report = distiller.run(out, shard, args.force, &mut |news| match news {
        SequentialProgress::Hash(done, total) => {
            progress.get_or_insert_with(|| Progress::bytes("reading both models")).show(done, total);
        }
        SequentialProgress::Expert(expert) => {
            let layers = student.config.n_layers as u64;
            if expert.expert == 0 {
                progress = Some(Progress::items("layers"));
            }
            if let Some(progress) = &progress {
                progress.show(expert.layer as u64 + 1, layers);
            }
        }
        _ => {}
    });
    let report = report.map_err(usage_of_source)?;
    drop(progress);
    if args.json {
        let texts = &calibration.sources;
        return output::json(&json!({
            "out": out, "report": report, "texts": texts, "peak_rss_bytes": peak_rss_bytes(),
        }));
    }
    output::line(summary(&report))?;
    let peak = peak_rss_bytes().map_or_else(String::new, |bytes| format!(", peak memory {}", size(bytes)));
    let (out, size) = (out.display(), size(report.output_bytes));
    match shard.map(Shard::of) {
        None => output::line(format_args!("wrote and verified {out} ({size}{peak})")),
        Some(of) => output::line(format_args!("wrote the part {out} (of {of}{peak}); join all with `bitnet merge`")),
    }
}

/// The experts in a few lines.
fn summary(report: &SequentialReport) -> String {
    let kept: Vec<&DistilledExpert> = report.experts.iter().filter(|expert| expert.is_kept).collect();
    let mean =
        |of: &dyn Fn(&DistilledExpert) -> f64| kept.iter().map(|expert| of(expert)).sum::<f64>() / kept.len() as f64;
    let mut text = format!("{} experts trained, {} of them kept", report.experts.len(), kept.len());
    if !kept.is_empty() {
        let [before, after] = [0, 1].map(|i| mean(&|expert| expert.error.map_or(0.0, |error| error[i])));
        text += &format!(
            "\nrelative squared error of their outputs on held-out tokens: {before:.5} before, {after:.5} after\ntrits changed: {:.2} %",
            100.0 * mean(&|expert| expert.changed_trits)
        );
    }
    text
}
