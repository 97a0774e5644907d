//! Adapters made for a student: closer to the teacher on text that they were not made on, and corrections in a session.

use std::path::Path;
use std::sync::Arc;

use behavior_eval::fidelity::{FidelityConfig, compare};
use gguf_bitnet::TensorType;
use mla_attention::CacheType;
use moe_runtime::adapters::{AdapterFile, AdapterSet, AdapterSlot, ScaledAdapter};
use moe_runtime::{CraftsmanModel, LoadOptions, ModelFiles, Session};
use rlm_refine::adapt::{AdaptError, AdaptOptions, Adaptation, FeedbackOptions, HeadFeedback, adapt};
use rlm_refine::measure::TextScorer;
use rlm_refine::ptq::Calibration;
use rlm_refine::{Error, Method, Override, Preset, QuantizeOptions, Quantizer, Recipe};
use ternary_core::{ActMode, Rounding};
use tl_kernels::Pool;

use crate::calibrated::{text, windows};
use crate::events::events;

const TEACHER: &str = "craftsman-mini";

/// A student of least squares; only the dense network and the experts of layers 1 and 2 are ternary.
pub(crate) fn student(out: &Path) -> ModelFiles {
    let files = ModelFiles::open(&fixtures::path(TEACHER)).unwrap();
    let overrides = [r"blk\.0\.ffn_(gate|up|down)\.weight=TQ2_0", r"blk\.[34]\.ffn_.*_exps.*=Q8_0"];
    let overrides = overrides.map(|rule| Override::parse(rule).unwrap()).to_vec();
    let recipe = Recipe { preset: Preset::Quality, overrides, ..Recipe::default() };
    let method = Method::Round(Rounding::LeastSquares);
    let options = QuantizeOptions { recipe, method, max_memory_bytes: None, allow_zero: false };
    let quantizer = Quantizer::new(&files, options, 2).unwrap();
    quantizer.run(&Pool::new(2).unwrap(), out, false, &mut |_, _, _| {}).unwrap();
    ModelFiles::open(out).unwrap()
}

fn teacher() -> ModelFiles {
    ModelFiles::open(&fixtures::path(TEACHER)).unwrap()
}

fn made(teacher: &ModelFiles, student: &ModelFiles, rank: usize, threads: usize) -> Adaptation {
    let sources = [text("calibration.txt"), text("calibration-chat.jsonl")];
    let calibration = Calibration::new(student, &Pool::serial(), &sources, &[], windows(3000)).unwrap();
    let pool = Pool::new(threads).unwrap();
    adapt(teacher, student, &pool, &AdaptOptions { rank, calibration }, &mut |_, _| {}).unwrap()
}

fn model(files: &ModelFiles) -> Arc<CraftsmanModel> {
    let pool = Arc::new(Pool::new(2).unwrap());
    let options = LoadOptions { act_mode: Some(ActMode::F32), pool, ..LoadOptions::default() };
    Arc::new(CraftsmanModel::from_files(files, &options).unwrap())
}

/// Mean KL divergence from the teacher on two windows of held-out text.
fn kl(student: &ModelFiles, adapters: AdapterSlot) -> f64 {
    let scorer = |files: &ModelFiles| TextScorer::new(model(files), 256, CacheType::F32).unwrap();
    let (mut of_teacher, mut of_student) = (scorer(&teacher()), scorer(student).with_adapters(adapters));
    let tokens = student.tokenizer().unwrap().encode(&text("heldout.txt").text, false).unwrap();
    let config = FidelityConfig { n_ctx: 256, prefix: Vec::new(), max_windows: Some(3) };
    let report = compare(&mut of_teacher, &mut of_student, &tokens, &config, &mut |_, _| {}).unwrap();
    report.figures.kl.mean.value
}

#[test]
fn an_adapter_brings_the_student_closer_to_its_teacher_on_held_out_text() {
    let dir = tempfile::tempdir().unwrap();
    let (teacher, student) = (teacher(), student(&dir.path().join("student.gguf")));
    let Adaptation { adapter, layers } = made(&teacher, &student, 2, 1);
    // Of layer 0 the dense network, of 1 and 2 eight experts; the shared ones are Q8_0.
    assert_eq!(layers.iter().map(|l| l.matrices).collect::<Vec<_>>(), [3, 24, 24, 0, 0]);
    assert!(layers.iter().map(|l| l.adapted).sum::<usize>() > 40, "{layers:?}");
    assert!(layers.iter().all(|l| l.drift > 0.0 && l.drift < 1.0));
    assert_eq!(made(&teacher, &student, 2, 3).adapter, adapter, "the threads do not count");

    // Half precision loses nothing: the factors were rounded when they were made.
    let path = dir.path().join("adapter.gguf");
    adapter.write(&path, TensorType::F16).unwrap();
    assert_eq!(AdapterFile::read(&path).unwrap(), adapter);
    let set = Arc::new(
        AdapterSet::load(&student, &[ScaledAdapter::new(&path)], &mut || student.identity(&mut |_, _| {})).unwrap(),
    );
    let (before, after) = (kl(&student, AdapterSlot::default()), kl(&student, AdapterSlot::new(Some(set))));
    assert!(after < 0.95 * before, "{after} of {before}");
    // The control: the same factors with each second one's sign turned make it worse.
    let mut turned = adapter.clone();
    turned.pairs.iter_mut().for_each(|pair| pair.b.iter_mut().step_by(2).for_each(|b| *b = -*b));
    let set = Arc::new(AdapterSet::new(&student, &[(&turned, 1.0)]).unwrap());
    let worse = kl(&student, AdapterSlot::new(Some(set)));
    assert!(worse > after && worse > 0.97 * before, "{worse}, {before} without");
}

#[test]
fn models_that_are_no_pair_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (teacher, student) = (teacher(), student(&dir.path().join("student.gguf")));
    let other = ModelFiles::open(&fixtures::path("goldens/glm-tiny")).unwrap();
    let sources = [text("calibration.txt")];
    let calibration = Calibration::new(&student, &Pool::serial(), &sources, &[], windows(300)).unwrap();
    let refused = |teacher: &ModelFiles, student: &ModelFiles, rank: usize| {
        let options = AdaptOptions { rank, calibration: calibration.clone() };
        adapt(teacher, student, &Pool::serial(), &options, &mut |_, _| {}).unwrap_err()
    };
    assert!(matches!(refused(&other, &student, 1), Error::NotAPair { .. }));
    assert!(matches!(refused(&teacher, &teacher, 1), Error::Adapt(AdaptError::NothingTernary)));
    for rank in [0, 257] {
        assert!(matches!(refused(&teacher, &student, rank), Error::Adapt(AdaptError::Rank { .. })));
    }
}

#[test]
fn corrections_lower_the_loss_of_a_running_session_and_can_be_forgotten() {
    let files = teacher();
    let mut session = Session::new(model(&files), 128, CacheType::F32).unwrap();
    let (prompt, answer) = ([5, 9, 12, 30], [7, 400, 81]);
    session.step(&prompt, &mut ()).unwrap();
    let held = session.len();
    let mut feedback = HeadFeedback::new(&session, FeedbackOptions::default());
    let mut last = f64::INFINITY;
    for round in 0..3 {
        let mut lesson = None;
        let seen = events(|| lesson = Some(feedback.learn(&session, &prompt, &answer).unwrap()));
        let lesson = lesson.unwrap();
        let (_, fields) = seen.iter().find(|(name, _)| name == "AdapterUpdated").unwrap();
        for (field, value) in [
            ("tensor", "\"output.weight\"".to_owned()),
            ("rank", "2".to_owned()),
            ("tokens", "3".to_owned()),
            ("loss_before", format!("{:?}", lesson.loss_before)),
            ("loss_after", format!("{:?}", lesson.loss_after)),
        ] {
            assert_eq!(fields.get(field), Some(&value), "{field}");
        }
        assert!(lesson.loss_after < lesson.loss_before && lesson.loss_before <= last, "round {round}: {lesson:?}");
        assert_eq!((lesson.tokens, session.len()), (3, held), "the session keeps its tokens");
        last = lesson.loss_after;
    }
    // The session itself computes with what was learned: the same loss, from its own logits.
    let mut probe = session.fork().unwrap();
    probe.reset();
    let (mut loss, mut expected) = (0.0, answer.iter());
    let tokens = [&prompt[..], &answer[..2]].concat();
    probe
        .step_rows(&tokens, prompt.len() - 1, &mut (), &mut |_, row| {
            let largest = row.iter().copied().fold(f32::MIN, f32::max);
            let sum: f64 = row.iter().map(|z| f64::from(z - largest).exp()).sum();
            loss += sum.ln() - f64::from(row[*expected.next().unwrap() as usize] - largest);
            Ok(())
        })
        .unwrap();
    assert!((loss / 3.0 - last).abs() < 1e-4 * last, "{} is not {last}", loss / 3.0);
    for wrong in [(&prompt[..0], &answer[..]), (&prompt[..], &answer[..0]), (&prompt[..], &[1_000_000][..])] {
        assert!(feedback.learn(&session, wrong.0, wrong.1).is_err());
    }
    feedback.forget();
    assert!(session.adapters().current().is_none());
}
