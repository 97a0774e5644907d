//! `bitnet eval`: how good a model is, in figures.

mod trace;

use std::sync::Arc;

use anyhow::{Error, Result, bail};
use behavior_eval::fidelity::{FidelityConfig, FidelityReport, Perplexity, PerplexityReport};
use behavior_eval::model::{LanguageModel, ModelError};
use behavior_eval::stats::Share;
use clap::Subcommand;
use moe_runtime::{CraftsmanModel, ModelFiles, Session, Tokenizer};
use tl_kernels::Pool;

use crate::model::{self, Act, Kv, Threads};
use crate::output;
use crate::progress::{Unit, bar};

/// Measure a model on a text.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Fidelity(FidelityArgs),
    Trace(trace::TraceArgs),
}

/// Compare a student with its teacher on a text; with one model only, its perplexity.
#[derive(clap::Args)]
struct FidelityArgs {
    /// The teacher: model directory, GGUF file, or name in the local Hugging Face cache
    #[arg(long, required_unless_present = "student")]
    teacher: Option<String>,
    /// The student
    #[arg(long)]
    student: Option<String>,
    /// A file with the text; `-` is standard input
    #[arg(long)]
    text: String,
    /// Tokens per window, of which the second half is scored
    #[arg(long, default_value_t = 256, value_name = "N")]
    n_ctx: usize,
    /// Score only the first N windows
    #[arg(long, value_name = "N")]
    windows: Option<usize>,
    /// Activations of ternary, Q8_0 and Q6_K layers
    #[arg(long, value_enum, default_value = "f32")]
    act: Act,
    /// Numbers in the cache
    #[arg(long, value_enum, default_value = "f32")]
    kv: Kv,
    /// All figures as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    threads: Threads,
}

/// Runs the verb.
pub(crate) fn execute(args: Args) -> Result<()> {
    match args.what {
        What::Fidelity(args) => fidelity(&args),
        What::Trace(args) => trace::execute(&args),
    }
}

fn fidelity(args: &FidelityArgs) -> Result<()> {
    let text = model::read_text(&args.text)?;
    let pool = args.threads.pool()?;
    let mut models = Vec::new();
    for spec in [&args.teacher, &args.student].into_iter().flatten() {
        models.push(Scored::open(spec, args, &text, pool.clone())?);
    }
    if let [teacher, student] = &models[..]
        && (&teacher.tokens, &teacher.prefix) != (&student.tokens, &student.prefix)
    {
        bail!("teacher and student cut the text into different tokens: they cannot be compared position by position");
    }
    let config = FidelityConfig {
        n_ctx: args.n_ctx,
        prefix: models.first().map(|m| m.prefix.clone()).unwrap_or_default(),
        max_windows: args.windows,
    };
    let bar = bar(0, Unit::Items, "windows");
    let mut progress = |p: behavior_eval::fidelity::Progress| {
        bar.set_length(p.windows as u64);
        bar.set_position(p.windows_done as u64);
    };
    match &mut models[..] {
        [teacher, student] => {
            let tokens = teacher.tokens.clone();
            let report = behavior_eval::fidelity::compare(teacher, student, &tokens, &config, &mut progress)
                .map_err(|error| blame(error, &[&teacher.files, &student.files]))?;
            bar.finish_and_clear();
            if args.json { output::json(&report) } else { output::line(fidelity_text(&report)) }
        }
        [model] => {
            let tokens = model.tokens.clone();
            let report = behavior_eval::fidelity::perplexity(model, &tokens, &config, &mut progress)
                .map_err(|error| blame(error, &[&model.files]))?;
            bar.finish_and_clear();
            if args.json { output::json(&report) } else { output::line(perplexity_text(&report)) }
        }
        _ => bail!("give --teacher, --student or both"),
    }
}

/// Names the tensor behind scores that are no numbers.
fn blame(error: behavior_eval::Error, models: &[&ModelFiles]) -> Error {
    match error {
        behavior_eval::Error::NotFinite { .. } => models.iter().find_map(|files| model::blame(files)),
        _ => None,
    }
    .unwrap_or_else(|| error.into())
}

/// A model that scores windows, and the text as it reads it.
struct Scored {
    files: ModelFiles,
    session: Session,
    model: Arc<CraftsmanModel>,
    tokens: Vec<u32>,
    prefix: Vec<u32>,
}

impl Scored {
    fn open(spec: &str, args: &FidelityArgs, text: &str, pool: Arc<Pool>) -> Result<Self> {
        let files: ModelFiles = model::open(spec)?;
        let tokenizer: Tokenizer = files.tokenizer()?;
        if tokenizer.is_byte_fallback() {
            output::note(format_args!("warning: {spec} has no vocabulary; its text is cut into bytes"));
        }
        let model = model::load(&files, args.act, pool)?;
        // Whole windows at a time: larger batches run faster and give the same bits.
        let session = Session::new(model.clone(), args.n_ctx, args.kv.into())?.with_chunk(args.n_ctx.min(256));
        // Control tokens in a text under test are words, not control.
        let tokens = tokenizer.encode(text, false)?;
        Ok(Self { files, session, model, tokens, prefix: tokenizer.raw_prefix() })
    }
}

impl LanguageModel for Scored {
    fn vocab_size(&self) -> usize {
        self.model.config().vocab
    }

    fn logits(&mut self, tokens: &[u32], from: usize, out: &mut dyn FnMut(usize, &[f32])) -> Result<(), ModelError> {
        self.session.reset();
        self.session.step_rows(tokens, from, &mut (), &mut |position, row| {
            out(position, row);
            Ok(())
        })?;
        Ok(())
    }
}

fn percent(share: &Share) -> String {
    format!("{:.2} % [{:.2}, {:.2}]", 100.0 * share.value, 100.0 * share.low95, 100.0 * share.high95)
}

fn perplexity_line(name: &str, p: &Perplexity) -> String {
    let (ppl, se) = (p.perplexity.value, p.perplexity.standard_error);
    format!("{name:<22} {ppl:.4} ± {se:.4}   top-1 right {}", percent(&p.top1_accuracy))
}

fn perplexity_text(report: &PerplexityReport) -> String {
    format!(
        "{} tokens of text, {} windows of {}, {} predictions\n{}",
        report.text_tokens,
        report.windows,
        report.n_ctx,
        report.predictions,
        perplexity_line("perplexity", &report.figures)
    )
}

fn fidelity_text(report: &FidelityReport) -> String {
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
