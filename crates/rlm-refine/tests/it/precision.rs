//! The search of a type per class: errors that a whole model shows too, budgets that hold to the byte.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use gguf_bitnet::{Array, GgufFile, TensorClass, TensorType};
use mla_attention::CacheType;
use moe_runtime::forward::{At, RoutingDecision, Taps};
use moe_runtime::{CraftsmanModel, LoadOptions, ModelFiles, Session};
use rlm_refine::ptq::{Calibration, NamedText, PtqError, WindowOptions};
use rlm_refine::{
    Candidate, Error, Method, Override, PrecisionOptions, PrecisionTable, QuantizeOptions, Quantizer, Recipe, Result,
    Stage,
};
use ternary_core::{ActMode, Rounding};
use tl_kernels::Pool;

use crate::calibrated::{text, windows};

const TEACHER: &str = "craftsman-mini";

fn options(recipe: Recipe) -> QuantizeOptions {
    let method = Method::Round(Rounding::LeastSquares);
    QuantizeOptions { recipe, method, max_memory_bytes: None, allow_zero: false }
}

fn calibration(files: &ModelFiles) -> Calibration {
    Calibration::new(files, &Pool::serial(), &[text("calibration.txt")], &[], windows(600)).unwrap()
}

fn fit_with<'a>(
    files: &'a ModelFiles,
    options: QuantizeOptions,
    target_bytes: u64,
    threads: usize,
) -> Result<Quantizer<'a>> {
    let mut quantizer = Quantizer::new(files, options, threads)?;
    let target = PrecisionOptions { target_bytes, calibration: calibration(files), max_tokens: 600 };
    quantizer.fit(&Pool::new(threads).unwrap(), target, &mut |_, _, _| {})?;
    Ok(quantizer)
}

fn fit(files: &ModelFiles, target_bytes: u64) -> Result<Quantizer<'_>> {
    fit_with(files, options(Recipe::default()), target_bytes, 2)
}

fn smallest(files: &ModelFiles) -> u64 {
    match fit(files, 1) {
        Err(Error::TargetSize { target: 1, smallest }) => smallest,
        other => panic!("{:?}", other.map(|quantizer| quantizer.output_bytes())),
    }
}

fn candidates(table: &PrecisionTable, class: TensorClass) -> &[Candidate] {
    &table.classes.iter().find(|found| found.class == class).unwrap().candidates
}

fn chosen(table: &PrecisionTable) -> BTreeMap<TensorClass, TensorType> {
    let of = |candidates: &[Candidate]| candidates.iter().find(|candidate| candidate.chosen).unwrap().ty;
    table.classes.iter().map(|class| (class.class, of(&class.candidates))).collect()
}

#[test]
fn finer_types_cause_smaller_errors_and_both_ternary_types_the_same() {
    let files = ModelFiles::open(&fixtures::path(TEACHER)).unwrap();
    let quantizer = fit(&files, u64::MAX).unwrap();
    let table = quantizer.precision().unwrap();
    assert_eq!(table.classes.len(), 6);
    for class in &table.classes {
        let error = |ty| class.candidates.iter().find(|candidate| candidate.ty == ty).map(|candidate| candidate.error);
        let (q8, q6) = (error(TensorType::Q8_0).unwrap(), error(TensorType::Q6K).unwrap());
        assert!(0.0 < q8 && q8 < q6 && q6 < 1.0, "{class:?}");
        let ternary = [error(TensorType::Tq1_0), error(TensorType::Tq2_0)];
        if matches!(class.class, TensorClass::Embedding | TensorClass::Head) {
            assert_eq!(ternary, [None, None], "{class:?}");
        } else {
            assert!(ternary[0] == ternary[1] && ternary[1].unwrap() > 10.0 * q6, "{class:?}");
        }
        assert!(class.candidates.is_sorted_by(|a, b| a.bytes < b.bytes), "{class:?}");
        assert!(class.candidates.iter().all(|candidate| candidate.chosen == (candidate.ty == TensorType::Q8_0)));
    }
}

#[test]
fn a_budget_holds_to_the_byte_and_more_of_it_never_raises_the_error() {
    let files = ModelFiles::open(&fixtures::path(TEACHER)).unwrap();
    let least = smallest(&files);
    let refused = fit(&files, least - 1).map(|quantizer| quantizer.output_bytes()).unwrap_err();
    assert!(matches!(refused, Error::TargetSize { smallest, .. } if smallest == least), "{refused}");
    assert!(refused.to_string().contains(&least.to_string()) && refused.to_string().contains("--target-size"));

    let most = fit(&files, u64::MAX).unwrap().output_bytes().unwrap();
    let mut last = f64::INFINITY;
    let targets = [least, least + 40_000, (3 * least + most) / 4, (least + most) / 2, most - 1, most];
    for target in targets {
        let quantizer = fit(&files, target).unwrap();
        let (bytes, table) = (quantizer.output_bytes().unwrap(), quantizer.precision().unwrap());
        assert!(bytes <= target, "{bytes} of {target}");
        assert!(table.error() <= last, "{target}: {} after {last}", table.error());
        last = table.error();
        // No type of a class could be replaced by a better one.
        for class in &table.classes {
            let now = class.candidates.iter().find(|candidate| candidate.chosen).unwrap();
            for other in class.candidates.iter().filter(|other| other.error < now.error) {
                assert!(bytes - now.bytes + other.bytes + 1024 > target, "{target}: {} {other:?}", class.class);
            }
        }
    }
    assert_eq!(fit(&files, least).unwrap().output_bytes().unwrap(), least);
    assert_eq!(fit(&files, most).unwrap().output_bytes().unwrap(), most);
}

#[test]
fn the_file_has_the_chosen_types_and_says_why_on_any_number_of_threads() {
    let dir = tempfile::tempdir().unwrap();
    let files = ModelFiles::open(&fixtures::path(TEACHER)).unwrap();
    let target = smallest(&files) + 900_000;
    let made = [1, 2].map(|threads| {
        let out = dir.path().join(format!("{threads}.gguf"));
        let quantizer = fit_with(&files, options(Recipe::default()), target, threads).unwrap();
        let report = quantizer.run(&Pool::new(threads).unwrap(), &out, false, &mut |_, _, _| {}).unwrap();
        assert_eq!(report.precision.as_ref(), quantizer.precision());
        (fs::read(&out).unwrap(), report.precision.unwrap())
    });
    assert!(made[0] == made[1], "bytes and tables are those of one thread");
    let (bytes, table) = &made[0];
    assert!(bytes.len() as u64 <= target);

    let file = GgufFile::open(dir.path().join("1.gguf")).unwrap();
    let types = chosen(table);
    for (name, class) in [
        ("token_embd.weight", TensorClass::Embedding),
        ("output.weight", TensorClass::Head),
        ("blk.3.attn_output.weight", TensorClass::Attention),
        ("blk.0.ffn_up.weight", TensorClass::DenseFfn),
        ("blk.1.ffn_down_shexp.weight", TensorClass::SharedExpert),
        ("blk.2.ffn_gate_exps.weight", TensorClass::RoutedExpert),
    ] {
        use gguf_bitnet::TensorSource;
        assert_eq!(file.tensors()[file.index_of(name).unwrap()].ty, types[&class], "{name}");
    }
    let metadata = file.metadata();
    let rows = || table.classes.iter().flat_map(|class| class.candidates.iter().map(|row| (class.class, *row)));
    let column = |name: &str| metadata.array(&format!("craftsman.precision.{name}")).unwrap().unwrap();
    assert_eq!(*column("classes"), Array::String(rows().map(|(class, _)| class.to_string()).collect()));
    assert_eq!(*column("types"), Array::String(rows().map(|(_, row)| row.ty.to_string()).collect()));
    assert_eq!(*column("bytes"), Array::U64(rows().map(|(_, row)| row.bytes).collect()));
    assert_eq!(*column("errors"), Array::F64(rows().map(|(_, row)| row.error).collect()));
    assert_eq!(*column("chosen"), Array::Bool(rows().map(|(_, row)| row.chosen).collect()));
    assert_eq!(metadata.u64("craftsman.precision.target_bytes").unwrap(), Some(target));
    let recipe = metadata.str("craftsman.provenance.recipe").unwrap().unwrap();
    assert!(types.iter().all(|(class, ty)| recipe.contains(&format!(" {class}={ty}"))), "{recipe}");
    let texts = metadata.str("craftsman.provenance.calibration_blake3").unwrap();
    assert_eq!(texts, Some(&*calibration(&files).blake3), "a measurement on these texts can be refused");
}

#[test]
fn overrides_stay_and_leave_their_class_out_of_the_search() {
    let files = ModelFiles::open(&fixtures::path(TEACHER)).unwrap();
    let overrides = [r"blk\..*_exps\.weight=TQ2_0", r"blk\.2\.attn_output\.weight=F16"];
    let overrides = overrides.map(|rule| Override::parse(rule).unwrap()).to_vec();
    let recipe = Recipe { overrides, ..Recipe::default() };
    let quantizer = fit_with(&files, options(recipe), u64::MAX, 2).unwrap();
    let classes = chosen(quantizer.precision().unwrap());
    assert!(classes.len() == 5 && !classes.contains_key(&TensorClass::RoutedExpert), "{classes:?}");
    let ty = |name: &str| quantizer.plan().tensors.iter().find(|t| t.name == name).unwrap().assignment.ty;
    assert_eq!(ty("blk.1.ffn_up_exps.weight"), TensorType::Tq2_0);
    assert_eq!(ty("blk.2.attn_output.weight"), TensorType::F16);
    assert_eq!(ty("blk.1.attn_output.weight"), TensorType::Q8_0);
}

#[test]
fn a_stopped_job_finds_its_types_again_and_another_target_does_not_continue_it() {
    let dir = tempfile::tempdir().unwrap();
    let files = ModelFiles::open(&fixtures::path(TEACHER)).unwrap();
    let target = smallest(&files) + 300_000;
    let run = |name: &str, target: u64, last_unit: usize| {
        let mut units = 0;
        fit(&files, target)?.run(&Pool::serial(), &dir.path().join(name), false, &mut |stage, _, _| {
            units += usize::from(stage == Stage::Encode);
            assert!(units <= last_unit, "stopped by the test");
        })
    };
    run("whole.gguf", target, usize::MAX).unwrap();
    catch_unwind(AssertUnwindSafe(|| run("resumed.gguf", target, 20))).unwrap_err();
    let refused = run("resumed.gguf", target + 1, usize::MAX).unwrap_err().to_string();
    assert!(refused.contains("other settings") || refused.contains("--force"), "{refused}");
    run("resumed.gguf", target, usize::MAX).unwrap();
    let bytes = |name: &str| fs::read(dir.path().join(name)).unwrap();
    assert!(bytes("resumed.gguf") == bytes("whole.gguf"));
}

#[test]
fn too_little_memory_is_refused_before_anything_is_measured() {
    let files = ModelFiles::open(&fixtures::path(TEACHER)).unwrap();
    let limited = |limit| QuantizeOptions { max_memory_bytes: Some(limit), ..options(Recipe::default()) };
    let enough = fit(&files, u64::MAX).unwrap().memory_bytes();
    assert!(fit_with(&files, limited(enough), u64::MAX, 2).unwrap().memory_bytes() <= enough);
    let mut quantizer = Quantizer::new(&files, limited(140 << 20), 2).unwrap();
    let target = PrecisionOptions { target_bytes: u64::MAX, calibration: calibration(&files), max_tokens: 600 };
    let refused = quantizer.fit(&Pool::serial(), target, &mut |_, _, _| panic!("a layer is measured"));
    let is_memory = |error: &Error| matches!(error, Error::Memory { .. } | Error::Ptq(PtqError::Memory { .. }));
    assert!(refused.as_ref().is_err_and(is_memory), "{refused:?}");
}

/// The numbers and routes of one pass over a model.
#[derive(Clone, Default)]
struct Seen {
    values: BTreeMap<String, Vec<f32>>,
    routes: BTreeMap<usize, RoutingDecision>,
    /// The teacher's routes, which tokens keep whose experts would change.
    held: Option<BTreeMap<usize, RoutingDecision>>,
}

impl Taps for Seen {
    fn layer_in(&mut self, at: At, x: &mut [f32]) {
        self.values.insert(format!("in.{}", at.layer), x.to_vec());
    }

    fn routing(&mut self, at: At, decision: &mut RoutingDecision) {
        if let Some(held) = &self.held {
            let (held, top_k) = (&held[&at.layer], decision.ids.len() / at.n);
            for token in (0..at.n).map(|t| t * top_k..(t + 1) * top_k) {
                if decision.ids[token.clone()] != held.ids[token.clone()] {
                    decision.ids[token.clone()].copy_from_slice(&held.ids[token.clone()]);
                    decision.weights[token.clone()].copy_from_slice(&held.weights[token]);
                }
            }
        }
        self.routes.insert(at.layer, decision.clone());
    }

    fn layer_out(&mut self, at: At, x: &mut [f32]) {
        self.values.insert(format!("out.{}", at.layer), x.to_vec());
    }
}

fn seen(path: &Path, tokens: &[u32], held: Option<&Seen>) -> Seen {
    let options = LoadOptions { act_mode: Some(ActMode::F32), ..LoadOptions::default() };
    let model = CraftsmanModel::from_files(&ModelFiles::open(path).unwrap(), &options).unwrap();
    let mut session = Session::new(Arc::new(model), 256, CacheType::F32).unwrap().with_chunk(256);
    let held = held.map(|seen| seen.routes.clone());
    let (mut seen, mut logits) = (Seen { held, ..Seen::default() }, Vec::new());
    let mut keep = |_, row: &[f32]| {
        logits.extend_from_slice(row);
        Ok(())
    };
    session.step_rows(tokens, 0, &mut seen, &mut keep).unwrap();
    seen.values.insert("logits".to_owned(), logits);
    seen
}

/// The mean over tokens of the squared difference over the squared length, each around the row's mean if `centred`.
fn error(teacher: &[f32], student: &[f32], tokens: usize, centred: bool) -> f64 {
    let width = teacher.len() / tokens;
    let length2 = |row: Vec<f64>| {
        let mean = if centred { row.iter().sum::<f64>() / width as f64 } else { 0.0 };
        row.iter().map(|v| (v - mean).powi(2)).sum::<f64>()
    };
    let rows = |all: &[f32], t: usize| all[t * width..][..width].iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
    let share = |t: usize| {
        let difference = rows(student, t).iter().zip(rows(teacher, t)).map(|(s, t)| s - t).collect();
        length2(difference) / length2(rows(teacher, t))
    };
    (0..tokens).map(share).sum::<f64>() / tokens as f64
}

/// Students of which one class of one layer is quantised show the errors of the table, summed over layers.
#[test]
fn the_errors_are_those_of_whole_models_with_one_class_of_one_layer_quantised() {
    let dir = tempfile::tempdir().unwrap();
    let source = fixtures::path(TEACHER);
    let files = ModelFiles::open(&source).unwrap();
    let words: String = text("heldout.txt").text.chars().take(500).collect();
    let tokenizer = files.tokenizer().unwrap();
    let tokens = [tokenizer.raw_prefix(), tokenizer.encode(&words, false).unwrap()].concat();
    let named = NamedText { name: "words".to_owned(), text: words };
    let calibration = Calibration::new(&files, &Pool::serial(), &[named], &[], WindowOptions::default()).unwrap();
    assert!(calibration.tokens() == tokens.len() && calibration.sources[0].windows == 1, "one window");
    let mut quantizer = Quantizer::new(&files, options(Recipe::default()), 2).unwrap();
    let target = PrecisionOptions { target_bytes: u64::MAX, calibration, max_tokens: usize::MAX };
    quantizer.fit(&Pool::serial(), target, &mut |_, _, _| {}).unwrap();

    let teacher = seen(&source, &tokens, None);
    let plan = Quantizer::new(&files, options(Recipe::default()), 1).unwrap().plan().clone();
    let (layers, n) = (files.config.n_layers, tokens.len());
    for (class, ty) in [
        (TensorClass::Embedding, TensorType::Q6K),
        (TensorClass::Head, TensorType::Q6K),
        (TensorClass::Attention, TensorType::Tq2_0),
        (TensorClass::DenseFfn, TensorType::Tq2_0),
        (TensorClass::SharedExpert, TensorType::Tq2_0),
        (TensorClass::RoutedExpert, TensorType::Tq2_0),
    ] {
        let is_end = matches!(class, TensorClass::Embedding | TensorClass::Head);
        let mut sum = 0.0;
        for layer in 0..if is_end { 1 } else { layers } {
            let prefix = if is_end { String::new() } else { format!("blk.{layer}.") };
            let is_changed =
                |name: &str, of: TensorClass| name.starts_with(&prefix) && of.name().starts_with(class.name());
            let others = plan.tensors.iter().filter(|tensor| !is_changed(&tensor.name, tensor.class));
            let others: Vec<_> = others.map(|tensor| tensor.name.replace('.', r"\.")).collect();
            if others.len() == plan.tensors.len() {
                continue;
            }
            let exact = Override::parse(&format!("{}=F32", others.join("|"))).unwrap();
            let recipe = Recipe { classes: [(class, ty)].into(), overrides: vec![exact], ..Recipe::default() };
            let out = dir.path().join("student.gguf");
            let job = Quantizer::new(&files, options(recipe), 1).unwrap();
            job.run(&Pool::serial(), &out, true, &mut |_, _, _| {}).unwrap();
            let student = seen(&out, &tokens, Some(&teacher));
            let place = match class {
                TensorClass::Embedding => "in.0".to_owned(),
                TensorClass::Head => "logits".to_owned(),
                _ => format!("out.{layer}"),
            };
            sum += error(&teacher.values[&place], &student.values[&place], n, class == TensorClass::Head);
        }
        let measured = candidates(quantizer.precision().unwrap(), class).iter().find(|row| row.ty == ty).unwrap().error;
        assert!((measured / sum - 1.0).abs() < 1e-3, "{class}: {measured} in the table, {sum} in whole models");
    }
}
