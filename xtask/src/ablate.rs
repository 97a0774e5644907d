//! `cargo xtask ablate`: students of the mini teacher with single steps of the calibrated quantiser left out, and the table of
//! what each step buys.
//!
//! Every student is measured on the same windows of held-out text. A row's gain is the mean over windows of its divergence less
//! that of the student with all steps; its interval is that of 2,000 paired bootstrap samples of the windows. Rows whose
//! steps draw random numbers are made with several seeds and averaged window by window.
//!
//! The table replaces the part of `docs/ablations.md` between the two marks, and its rows go to `benches/record/`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::Value;

use crate::outcome::Outcome;
use crate::record::{Figure, Record};
use crate::report::{list, number};
use crate::suite::mersenne::Mersenne;
use crate::{bitnet, repo};

const BEGIN: &str = "<!-- ptq table: made by cargo xtask ablate -->";
const END: &str = "<!-- end of the ptq table -->";
/// Bootstrap samples of an interval.
const SAMPLES: usize = 2000;

/// How much to run.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Most tokens to calibrate on.
    #[arg(long, default_value_t = 16_384)]
    calibration_tokens: u32,
    /// Windows of 256 tokens of held-out text to measure on; the text has 250.
    #[arg(long, default_value_t = 48)]
    windows: u32,
    /// Random kicks per block.
    #[arg(long, default_value_t = 5)]
    kicks: u32,
    /// Students per row whose steps draw random numbers.
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// Use this binary instead of building one.
    #[arg(long)]
    bitnet: Option<PathBuf>,
}

/// A student: a method, and the steps that are left out.
struct Variant {
    title: &'static str,
    method: &'static str,
    without: &'static [&'static str],
    /// Whether its bytes depend on the seed.
    draws: bool,
}

const fn without(title: &'static str, without: &'static [&'static str]) -> Variant {
    Variant { title, method: "gptq", without, draws: true }
}

/// The first row is what the others are compared with.
const VARIANTS: [Variant; 15] = [
    without("all steps", &[]),
    Variant { title: "`absmean`, no calibration", method: "absmean", without: &[], draws: false },
    Variant { title: "`ls`, no calibration", method: "ls", without: &[], draws: false },
    without("without `token-weights`", &["token-weights"]),
    without("without `gate-weights`", &["gate-weights"]),
    without("without `shrinkage`", &["shrinkage"]),
    without("without `student-inputs`", &["student-inputs"]),
    without("without `chosen-settings`", &["chosen-settings"]),
    without("without `pooled-tokens`", &["pooled-tokens"]),
    without("without `activation-order`", &["activation-order"]),
    without("without `propagation`, `activation-order`", &["propagation", "activation-order"]),
    without("without `starts`", &["starts"]),
    without("without `joint-scales`", &["joint-scales"]),
    without("without `acceptance`", &["acceptance"]),
    Variant { title: "without `descent`, so without `kicks`", method: "gptq", without: &["descent"], draws: false },
];

/// The figures of a row, means over its seeds.
struct Row {
    title: &'static str,
    kl_by_window: Vec<f64>,
    perplexity: f64,
    same_top1: f64,
    /// Share of calibration tokens for which both routers choose the same experts, both streams running free.
    routing: Option<f64>,
    seconds: f64,
    seeds: usize,
}

impl Row {
    fn kl(&self) -> f64 {
        mean(&self.kl_by_window)
    }
}

pub(crate) fn run(args: &Args) -> Outcome {
    let bitnet = bitnet::binary(args.bitnet.as_deref(), "release")?;
    let work = repo::root().join("target/ablate");
    std::fs::create_dir_all(&work)?;
    let record = Record::open("ablate")?;
    let mut rows: Vec<Row> = Vec::new();
    for variant in &VARIANTS {
        let row = measure(args, &bitnet, &work, variant)?;
        let (low, high) = interval(&row, rows.first().unwrap_or(&row));
        let name = format!("{}: mean KL, {} tokens, {} windows", row.title, args.calibration_tokens, args.windows);
        let target = format!("less all steps: {low:.4} to {high:.4}");
        record.append(&Figure { name, value: format!("{:.5}", row.kl()), target, pass: true })?;
        repo::say(&line(&row, rows.first()));
        rows.push(row);
    }
    let document = repo::root().join("docs/ablations.md");
    let text = std::fs::read_to_string(&document)?;
    std::fs::write(&document, replaced(&text, &table(args, &rows))?)?;
    record.say()
}

/// Makes the students of a row and measures them.
fn measure(args: &Args, bitnet: &Path, work: &Path, variant: &Variant) -> Outcome<Row> {
    let fixtures = repo::root().join("fixtures");
    let path = |name: &str| bitnet::arg(&fixtures.join(name)).map(str::to_owned);
    let (teacher, heldout) = (path("craftsman-mini")?, path("texts/heldout.txt")?);
    let (prose, chats) = (path("texts/calibration.txt")?, path("texts/calibration-chat.jsonl")?);
    let student = work.join("student.gguf");
    let student = bitnet::arg(&student)?;
    let (tokens, kicks) = (args.calibration_tokens.to_string(), args.kicks.to_string());
    let windows = args.windows.to_string();
    let seeds = if variant.draws { args.seeds } else { 1 };
    let mut row = Row {
        title: variant.title,
        kl_by_window: vec![0.0; args.windows as usize],
        perplexity: 0.0,
        same_top1: 0.0,
        routing: None,
        seconds: 0.0,
        seeds: seeds as usize,
    };
    for seed in 0..seeds {
        let seed = seed.to_string();
        let mut quantize = vec!["quantize", "-m", &teacher, "-o", student, "--preset", "quality", "--force", "--json"];
        quantize.extend(["--threads", "1", "--method", variant.method]);
        if variant.method == "gptq" {
            quantize.extend(["--calibration", &prose, "--calibration", &chats, "--exclude", &heldout]);
            quantize.extend(["--calibration-tokens", &tokens, "--kicks", &kicks, "--seed", &seed]);
            quantize.extend(variant.without.iter().flat_map(|step| ["--without", step]));
        }
        let start = Instant::now();
        let made = bitnet::json(bitnet, &quantize)?;
        row.seconds += start.elapsed().as_secs_f64() / seeds as f64;
        let fidelity = ["eval", "fidelity", "--teacher", &teacher, "--student", student, "--text", &heldout];
        let found = bitnet::json(bitnet, &[&fidelity[..], &["--windows", &windows, "--json"]].concat())?;
        let share = 1.0 / seeds as f64;
        let measured: Vec<f64> = list(&found, "kl_by_window").iter().filter_map(Value::as_f64).collect();
        if measured.len() != row.kl_by_window.len() {
            return Err(format!("the report has {} windows, not {windows}", measured.len()).into());
        }
        row.kl_by_window.iter_mut().zip(measured).for_each(|(sum, kl)| *sum += share * kl);
        row.perplexity += share * number(&found, "student.perplexity.value")?;
        row.same_top1 += share * number(&found, "same_top1.value")?;
        let exact: Vec<f64> =
            list(&made, "report.layers").iter().filter_map(|l| l["routing"]["exact"].as_f64()).collect();
        if !exact.is_empty() {
            *row.routing.get_or_insert(0.0) += share * mean(&exact);
        }
    }
    Ok(row)
}

/// The 95 % interval of the mean difference between two rows.
fn interval(row: &Row, base: &Row) -> (f64, f64) {
    let differences: Vec<f64> = row.kl_by_window.iter().zip(&base.kl_by_window).map(|(a, b)| a - b).collect();
    let mut draws = Mersenne::new(1);
    let n = differences.len().max(1);
    let sample = |_| (0..n).map(|_| differences[draws.below(n)]).sum::<f64>() / n as f64;
    let mut means: Vec<f64> = (0..SAMPLES).map(sample).collect();
    means.sort_by(f64::total_cmp);
    (means[SAMPLES * 25 / 1000], means[SAMPLES * 975 / 1000 - 1])
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// A row of the table; `base` is missing for the row that the others are compared with.
fn line(row: &Row, base: Option<&Row>) -> String {
    let against = base.map_or_else(String::new, |base| {
        let (low, high) = interval(row, base);
        format!("{:+.4} ({low:+.4} to {high:+.4})", row.kl() - base.kl())
    });
    let routing = row.routing.map_or_else(String::new, |share| format!("{:.2} %", 100.0 * share));
    format!(
        "| {} | {:.4} | {against} | {:.3} | {:.2} % | {routing} | {:.0} | {} |",
        row.title,
        row.kl(),
        row.perplexity,
        100.0 * row.same_top1,
        row.seconds,
        row.seeds
    )
}

fn table(args: &Args, rows: &[Row]) -> String {
    let mut text = format!(
        "Preset `quality`, {} calibration tokens, {} kicks, the first {} windows of held-out text; seconds of wall time on one \
         thread;\nrouting on calibration tokens.\n\n",
        args.calibration_tokens, args.kicks, args.windows
    );
    text.push_str(
        "| student | mean KL | less all steps, 95 % | perplexity | same top-1 | same experts | seconds | seeds |\n",
    );
    text.push_str("|---|---|---|---|---|---|---|---|\n");
    for (i, row) in rows.iter().enumerate() {
        let _ = writeln!(text, "{}", line(row, rows.first().filter(|_| i > 0)));
    }
    text
}

/// The document with `table` between the marks.
fn replaced(document: &str, table: &str) -> Result<String, String> {
    let missing = || format!("docs/ablations.md lacks the lines `{BEGIN}` and `{END}`");
    let (head, rest) = document.split_once(BEGIN).ok_or_else(missing)?;
    let (_, tail) = rest.split_once(END).ok_or_else(missing)?;
    Ok(format!("{head}{BEGIN}\n{table}{END}{tail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(kl_by_window: Vec<f64>) -> Row {
        Row { title: "row", kl_by_window, perplexity: 1.0, same_top1: 1.0, routing: None, seconds: 0.0, seeds: 1 }
    }

    #[test]
    fn an_interval_is_that_of_the_paired_differences() {
        let base = row((0..40).map(|i| f64::from(i % 7)).collect());
        let shifted = row(base.kl_by_window.iter().map(|kl| kl + 0.5).collect());
        let (low, high) = interval(&shifted, &base);
        assert!((low - 0.5).abs() < 1e-12 && (high - 0.5).abs() < 1e-12, "windows differ, their differences do not");
        let other = row((0..40).map(|i| f64::from(i % 7) + f64::from(i % 3) - 1.0).collect());
        let (low, high) = interval(&other, &base);
        assert!(low < 0.0 && high > 0.0 && high - low > 0.1, "{low} to {high}");
    }

    #[test]
    fn the_table_goes_between_the_marks() {
        let document = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        assert_eq!(replaced(&document, "new\n").unwrap(), format!("before\n{BEGIN}\nnew\n{END}\nafter\n"));
        assert!(replaced("no marks", "new").is_err());
    }
}
