//! `eval-gates`: a real model through every gate on a few prompts, with its output, files, stamp and refusals.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::common::{Ended, bitnet, command, listing, student, teacher, text};

/// Three resolved, two contested and three indeterminate prompts of the fixture, in files of their own.
pub(crate) fn few_prompts(dir: &Path) -> [String; 2] {
    let read = |name: &str| fs::read_to_string(fixtures::path("suites").join(name)).unwrap();
    let field = |line: &str, key: &str| -> String {
        serde_json::from_str::<Value>(line).unwrap()[key].as_str().unwrap().to_owned()
    };
    let (mut prompts, mut ids) = (Vec::new(), Vec::new());
    for (label, n) in [("resolved", 3), ("contested", 2), ("indeterminate", 3)] {
        for line in read("suite-200.jsonl").lines().filter(|line| field(line, "label") == label).take(n) {
            ids.push(field(line, "prompt_id"));
            prompts.push(line.to_owned());
        }
    }
    let corpus = read("suite-200.corpus.jsonl");
    let corpus: Vec<&str> = corpus.lines().filter(|line| ids.contains(&field(line, "prompt_id"))).collect();
    let paths = ["few.jsonl", "few.corpus.jsonl"].map(|name| text(&dir.join(name)).to_owned());
    fs::write(&paths[0], prompts.join("\n")).unwrap();
    fs::write(&paths[1], corpus.join("\n")).unwrap();
    paths
}

/// Runs the verb in `dir` on the few prompts.
fn gates(dir: &Path, student: &str, more: &[&str]) -> Ended {
    let [suite, corpus] = few_prompts(dir);
    let base = ["eval-gates", "--teacher", &teacher(), "--student", student, "--suite", &suite, "--corpus", &corpus];
    let output = command().current_dir(dir).args(base).args(["--min-prompts", "1"]).args(more).output().unwrap();
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Everything of a report but the part about the run.
pub(crate) fn without_run(json: &str) -> &str {
    json.split_once("\n  \"run\": {").unwrap().0
}

/// Thresholds that any model passes.
pub(crate) const LAX: [&str; 12] = [
    "--threshold",
    "routing_agreement=0",
    "--threshold",
    "citation_precision=0",
    "--threshold",
    "citation_recall=0",
    "--threshold",
    "refusal_f1=0",
    "--threshold",
    "must_refuse=0",
    "--threshold",
    "must_answer=0",
];

#[test]
fn a_model_against_itself_routes_alike_and_threads_change_nothing() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = gates(one.path(), &teacher(), &["--threads", "1", "--perturb", "0.2"]);
    let report = fs::read_to_string(one.path().join("eval/reports/craftsman-mini_few/report.json")).unwrap();
    let json: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(json["student"]["gates"][0]["figure"]["value"], 1.0, "{report}");
    assert_eq!(json["retention"][1]["kept"], 1.0);
    assert_eq!(json["suite"]["prompts"], 8);
    let verdict = json["verdict"].as_str().unwrap();
    assert_eq!(first.code, Some(if verdict == "SHIP" { 0 } else { 3 }), "{}", first.stderr);
    assert!(
        first.stdout.starts_with(&format!("{verdict}: craftsman-mini against craftsman-mini on few (8 prompts)\n"))
    );
    for part in ["routing_agreement", "95 % interval", "reference", "wrote eval/reports/", "wrote eval/traces/"] {
        assert!(first.stdout.contains(part), "{part}: {}", first.stdout);
    }
    assert_eq!(listing(one.path()), ["eval", "few.corpus.jsonl", "few.jsonl"], "all below eval/");
    let formats = listing(&one.path().join("eval/reports/craftsman-mini_few"));
    assert_eq!(formats, ["report.html", "report.json", "report.junit.xml", "report.md"]);
    assert!(listing(&one.path().join("eval/artifacts/students")).is_empty(), "the journal is gone");

    // Another number of threads in a fresh folder, with the report on standard output.
    let second = gates(two.path(), &teacher(), &["--threads", "2", "--perturb", "0.2", "--json"]);
    assert_eq!(second.code, first.code);
    assert_eq!(without_run(&second.stdout), without_run(&report));
    let trace = |dir: &Path| {
        let traces = dir.join("eval/traces");
        let names = listing(&traces);
        assert_eq!(names.len(), 1, "{names:?}");
        fs::read(traces.join(&names[0])).unwrap()
    };
    assert!(trace(one.path()) == trace(two.path()), "the traces differ");

    // The teacher's recordings are used again, and a report of the same is no regression.
    let baseline = two.path().join("eval/reports/craftsman-mini_few/report.json");
    let again = gates(two.path(), &teacher(), &["--baseline", text(&baseline), "--report", "again", "--json"]);
    assert_eq!(again.code, first.code);
    let json: Value = serde_json::from_str(&again.stdout).unwrap();
    assert_eq!(json["run"]["teacher_reused"], true);
    assert_eq!(json["baseline"]["regressions"], Value::Array(vec![]));
    assert_eq!(json["baseline"]["figures"][2]["change"], 0.0);

    // A baseline with other settings is refused before a model runs.
    let asked = |more: &[&str]| {
        gates(two.path(), &teacher(), &[&["--baseline", text(&baseline), "--report", "other"], more].concat()).refusal()
    };
    assert!(asked(&["--max-new-tokens", "8"]).contains("limit of tokens is 64, and this run's is 8"));
    assert!(
        asked(&["--label-threshold", "redundancy=2"]).contains("rule of labels is disagreement > 0.4, redundancy > 3")
    );
    assert!(!two.path().join("other").exists());

    // Only the failing prompts, without a verdict.
    let part = gates(two.path(), &teacher(), &["--filter-failing"]);
    let failing = |p: &&Value| !p["failed"].as_array().unwrap().is_empty();
    let failing = json["prompts"].as_array().unwrap().iter().filter(failing).count();
    assert!(failing > 0, "this teacher is not perfect");
    assert_eq!(part.code, Some(3));
    assert!(part.stdout.starts_with(&format!("NO-SHIP: {failing} of 8 prompts were run")), "{}", part.stdout);
    assert!(part.stdout.contains(&format!("0 of them are right now; {failing} are not:")), "{}", part.stdout);
}

#[test]
fn a_student_is_stamped_and_stays_the_same_model() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("student.gguf");
    fs::copy(student(), &path).unwrap();
    let identity = |path: &Path| bitnet(["verify", text(path), "--json"]).json()["identity"].clone();
    let before = identity(&path);
    let lean = ["--stamp", "--no-router-inputs"];
    let stamped = gates(dir.path(), text(&path), &[&LAX[..], &lean].concat());
    assert!(stamped.stderr.contains("student.gguf: SHIP"), "{}", stamped.stderr);
    assert!(stamped.done().starts_with("SHIP: student against craftsman-mini"));
    assert_eq!(identity(&path), before);
    let shown = bitnet(["inspect", text(&path)]).done();
    assert!(shown.contains("gates: SHIP on few (8 prompts)") && shown.contains("must_answer          pass"), "{shown}");
    let json = bitnet(["inspect", text(&path), "--json"]).json();
    assert_eq!((&json["gates"]["verdict"], &json["gates"]["student"]), (&"SHIP".into(), &before));

    let report = || fs::read_to_string(dir.path().join("eval/reports/student_few/report.json")).unwrap();
    assert!(!report().contains("\"local_routing\"") && report().contains("\"coherence\""));

    // The default thresholds on the lower ends of eight prompts: the student fails, and the stamp says so.
    let signals = dir.path().join("signals.txt");
    fs::write(&signals, "# ours\ninsufficient evidence\n<refusal>\n").unwrap();
    let strict = ["--strict", "--refusal-signals", text(&signals), "--label-threshold", "fragility=0.6"];
    let strict = gates(dir.path(), text(&path), &[&lean[..], &strict].concat());
    fs::remove_file(&signals).unwrap();
    let json: Value = serde_json::from_str(&report()).unwrap();
    assert_eq!(json["settings"]["refusal_signals"], serde_json::json!(["<refusal>", "insufficient evidence"]));
    assert_eq!(json["settings"]["label_thresholds"]["fragility"], 0.6);
    assert_eq!(json["run"]["teacher_reused"], true);
    assert_eq!(strict.code, Some(3), "{}", strict.stderr);
    assert!(strict.stdout.starts_with("NO-SHIP: "), "{}", strict.stdout);
    let failures = json["failures"].as_array().unwrap();
    assert!(!failures.is_empty());
    for failure in failures {
        let remedy = format!("remedy: {} (--repair FILE runs it)", failure["remedy"].as_str().unwrap());
        assert!(strict.stdout.contains(&remedy), "{remedy}: {}", strict.stdout);
    }
    assert!(bitnet(["inspect", text(&path)]).done().contains("gates: NO-SHIP on few (8 prompts, strict)"));
    assert_eq!(identity(&path), before);
    assert_eq!(listing(dir.path()), ["eval", "few.corpus.jsonl", "few.jsonl", "student.gguf"]);
}

#[test]
fn a_student_that_fails_is_repaired_under_another_name_and_judged_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("student.gguf");
    fs::copy(student(), &path).unwrap();
    let prose = fs::read_to_string(fixtures::path("texts/calibration.txt")).unwrap();
    let prose = prose.chars().take(16_000).collect::<String>();
    fs::write(dir.path().join("prose.txt"), prose).unwrap();
    let chats = fs::read_to_string(fixtures::path("texts/calibration-chat.jsonl")).unwrap();
    let chats = chats.lines().take(20).collect::<Vec<_>>().join("\n");
    fs::write(dir.path().join("chats.jsonl"), chats).unwrap();
    let texts = ["--calibration", "prose.txt", "--calibration", "chats.jsonl", "--repair-tokens", "2048"];
    let repair = |out: &str, threshold: &str| {
        let more = ["--no-router-inputs", "--json", "--repair", out, "--threshold", threshold];
        let ended = gates(dir.path(), "student.gguf", &[&LAX[..], &texts, &more].concat());
        let json: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{}", ended.stderr));
        (ended.code, json)
    };
    let routing = |json: &Value, when: &str| json["repaired"]["gates"][0][when]["value"].as_f64().unwrap();

    // No student agrees with its teacher everywhere: the repair helps, and the verdict stays.
    let (code, json) = repair("routed.gguf", "routing_agreement=1");
    assert_eq!((code, json["verdict"].as_str()), (Some(3), Some("NO-SHIP")));
    assert_eq!(json["repaired"]["steps"], serde_json::json!(["routers fitted to the teacher's choices"]));
    assert_eq!((&json["repaired"]["name"], &json["student"]["name"]), (&"student".into(), &"routed".into()));
    let [before, after] = [routing(&json, "before"), routing(&json, "after")];
    assert!(after > before && json["student"]["gates"][0]["figure"]["value"] == after, "{before} {after}");
    assert_eq!(json["repaired"]["identity"], bitnet(["verify", text(&path), "--json"]).json()["identity"]);

    // Between both figures, the repaired student ships.
    let (code, json) = repair("routed.gguf", &format!("routing_agreement={}", (before + after) / 2.0));
    assert_eq!((code, json["verdict"].as_str()), (Some(0), Some("SHIP")));
    assert_eq!([routing(&json, "before"), routing(&json, "after")], [before, after], "the same repair");
    let folder = dir.path().join("eval/reports/student_few");
    let report =
        |name: &str| -> Value { serde_json::from_str(&fs::read_to_string(folder.join(name)).unwrap()).unwrap() };
    assert_eq!(report("report.json")["verdict"], "NO-SHIP");
    assert_eq!(report("repaired/report.json")["verdict"], "SHIP");
    let file = |name: &str| report(name)["run"]["files"]["student"].clone();
    assert_eq!([file("report.json"), file("repaired/report.json")], ["student.gguf", "routed.gguf"]);
    let page = fs::read_to_string(folder.join("repaired/report.md")).unwrap();
    assert!(page.contains("Before the repair"), "{page}");

    // Answers are repaired by training. A student that passes is not repaired.
    let (_, json) = repair("trained.gguf", "citation_precision=1");
    let steps = json["repaired"]["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 1, "{steps:?}");
    assert!(steps[0].as_str().unwrap().starts_with("trained towards the teacher on "), "{steps:?}");
    let (code, json) = repair("needless.gguf", "must_answer=0");
    assert!(code == Some(0) && json.get("repaired").is_none() && !dir.path().join("needless.gguf").exists());
    assert!(fs::read(&path).unwrap() == fs::read(student()).unwrap(), "the student itself stays as it is");

    let onto = gates(dir.path(), "student.gguf", &[&texts[..], &["--repair", "student.gguf"]].concat());
    assert!(onto.usage().contains("choose another name"));
}

#[test]
fn a_student_is_not_judged_on_a_suite_that_it_was_trained_on() {
    let dir = tempfile::tempdir().unwrap();
    let folder = fixtures::path("goldens/artifact");
    let recording = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir());
    let (recording, taught) = (recording.unwrap().join("artifact.bin"), dir.path().join("taught.gguf"));
    let few = ["--artifact", text(&recording), "--steps", "1", "--windows", "1", "-o", text(&taught)];
    bitnet(["refine", "-m", student()].iter().chain(&few)).done();
    let [suite, corpus] = ["suite.jsonl", "suite.corpus.jsonl"].map(|name| folder.join(name));
    let models = ["eval-gates", "--teacher", &teacher(), "--student", text(&taught)];
    let refusal = bitnet(models.iter().chain(&["--suite", text(&suite), "--corpus", text(&corpus)])).refusal();
    assert!(refusal.contains("taught.gguf was trained on this suite"), "{refusal}");
}

#[test]
fn runs_that_cannot_decide_are_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let wrong = |more: &[&str]| gates(dir.path(), &teacher(), more);
    assert!(wrong(&["--threshold", "vibes=1"]).usage().contains("must_answer"));
    assert!(wrong(&["--threshold", "must_answer=2"]).usage().contains("from 0 to 1"));
    assert!(wrong(&["--threshold", "must_answer"]).usage().contains("GATE=VALUE"));
    assert!(wrong(&["--perturb", "2"]).usage().contains("between 0 and 1"));
    assert!(wrong(&["--filter-failing", "--stamp"]).usage().contains("cannot be used with"));
    for value in ["vibes=1", "fragility=1.1", "redundancy=-1", "disagreement=nan"] {
        assert!(wrong(&["--label-threshold", value]).usage().contains("is no label threshold"), "{value}");
    }
    assert!(wrong(&["--label-threshold", "fragility"]).usage().contains("SIGNAL=VALUE"));
    assert!(wrong(&["--repair", "out.gguf"]).usage().contains("--calibration"));
    assert!(wrong(&["--calibration", "text.txt"]).usage().contains("--repair"));
    let texts = fixtures::path("texts/calibration.txt");
    let folder = wrong(&["--repair", "out.gguf", "--calibration", text(&texts)]);
    assert!(folder.usage().contains("--repair writes a student of one GGUF file"));
    let stamp = wrong(&["--stamp"]);
    assert_eq!(stamp.code, Some(2), "a folder takes no stamp");
    assert!(stamp.stderr.contains("--stamp writes into a GGUF file"), "{}", stamp.stderr);

    assert!(wrong(&["--filter-failing"]).refusal().contains("report.json"), "there is no last report");
    let signals = dir.path().join("signals.txt");
    assert!(wrong(&["--refusal-signals", text(&signals)]).refusal().contains("signals.txt"));
    for (content, reason) in [("fine\n--\n", "signals.txt: line 2: there is no word in it"), ("", "without a signal")] {
        fs::write(&signals, content).unwrap();
        let refusal = wrong(&["--refusal-signals", text(&signals)]).refusal();
        assert!(refusal.contains(reason), "{refusal}");
    }
    assert!(wrong(&["--report", "signals.txt"]).refusal().contains("signals.txt"), "a file is no folder");
    let much = wrong(&["--perturb", "0.95"]).refusal();
    assert!(much.contains("keep their label when evidence is taken away"), "{much}");

    let baseline = dir.path().join("old.json");
    for (content, reason) in [("{", "EOF"), (r#"{"schema": 9}"#, "schema is 9"), (r#"{"schema": 1}"#, "missing field")]
    {
        fs::write(&baseline, content).unwrap();
        let refusal = wrong(&["--baseline", text(&baseline)]).refusal();
        assert!(refusal.contains("old.json") && refusal.contains(reason), "{refusal}");
    }
    assert!(!dir.path().join("eval").exists(), "nothing was run for it");
}
