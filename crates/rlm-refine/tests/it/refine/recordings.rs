//! Recordings of a teacher: those that PyTorch made are those that we make, and a student learns from either.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use behavior_eval::gates::RefusalSignals;
use behavior_eval::records::artifact::{
    ArtifactSpec, ArtifactWriter, Columns, LogitsAt, SparseLogits, TeacherArtifact, TeacherRecord, open_or_record,
    record,
};
use behavior_eval::suite::{Label, Suite};
use mla_attention::CacheType;
use moe_runtime::LoadOptions;
use rlm_refine::measure::ModelSubject;
use rlm_refine::train::{LossSums, Recordings, Source, taught_suites};
use ternary_core::ActMode;

use super::*;

/// The artifact that `fixtures/generators/gen_artifacts.py` recorded with transformers.
fn golden() -> TeacherArtifact {
    let folder = fixtures::path("goldens/artifact");
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let [path] = &entries.filter(|path| path.is_dir()).collect::<Vec<_>>()[..] else {
        panic!("one recording is there")
    };
    TeacherArtifact::open(path).unwrap()
}

fn suite() -> Suite {
    let file = |name| fixtures::path("goldens/artifact").join(name);
    Suite::open(&file("suite.jsonl"), &file("suite.corpus.jsonl")).unwrap()
}

fn teacher() -> ModelSubject {
    let files = ModelFiles::open(&fixtures::path("craftsman-mini")).unwrap();
    let id = files.identity(&mut |_, _| {}).unwrap();
    let pool = Arc::new(Pool::new(2).unwrap());
    let options = LoadOptions { act_mode: Some(ActMode::F32), pool, ..LoadOptions::default() };
    ModelSubject::load(&files, id, &options, CacheType::F32).unwrap()
}

fn spec(teacher: &ModelSubject) -> ArtifactSpec {
    ArtifactSpec {
        model: behavior_eval::model::Subject::info(teacher).clone(),
        suite: suite().identity().to_owned(),
        max_new_tokens: 48,
        columns: Columns {
            scores: true,
            router_inputs: true,
            final_hidden: true,
            logits: LogitsAt::Everywhere,
            kept: 32,
        },
        settings: BTreeMap::from([("compute".to_owned(), "activations f32, cache f32".into())]),
    }
}

/// Both columns are there and as near as roundings of F16 are: 2^-10 of a value, and 1e-4 of the largest.
fn assert_near(what: &str, own: &[f32], theirs: &[f32]) {
    assert!(own.len() == theirs.len() && !own.is_empty(), "{what}");
    let largest = own.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    for (i, (a, b)) in own.iter().zip(theirs).enumerate() {
        assert!((a - b).abs() <= a.abs() / 1024.0 + 1e-4 * largest, "{what} {i}: {a} {b}");
    }
}

/// Rows keep the same likeliest tokens but for those at the edge, with the same probabilities.
fn assert_same_rows(own: &[SparseLogits], theirs: &[SparseLogits]) {
    assert_eq!(own.len(), theirs.len());
    for (own, theirs) in own.iter().zip(theirs) {
        assert_eq!((own.position, own.kept.len()), (theirs.position, theirs.kept.len()));
        assert!((own.tail - theirs.tail).abs() < 1e-4, "position {}", own.position);
        let known: BTreeMap<u32, f32> = theirs.kept.iter().copied().collect();
        let edge = own.kept.last().unwrap().1 + 1e-3;
        for (token, log) in own.kept.iter().filter(|(_, log)| *log > edge) {
            assert!((known[token] - log).abs() < 1e-3, "position {}, token {token}: {log}", own.position);
        }
    }
}

#[test]
fn the_recording_of_pytorch_is_the_one_that_we_make() {
    let dir = tempfile::tempdir().unwrap();
    let (mut teacher, suite, theirs) = (teacher(), suite(), golden());
    let spec = spec(&teacher);
    // The same key: model, suite and settings were hashed to the same numbers.
    assert_eq!(theirs.path().parent().unwrap().file_name().unwrap().to_str().unwrap(), spec.key());
    TeacherArtifact::open_for(theirs.path(), &spec).unwrap();
    let prompts: Vec<_> = suite.prompts().iter().collect();
    let own = open_or_record(dir.path(), &spec, &mut teacher, &prompts, &mut |_, _| {}).unwrap();
    theirs.check_prompts(prompts.iter().map(|prompt| prompt.id.as_str())).unwrap();
    for i in 0..prompts.len() {
        assert_eq!(own.prompts()[i].label, theirs.prompts()[i].label);
        assert_eq!(own.tokens(i).unwrap(), theirs.tokens(i).unwrap());
        assert_eq!(own.answer(i).unwrap(), theirs.answer(i).unwrap());
        let tables = [own.routing(i).unwrap(), theirs.routing(i).unwrap()];
        let locals = [own.local_routing(i).unwrap().unwrap(), theirs.local_routing(i).unwrap().unwrap()];
        for [own, theirs] in [tables, locals] {
            assert_eq!(own.ids, theirs.ids);
            assert_near("weights", &own.weights, &theirs.weights);
            assert_near("margins", &own.margins, &theirs.margins);
        }
        let halves = |artifact: &TeacherArtifact| {
            [artifact.scores(i), artifact.router_inputs(i), artifact.final_hidden(i)].map(|half| half.unwrap().unwrap())
        };
        for (what, (own, theirs)) in
            ["scores", "inputs", "states"].into_iter().zip(halves(&own).iter().zip(halves(&theirs)))
        {
            assert_near(what, own, &theirs);
        }
        assert_same_rows(&own.sparse_logits(i).unwrap().unwrap(), &theirs.sparse_logits(i).unwrap().unwrap());
    }
}

fn recordings(artifact: &TeacherArtifact) -> Recordings {
    Recordings::read(artifact, &RefusalSignals::default()).unwrap()
}

fn student_of_mini(dir: &Path) -> PathBuf {
    let path = dir.join("student.gguf");
    let teacher = ModelFiles::open(&fixtures::path("craftsman-mini")).unwrap();
    std::fs::write(&path, student_bytes(&teacher)).unwrap();
    path
}

/// The divergence of a file on the recorded answers.
fn loss_of(path: &Path, recordings: &Recordings) -> LossSums {
    let (files, pool) = (ModelFiles::open(path).unwrap(), Pool::new(2).unwrap());
    let model = TrainModel::new(&files, &[], &pool).unwrap();
    model.loss(recordings.windows(), &mut recordings.targets(recordings.windows(), 0.0), LOSS).unwrap()
}

#[test]
fn a_student_learns_from_recordings_without_its_teacher_and_says_which() {
    let dir = tempfile::tempdir().unwrap();
    let (path, recordings, pool) = (student_of_mini(dir.path()), recordings(&golden()), Pool::new(2).unwrap());
    let student = ModelFiles::open(&path).unwrap();
    let options = || TrainOptions { steps: 6, windows_per_step: 3, ..options() };
    let refine = |options, out: &Path| {
        Refiner::on(&student, Source::Recordings(&recordings), options, &pool).run(out, false, None, &mut |_| {})
    };
    let out = dir.path().join("refined.gguf");
    refine(options(), &out).unwrap();
    let [before, after] = [&path, &out].map(|path| loss_of(path, &recordings));
    assert!(after.mean_kl() < 0.9 * before.mean_kl(), "{before:?} {after:?}");
    let files = ModelFiles::open(&out).unwrap();
    assert_eq!(taught_suites(files.gguf().unwrap().metadata()).unwrap(), [suite().identity()]);
    // A second time, the suite is not named twice.
    let again = dir.path().join("again.gguf");
    Refiner::on(&files, Source::Recordings(&recordings), TrainOptions { steps: 1, ..options() }, &pool)
        .run(&again, false, None, &mut |_| {})
        .unwrap();
    let again = ModelFiles::open(&again).unwrap();
    assert_eq!(taught_suites(again.gguf().unwrap().metadata()).unwrap(), [suite().identity()]);
    // Trits and routers need the teacher's weights.
    let trits = TrainOptions { groups: vec![Group::LatentTrits], ..options() };
    let repair = TrainOptions { repair: Some(RouterMethod::Ridge), ..options() };
    for options in [trits, repair] {
        let refused = refine(options, &dir.path().join("refused.gguf")).unwrap_err().to_string();
        assert!(refused.contains("--teacher") || refused.contains("held-out"), "{refused}");
    }
}

#[test]
fn recordings_of_another_teacher_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (path, recordings, pool) = (student_of_mini(dir.path()), recordings(&golden()), Pool::new(2).unwrap());
    let other = dir.path().join("other.gguf");
    let teacher = ModelFiles::open(&fixtures::path("goldens/glm-tiny")).unwrap();
    std::fs::write(&other, quantized(&teacher)).unwrap();
    let out = dir.path().join("out.gguf");
    let refused = |path: &Path| {
        let student = ModelFiles::open(path).unwrap();
        let refiner = Refiner::on(&student, Source::Recordings(&recordings), options(), &pool);
        refiner.run(&out, false, None, &mut |_| {}).map(drop)
    };
    let sentence = refused(&other).unwrap_err().to_string();
    assert!(sentence.contains(recordings.teacher()) && sentence.contains("--artifact"), "{sentence}");
    refused(&path).unwrap();
}

#[test]
fn an_answer_against_its_label_teaches_nothing_when_rewards_count_fully() {
    let dir = tempfile::tempdir().unwrap();
    let (mut teacher, suite) = (teacher(), suite());
    let spec = spec(&teacher);
    let records: Vec<TeacherRecord> =
        suite.prompts().iter().map(|prompt| record(&spec, &mut teacher, prompt).unwrap()).collect();
    let with_label = |label: Option<Label>| {
        let root = dir.path().join(format!("{label:?}"));
        let mut writer = ArtifactWriter::open(&root, &spec).unwrap();
        for record in &records {
            let is_refusal = record.label == Some(Label::Indeterminate);
            let label = if is_refusal { label } else { record.label };
            writer.append(&TeacherRecord { label, ..record.clone() }).unwrap();
        }
        recordings(&writer.finish().unwrap())
    };
    let [right, wrong, unlabelled] = [Some(Label::Indeterminate), Some(Label::Resolved), None].map(with_label);
    assert_eq!(right.rewards().collect::<Vec<_>>(), [1.0, 1.0, 1.0]);
    assert_eq!(wrong.rewards().collect::<Vec<_>>(), [1.0, 1.0, -1.0]);
    assert_eq!(unlabelled.rewards().collect::<Vec<_>>(), [1.0, 1.0, 0.0]);

    let (files, pool) = (ModelFiles::open(&student_of_mini(dir.path())).unwrap(), Pool::new(2).unwrap());
    let gradient = |recordings: &Recordings, windows: &[Vec<u32>], reward_scale| {
        let mut model = TrainModel::new(&files, &[Group::Norms], &pool).unwrap();
        let scale = LossScale::of(LOSS, recordings.windows());
        model.loss_and_gradients(windows, &mut recordings.targets(windows, reward_scale), scale).unwrap();
        model.weights.params.list().iter().flat_map(|param| param.gradient.clone()).collect::<Vec<f32>>()
    };
    let all = right.windows();
    let length = |v: &[f32]| v.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    let distance = |a: &[f32], b: &[f32]| length(&a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>());
    let without_it = gradient(&right, &all[..2], 0.0);
    let twice: Vec<f32> = without_it.iter().map(|g| 2.0 * g).collect();
    let of_wrong = gradient(&wrong, all, 1.0);
    assert!(distance(&of_wrong, &twice) < 1e-4 * length(&twice), "the third answer has no part in it");
    assert!(distance(&gradient(&right, all, 1.0), &twice) > 0.05 * length(&twice), "where its label fits, it has");
    assert_eq!(gradient(&wrong, all, 0.0), gradient(&right, all, 0.0), "with a scale of 0 labels change nothing");
}
