//! `bitnet eval fidelity`: compares a student with its teacher on a text, or gives the perplexity of one model.

use std::collections::HashSet;
use std::sync::Arc;

use anyhow::{Error, Result, bail};
use behavior_eval::fidelity::{Fidelity, FidelityConfig, FidelityError, Perplexity, TextReport};
use behavior_eval::stats::Share;
use clap::builder::NonEmptyStringValueParser;
use gguf_bitnet::Array;
use moe_runtime::ModelFiles;
use rlm_refine::measure::TextScorer;
use rlm_refine::ptq::{CALIBRATION_SPANS, SPAN_TOKENS, spans};
use tl_kernels::Pool;

use crate::args::{Act, AdapterArgs, AllowZero, FfnAct, Kv, Threads, whole};
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
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    zero: AllowZero,
    #[command(flatten)]
    threads: Threads,
}

pub(super) fn execute(args: &Args) -> Result<()> {
    let text = load::read_text(&args.text)?;
    let pool = args.threads.pool()?;
    let mut models = Vec::new();
    let (none, adapters) = (AdapterArgs::default(), &args.adapters);
    // Adapters belong to the student, or to the only model.
    let of_teacher = if args.student.is_some() { &none } else { adapters };
    for (spec, adapters) in [(&args.teacher, of_teacher), (&args.student, adapters)] {
        let Some(spec) = spec else { continue };
        models.push(Scored::open(spec, args, adapters, &text, pool.clone())?);
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

/// Names the damaged tensor behind scores that are NaN or infinite.
fn explain(error: behavior_eval::Error, models: &[&ModelFiles]) -> Error {
    match error {
        behavior_eval::Error::Fidelity(FidelityError::NotFinite { .. }) => {
            models.iter().find_map(|files| load::first_defect(files))
        }
        _ => None,
    }
    .unwrap_or_else(|| error.into())
}

/// A model that scores windows, and the text in its tokens.
struct Scored {
    files: ModelFiles,
    scorer: TextScorer,
    tokens: Vec<u32>,
    /// Tokens that each window begins with.
    prefix: Vec<u32>,
}

impl Scored {
    fn open(spec: &str, args: &Args, adapters: &AdapterArgs, text: &str, pool: Arc<Pool>) -> Result<Self> {
        let mut files = load::open(spec)?;
        args.ffn_act.apply(&mut files);
        let tokenizer = files.tokenizer()?;
        if tokenizer.is_byte_fallback() {
            output::note(format_args!("warning: {spec} has no vocabulary; its text is cut into bytes"));
        }
        let guesses = files.guesses(Some(&tokenizer));
        load::note_guesses(guesses.iter().filter(|guess| !guess.is_about_chat()));
        let adapters = adapters.slot(&files)?;
        let options = load::measured(&files, args.act, args.zero.allow_zero, pool);
        let model = load::load(&files, &options)?;
        let scorer = TextScorer::new(Arc::new(model), args.n_ctx, args.kv.into())?.with_adapters(adapters);
        // A control token in a measured text is encoded as ordinary characters.
        let tokens = tokenizer.encode(text, false)?;
        Ok(Self { files, scorer, tokens, prefix: tokenizer.raw_prefix() })
    }
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
