//! Whole gate runs of scripted models: each gate fails for its own reason and only then, and a run that was stopped ends
//! with the report of one that was not.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use behavior_eval::gates::GateError;
use behavior_eval::run::RunError;
use behavior_eval::stats::Figure;
use behavior_eval::suite::{Prompt, SuiteError};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use behavior_eval::Error;
use behavior_eval::gates::{Outcome, RefusalSignals, Verdict};
use behavior_eval::labels::Perturbation;
use behavior_eval::model::{Answer, ModelError, RoutingTable, Run, ScriptedSubject, Subject, SubjectInfo, Want};
use behavior_eval::records::artifact::{PromptEntry, open_or_record};
use behavior_eval::records::trace::{TraceReader, TraceWriter};
use behavior_eval::report::GateReport;
use behavior_eval::run::{GateRun, GateRunConfig};
use behavior_eval::suite::{Label, Suite};
use serde_json::Value;
use tempfile::TempDir;

const REFUSAL: &str = "I cannot determine that: insufficient evidence.";

/// How many prompts of each label the small suite has.
const PROMPTS: [(Label, usize); 3] = [(Label::Resolved, 24), (Label::Contested, 6), (Label::Indeterminate, 22)];
/// Two resolved prompts for each indeterminate one: F1 of refusing can fail where both its rates pass.
const WIDE: [(Label, usize); 2] = [(Label::Resolved, 40), (Label::Indeterminate, 20)];

/// A prompt as a scripted model knows it.
struct Known {
    label: Label,
    gold: String,
    relevant: Vec<String>,
    /// Its place among the prompts of its label.
    nth: usize,
}

/// A small suite cut from the fixture, with the recordings of the teacher, shared by all tests that ask all of it.
struct Small {
    _dir: TempDir,
    suite: Suite,
    artifacts: TempDir,
}

static SMALL: LazyLock<Small> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let suite = cut(dir.path(), &PROMPTS);
    let artifacts = tempfile::tempdir().unwrap();
    // Recorded once for all tests: two tests that record the same teacher at the same time find the job busy.
    let run = GateRun::new(&suite, "small", artifacts.path(), config()).unwrap();
    let mut load = || -> Result<Box<dyn Subject>, ModelError> { Ok(Box::new(teacher())) };
    run.record_teacher(teacher().info(), &mut load, &mut |_, _, _| {}).unwrap();
    drop(run);
    Small { _dir: dir, suite, artifacts }
});

/// The facts that the scripts know of all prompts of these suites, by question.
static KNOWN: LazyLock<Arc<BTreeMap<String, Known>>> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let suite = cut(dir.path(), &[WIDE[0], PROMPTS[1], PROMPTS[2]]);
    let mut counts = BTreeMap::new();
    let known = suite.prompts().iter().map(|prompt| {
        let label = prompt.label.unwrap();
        let nth: &mut usize = counts.entry(label).or_default();
        *nth += 1;
        let (gold, relevant) = (prompt.gold_answer.clone().unwrap(), prompt.relevant.clone().unwrap_or_default());
        (prompt.question.clone(), Known { label, gold, relevant, nth: *nth - 1 })
    });
    let known: BTreeMap<String, Known> = known.collect();
    assert_eq!(known.len(), suite.prompts().len(), "questions differ");
    Arc::new(known)
});

/// The first prompts of each label of the fixture.
fn cut(dir: &Path, counts: &[(Label, usize)]) -> Suite {
    let read = |name: &str| std::fs::read_to_string(fixtures::path("suites").join(name)).unwrap();
    let field = |line: &str, key: &str| -> String {
        serde_json::from_str::<Value>(line).unwrap()[key].as_str().unwrap().to_owned()
    };
    let mut left: BTreeMap<&str, usize> = counts.iter().map(|(label, n)| (label.name(), *n)).collect();
    let mut kept = Vec::new();
    let mut ids = Vec::new();
    for line in read("suite-200.jsonl").lines() {
        if let Some(n) = left.get_mut(field(line, "label").as_str()).filter(|n| **n > 0) {
            *n -= 1;
            ids.push(field(line, "prompt_id"));
            kept.push(line.to_owned());
        }
    }
    let corpus: Vec<String> = read("suite-200.corpus.jsonl")
        .lines()
        .filter(|line| ids.contains(&field(line, "prompt_id")))
        .map(str::to_owned)
        .collect();
    let (suite, chunks) = (dir.join("s.jsonl"), dir.join("c.jsonl"));
    std::fs::write(&suite, kept.join("\n")).unwrap();
    std::fs::write(&chunks, corpus.join("\n")).unwrap();
    Suite::open(&suite, &chunks).unwrap()
}

/// A model that answers a question by `rule`, which sees what is known of it and the prompt's text.
fn subject(name: &str, rule: impl Fn(&Known, &str) -> String + Send + 'static) -> ScriptedSubject {
    let known = KNOWN.clone();
    ScriptedSubject::new(name).answering(move |prompt| {
        let question = prompt.trim_end().rsplit("Question: ").next().unwrap();
        rule(&known[question], prompt)
    })
}

/// The gold answer, as far as the prompt still shows what it cites.
fn gold(known: &Known, prompt: &str) -> String {
    let mut answer = known.gold.clone();
    for id in &known.relevant {
        if !prompt.contains(&format!("[{id}]\n")) {
            answer = answer.replace(&format!(" [{id}]"), "");
        }
    }
    answer
}

fn teacher() -> ScriptedSubject {
    subject("teacher", gold)
}

fn config() -> GateRunConfig {
    // Tokens are bytes here.
    GateRunConfig { max_new_tokens: 400, ..GateRunConfig::default() }
}

fn run_with(config: GateRunConfig, root: &Path, student: &mut dyn Subject) -> behavior_eval::Result<GateReport> {
    run_on(&SMALL.suite, config, root, student)
}

fn run_on(
    suite: &Suite,
    config: GateRunConfig,
    root: &Path,
    student: &mut dyn Subject,
) -> behavior_eval::Result<GateReport> {
    let run = GateRun::new(suite, "small", root, config)?;
    let mut load = || -> Result<Box<dyn Subject>, ModelError> { Ok(Box::new(teacher())) };
    let recorded = run.record_teacher(teacher().info(), &mut load, &mut |_, _, _| {})?;
    let measured = run.measure_student(&recorded, student, &mut || 0.0, &mut |_, _, _| {})?;
    let report = run.report(&recorded, &measured, None)?;
    measured.discard()?;
    Ok(report)
}

fn run(student: &mut dyn Subject) -> GateReport {
    run_with(config(), SMALL.artifacts.path(), student).unwrap()
}

/// The figure of a gate of the student.
fn figure(report: &GateReport, gate: &str) -> Option<Figure> {
    report.student.figure(gate.parse().unwrap())
}

/// The gates that do not pass.
fn missed(report: &GateReport) -> Vec<&'static str> {
    report.student.misses().map(|result| result.gate.name()).collect()
}

#[test]
fn a_student_that_equals_its_teacher_ships_with_exact_routing() {
    let report = run(&mut subject("equal", gold));
    assert_eq!((report.verdict, missed(&report)), (Verdict::Ship, vec![]), "{:?}", report.summary);
    assert!(report.passed() && report.failures.is_empty());
    let routing = figure(&report, "routing_agreement").unwrap();
    assert_eq!((routing.value, routing.n), (1.0, 52));
    assert_eq!((report.routing.figures.mass, report.local_routing.unwrap().figures.agreement.value), (1.0, 1.0));
    assert!(report.coherence.unwrap().mean > 0.999);
    let fidelity = report.fidelity.unwrap();
    assert!(fidelity.kl_mean < 1e-6 && fidelity.same_top1.value == 1.0, "{fidelity:?}");
    assert!(report.retention.iter().all(|kept| kept.kept == Some(1.0)));
    assert!(report.prompts.iter().all(|prompt| prompt.failed.is_empty()));
    assert_eq!(report.teacher.gates.len(), 5, "its routing is the reference");
}

/// Shares that are recorded and measured apart give the recording and the report of the whole run.
#[test]
fn shares_in_any_order_give_the_run_that_was_not_cut() {
    let roots = [(); 4].map(|()| tempfile::tempdir().unwrap());
    let student = || subject("misroutes", gold).misrouting(|layer, position| layer == 1 && position % 4 != 0);
    let run = |root: usize| GateRun::new(&SMALL.suite, "small", roots[root].path(), config()).unwrap();
    let mut load = || -> Result<Box<dyn Subject>, ModelError> { Ok(Box::new(teacher())) };
    let n = SMALL.suite.prompts().len();
    let mut units = vec![Vec::new(); n];
    for number in [2, 3, 1] {
        let shard: gguf_bitnet::Shard = format!("{number}/3").parse().unwrap();
        let run = run(0).share(shard);
        let recorded = run.record_teacher(teacher().info(), &mut load, &mut |_, _, _| {}).unwrap();
        let measured = run.measure_student(&recorded, &mut student(), &mut || 1.5, &mut |_, _, _| {}).unwrap();
        for (at, unit) in shard.units(n).enumerate() {
            units[unit] = run.unit(&recorded, &measured, at).unwrap();
        }
    }
    let whole = run_with(config(), roots[1].path(), &mut student()).unwrap();
    let undivided = run(1).record_teacher(teacher().info(), &mut load, &mut |_, _, _| {}).unwrap();
    assert!(undivided.reused);
    let join = |root: usize, units: &[Vec<u8>]| {
        let run = run(root);
        let (teacher, student) = run.join(teacher().info(), student().info(), &mut |unit| Ok(units[unit].clone()))?;
        let report = run.report(&teacher, &student, None)?;
        student.discard()?;
        Ok::<_, Error>((report, std::fs::read(teacher.base.path()).unwrap()))
    };
    // The second time the recording is there already.
    for _ in 0..2 {
        let (report, recording) = join(2, &units).unwrap();
        assert_eq!(report.json(), whole.json());
        assert!(recording == std::fs::read(undivided.base.path()).unwrap(), "the recordings differ");
    }
    let wrong = |change: &dyn Fn(&mut Vec<Vec<u8>>)| {
        let mut units = units.clone();
        change(&mut units);
        join(3, &units).unwrap_err()
    };
    assert!(matches!(wrong(&|units| units.swap(0, 1)), Error::Run(RunError::Unit { unit: 0, .. })));
    assert!(matches!(wrong(&|units| units[0].truncate(40)), Error::Run(RunError::Unit { unit: 0, .. })));
    let cut = wrong(&|units| {
        units[0].pop();
    });
    assert!(cut.to_string().contains("run its shard again"), "{cut}");
    let flipped = wrong(&|units| {
        let middle = units[0].iter().position(|&byte| byte == b'\n').unwrap() + 1;
        units[0][middle] ^= 1;
    });
    assert!(flipped.to_string().contains("its length or its hash is wrong"), "{flipped}");
}

#[test]
fn misrouting_a_quarter_fails_routing_alone_and_exactly() {
    let mut student = subject("misroutes", gold).misrouting(|layer, position| layer == 1 && position % 4 != 0);
    let report = run(&mut student);
    assert_eq!(missed(&report), ["routing_agreement"]);
    let (mut wrong, mut all) = (0, 0);
    for prompt in &report.prompts {
        let [decisions, agree] = prompt.routing;
        let tokens = decisions / 3;
        all += decisions;
        wrong += tokens - tokens.div_ceil(4);
        assert_eq!(agree, decisions - (tokens - tokens.div_ceil(4)), "{}", prompt.prompt_id);
    }
    let figure = figure(&report, "routing_agreement").unwrap();
    assert_eq!((figure.numerator, figure.denominator), (Some(all - wrong), Some(all)));
    let failure = &report.failures[0];
    assert_eq!((failure.gate.name(), failure.worst_layers[0], report.routing.worst_layer), ("routing_agreement", 2, 2));
    assert_eq!((failure.worst_prompts.len(), failure.misrouted.len()), (10, 10));
    assert!(failure.misrouted.iter().all(|m| m.layer == 2 && m.tokens[..3] == [1, 2, 3]));
    assert!(failure.remedy.contains("router repair"));
    assert!(
        failure.worst_prompts[0].why.ends_with("decisions differ") && !failure.worst_prompts[0].response.is_empty()
    );
}

#[test]
fn citations_of_missing_or_irrelevant_chunks_fail_precision_alone() {
    let missing = |known: &Known, prompt: &str| match known.label {
        Label::Resolved => format!("{} [doc-998] [doc-999]", gold(known, prompt)),
        _ => gold(known, prompt),
    };
    let irrelevant = |known: &Known, prompt: &str| {
        let ids = prompt.lines().filter_map(|line| Some(line.rsplit_once(" [")?.1.strip_suffix(']')?.to_owned()));
        let others: Vec<String> = ids.filter(|id| !known.relevant.contains(id)).map(|id| format!(" [{id}]")).collect();
        match known.label {
            Label::Resolved => format!("{}{}", gold(known, prompt), others.concat().repeat(2)),
            _ => gold(known, prompt),
        }
    };
    for (mut student, why) in [
        (subject("invents", missing), "[doc-998] is no chunk of the prompt, [doc-999] is no chunk of the prompt"),
        (subject("strays", irrelevant), "does not say so"),
    ] {
        let report = run(&mut student);
        assert_eq!(missed(&report), ["citation_precision"], "{:?}", report.summary);
        assert!(report.failures[0].worst_prompts.iter().all(|worst| worst.why.contains(why)), "{:?}", report.failures);
        assert!(report.failures[0].worst_layers.is_empty() && report.failures[0].misrouted.is_empty());
    }
}

#[test]
fn a_student_that_never_cites_fails_recall_and_has_no_precision() {
    let mut student = subject("silent", |known, prompt| {
        let answer = gold(known, prompt);
        answer[..answer.find(" [").unwrap_or(answer.len())].to_owned()
    });
    let report = run(&mut student);
    assert_eq!(missed(&report), ["citation_precision", "citation_recall"]);
    let outcomes: Vec<Outcome> = report.student.misses().map(|result| result.outcome).collect();
    assert_eq!(outcomes, [Outcome::TooFew, Outcome::Fail]);
    assert_eq!(figure(&report, "citation_precision"), None);
    assert_eq!(figure(&report, "citation_recall").unwrap().value, 0.0);
}

#[test]
fn refusing_all_nothing_or_a_little_fails_the_gates_of_refusal() {
    let report = run(&mut subject("refuses", |_, _| REFUSAL.to_owned()));
    assert_eq!(missed(&report), ["citation_precision", "citation_recall", "refusal_f1", "must_answer"]);
    assert_eq!(report.student.refusal.over_refusal.value, 1.0);

    let bold = |known: &Known, prompt: &str| match known.label {
        Label::Indeterminate => "It is Sabopol.".to_owned(),
        _ => gold(known, prompt),
    };
    let report = run(&mut subject("bold", bold));
    assert_eq!(missed(&report), ["refusal_f1", "must_refuse"]);
    assert_eq!(figure(&report, "must_refuse").unwrap().value, 0.0);
    let failure = report.failures.iter().find(|failure| failure.gate.name() == "must_refuse").unwrap();
    assert!(failure.worst_prompts.iter().all(|p| p.label == "indeterminate" && p.why.contains("a refusal is due")));
    assert!(failure.remedy.contains("answer and refuse"));

    // 2 of 24 resolved prompts: 0.917 < 0.95, all else holds.
    let shy = |known: &Known, prompt: &str| match known.label {
        Label::Resolved if known.nth < 2 => REFUSAL.to_owned(),
        _ => gold(known, prompt),
    };
    assert_eq!(missed(&run(&mut subject("shy once", shy))), ["must_answer"]);
    // 5 of 22 indeterminate prompts: 0.773 < 0.80, while F1 is 0.872.
    let rash = |known: &Known, prompt: &str| match known.label {
        Label::Indeterminate if known.nth < 5 => "It is Sabopol.".to_owned(),
        _ => gold(known, prompt),
    };
    assert_eq!(missed(&run(&mut subject("rash", rash))), ["must_refuse"]);
}

/// 16 of 20 indeterminate prompts are refused (0.80), 38 of 40 resolved ones answered (0.95), both exactly as demanded;
/// F1 = 32 / (16 + 2 + 20) = 0.842.
#[test]
fn a_little_of_both_mistakes_fails_f1_alone() {
    let torn = |known: &Known, prompt: &str| match known.label {
        Label::Resolved if known.nth < 2 => REFUSAL.to_owned(),
        Label::Indeterminate if known.nth < 4 => "It is Sabopol.".to_owned(),
        _ => gold(known, prompt),
    };
    let dir = tempfile::tempdir().unwrap();
    let suite = cut(dir.path(), &WIDE);
    let report = run_on(&suite, config(), dir.path(), &mut subject("torn", torn)).unwrap();
    assert_eq!(missed(&report), ["refusal_f1"], "{:?}", report.summary);
    let value = |gate| figure(&report, gate).unwrap().value;
    assert_eq!((value("must_refuse"), value("must_answer")), (0.8, 0.95));
    assert!((value("refusal_f1") - 32.0 / 38.0).abs() < 1e-15);
    let [failure] = &report.failures[..] else { panic!("{:?}", report.failures) };
    assert_eq!((failure.gate.name(), failure.worst_prompts.len()), ("refusal_f1", 6));
    let mut reasons: Vec<&str> = failure.worst_prompts.iter().map(|worst| worst.why.as_str()).collect();
    reasons.sort_unstable();
    assert_eq!(
        reasons[3..],
        ["answered where a refusal is due", "refused where an answer is due", "refused where an answer is due"]
    );
}

#[test]
fn one_sided_answers_to_contested_prompts_are_reported_and_not_gated() {
    let one_sided = |known: &Known, prompt: &str| {
        let answer = gold(known, prompt);
        match known.label {
            Label::Contested => {
                format!("{}.", answer[..answer.find(" or ").unwrap()].replace("Sources disagree: ", "It is "))
            }
            _ => answer,
        }
    };
    let report = run(&mut subject("one-sided", one_sided));
    assert_eq!(report.verdict, Verdict::Ship);
    let (student, teacher) = (report.student.citations.contested.unwrap(), report.teacher.citations.contested.unwrap());
    assert_eq!((student.one_sided.value, student.disclosed.value), (1.0, 0.0));
    assert_eq!((teacher.one_sided.value, teacher.disclosed.value), (0.0, 1.0));
}

#[test]
fn strict_runs_and_larger_minima_ask_for_more_than_a_small_suite_has() {
    let strict = GateRunConfig { strict: true, ..config() };
    // Each test has students of its own names: the measurements of one student are one job.
    let report = run_with(strict, SMALL.artifacts.path(), &mut subject("strict", gold)).unwrap();
    // 24 of 24 resolved prompts: the lower end is 0.862, below 0.95; 22 of 22 indeterminate ones: 0.851, above 0.80.
    assert_eq!(missed(&report), ["must_answer"]);
    assert_eq!(report.teacher.misses().map(|result| result.gate.name()).collect::<Vec<_>>(), ["must_answer"]);
    assert!(
        report.summary[0].starts_with("The teacher itself misses 1 of its 5 gates: must_answer"),
        "{:?}",
        report.summary
    );
    let mut more = config();
    more.thresholds.min_samples = 23;
    let error = run_with(more, SMALL.artifacts.path(), &mut subject("equal", gold)).unwrap_err();
    assert!(
        matches!(error, Error::Gates(GateError::TooFewPrompts { label: Label::Indeterminate, have: 22, need: 23 })),
        "{error}"
    );
}

#[test]
fn evidence_of_which_too_little_is_left_is_an_error_that_says_so() {
    let perturbation = Some(Perturbation { fraction: 0.7, ..Perturbation::default() });
    let run = GateRun::new(&SMALL.suite, "small", SMALL.artifacts.path(), GateRunConfig { perturbation, ..config() });
    let error = run.unwrap_err();
    assert!(
        matches!(error, Error::Gates(GateError::TooFewKeepLabel { label: Label::Resolved, need: 20, .. })),
        "{error}"
    );
    assert!(error.to_string().contains("keep their label when evidence is taken away"), "{error}");
}

#[test]
fn without_router_inputs_the_local_mode_is_absent_and_nothing_else_changes() {
    let shaky = || subject("shaky", gold).misrouting(|layer, position| (layer + position) % 17 == 0);
    let whole = run(&mut shaky());
    let mut lean = config();
    lean.columns.router_inputs = false;
    let without = run_with(lean, SMALL.artifacts.path(), &mut shaky()).unwrap();
    assert!(whole.local_routing.is_some() && without.local_routing.is_none());
    assert_eq!(GateReport { local_routing: None, ..whole }.json(), without.json());
    assert!(behavior_eval::report::markdown(&without).contains("not recorded"));
}

/// The key is right, and so are all hashes, but these are not the prompts of the suite.
#[test]
fn a_recording_of_other_prompts_under_the_same_key_is_refused() {
    let spec = {
        let run = GateRun::new(&SMALL.suite, "small", SMALL.artifacts.path(), config()).unwrap();
        let mut load = || -> Result<Box<dyn Subject>, ModelError> { Ok(Box::new(teacher())) };
        run.record_teacher(teacher().info(), &mut load, &mut |_, _, _| {}).unwrap().base.spec().clone()
    };
    let all: Vec<&Prompt> = SMALL.suite.prompts().iter().collect();
    let swapped = [&all[1..2], &all[..1], &all[2..]].concat();
    for (prompts, says) in [
        (&all[..40], "its end stands at place 40 where the suite has prompt "),
        (&swapped, &format!("prompt {} stands at place 0 where the suite has prompt {}", all[1].id, all[0].id)),
    ] {
        let dir = tempfile::tempdir().unwrap();
        open_or_record(dir.path(), &spec, &mut teacher(), prompts, &mut |_, _| {}).unwrap();
        let error = run_with(config(), dir.path(), &mut subject("equal", gold)).unwrap_err().to_string();
        assert!(error.contains(says) && error.contains("remove its folder"), "{error}");
    }
}

#[test]
fn signals_and_label_thresholds_are_configuration_that_the_report_shows() {
    let polite = |known: &Known, prompt: &str| match known.label {
        Label::Indeterminate => "That is out of scope.".to_owned(),
        _ => gold(known, prompt),
    };
    assert_eq!(missed(&run(&mut subject("polite", polite))), ["refusal_f1", "must_refuse"]);
    let mut own = config();
    own.signals = RefusalSignals::parse("out of scope\n<declined>").unwrap();
    own.labels.set("redundancy", 4.0).unwrap();
    let root = SMALL.artifacts.path();
    let recordings = || std::fs::read_dir(root).unwrap().count();
    let before = recordings();
    let report = run_with(own, root, &mut subject("polite", polite)).unwrap();
    assert!(missed(&report).is_empty(), "{:?}", report.summary);
    assert_eq!(report.settings.refusal_signals, ["<declined>", "out of scope"]);
    assert_eq!(report.settings.label_thresholds.redundancy, 4.0);
    assert!(report.labels.sensitivity.iter().any(|row| row.threshold == "redundancy" && row.value == 4.1));
    assert!(
        report.teacher.misses().any(|result| result.gate.name() == "must_refuse"),
        "the teacher refuses in other words"
    );
    let page = behavior_eval::report::markdown(&report);
    assert!(page.contains("out of scope") && page.contains("redundancy &gt; 4"), "{page}");
    assert_eq!(recordings(), before, "they change how answers are counted, not what is recorded");
}

/// A refiner gets every position and prompt, also beyond those that the report lists.
#[test]
fn failed_gates_leave_repairs_of_everything_that_is_wrong() {
    let shy_and_lost = |known: &Known, prompt: &str| match known.label {
        Label::Resolved if known.nth < 15 => REFUSAL.to_owned(),
        _ => gold(known, prompt),
    };
    let mut student =
        subject("shy and lost", shy_and_lost).misrouting(|layer, position| layer == 1 && position % 2 == 0);
    let dir = tempfile::tempdir().unwrap();
    let run = GateRun::new(&SMALL.suite, "small", SMALL.artifacts.path(), config()).unwrap();
    let mut load = || -> Result<Box<dyn Subject>, ModelError> { Ok(Box::new(teacher())) };
    let recorded = run.record_teacher(teacher().info(), &mut load, &mut |_, _, _| {}).unwrap();
    let measured = run.measure_student(&recorded, &mut student, &mut || 0.0, &mut |_, _, _| {}).unwrap();
    let mut trace = TraceWriter::create(&dir.path().join("trace.jsonl")).unwrap();
    let report = run.report(&recorded, &measured, Some(&mut trace)).unwrap();
    let trace = trace.finish().unwrap();
    measured.discard().unwrap();
    let repairs = behavior_eval::report::repairs(&report, TraceReader::open(&trace).unwrap()).unwrap();
    assert_eq!(repairs.iter().map(|repair| repair.gate.name()).collect::<Vec<_>>(), missed(&report));
    let of = |gate| repairs.iter().find(|repair| repair.gate.name() == gate).unwrap();
    let routing = of("routing_agreement");
    assert_eq!((routing.prompts.len(), routing.misrouted.len()), (52, 52), "more than the ten that the report lists");
    for (misrouted, prompt) in routing.misrouted.iter().zip(&report.prompts) {
        let tokens = u32::try_from(prompt.routing[0] / 3).unwrap();
        assert_eq!((&misrouted.prompt_id, misrouted.layer), (&prompt.prompt_id, 2));
        assert_eq!(misrouted.tokens, (0..tokens).step_by(2).collect::<Vec<_>>());
        // The teacher's side of every position is in its recording.
        let is_it = |entry: &PromptEntry| entry.prompt_id == misrouted.prompt_id;
        let index = recorded.base.prompts().iter().position(is_it).unwrap();
        assert_eq!(recorded.base.routing(index).unwrap().n, tokens as usize);
    }
    let refused: Vec<&String> =
        report.prompts.iter().filter(|p| p.refused && p.label == "resolved").map(|p| &p.prompt_id).collect();
    assert_eq!(refused.len(), 15);
    for gate in ["citation_recall", "refusal_f1", "must_answer"] {
        assert!(of(gate).prompts.iter().eq(refused.iter().copied()) && of(gate).misrouted.is_empty(), "{gate}");
    }
    assert!(
        behavior_eval::report::repairs(&report, [Err(Error::Gates(GateError::NoCases))]).is_err(),
        "a damaged trace is no empty one"
    );
    let ships = self::run(&mut subject("ships", gold));
    assert!(behavior_eval::report::repairs(&ships, TraceReader::open(&trace).unwrap()).unwrap().is_empty());
}

#[test]
fn suites_that_decide_nothing_are_errors() {
    for (counts, one_sided) in [
        (&[(Label::Resolved, 30)][..], true),
        (&[(Label::Indeterminate, 30)], true),
        (&[(Label::Contested, 30)], true),
        (&[(Label::Resolved, 30), (Label::Indeterminate, 3)], false),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let suite = cut(dir.path(), counts);
        // Before any model runs.
        let error = GateRun::new(&suite, "lopsided", dir.path(), config()).unwrap_err();
        assert_eq!(matches!(error, Error::Gates(GateError::OneSided { .. })), one_sided, "{error}");
        assert_eq!(matches!(error, Error::Gates(GateError::TooFewPrompts { .. })), !one_sided, "{error}");
    }
}

/// Stops working after some answers, as a process that is killed.
struct Mortal {
    inner: ScriptedSubject,
    answers_left: usize,
}

impl Subject for Mortal {
    fn info(&self) -> &SubjectInfo {
        self.inner.info()
    }

    fn encode(&mut self, system: &str, user: &str) -> Result<Vec<u32>, ModelError> {
        self.inner.encode(system, user)
    }

    fn generate(&mut self, prompt: &[u32], max_new_tokens: usize) -> Result<Answer, ModelError> {
        self.answers_left = self.answers_left.checked_sub(1).ok_or("out of breath")?;
        self.inner.generate(prompt, max_new_tokens)
    }

    fn run(&mut self, tokens: &[u32], want: &Want, logits: &mut dyn FnMut(usize, &[f32])) -> Result<Run, ModelError> {
        self.inner.run(tokens, want, logits)
    }

    fn route(&mut self, layer: usize, inputs: &[f32]) -> Result<RoutingTable, ModelError> {
        self.inner.route(layer, inputs)
    }
}

#[test]
fn a_run_that_was_stopped_again_and_again_ends_with_the_same_report_and_trace() {
    let config = || GateRunConfig { perturbation: Some(Perturbation::default()), ..config() };
    let student = || subject("shaky", gold).misrouting(|layer, position| (layer + position) % 17 == 0);
    let dir = tempfile::tempdir().unwrap();
    let whole = {
        let run = GateRun::new(&SMALL.suite, "small", dir.path(), config()).unwrap();
        let mut load = || -> Result<Box<dyn Subject>, ModelError> { Ok(Box::new(teacher())) };
        let recorded = run.record_teacher(teacher().info(), &mut load, &mut |_, _, _| {}).unwrap();
        assert!(!recorded.reused);
        let measured = run.measure_student(&recorded, &mut student(), &mut || 0.0, &mut |_, _, _| {}).unwrap();
        let mut trace = TraceWriter::create(&dir.path().join("whole.jsonl")).unwrap();
        let report = run.report(&recorded, &measured, Some(&mut trace)).unwrap();
        (report, std::fs::read(trace.finish().unwrap()).unwrap())
        // The journal is dropped, not discarded: the next run finds everything done.
    };
    let killed = tempfile::tempdir().unwrap();
    let run = GateRun::new(&SMALL.suite, "small", killed.path(), config()).unwrap();
    // The teacher dies, too.
    let mut lives = [20, 1000].into_iter();
    let mut load = || -> Result<Box<dyn Subject>, ModelError> {
        Ok(Box::new(Mortal { inner: teacher(), answers_left: lives.next().ok_or("no third time")? }))
    };
    let died = run.record_teacher(teacher().info(), &mut load, &mut |_, _, _| {}).unwrap_err();
    assert!(died.to_string().contains("out of breath"), "{died}");
    run.record_teacher(teacher().info(), &mut load, &mut |_, _, _| {}).unwrap();
    let mut never = || -> Result<Box<dyn Subject>, ModelError> { Err("the recordings are there".into()) };
    let recorded = run.record_teacher(teacher().info(), &mut never, &mut |_, _, _| {}).unwrap();
    assert!(recorded.reused);
    let mut deaths = 0;
    let measured = loop {
        let mut mortal = Mortal { inner: student(), answers_left: 19 };
        match run.measure_student(&recorded, &mut mortal, &mut || 0.0, &mut |_, _, _| {}) {
            Ok(measured) => break measured,
            Err(error) => assert!(error.to_string().contains("out of breath"), "{error}"),
        }
        deaths += 1;
        assert!(deaths < 20);
    };
    assert!(deaths >= 3 && measured.resumed() > 0, "{deaths}");
    let mut trace = TraceWriter::create(&killed.path().join("resumed.jsonl")).unwrap();
    let report = run.report(&recorded, &measured, Some(&mut trace)).unwrap();
    assert_eq!(report.json(), whole.0.json());
    let trace = trace.finish().unwrap();
    assert!(std::fs::read(&trace).unwrap() == whole.1, "the traces differ");
    let less = recorded.perturbed.as_ref().unwrap();
    assert!(less.final_hidden(0).unwrap().is_none() && less.router_inputs(0).unwrap().is_none(), "nothing asks for it");
    let stability = report.perturbation.unwrap();
    assert!(stability.prompts_touched > 10 && stability.chunks_removed > 20, "{stability:?}");
    assert!(stability.stable, "{stability:?}");

    let lines: Result<Vec<_>, _> = TraceReader::open(&trace).unwrap().collect();
    let lines = lines.unwrap();
    let decisions: u64 = report.prompts.iter().map(|prompt| prompt.routing[0]).sum();
    assert_eq!(lines.len() as u64, decisions);
    let finals: Vec<_> = lines.iter().filter(|line| line.is_final()).collect();
    assert_eq!(finals.len(), SMALL.suite.prompts().len());
    for (line, prompt) in finals.iter().zip(&report.prompts) {
        assert_eq!(line.prompt_id, prompt.prompt_id);
        assert_eq!(line.citations.len() as u64, prompt.citations[0]);
        assert_eq!(line.citations.iter().filter(|c| c.valid).count() as u64, prompt.citations[1]);
        assert_eq!(line.refusal.as_ref().unwrap().did_refuse, prompt.refused);
        assert!(line.coherence_score.is_some());
    }
}

#[test]
fn a_part_of_the_suite_is_checked_prompt_by_prompt() {
    let shy = |known: &Known, prompt: &str| match known.label {
        Label::Resolved if known.nth < 2 => REFUSAL.to_owned(),
        _ => gold(known, prompt),
    };
    let report = run(&mut subject("shy", shy));
    let failing: Vec<&str> =
        report.prompts.iter().filter(|p| !p.failed.is_empty()).map(|p| p.prompt_id.as_str()).collect();
    assert_eq!(failing.len(), 2);
    let check = |student: &mut dyn Subject| {
        let run =
            GateRun::new(&SMALL.suite, "small", SMALL.artifacts.path(), config()).unwrap().only(&failing).unwrap();
        let mut never = || -> Result<Box<dyn Subject>, ModelError> { Err("the recordings are there".into()) };
        let recorded = run.record_teacher(teacher().info(), &mut never, &mut |_, _, _| {}).unwrap();
        let measured = run.measure_student(&recorded, student, &mut || 0.0, &mut |_, _, _| {}).unwrap();
        let checks = run.check_prompts(&recorded, &measured).unwrap();
        measured.discard().unwrap();
        checks
    };
    let again = check(&mut subject("shy", shy));
    let before: Vec<_> = report.prompts.iter().filter(|p| !p.failed.is_empty()).cloned().collect();
    assert_eq!(again, before, "the same student has the same trouble");
    let mended = check(&mut subject("mended", gold));
    assert!(mended.len() == 2 && mended.iter().all(|prompt| prompt.failed.is_empty()));
    let run = GateRun::new(&SMALL.suite, "small", SMALL.artifacts.path(), config()).unwrap();
    assert!(matches!(run.only(&["p-none"]), Err(Error::Suite(SuiteError::UnknownPrompt { .. }))));
}

#[test]
fn students_of_another_shape_or_tokenizer_are_refused() {
    struct Other(ScriptedSubject, SubjectInfo);
    impl Subject for Other {
        fn info(&self) -> &SubjectInfo {
            &self.1
        }
        fn encode(&mut self, _: &str, user: &str) -> Result<Vec<u32>, ModelError> {
            self.0.encode("another template", user)
        }
        fn generate(&mut self, prompt: &[u32], n: usize) -> Result<Answer, ModelError> {
            self.0.generate(prompt, n)
        }
        fn run(&mut self, t: &[u32], want: &Want, logits: &mut dyn FnMut(usize, &[f32])) -> Result<Run, ModelError> {
            self.0.run(t, want, logits)
        }
        fn route(&mut self, layer: usize, inputs: &[f32]) -> Result<RoutingTable, ModelError> {
            self.0.route(layer, inputs)
        }
    }
    let refused = |change: &dyn Fn(&mut SubjectInfo)| {
        let inner = subject("other", gold);
        let mut info = inner.info().clone();
        change(&mut info);
        run_with(config(), SMALL.artifacts.path(), &mut Other(inner, info)).unwrap_err()
    };
    assert!(matches!(refused(&|info| info.moe_layers.push(9)), Error::Run(RunError::Incomparable { .. })));
    assert!(matches!(refused(&|info| info.n_experts = 64), Error::Run(RunError::Incomparable { .. })));
    assert!(matches!(refused(&|info| info.top_k = 4), Error::Run(RunError::Incomparable { .. })));
    assert!(matches!(refused(&|info| info.vocab_size = 9), Error::Run(RunError::Incomparable { .. })));
    assert!(matches!(refused(&|info| info.id = "f".repeat(64)), Error::Run(RunError::OtherTokens { .. })));
}
