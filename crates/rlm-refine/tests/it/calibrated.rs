//! Students that are calibrated on texts: better than rounding, the same bytes however they are made, never worse.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use gguf_bitnet::GgufFile;
use moe_runtime::ModelFiles;
use rlm_refine::ptq::{Calibration, GptqOptions, NamedText, PtqError, Step, Steps, WindowOptions, spans};
use rlm_refine::{
    Error, Method, OnProgress, Override, Preset, QuantizeOptions, QuantizeReport, Quantizer, Recipe, Result, Stage,
};
use tl_kernels::Pool;

use crate::sources::{edited, listing, poke};

const TEACHER: &str = "craftsman-mini";

fn text(name: &str) -> NamedText {
    NamedText { name: name.to_owned(), text: fs::read_to_string(fixtures::path("texts").join(name)).unwrap() }
}

fn plain(text: impl Into<String>) -> NamedText {
    NamedText { name: "text".to_owned(), text: text.into() }
}

fn windows(max_tokens: usize) -> WindowOptions {
    WindowOptions { max_tokens, ..WindowOptions::default() }
}

/// Few tokens and little search: enough to beat least squares, and quick.
fn small(files: &ModelFiles) -> GptqOptions {
    let sources = [text("calibration.txt"), text("calibration-chat.jsonl")];
    let calibration = Calibration::new(files, &sources, &[], windows(2800)).unwrap();
    GptqOptions { sweeps: 1, kicks: 0, ..GptqOptions::new(calibration) }
}

fn make(
    source: &Path,
    out: &Path,
    options: GptqOptions,
    threads: usize,
    on: &mut OnProgress<'_>,
) -> Result<QuantizeReport> {
    let files = ModelFiles::open(source)?;
    // The last two layers keep their routed experts, so that a test has less to do.
    let overrides = vec![Override::parse(r"blk\.[34]\.ffn_.*_exps.*=Q8_0").unwrap()];
    let recipe = Recipe { preset: Preset::Balanced, overrides, ..Recipe::default() };
    let options = QuantizeOptions { recipe, method: Method::Gptq(options), max_memory_bytes: None, allow_zero: false };
    let quantizer = Quantizer::new(&files, options, threads)?;
    quantizer.run(&Pool::new(threads).unwrap(), out, false, on)
}

#[test]
fn calibration_lowers_the_error_of_every_network_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (source, out) = (fixtures::path(TEACHER), dir.path().join("student.gguf"));
    let files = ModelFiles::open(&source).unwrap();
    let options = small(&files);
    let calibration = options.calibration.clone();
    let report = make(&source, &out, options, 2, &mut |_, _, _| {}).unwrap();
    assert_eq!(report.layers.len(), files.config.n_layers);
    let (mut errors, mut rows) = ([0.0; 2], [0; 2]);
    for layer in &report.layers {
        assert!(layer.drift > 0.0 && layer.drift < 1.0 && layer.cosine > 0.5, "{layer:?}");
        assert_eq!(layer.routing.is_some(), files.config.is_moe(layer.layer));
        assert_eq!(layer.networks.len(), if matches!(layer.layer, 1 | 2) { 9 } else { 1 });
        for (name, network) in &layer.networks {
            assert!(network.tokens > network.held_out_tokens, "layer {} network {name}", layer.layer);
            for matrix in [network.gate, network.up, network.down].into_iter().flatten() {
                assert!(matrix.error_after <= matrix.error_before, "layer {} network {name}: {matrix:?}", layer.layer);
                errors = [errors[0] + matrix.error_before, errors[1] + matrix.error_after];
                rows = [rows[0] + matrix.rows, rows[1] + matrix.rows_calibrated];
            }
        }
    }
    assert!(errors[1] < 0.7 * errors[0], "{errors:?}");
    assert!(rows[1] > rows[0] / 2, "{rows:?}");
    let file = GgufFile::open(&out).unwrap();
    let value = |key: &str| file.metadata().str(key).unwrap().map(str::to_owned);
    assert_eq!(value("craftsman.bitnet.weight_encoding").unwrap(), "gptq_ternary");
    assert_eq!(value("craftsman.provenance.calibration_blake3").unwrap(), calibration.blake3);
    let stored = file.metadata().array("craftsman.provenance.calibration_spans").unwrap().unwrap();
    assert_eq!(*stored, gguf_bitnet::Array::U64(calibration.spans));
}

#[test]
fn bytes_and_report_depend_neither_on_threads_nor_on_where_the_job_was_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let source = fixtures::path(TEACHER);
    let files = ModelFiles::open(&source).unwrap();
    let options = GptqOptions { kicks: 2, ..small(&files) };
    let whole = dir.path().join("whole.gguf");
    let mut calls = Vec::new();
    let report = make(&source, &whole, options.clone(), 1, &mut |stage, done, _| calls.push((stage, done))).unwrap();
    let (report, bytes) = (serde_json::to_value(report).unwrap(), fs::read(&whole).unwrap());

    // In the middle of a layer, in the middle of writing one, and at its end.
    let networks: Vec<_> =
        calls.iter().enumerate().filter(|(_, call)| call.0 == Stage::Calibrate).map(|(i, _)| i).collect();
    for at in [networks[3], networks[12] + 4, networks[20]] {
        let out = dir.path().join(format!("{at}.gguf"));
        let mut seen = 0;
        let stopped = catch_unwind(AssertUnwindSafe(|| {
            make(&source, &out, options.clone(), 2, &mut |_, _, _| {
                assert!(seen < at, "stopped by the test");
                seen += 1;
            })
        }));
        stopped.unwrap_err();
        let mut redone = 0;
        let resumed = make(&source, &out, options.clone(), 2, &mut |stage, _, _| {
            redone += usize::from(stage == Stage::Calibrate)
        });
        assert_eq!(serde_json::to_value(resumed.unwrap()).unwrap(), report, "stopped at call {at}");
        assert!(fs::read(&out).unwrap() == bytes, "stopped at call {at}");
        assert!(redone < networks.len(), "nothing was kept at call {at}");
    }
    assert!(listing(dir.path()).iter().all(|name| name.ends_with(".gguf")), "{:?}", listing(dir.path()));
}

#[test]
fn each_step_that_shapes_the_problem_changes_the_student() {
    let dir = tempfile::tempdir().unwrap();
    let source = fixtures::path(TEACHER);
    let files = ModelFiles::open(&source).unwrap();
    let options = GptqOptions { sweeps: 0, ..small(&files) };
    let drift = |steps: &[Step]| {
        let out = dir.path().join(format!("{steps:?}.gguf"));
        let options = GptqOptions { steps: Steps::without(steps), ..options.clone() };
        let report = make(&source, &out, options, 2, &mut |_, _, _| {}).unwrap();
        report.layers.last().unwrap().drift
    };
    let all = drift(&[]);
    assert!(drift(&[Step::StudentInputs]) > all, "the student's inputs keep it close to its teacher");
    for step in [Step::TokenWeights, Step::GateWeights, Step::Shrinkage] {
        assert!((drift(&[step]) - all).abs() > 1e-6, "{step:?} does nothing");
    }
}

#[test]
fn networks_that_see_too_little_stay_those_of_least_squares() {
    let dir = tempfile::tempdir().unwrap();
    let source = fixtures::path(TEACHER);
    let files = ModelFiles::open(&source).unwrap();
    for (name, text) in [("one token", "a".to_owned()), ("one repeated token", "a ".repeat(5000))] {
        let calibration = Calibration::new(&files, &[plain(text)], &[], windows(4000)).unwrap();
        let options = GptqOptions { sweeps: 2, kicks: 1, ..GptqOptions::new(calibration) };
        let report = make(&source, &dir.path().join(format!("{name}.gguf")), options, 2, &mut |_, _, _| {}).unwrap();
        for (_, network) in report.layers.iter().flat_map(|layer| &layer.networks) {
            for matrix in [network.gate, network.up, network.down].into_iter().flatten() {
                assert!(matrix.error_after <= matrix.error_before, "{name}: {matrix:?}");
                assert!(network.tokens > 0 || matrix.rows_calibrated == 0, "{name}: {network:?}");
            }
        }
    }
}

#[test]
fn calibration_texts_are_cut_rendered_shared_out_and_excluded() {
    let files = ModelFiles::open(&fixtures::path(TEACHER)).unwrap();
    let (book, chat) = (text("calibration.txt"), text("calibration-chat.jsonl"));
    let both = Calibration::new(&files, &[book.clone(), chat.clone()], &[], windows(8000)).unwrap();
    assert!(both.tokens() <= 8000 && both.tokens() > 7000);
    for source in &both.sources {
        assert!(source.used > 0 && source.tokens.abs_diff(4000) < 512 && source.excluded == 0, "{source:?}");
    }
    let repeated = Calibration::new(&files, &[book.clone(), chat], &[], windows(8000)).unwrap();
    assert_eq!((both.blake3, &both.spans), (repeated.blake3, &repeated.spans));

    let part: String = book.text.chars().take(20_000).collect();
    let alone = Calibration::new(&files, &[plain(part.clone())], &[], windows(100_000)).unwrap();
    let half: String = part.chars().take(10_000).collect();
    let rest = Calibration::new(&files, &[plain(part.clone())], &[plain(half)], windows(100_000)).unwrap();
    let (windows_of, excluded) = (alone.sources[0].used, rest.sources[0].excluded);
    assert!(excluded > windows_of / 3 && excluded < 2 * windows_of / 3, "{excluded} of {windows_of}");
    assert_eq!(rest.sources[0].used + excluded, windows_of);
    let tokens = files.tokenizer().unwrap().encode(&part, false).unwrap();
    let shared = spans(&tokens).iter().filter(|span| alone.spans.contains(span)).count();
    assert!(shared >= alone.spans.len() - windows_of, "the runs inside of windows are found in the text");

    let refused = |sources: &[NamedText], exclude: &[NamedText]| match Calibration::new(
        &files,
        sources,
        exclude,
        windows(4000),
    ) {
        Err(Error::Ptq(error)) => error,
        other => panic!("{other:?}"),
    };
    assert!(matches!(refused(&[plain("")], &[]), PtqError::NoTokens));
    assert!(matches!(refused(&[plain(part.clone())], &[plain(part)]), PtqError::NoTokens));
    let torn = plain("{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]}\n\n{\"messages\": 7}\n");
    assert!(matches!(refused(&[torn], &[]), PtqError::Conversation { line: 3, .. }));
}

#[test]
fn weights_that_are_not_finite_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut name = String::new();
    let source = edited(dir.path(), TEACHER, |tensors| {
        name = poke(tensors, "layers.2.mlp.experts.3.up_proj.weight", 9, f32::NAN)
    });
    let files = ModelFiles::open(&source).unwrap();
    let refused = make(&source, &dir.path().join("student.gguf"), small(&files), 2, &mut |_, _, _| {}).unwrap_err();
    assert!(refused.to_string().contains("blk.2.ffn_up_exps.weight"), "{refused}");
}
