//! `refine --lessons`, `eval-gates --lessons` and `lessons`: what runs teach, kept and shown.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::common::{bitnet, fixture, student, teacher, text};

/// A short text for training.
fn prose(dir: &Path) -> String {
    let path = dir.join("prose.txt");
    let prose = fs::read_to_string(fixtures::path("texts/calibration.txt")).unwrap();
    fs::write(&path, prose.chars().take(16_000).collect::<String>()).unwrap();
    text(&path).to_owned()
}

#[test]
fn runs_keep_their_lessons_and_a_later_one_follows_them() {
    let dir = tempfile::tempdir().unwrap();
    let [store, first, second] = ["lessons.redb", "first.gguf", "second.gguf"].map(|name| dir.path().join(name));
    let prose = prose(dir.path());
    let refine = |model: &str, out: &Path, more: &[&str]| {
        let base = ["refine", "-m", model, "--teacher", &teacher(), "--calibration", &prose, "-o", text(out)];
        let few = ["--steps", "1", "--windows", "1", "--lessons", text(&store)];
        bitnet([&base[..], &few, more].concat())
    };
    let missing = bitnet(["lessons", text(&store)]).refusal();
    assert!(missing.contains("lessons.redb") && missing.contains("refine --lessons"), "{missing}");
    // A store without lessons names no expert.
    let ended = refine(student(), &first, &["--repair-routers", "ridge", "--focus", "2"]);
    assert!(ended.stderr.contains("names no expert of this student yet"), "{}", ended.stderr);
    assert!(ended.done().contains("new lessons in "));
    let json = bitnet(["lessons", text(&store), "--json"]).json();
    let [(_, lessons)] = &json.as_object().unwrap().iter().collect::<Vec<_>>()[..] else {
        panic!("one teacher: {json}")
    };
    let (lessons, routers) = (&lessons["lessons"], lessons["routers"].as_object().unwrap());
    assert_eq!(routers.len(), 4);
    assert!(routers.values().all(|router| router["method"] == "ridge"), "{routers:?}");
    let count = |lessons: &Value, finding: &str| {
        lessons.as_array().unwrap().iter().filter(|lesson| lesson["finding"] == finding).count()
    };
    assert_eq!(count(lessons, "expert-drifts"), 4);
    assert_eq!(count(lessons, "router-repaired") + count(lessons, "router-stays"), 4, "four layers have routers");
    assert_eq!(count(lessons, "settings-helped") + count(lessons, "settings-did-not-help"), 1);

    let ended = refine(text(&first), &second, &["--focus", "2", "--json"]);
    assert!(!ended.stderr.contains("names no expert"), "{}", ended.stderr);
    assert!(ended.json()["lessons"].is_u64());
    let inspected = bitnet(["inspect", text(&second), "--json"]).json();
    let settings = inspected["metadata"]["craftsman.provenance.refinement"].as_str().unwrap();
    assert!(settings.contains(r#""focus":{"experts":[["#), "{settings}");
    // The experts are those of the student that is refined: the lessons are about the first output, not about its origin.
    let other = refine(student(), &dir.path().join("other.gguf"), &["--focus", "2"]);
    assert!(other.stderr.contains("names no expert of this student yet"), "{}", other.stderr);
    let shown = bitnet(["lessons", text(&store)]).done();
    for part in ["students of ", "outputs drift", "agreement", "held-out KL", "settings: {", "_inp.weight by ridge: "] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
}

#[test]
fn gates_keep_which_of_them_failed_and_where() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("lessons.redb");
    let (suite, corpus) = (fixture("goldens/artifact/suite.jsonl"), fixture("goldens/artifact/suite.corpus.jsonl"));
    let judge = || {
        let models = ["eval-gates", "--teacher", &teacher(), "--student", student()];
        let files = ["--suite", &suite, "--corpus", &corpus, "--min-prompts", "1", "--no-router-inputs"];
        let more = ["--threshold", "routing_agreement=1", "--lessons", text(&store), "--report", text(dir.path())];
        let artifacts = ["--artifacts", text(dir.path())];
        let args = [&models[..], &files, &more, &artifacts].concat();
        crate::common::command().current_dir(dir.path()).args(args).assert().code(3);
        bitnet(["lessons", text(&store), "--json"]).json()
    };
    let lessons = judge();
    let all = |json: &Value| json.as_object().unwrap().values().next().unwrap()["lessons"].as_array().unwrap().clone();
    let lessons = all(&lessons);
    let gate = lessons.iter().find(|lesson| lesson["about"]["gate"]["name"] == "routing_agreement").unwrap();
    assert_eq!((&gate["finding"], &gate["learned_by"]), (&"gate-fails".into(), &"gates".into()));
    assert!(lessons.iter().any(|lesson| lesson["finding"] == "layer-misroutes"), "{lessons:?}");
    // The same verdict teaches nothing new.
    assert_eq!(all(&judge()).len(), lessons.len());
}
