//! The cost of a token over the depth of its context, and over the batch it is computed in.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::chart::{Chart, Curve, Scale};
use crate::bitnet;
use crate::outcome::Outcome;
use crate::record::{Figure, Record};
use crate::repo;
use crate::report::list;

/// Tokens decoded at each depth, and how often. They take little time beside the prompt that leads to that depth.
const DECODED: &str = "16";
const DECODE_REPETITIONS: &str = "4";

/// The model that is measured, and how far.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The model file; `bitnet synth --shape glm-4.7-flash --preset phase2` makes one of full size.
    #[arg(long)]
    model: PathBuf,
    /// Measure with this binary instead of building one.
    #[arg(long)]
    bitnet: Option<PathBuf>,
    /// Tokens of context at the last point of the decoding curves.
    #[arg(long, default_value_t = 8192)]
    depth: u32,
    /// Tokens per batch at the last point of the prompt curve.
    #[arg(long, default_value_t = 2048)]
    batch: u32,
}

pub(super) fn draw(args: &Args) -> Outcome {
    let bitnet = bitnet::binary(args.bitnet.as_deref(), "release")?;
    let model = args.model.to_str().ok_or("the model's path is not UTF-8")?;
    let bench = |more: &[&str]| bitnet::json(&bitnet, &[&["bench", "--json", "-m", model][..], more].concat());

    let record = Record::open("curves")?;
    let mut depths = vec!["0".to_owned()];
    depths.extend(doubling(1024, args.depth).map(|depth| depth.to_string()));
    let depths = depths.join(",");
    let mut decode = Vec::new();
    for kv in ["f16", "i8"] {
        let report = bench(&["-r", DECODE_REPETITIONS, "-p", "0", "-n", DECODED, "-d", &depths, "--kv", kv])?;
        decode.push(Curve { name: format!("cache {kv}"), points: costs(&report, "depth")? });
    }
    let mut prompt = Vec::new();
    for batch in doubling(1, args.batch) {
        let batch = batch.to_string();
        let report = bench(&["-r", "1", "-p", &batch, "-n", "0", "--chunk", &batch])?;
        prompt.extend(costs(&report, "tokens")?);
    }
    let prompt = vec![Curve { name: "prompt".to_owned(), points: prompt }];

    let dir = repo::root().join("docs/img");
    std::fs::create_dir_all(&dir)?;
    let mut figures = Vec::new();
    let charts = [
        ("decode-depth.svg", "Decoding: milliseconds per token", "tokens of context", Scale::Linear, decode),
        ("prompt-batch.svg", "Prompt: milliseconds per token", "tokens per batch", Scale::Doubling, prompt),
    ];
    for (file, title, x, scale, curves) in charts {
        figures.extend(rows(title, x, &curves));
        write(&dir.join(file), &Chart { title, x, scale, curves })?;
    }
    figures.iter().try_for_each(|figure| record.append(figure))?;
    record.say()
}

/// `first`, twice that, and so on, up to `last`.
fn doubling(first: u32, last: u32) -> impl Iterator<Item = u32> {
    std::iter::successors(Some(first), |n| n.checked_mul(2)).take_while(move |n| *n <= last)
}

/// The curve of a report: the value of `key` and the milliseconds per token of every test.
fn costs(report: &Value, key: &str) -> Outcome<Vec<(f64, f64)>> {
    let number = |test: &Value, key: &str| test[key].as_f64();
    let points =
        list(report, "tests").iter().map(|test| Some((number(test, key)?, 1e3 / number(test, "tokens_per_s")?)));
    points.collect::<Option<_>>().ok_or_else(|| "the report of `bitnet bench` lacks a figure".into())
}

fn rows(title: &str, x: &str, curves: &[Curve]) -> Vec<Figure> {
    let row = |curve: &Curve| Figure {
        name: format!("{title}, {}", curve.name),
        value: curve.points.iter().map(|(x, y)| format!("{x}: {y:.1}")).collect::<Vec<_>>().join("; "),
        target: format!("over {x}"),
        pass: true,
    };
    curves.iter().map(row).collect()
}

fn write(path: &Path, chart: &Chart<'_>) -> Outcome {
    std::fs::write(path, chart.svg())?;
    repo::say(&format!("wrote {}", path.strip_prefix(repo::root())?.display()));
    Ok(())
}
