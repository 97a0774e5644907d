//! `bitnet eval fidelity`: compares a student with its teacher on a text, or gives the perplexity of one model.

use std::collections::HashSet;

use anyhow::{Result, bail};
use behavior_eval::fidelity::{Fidelity, FidelityConfig, Perplexity, TextReport};
use behavior_eval::stats::Share;
use clap::builder::NonEmptyStringValueParser;
use gguf_bitnet::Array;
use rlm_refine::ptq::{CALIBRATION_SPANS, SPAN_TOKENS, spans};

use super::part::{self, Task};
use super::scored::{Scored, Scoring, explain};
use crate::args::{Act, AdapterArgs, AllowZero, FfnAct, Kv, ShardArgs, Threads, precision, whole};
use crate::load;
use crate::output::{self, Progress};

/// Fewest tokens of a window that leave positions to score.
const MIN_WINDOW: u64 = 4;

/// Compare a student with its teacher on a text; with one model only, its perplexity.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The teacher: model directory, GGUF file, or name in the local Hugging Face cache
    #[arg(long, required_unless_present = "student", value_name = "MODEL", value_parser = NonEmptyStringValueParser::new())]
    teacher: Option<String>,
    /// The student, named in the same way
    #[arg(long, value_name = "MODEL", value_parser = NonEmptyStringValueParser::new())]
    student: Option<String>,
    /// A file with the text; `-` is standard input
    #[arg(long, value_name = "FILE", value_parser = NonEmptyStringValueParser::new())]
    text: String,
    /// Tokens per window, of which the second half is scored
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = whole::<usize>(MIN_WINDOW..=u64::MAX))]
    n_ctx: usize,
    /// Score only the first N windows
    #[arg(long, value_name = "N", value_parser = whole::<usize>(1..=u64::MAX))]
    windows: Option<usize>,
    /// Type of the activations of ternary, Q8_0 and Q6_K layers (default: as the model was trained, else f32)
    #[arg(long, value_enum)]
    act: Option<Act>,
    #[command(flatten)]
    adapters: AdapterArgs,
    #[command(flatten)]
    ffn_act: FfnAct,
    /// Type of the numbers in the key/value cache
    #[arg(long, value_enum, default_value = "f32")]
    kv: Kv,
    /// Print all figures as JSON
    #[arg(long, conflicts_with = "shard")]
    json: bool,
    #[command(flatten)]
    shard: ShardArgs,
    /// Replace an existing part
    #[arg(long, requires = "shard")]
    force: bool,
    #[command(flatten)]
    zero: AllowZero,
    #[command(flatten)]
    threads: Threads,
}

impl Args {
    fn scoring<'a>(&self, adapters: &'a AdapterArgs) -> Scoring<'a> {
        let Args { act, ffn_act, kv, zero, n_ctx, .. } = *self;
        Scoring { act, ffn_act, kv, zero, n_ctx, adapters }
    }
}

pub(super) fn execute(args: &Args) -> Result<()> {
    if let Some((_, part)) = args.shard.given() {
        gguf_bitnet::Job::check(part, args.force)?;
    }
    let text = load::read_text(&args.text)?;
    let pool = args.threads.pool()?;
    let mut models = Vec::new();
    let (none, adapters) = (AdapterArgs::default(), &args.adapters);
    // Adapters belong to the student, or to the only model.
    let of_teacher = if args.student.is_some() { &none } else { adapters };
    for (spec, adapters) in [(&args.teacher, of_teacher), (&args.student, adapters)] {
        let Some(spec) = spec else { continue };
        models.push(Scored::open(spec, &args.scoring(adapters), &text, pool.clone())?);
    }
    if let [teacher, student] = &models[..]
        && (&teacher.tokens, &teacher.prefix) != (&student.tokens, &student.prefix)
    {
        bail!("teacher and student cut the text into different tokens: they cannot be compared position by position");
    }
    for (spec, model) in [&args.teacher, &args.student].into_iter().flatten().zip(&models) {
        ensure_unseen(spec, model, &args.text)?;
    }
    let config = FidelityConfig {
        n_ctx: args.n_ctx,
        prefix: models.first().map(|m| m.prefix.clone()).unwrap_or_default(),
        max_windows: args.windows,
    };
    if let Some((shard, part)) = args.shard.given() {
        let settings = precision(args.act, args.kv, args.ffn_act);
        return part::write(&Task { shard, part, force: args.force, settings }, &mut models, &config);
    }
    let progress = Progress::items("windows");
    let mut show = |done, n| progress.show(done as u64, n as u64);
    match &mut models[..] {
        [teacher, student] => {
            let report = behavior_eval::fidelity::compare(
                &mut teacher.scorer,
                &mut student.scorer,
                &teacher.tokens,
                &config,
                &mut show,
            )
            .map_err(|error| explain(error, &[&teacher.files, &student.files]))?;
            drop(progress);
            if args.json { output::json(&report) } else { output::line(fidelity_text(&report)) }
        }
        [model] => {
            let report = behavior_eval::fidelity::perplexity(&mut model.scorer, &model.tokens, &config, &mut show)
                .map_err(|error| explain(error, &[&model.files]))?;
            drop(progress);
            if args.json { output::json(&report) } else { output::line(perplexity_text(&report)) }
        }
        _ => bail!("give --teacher, --student or both"),
    }
}

/// Refuses a text that the model was calibrated on: its figures would flatter the model.
fn ensure_unseen(spec: &str, model: &Scored, text: &str) -> Result<()> {
    let Some(file) = model.files.gguf() else { return Ok(()) };
    let Some(Array::U64(calibrated)) = file.metadata().array(CALIBRATION_SPANS)? else { return Ok(()) };
    let calibrated: HashSet<u64> = calibrated.iter().copied().collect();
    let shared = spans(&model.tokens).iter().filter(|span| calibrated.contains(span)).count();
    if shared > 0 {
        bail!(
            "{spec} was calibrated on parts of {text}: {shared} runs of {SPAN_TOKENS} tokens occur in both; \
             measure on another text, or calibrate with --exclude {text}"
        );
    }
    Ok(())
}

fn percent(share: &Share) -> String {
    format!("{:.2} % [{:.2}, {:.2}]", 100.0 * share.value, 100.0 * share.low95, 100.0 * share.high95)
}

fn perplexity_line(name: &str, p: &Perplexity) -> String {
    let (ppl, se) = (p.perplexity.value, p.perplexity.standard_error);
    format!("{name:<22} {ppl:.4} ± {se:.4}   top-1 right {}", percent(&p.top1_accuracy))
}

fn perplexity_text(report: &TextReport<Perplexity>) -> String {
    format!(
        "{} tokens of text, {} windows of {}, {} predictions\n{}",
        report.text_tokens,
        report.windows,
        report.n_ctx,
        report.predictions,
        perplexity_line("perplexity", &report.figures)
    )
}

fn fidelity_text(report: &TextReport<Fidelity>) -> String {
    let f = &report.figures;
    let lines = [
        format!(
            "{} tokens of text, {} windows of {}, {} predictions",
            report.text_tokens, report.windows, report.n_ctx, report.predictions
        ),
        perplexity_line("teacher perplexity", &f.teacher),
        perplexity_line("student perplexity", &f.student),
        format!("{:<22} {:.5} ± {:.5}", "ln(student / teacher)", f.ln_ratio.value, f.ln_ratio.standard_error),
        format!(
            "{:<22} mean {:.5} ± {:.5}   median {:.5}   90 % {:.5}   99 % {:.5}   99.9 % {:.5}",
            "KL divergence", f.kl.mean.value, f.kl.mean.standard_error, f.kl.median, f.kl.p90, f.kl.p99, f.kl.p999
        ),
        format!("{:<22} {:.4} ± {:.4}", "RMS of delta p", f.rms_delta_p.value, f.rms_delta_p.standard_error),
        format!("{:<22} {}", "same top-1", percent(&f.same_top1)),
        format!("{:<22} {} lost, {} gained ({})", "flips", f.flips.lost, f.flips.gained, percent(&f.flips.share)),
    ];
    lines.join("\n")
}
