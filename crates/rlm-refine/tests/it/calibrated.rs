//! Students that are calibrated on texts: better than rounding, the same bytes however they are made, never worse.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use gguf_bitnet::GgufFile;
use moe_runtime::ModelFiles;
use rlm_refine::policy::{MatrixSettings, Policy, PolicyStore, TernaryScalePolicy};
use rlm_refine::ptq::{
    Calibration, GptqOptions, LayerReport, NamedText, PtqError, Step, Steps, Unfinished, WindowOptions, spans,
};
use rlm_refine::{
    Error, Method, OnProgress, Override, Preset, QuantizeOptions, QuantizeReport, Quantizer, Recipe, Result, Stage,
};
use tl_kernels::Pool;

use crate::events::events;
use crate::sources::{edited, listing, poke};

const TEACHER: &str = "craftsman-mini";

pub(crate) fn text(name: &str) -> NamedText {
    NamedText { name: name.to_owned(), text: fs::read_to_string(fixtures::path("texts").join(name)).unwrap() }
}

fn plain(text: impl Into<String>) -> NamedText {
    NamedText { name: "text".to_owned(), text: text.into() }
}

pub(crate) fn windows(max_tokens: usize) -> WindowOptions {
    WindowOptions { max_tokens, ..WindowOptions::default() }
}

/// Few tokens and little search: enough to beat least squares, and quick.
fn small(files: &ModelFiles) -> GptqOptions {
    let sources = [text("calibration.txt"), text("calibration-chat.jsonl")];
    let calibration = Calibration::new(files, &Pool::serial(), &sources, &[], windows(2800)).unwrap();
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
    let quantizer = Quantizer::new(&files, job(options), threads)?;
    quantizer.run(&Pool::new(threads).unwrap(), out, false, on)
}

/// The dense network and the experts of layer 1 are ternary; the others keep theirs, so that a test has less to do.
fn job(options: GptqOptions) -> QuantizeOptions {
    let overrides = [
        r"blk\.0\.ffn_(gate|up|down)\.weight=TQ2_0",
        r"blk\.1\.ffn_.*_shexp.*=TQ2_0",
        r"blk\.[234]\.ffn_.*_exps.*=Q8_0",
    ];
    let overrides = overrides.map(|rule| Override::parse(rule).unwrap()).to_vec();
    let recipe = Recipe { preset: Preset::Balanced, overrides, ..Recipe::default() };
    QuantizeOptions { recipe, method: Method::Gptq(options), max_memory_bytes: None, allow_zero: false }
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
        assert_eq!(layer.networks.len(), [1, 9, 0, 0, 0][layer.layer]);
        for (name, network) in &layer.networks {
            assert!(network.tokens > network.held_out_tokens, "layer {} network {name}", layer.layer);
            for matrix in [network.gate, network.up, network.down].into_iter().flatten() {
                assert!(matrix.error_after <= matrix.error_before, "layer {} network {name}: {matrix:?}", layer.layer);
                let [before, after] = [matrix.error_before, matrix.error_after].map(Option::unwrap);
                errors = [errors[0] + before, errors[1] + after];
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
    for at in [networks[3], networks[9] + 4, networks[20]] {
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
    for step in [Step::TokenWeights, Step::GateWeights, Step::Shrinkage, Step::ChosenSettings] {
        assert!((drift(&[step]) - all).abs() > 1e-6, "{step:?} does nothing");
    }
}

#[test]
fn ternary_attention_is_calibrated_too() {
    let dir = tempfile::tempdir().unwrap();
    let source = fixtures::path(TEACHER);
    let files = ModelFiles::open(&source).unwrap();
    let overrides = vec![Override::parse(r"blk\..*\.ffn_.*=Q8_0").unwrap()];
    let recipe = Recipe { preset: Preset::Phase2, overrides, ..Recipe::default() };
    let options = QuantizeOptions { recipe, ..job(small(&files)) };
    let out = dir.path().join("student.gguf");
    let quantizer = Quantizer::new(&files, options, 2).unwrap();
    let report = quantizer.run(&Pool::new(2).unwrap(), &out, false, &mut |_, _, _| {}).unwrap();
    for layer in &report.layers {
        assert!(layer.networks.is_empty() && layer.attention.len() >= 3, "{layer:?}");
        for (name, matrix) in &layer.attention {
            let [before, after] = [matrix.error_before, matrix.error_after].map(Option::unwrap);
            assert!(after < 0.9 * before, "{name} of layer {}: {matrix:?}", layer.layer);
        }
    }
}

#[test]
fn a_network_that_sees_few_tokens_is_calibrated_on_those_of_its_layer_and_never_gets_worse() {
    let dir = tempfile::tempdir().unwrap();
    let source = fixtures::path(TEACHER);
    let files = ModelFiles::open(&source).unwrap();
    let hidden = files.config.hidden;
    let texts = [text("calibration.txt"), text("calibration-chat.jsonl")];
    for (name, sources, tokens) in [
        ("few", &texts[..], 600),
        ("one token", &[plain("a")], 600),
        ("one repeated token", &[plain("a ".repeat(5000))], 4000),
    ] {
        let calibration = Calibration::new(&files, &Pool::serial(), sources, &[], windows(tokens)).unwrap();
        let options = GptqOptions { sweeps: 1, kicks: 1, ..GptqOptions::new(calibration) };
        let report = |steps: Steps| {
            let out = dir.path().join(format!("{name} {steps:?}.gguf"));
            make(&source, &out, GptqOptions { steps, ..options.clone() }, 2, &mut |_, _, _| {}).unwrap()
        };
        let [pooled, alone] = [report(Steps::default()), report(Steps::without(&[Step::PooledTokens]))];
        for (_, network) in pooled.layers.iter().flat_map(|layer| &layer.networks) {
            assert!(network.tokens + network.pooled_tokens >= hidden.min(options.calibration.tokens()), "{network:?}");
            for matrix in [network.gate, network.up, network.down].into_iter().flatten() {
                assert!(matrix.error_after <= matrix.error_before, "{name}: {matrix:?}");
            }
        }
        let calibrated = |report: &QuantizeReport| {
            let networks = report.layers.iter().flat_map(|layer| &layer.networks);
            networks.filter(|(_, n)| n.gate.is_some_and(|gate| gate.rows_calibrated > 0)).count()
        };
        for (_, network) in alone.layers.iter().flat_map(|layer| &layer.networks) {
            assert_eq!(network.pooled_tokens, 0);
            let gate = network.gate.unwrap();
            assert!(network.held_out_tokens >= 8 || gate.rows_calibrated == 0, "{name}: {network:?}");
            assert_eq!(gate.error_before.is_none(), network.held_out_tokens == 0, "{name}: {network:?}");
            assert_eq!(gate.policy.output_cosine.is_none(), network.held_out_tokens == 0, "{name}: {network:?}");
        }
        if name == "few" {
            assert!(calibrated(&pooled) > calibrated(&alone), "pooled tokens calibrate no further network");
        }
    }
}

#[test]
fn settings_of_an_earlier_run_are_taken_and_give_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let source = fixtures::path(TEACHER);
    let store = dir.path().join("policies.redb");
    let run = |source: &Path, name: &str| {
        let out = dir.path().join(name);
        let options = GptqOptions { policies: Some(store.clone()), ..small(&ModelFiles::open(source).unwrap()) };
        let report = make(source, &out, options, 2, &mut |_, _, _| {}).unwrap();
        (report, fs::read(&out).unwrap())
    };
    let mut made = None;
    let events = events(|| made = Some(run(&source, "first.gguf")));
    let (first, bytes) = made.unwrap();
    let (chosen, taken) = first.searches();
    assert!(chosen > 15 && taken == 0, "{chosen} {taken}");
    let (second, again) = run(&source, "second.gguf");
    assert!(again == bytes, "the settings that were chosen before give the same bytes");
    assert_eq!(second.searches(), (0, chosen));

    let model = dir.path().join("first.gguf");
    for taken in ["second.gguf", "first.gguf"] {
        let out = dir.path().join("second.gguf");
        let options =
            GptqOptions { policies: Some(dir.path().join(taken)), ..small(&ModelFiles::open(&source).unwrap()) };
        let files = ModelFiles::open(if taken == "first.gguf" { &model } else { &source }).unwrap();
        let quantizer = Quantizer::new(&files, QuantizeOptions { ..job(options) }, 2).unwrap();
        let refused = quantizer.run(&Pool::serial(), &out, true, &mut |_, _, _| {});
        assert!(matches!(refused, Err(Error::PoliciesAreModel { .. })), "{taken}: {refused:?}");
    }

    let policies = |checkpoint: &str| PolicyStore::open(&store).unwrap().policies(checkpoint).unwrap();
    let stored = policies(&first.source_blake3);
    let report = first.layers[1].networks[3].1.up.unwrap();
    assert_eq!(stored.len(), 30, "every ternary matrix");
    assert_eq!(stored["blk.1.ffn_up_exps.weight#3"], Policy::TernaryScale(report.policy));
    let TernaryScalePolicy { scale_mean, scale_spread, sparsity, output_cosine, .. } = report.policy;
    assert!(
        scale_mean > scale_spread
            && scale_spread > 0.0
            && (0.1..0.9).contains(&sparsity)
            && output_cosine.unwrap() > 0.8
    );

    let stored_events: Vec<_> = events.iter().filter(|(name, _)| name == "TernaryPolicyStored").collect();
    assert_eq!(stored_events.len(), stored.len());
    let of_up = stored_events.iter().find(|(_, fields)| fields["subject"].contains("blk.1.ffn_up_exps.weight#3"));
    let (_, fields) = of_up.unwrap();
    assert!(fields["checkpoint"].contains(&first.source_blake3), "{fields:?}");
    for (key, value) in [
        ("scale_mean", scale_mean),
        ("scale_spread", scale_spread),
        ("sparsity", sparsity),
        ("output_cosine", output_cosine.unwrap()),
    ] {
        assert_eq!(fields[key].parse(), Ok(value), "{key}: {fields:?}");
    }

    // Other settings in the store: they are taken, so the student is another.
    let TernaryScalePolicy { settings, .. } = report.policy;
    let settings = settings.map(|settings| MatrixSettings { shrinkage: 0.7, ..settings });
    let other = Policy::TernaryScale(TernaryScalePolicy { settings, ..report.policy });
    let other = [("blk.1.ffn_up_exps.weight#3".to_owned(), other)];
    PolicyStore::open(&store).unwrap().append(&first.source_blake3, &other).unwrap();
    assert!(run(&source, "third.gguf").1 != bytes, "settings of the store are not used");
    let other = edited(dir.path(), TEACHER, |tensors| {
        poke(tensors, "layers.2.mlp.experts.3.up_proj.weight", 9, 0.5);
    });
    assert_eq!(run(&other, "other.gguf").0.searches().1, 0, "policies of another checkpoint are not taken");
}

#[test]
fn acceptance_leaves_out_rows_that_are_worse_than_least_squares() {
    let dir = tempfile::tempdir().unwrap();
    let source = fixtures::path(TEACHER);
    let files = ModelFiles::open(&source).unwrap();
    let calibration = Calibration::new(&files, &Pool::serial(), &[text("calibration.txt")], &[], windows(600)).unwrap();
    let options = GptqOptions { sweeps: 1, kicks: 0, ..GptqOptions::new(calibration) };
    let kept = |left_out: &[Step]| {
        let options = GptqOptions { steps: Steps::without(left_out), ..options.clone() };
        let out = dir.path().join(format!("{left_out:?}.gguf"));
        let report = make(&source, &out, options, 2, &mut |_, _, _| {}).unwrap();
        let matrices = report.layers.iter().flat_map(LayerReport::matrices).filter(|m| m.rows_calibrated > 0);
        matrices.map(|m| (m.rows_calibrated < m.rows, m.error_after <= m.error_before)).collect::<Vec<_>>()
    };
    let alone = [Step::PooledTokens, Step::ChosenSettings, Step::Shrinkage];
    let (with, without) = (kept(&alone), kept(&[&alone[..], &[Step::Acceptance]].concat()));
    assert!(with.iter().any(|(some_left_out, _)| *some_left_out) && with.iter().all(|(_, better)| *better), "{with:?}");
    assert!(!without.iter().any(|(some_left_out, _)| *some_left_out), "{without:?}");
}

#[test]
fn too_little_memory_is_refused_before_anything_is_written() {
    let files = ModelFiles::open(&fixtures::path(TEACHER)).unwrap();
    let options = QuantizeOptions { max_memory_bytes: Some(1 << 20), ..job(small(&files)) };
    match Quantizer::new(&files, options, 2) {
        Err(Error::Ptq(PtqError::Memory { limit: 0x10_0000, needed })) => assert!(needed > 10 << 20, "{needed}"),
        other => panic!("{:?}", other.map(|quantizer| quantizer.memory_bytes())),
    }
}

#[test]
fn calibration_texts_are_cut_rendered_shared_out_and_excluded() {
    let files = ModelFiles::open(&fixtures::path(TEACHER)).unwrap();
    let (book, chat) = (text("calibration.txt"), text("calibration-chat.jsonl"));
    let both = Calibration::new(&files, &Pool::serial(), &[book.clone(), chat.clone()], &[], windows(8000)).unwrap();
    assert!(both.tokens() <= 8000 && both.tokens() > 7000);
    for source in &both.sources {
        assert!(source.used > 0 && source.tokens.abs_diff(4000) < 512 && source.excluded == 0, "{source:?}");
    }
    let repeated = Calibration::new(&files, &Pool::serial(), &[book.clone(), chat], &[], windows(8000)).unwrap();
    assert_eq!((both.blake3, &both.spans), (repeated.blake3, &repeated.spans));

    let part: String = book.text.chars().take(20_000).collect();
    let alone = Calibration::new(&files, &Pool::serial(), &[plain(part.clone())], &[], windows(100_000)).unwrap();
    let half: String = part.chars().take(10_000).collect();
    let rest =
        Calibration::new(&files, &Pool::serial(), &[plain(part.clone())], &[plain(half)], windows(100_000)).unwrap();
    let (windows_of, excluded) = (alone.sources[0].used, rest.sources[0].excluded);
    assert!(excluded > windows_of / 3 && excluded < 2 * windows_of / 3, "{excluded} of {windows_of}");
    assert_eq!(rest.sources[0].used + excluded, windows_of);
    let tokens = files.tokenizer().unwrap().encode(&part, false).unwrap();
    let shared = spans(&tokens).iter().filter(|span| alone.spans.contains(span)).count();
    assert!(shared >= alone.spans.len() - windows_of, "the runs inside of windows are found in the text");

    let refused = |sources: &[NamedText], exclude: &[NamedText]| match Calibration::new(
        &files,
        &Pool::serial(),
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
fn a_model_can_be_calibrated_on_what_it_writes_itself() {
    let files = ModelFiles::open(&fixtures::path(TEACHER)).unwrap();
    let pool = Pool::new(2).unwrap();
    let generated = |seed| {
        let options = WindowOptions { generated_tokens: 500, seed, ..windows(4000) };
        Calibration::new(&files, &pool, &[], &[], options).unwrap()
    };
    let first = generated(1);
    assert_eq!(first.sources[0].name, "generations of the model");
    assert!(first.tokens() >= 500 && first.tokens() < 600, "{}", first.tokens());
    assert_eq!(first.blake3, generated(1).blake3);
    assert_ne!(first.blake3, generated(2).blake3);
}

#[test]
fn an_unfinished_job_keeps_its_windows_for_the_same_texts_and_options() {
    let dir = tempfile::tempdir().unwrap();
    let (source, out) = (fixtures::path(TEACHER), dir.path().join("student.gguf"));
    let files = ModelFiles::open(&source).unwrap();
    let (texts, options) = ([text("calibration.txt")], WindowOptions { generated_tokens: 300, ..windows(1500) });
    let kept = |texts: &[NamedText], exclude: &[NamedText], options| {
        Calibration::of_unfinished(&files, Unfinished::Output(&out), texts, exclude, options).unwrap()
    };
    assert!(kept(&texts, &[], options).is_none(), "there is no job yet");
    let calibration = Calibration::new(&files, &Pool::serial(), &texts, &[], options).unwrap();
    let gptq = GptqOptions { sweeps: 0, ..GptqOptions::new(calibration.clone()) };
    let stopped = catch_unwind(AssertUnwindSafe(|| {
        make(&source, &out, gptq.clone(), 2, &mut |stage, _, _| {
            assert!(stage != Stage::Calibrate, "stopped by the test")
        })
    }));
    stopped.unwrap_err();

    let found = kept(&texts, &[], options).unwrap();
    assert_eq!((found.windows(), &found.blake3), (calibration.windows(), &calibration.blake3));
    assert_eq!(found.spans, calibration.spans);
    assert_eq!(found.sources.len(), 2);
    let other_seed = WindowOptions { seed: 1, ..options };
    assert!(kept(&texts, &[], other_seed).is_none() && kept(&[plain("a")], &[], options).is_none());
    assert!(kept(&texts, &[plain("a")], options).is_none() && kept(&[], &texts, options).is_none());

    let gptq_of_kept = GptqOptions { calibration: found, ..gptq.clone() };
    let other = edited(dir.path(), TEACHER, |tensors| {
        poke(tensors, "layers.2.mlp.experts.3.up_proj.weight", 9, 0.5);
    });
    let refused = make(&other, &out, gptq_of_kept.clone(), 2, &mut |_, _, _| {}).unwrap_err();
    assert!(matches!(refused, Error::Ptq(PtqError::OtherModel)), "{refused}");
    let report = make(&source, &out, gptq_of_kept, 2, &mut |_, _, _| {}).unwrap();
    let whole = dir.path().join("whole.gguf");
    assert_eq!(report.layers, make(&source, &whole, gptq, 2, &mut |_, _, _| {}).unwrap().layers);
    assert!(fs::read(&out).unwrap() == fs::read(&whole).unwrap());
    assert!(kept(&texts, &[], options).is_none(), "the windows go with the job");
}

#[test]
fn texts_are_chosen_so_that_every_expert_sees_enough_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let source = fixtures::path(TEACHER);
    let files = ModelFiles::open(&source).unwrap();
    let fewest = |expert_tokens| {
        let options = WindowOptions { expert_tokens, ..windows(3000) };
        let pool = Pool::new(2).unwrap();
        let calibration = Calibration::new(&files, &pool, &[text("calibration.txt")], &[], options).unwrap();
        assert!(calibration.tokens() <= 3000 && calibration.tokens() > 2500, "{}", calibration.tokens());
        let options = GptqOptions { sweeps: 0, ..GptqOptions::new(calibration) };
        let report = make(&source, &dir.path().join("student.gguf"), options, 2, &mut |_, _, _| {}).unwrap();
        fs::remove_file(dir.path().join("student.gguf")).unwrap();
        report.layers[1].networks.iter().map(|(_, network)| network.tokens).min().unwrap()
    };
    let (evenly, covering) = (fewest(0), fewest(250));
    assert!(covering > evenly, "{covering} tokens instead of {evenly}");
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

#[test]
fn weights_that_a_type_cannot_hold_are_refused_by_name_in_a_calibrated_layer_too() {
    let dir = tempfile::tempdir().unwrap();
    let source = edited(dir.path(), TEACHER, |tensors| {
        poke(tensors, "layers.1.self_attn.o_proj.weight", 9, 1e30);
    });
    let files = ModelFiles::open(&source).unwrap();
    let refused = make(&source, &dir.path().join("student.gguf"), small(&files), 2, &mut |_, _, _| {}).unwrap_err();
    assert!(refused.to_string().contains("blk.1.attn_output.weight"), "{refused}");
}
