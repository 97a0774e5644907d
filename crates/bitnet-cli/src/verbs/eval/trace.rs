//! `bitnet eval trace`: the figures of one trace, or the difference of two.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use behavior_eval::gates::GateError;
use behavior_eval::records::trace::{PromptDiff, TraceDiff, TraceReader, TraceSummary, diff, summarize};
use behavior_eval::stats::Share;
use gguf_bitnet::open_regular;

use crate::exit::UsageError;
use crate::output;

/// Prompts that the text names; `--json` has all.
const SHOWN: usize = 10;

/// Sum up a trace of a gate run, or compare two of the same suite and teacher.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The trace: JSON lines; `-` is standard input
    trace: PathBuf,
    /// A second trace, to show the changes from the first to it
    second: Option<PathBuf>,
    /// Print all figures as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn execute(args: &Args) -> Result<()> {
    if is_stream(&args.trace) && args.second.as_deref().is_some_and(is_stream) {
        return Err(UsageError::new("standard input holds one trace: name a file for the other").into());
    }
    let first = open(&args.trace)?;
    match &args.second {
        None => {
            let summary = summarize(first).map_err(|error| match error {
                behavior_eval::Error::Gates(GateError::NoCases) => {
                    anyhow!("{}: the trace has no lines", name(&args.trace).display())
                }
                error => error.into(),
            })?;
            if args.json { output::json(&summary) } else { output::line(summary_text(&summary)) }
        }
        Some(second) => {
            let diff = diff(first, open(second)?)?;
            if args.json { output::json(&diff) } else { output::line(diff_text(&diff)) }
        }
    }
}

/// Whether the name stands for standard input.
fn is_stream(path: &Path) -> bool {
    path == Path::new("-")
}

/// The name of a trace in a sentence.
fn name(path: &Path) -> &Path {
    if is_stream(path) { Path::new("standard input") } else { path }
}

/// Opens a trace, or standard input for `-`.
fn open(path: &Path) -> Result<TraceReader<Box<dyn BufRead>>> {
    let lines: Box<dyn BufRead> = match is_stream(path) {
        true => Box::new(std::io::stdin().lock()),
        false => Box::new(BufReader::new(open_regular(path)?)),
    };
    Ok(TraceReader::new(lines, name(path)))
}

fn percent(share: &Share) -> String {
    format!("{:.2} % ({} of {})", 100.0 * share.value, share.count, share.n)
}

fn summary_text(summary: &TraceSummary) -> String {
    let routing = &summary.routing;
    let mut lines = vec![
        format!("{} lines, {} prompts", summary.records, summary.prompts.len()),
        format!(
            "routing agreement {}   overlap {:.4}   mass {:.4}   same heaviest expert {}",
            percent(&routing.agreement),
            routing.overlap,
            routing.mass,
            percent(&routing.top1)
        ),
    ];
    for layer in &summary.layers {
        lines.push(format!("  layer {:<3} {}", layer.layer, percent(&layer.figures.agreement)));
    }
    let mut worst: Vec<_> = summary.prompts.iter().filter(|prompt| prompt.agreement.value < 1.0).collect();
    worst.sort_by(|a, b| a.agreement.value.total_cmp(&b.agreement.value));
    for prompt in worst.iter().take(SHOWN) {
        lines.push(format!("  prompt {} {}", output::name(&prompt.prompt_id), percent(&prompt.agreement)));
    }
    let reasons: Vec<String> =
        summary.stop_reasons.iter().map(|(reason, n)| format!("{} {n}", output::name(reason))).collect();
    lines.push(format!("answers ended by: {}", reasons.join(", ")));
    lines.extend(summary.valid_citations.as_ref().map(|share| format!("valid citations {}", percent(share))));
    lines.push(format!("refusals {}", summary.refusals));
    lines
        .extend(summary.right_refusals.as_ref().map(|share| format!("refused or answered rightly {}", percent(share))));
    lines.extend(summary.coherence.map(|mean| format!("coherence {mean:.6}")));
    lines.join("\n")
}

fn diff_text(diff: &TraceDiff) -> String {
    let mut lines = vec![
        format!("{} lines compared, {} prompts", diff.compared, diff.prompts.len()),
        format!(
            "routing agreement {} -> {} ({:+.2} points)",
            percent(&diff.first_agreement),
            percent(&diff.second_agreement),
            100.0 * diff.agreement_change
        ),
        format!("{} lost, {} gained, {} with other experts than before", diff.lost, diff.gained, diff.rerouted),
        format!("valid citations {:+}", diff.valid_citations_change),
    ];
    for (what, prompts) in [("newly refused", &diff.newly_refused), ("newly answered", &diff.newly_answered)] {
        if !prompts.is_empty() {
            let more = if prompts.len() > SHOWN { ", ..." } else { "" };
            let names: Vec<String> = prompts.iter().take(SHOWN).map(|id| output::name(id)).collect();
            lines.push(format!("{what}: {}{more}", names.join(", ")));
        }
    }
    let mut moved: Vec<&PromptDiff> = diff.prompts.iter().filter(|prompt| prompt.first_divergence.is_some()).collect();
    moved.sort_by_key(|prompt| std::cmp::Reverse(prompt.lost.saturating_sub(prompt.gained)));
    for prompt in moved.iter().take(SHOWN) {
        if let Some(place) = prompt.first_divergence {
            lines.push(format!(
                "  prompt {}: differs from token {} in layer {} on, {} lost, {} gained",
                output::name(&prompt.prompt_id),
                place.token_idx,
                place.layer_idx,
                prompt.lost,
                prompt.gained
            ));
        }
    }
    lines.join("\n")
}
