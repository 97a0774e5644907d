//! The mini student continues each prompt with the same tokens on every instruction set and any number of threads: the
//! tokens of the scalar level, committed in `fixtures/goldens/mini-student/tokens.json`. So are the bytes of a calibrated
//! student, whose BLAKE3 is in `calibrated.json` beside it.
//!
//! When a student or the prompts change on purpose, run
//! `TL_ISA=scalar cargo test --profile checked -p rlm-refine --test it golden_tokens`: the failing tests print the
//! new contents of the files. `cargo xtask cross` runs this on emulated ARM, and holds the same student to the same tokens in
//! WASM.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use gguf_bitnet::GgufFile;
use mla_attention::CacheType;
use moe_runtime::{CraftsmanModel, GenerateOptions, LoadOptions, ModelFiles, Sampler, SamplerConfig, Session};
use rlm_refine::ptq::{Calibration, GptqOptions};
use rlm_refine::{Method, Override, Preset, QuantizeOptions, Quantizer, Recipe};
use serde_json::{Value, json};
use ternary_core::{ActMode, Rounding};
use tl_kernels::{Isa, Pool};

use crate::calibrated::{text, windows};
use crate::sources::{Settings, quantize};

const GOLDEN: &str = "goldens/mini-student/tokens.json";
const CALIBRATED: &str = "goldens/mini-student/calibrated.json";
const MODES: [(&str, ActMode); 2] = [("f32", ActMode::F32), ("a8-block", ActMode::A8Block)];

/// The balanced student of the mini teacher, rounded by least squares.
fn student(name: &str) -> PathBuf {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let recipe = Recipe { preset: Preset::Balanced, ..Recipe::default() };
    let settings = Settings { recipe, rounding: Rounding::LeastSquares, force: true, ..Settings::default() };
    quantize(&fixtures::path("craftsman-mini"), &out, &settings).unwrap();
    out
}

/// The `n` likeliest tokens, one after the other.
fn continuation(files: &ModelFiles, act_mode: ActMode, threads: usize, prompt: &[u32], n: usize) -> Vec<u32> {
    let pool = Arc::new(Pool::new(threads).unwrap());
    let model =
        CraftsmanModel::from_files(files, &LoadOptions { act_mode: Some(act_mode), pool, ..LoadOptions::default() })
            .unwrap();
    let mut session = Session::new(Arc::new(model), 256, CacheType::F16).unwrap();
    let stop = files.tokenizer().unwrap().stop_ids().to_vec();
    let options = GenerateOptions { max_tokens: n, stop, ..GenerateOptions::default() };
    let mut sampler = Sampler::new(SamplerConfig::greedy()).unwrap();
    let done = session.generate(prompt, &options, &mut sampler, &mut (), &mut |_| ControlFlow::Continue(())).unwrap();
    done.tokens
}

/// Runs on the level that `TL_ISA` and the machine give this process.
#[test]
fn the_student_and_its_tokens_are_the_golden_ones() {
    if let Ok(wanted) = std::env::var("TL_ISA") {
        assert_eq!(Isa::current().name(), wanted, "this machine lacks the level that TL_ISA asks for");
    }
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(fixtures::path(GOLDEN)).unwrap()).unwrap();
    let path = student(&format!("golden-{}.gguf", Isa::current()));
    let identity = gguf_bitnet::identity(&GgufFile::open(&path).unwrap()).unwrap().to_string();
    let files = ModelFiles::open(&path).unwrap();
    let tokenizer = files.tokenizer().unwrap();
    let mut right = json!({ "identity": identity, "prompts": [] });
    for entry in golden["prompts"].as_array().unwrap() {
        let text = entry["text"].as_str().unwrap();
        let prompt = [tokenizer.raw_prefix(), tokenizer.encode(text, true).unwrap()].concat();
        let mut found = json!({ "text": text, "n": entry["n"], "prompt": prompt });
        let n = entry["n"].as_u64().unwrap() as usize;
        for (name, mode) in MODES {
            let tokens = continuation(&files, mode, 1, &prompt, n);
            assert_eq!(tokens.len(), n, "{name}: an answer that ended early is no golden one");
            found[name] = json!(tokens);
        }
        for threads in [2, 7] {
            let again = continuation(&files, ActMode::A8Block, threads, &prompt, n);
            assert_eq!(json!(again), found["a8-block"], "{threads} threads, {}", Isa::current());
        }
        right["prompts"].as_array_mut().unwrap().push(found);
    }
    let prompts = golden["prompts"].as_array().unwrap();
    assert_eq!(prompts.len(), 3);
    assert!(golden == right, "{GOLDEN} on {} would be:\n{}\n", Isa::current(), right);
    assert!(prompts.iter().any(|prompt| prompt["f32"] != prompt["a8-block"]), "one prompt tells the modes apart");
}

/// One layer of calibrated experts, made on the level that `TL_ISA` and the machine give this process.
#[test]
fn the_calibrated_student_is_the_golden_one() {
    let source = fixtures::path("craftsman-mini");
    let files = ModelFiles::open(&source).unwrap();
    let texts = [text("calibration.txt"), text("calibration-chat.jsonl")];
    let calibration = Calibration::new(&files, &Pool::serial(), &texts, &[], windows(1200)).unwrap();
    let options = GptqOptions { sweeps: 2, kicks: 2, ..GptqOptions::new(calibration) };
    let overrides = vec![Override::parse(r"blk\.[234]\.ffn_.*_exps.*=Q8_0").unwrap()];
    let recipe = Recipe { preset: Preset::Balanced, overrides, ..Recipe::default() };
    let options = QuantizeOptions { recipe, method: Method::Gptq(options), max_memory_bytes: None, allow_zero: false };
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("calibrated-{}.gguf", Isa::current()));
    let report = Quantizer::new(&files, options, 2).unwrap().run(&Pool::new(2).unwrap(), &out, true, &mut |_, _, _| {});
    let networks: Vec<_> = report.unwrap().layers.into_iter().flat_map(|layer| layer.networks).collect();
    assert!(networks.len() == 8 && networks.iter().all(|(_, n)| n.down.unwrap().rows_calibrated > 64), "{networks:?}");
    let right = json!({ "identity": gguf_bitnet::identity(&GgufFile::open(&out).unwrap()).unwrap().to_string() });
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(fixtures::path(CALIBRATED)).unwrap()).unwrap();
    assert!(golden == right, "{CALIBRATED} on {} would be:\n{right}\n", Isa::current());
}

/// The tests above, once for each lower level, each in a process of its own: `TL_ISA` is read once.
#[test]
#[allow(clippy::print_stdout, reason = "a missing level must be seen in the test's output")]
fn every_level_of_the_machine_gives_the_golden_tokens() {
    for isa in Isa::ALL {
        if !isa.is_supported() {
            println!("SKIP {isa}: this machine lacks it");
            continue;
        }
        if cfg!(target_arch = "aarch64") {
            // Under emulation the test cannot start itself; `cargo xtask cross` sets TL_ISA from outside.
            println!("SKIP {isa}: started by cargo xtask cross");
            continue;
        }
        let me = std::env::current_exe().unwrap();
        let mut one = Command::new(me);
        one.arg("golden_tokens::the_").env("TL_ISA", isa.name());
        let output = one.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("2 passed"), "{isa}: {said}");
    }
}
