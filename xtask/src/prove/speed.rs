//! `prove speed`: the full-size random file of a preset, against the memory of the machine and against llama.cpp.
//!
//! llama.cpp reads the identical file, in alternation, where `--python` has `llama-cpp-python`; otherwise the figures
//! that need it are named as skipped and left out. Absolute speeds differ between machines, so every target is
//! a ratio: to llama.cpp, or to the read bandwidth that the same run of `bitnet bench` measured.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::clock;
use super::proof::Proof;
use crate::bitnet::{self, arg};
use crate::outcome::Outcome;
use crate::repo;
use crate::report::{list, median, number};

const DEPTHS: &str = "0,1024";
const DECODE_SHARE: f64 = 0.80;
/// Ratios to llama.cpp on `phase2`: decoding, decoding at depth 1024, a prompt of 512.
const DECODE_RATIO: f64 = 1.7;
const DEEP_RATIO: f64 = 2.5;
const PROMPT_RATIO: f64 = 4.0;
/// Sequences that decode in one step, and how much faster than one they must be together.
const BATCHES: [(usize, f64); 3] = [(2, 1.5), (4, 2.1), (8, 3.0)];
/// Rounds in which the engines take turns; the median of each counts.
const ROUNDS: usize = 3;
/// Resident memory of `8g` with 4k tokens of context.
const RESIDENT_BYTES: f64 = 8e9;

/// A preset, the size of its file and the share of the read bandwidth that decoding must reach.
const PRESETS: [(&str, u64, f64); 3] =
    [("phase2", 9_100_000_000, DECODE_SHARE), ("balanced", 8_800_000_000, 0.81), ("8g", 7_500_000_000, 0.82)];

pub(super) fn prove(proof: &mut Proof<'_>, binary: &Path) -> Outcome {
    let wanted = proof.options.preset.as_deref();
    for (preset, bytes, share) in PRESETS.into_iter().filter(|(preset, ..)| wanted.is_none_or(|w| w == *preset)) {
        let file = proof.work.join(format!("{preset}.gguf"));
        proof.need_disk(bytes)?;
        let out = arg(&file)?;
        bitnet::output(
            binary,
            &["synth", "--shape", "glm-4.7-flash", "--format", "gguf", "--preset", preset, "--out", out],
        )?;
        if preset == "phase2" {
            cold_start(proof, binary, &file)?;
            against_llama(proof, binary, &file)?;
            batches(proof, binary, &file)?;
        }
        let report = bench(binary, &file, &["-p", "512", "-n", "32", "-d", "0"])?;
        shares(proof, preset, &report, share)?;
        if preset == "8g" {
            let report = bench(binary, &file, &["-p", "0", "-n", "16", "-d", "4080", "-r", "1"])?;
            let peak = number(&report, "peak_rss_bytes")?;
            let figure = repo::bytes(peak as u64);
            proof.figure("8g: resident with 4k of context", figure, "below 8 GB", peak < RESIDENT_BYTES);
        }
        std::fs::remove_file(&file)?;
    }
    Ok(())
}

fn bench(binary: &Path, file: &Path, args: &[&str]) -> Outcome<Value> {
    bitnet::json(binary, &[&["bench", "--json", "-m", arg(file)?][..], args].concat())
}

/// Decoding as a share of the bandwidth, and the speed of a prompt for the record.
fn shares(proof: &mut Proof<'_>, preset: &str, report: &Value, target: f64) -> Outcome {
    let share = find(report, "tg32", 0, "read_bandwidth_share")?;
    let (decode, prompt) = (find(report, "tg32", 0, "tokens_per_s")?, find(report, "pp512", 0, "tokens_per_s")?);
    let bandwidth = number(report, "read_bandwidth_bytes_per_s")? / 1e9;
    proof.figure(
        format!("{preset}: decoding"),
        format!("{:.0} % of {bandwidth:.1} GB/s, {decode:.2} tok/s; prompt of 512 {prompt:.1} tok/s", 100.0 * share),
        format!("at least {:.0} % of the read bandwidth", 100.0 * target),
        share >= target,
    );
    Ok(())
}

/// Each engine in turn, the median of each. Both engines cache F16, for which the targets are stated; the speeds with an INT8 cache
/// are reported beside it.
fn against_llama(proof: &mut Proof<'_>, binary: &Path, file: &Path) -> Outcome {
    let tests = [
        ("decoding", "tg32", 0, Some(DECODE_RATIO)),
        ("decoding at depth 1024", "tg32", 1024, Some(DEEP_RATIO)),
        ("prompt of 512", "pp512", 0, Some(PROMPT_RATIO)),
        ("prompt of 512 at depth 1024", "pp512", 1024, None),
    ];
    let names = tests.map(|(_, test, depth, _)| (test.to_owned(), depth));
    let args = ["-p", "512", "-n", "32", "-d", DEPTHS];
    let Some(speeds) = in_turn(proof, (binary, file), &args, &["f16", "i8"], &names)? else { return Ok(()) };
    for ((name, _, _, target), speeds) in tests.into_iter().zip(speeds) {
        let Speeds { ours, theirs } = speeds;
        let (f16, i8) = (ours[0], ours[1]);
        let (ratio, i8_ratio) = (f16 / theirs, i8 / theirs);
        proof.figure(
            format!("phase2: {name} against llama.cpp"),
            format!(
                "{ratio:.2}x, {f16:.2} against {theirs:.2} tok/s; with an INT8 cache {i8_ratio:.2}x, {i8:.2} tok/s"
            ),
            target.map_or_else(|| "reported".to_owned(), |target| format!("at least {target}x")),
            target.is_none_or(|target| ratio >= target),
        );
    }
    Ok(())
}

/// Several sequences in a step against one, and against as many of llama.cpp.
fn batches(proof: &mut Proof<'_>, binary: &Path, file: &Path) -> Outcome {
    let names: Vec<_> = std::iter::once("tg16".to_owned())
        .chain(BATCHES.map(|(n, _)| format!("tg16 x{n}")))
        .map(|test| (test, 0))
        .collect();
    let sizes = BATCHES.iter().fold("1".to_owned(), |sizes, (n, _)| format!("{sizes},{n}"));
    let args = ["-p", "0", "-n", "16", "-s", &sizes];
    let Some(speeds) = in_turn(proof, (binary, file), &args, &["f16"], &names)? else { return Ok(()) };
    let one = speeds[0].ours[0];
    for ((n, target), speeds) in BATCHES.into_iter().zip(&speeds[1..]) {
        let (ours, theirs) = (speeds.ours[0], speeds.theirs);
        let (gain, ratio) = (ours / one, ours / theirs);
        proof.figure(
            format!("phase2: {n} sequences in a step"),
            format!("{gain:.2}x of one, {ours:.2} tok/s; {ratio:.2}x llama.cpp"),
            format!("at least {target}x, and above llama.cpp"),
            gain >= target && ratio > 1.0,
        );
    }
    Ok(())
}

/// The median speeds of a test over all rounds.
struct Speeds {
    /// Of `bitnet` with each type of cache, tokens per second.
    ours: Vec<f64>,
    /// Of llama.cpp, tokens per second.
    theirs: f64,
}

/// The speeds of some tests, each engine in turn. The first round begins with llama.cpp, whose absence ends the proof at once, and
/// every other round with `bitnet`. `None` without llama.cpp.
fn in_turn(
    proof: &Proof<'_>,
    (binary, file): (&Path, &Path),
    args: &[&str],
    caches: &[&str],
    tests: &[(String, u64)],
) -> Outcome<Option<Vec<Speeds>>> {
    let script = repo::root().join("fixtures/interop/llama_bench.py");
    let theirs = || llama(&proof.options.python, &script, file, &[&["--no-vocabulary"], args].concat());
    let ours = || caches.iter().map(|kv| bench(binary, file, &[args, &["-r", "1", "--kv", kv]].concat())).collect();
    let mut rounds: Vec<(Vec<Value>, Value)> = Vec::new();
    for round in 0..ROUNDS {
        let before: Option<Vec<Value>> = (round % 2 == 1).then(ours).transpose()?;
        let Some(theirs) = theirs()? else {
            repo::say("SKIP llama.cpp: --python names no Python with llama-cpp-python");
            return Ok(None);
        };
        rounds.push((before.map_or_else(ours, Ok)?, theirs));
    }
    let speeds = |(test, depth): &(String, u64)| {
        let speed = |report: &Value| find(report, test, *depth, "tokens_per_s");
        let of_cache = |cache: usize| rounds.iter().map(|(ours, _)| speed(&ours[cache])).collect::<Outcome<_>>();
        Ok(Speeds {
            ours: (0..caches.len()).map(|cache| of_cache(cache).map(median)).collect::<Outcome<_>>()?,
            theirs: median(rounds.iter().map(|(_, theirs)| speed(theirs)).collect::<Outcome<_>>()?),
        })
    };
    tests.iter().map(speeds).collect::<Outcome<_>>().map(Some)
}

/// The report of llama.cpp, or `None` where it is not installed.
pub(super) fn llama(python: &Path, script: &Path, file: &Path, tests: &[&str]) -> Outcome<Option<Value>> {
    let installed = Command::new(python).args(["-c", "import llama_cpp"]).stderr(Stdio::null()).status();
    if !installed.is_ok_and(|status| status.success()) {
        return Ok(None);
    }
    let args = ["-B", arg(script)?, "--model", arg(file)?];
    let done = Command::new(python).args(args).args(tests).stdin(Stdio::null()).stderr(Stdio::null()).output()?;
    if !done.status.success() {
        return Err(format!("{} ended with {}: run it alone to see why", script.display(), done.status).into());
    }
    Ok(Some(serde_json::from_slice(&done.stdout)?))
}

/// The first token after the file has left the page cache, beside the bytes that had to be read for it: of the mapped
/// file, and packed as `auto` does where memory allows.
fn cold_start(proof: &mut Proof<'_>, binary: &Path, file: &Path) -> Outcome {
    ["file", "auto"].into_iter().try_for_each(|layout| first_token(proof, binary, file, layout))
}

fn first_token(proof: &mut Proof<'_>, binary: &Path, file: &Path, layout: &str) -> Outcome {
    let run = ["run", "-m", arg(file)?, "--layout", layout, "--raw", "-p", "a", "-n", "1"];
    let whole = std::fs::metadata(file)?.len();
    // Opening with `nocache` and a count of 0 is how dd gives a whole file back to the system.
    let input = format!("if={}", file.display());
    let dropped = Command::new("dd").args([&*input, "iflag=nocache", "count=0"]).stderr(Stdio::null()).status();
    if !dropped.is_ok_and(|status| status.success()) {
        repo::say("SKIP cold start: dd cannot drop a file from the page cache here");
        return Ok(());
    }
    let cold = clock::run(binary, &run, None)?;
    let warm = clock::run(binary, &run, None)?;
    let read = cold.read_bytes.map_or_else(|| "an unknown number of bytes".to_owned(), repo::bytes);
    let seconds = |time: Duration| time.as_secs_f64();
    proof.figure(
        format!("phase2: first token from a cold start, layout {layout}"),
        format!("{:.1} s, {read} read; warm {:.1} s", seconds(cold.wall), seconds(warm.wall)),
        format!("reported; the file has {}", repo::bytes(whole)),
        cold.status.success() && warm.status.success(),
    );
    Ok(())
}

/// A figure of one test.
fn find(report: &Value, test: &str, depth: u64, key: &str) -> Outcome<f64> {
    let found = list(report, "tests").iter().find(|t| t["test"] == test && t["depth"] == depth);
    Ok(number(found.ok_or_else(|| format!("the report has no test {test} at depth {depth}"))?, key)?)
}
