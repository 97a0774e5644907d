//! A gate report on paper: its schema, its four formats against hostile texts, and its comparison with a baseline.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use behavior_eval::gates::{
    BehavioralGate, CitationFigures, ContestedCitations, GateResult, GateThresholds, LayerFigures, Outcome,
    RefusalCounts, RefusalFigures, RoutingFigures, RoutingReport, Verdict,
};
use behavior_eval::labels::{
    FigureMove, LabelCounts, LabelFigures, LabelMove, LabelThresholds, Perturbation, SensitivityRow, Stability,
};
use behavior_eval::report::{Baseline, Stamp, *};
use behavior_eval::stats::{Figure, IntervalKind, Share};
use behavior_eval::suite::Label;
use serde_json::Value;

/// A text that would act in every format that does not escape it.
const HOSTILE: &str = "<script>alert(1)</script>|`]]>\"'&\u{1b}[31m\n# x\u{0}";

fn figure(value: f64, n: u64) -> Figure {
    let (low95, high95) = ((value - 0.04).max(0.0), (value + 0.04).min(1.0));
    let numerator = Some((value * n as f64).round() as u64);
    Figure { value, numerator, denominator: Some(n), n, low95, high95, interval: IntervalKind::Bootstrap }
}

fn model(name: &str, value: f64) -> ModelReport {
    let judge = |gate| GateResult::judge(gate, Some(figure(value, 100)), &GateThresholds::default(), false);
    ModelReport {
        name: name.to_owned(),
        identity: hex(name),
        gates: BehavioralGate::ALL.map(judge).to_vec(),
        citations: CitationFigures {
            precision: figure(value, 100),
            precision_macro: figure(value, 100),
            recall: figure(value, 80),
            recall_macro: figure(value, 80),
            support_precision: Some(figure(value, 100)),
            contested: Some(ContestedCitations {
                precision: figure(0.5, 60),
                disclosed: figure(0.5, 60),
                one_sided: figure(0.5, 60),
            }),
        },
        refusal: RefusalFigures {
            f1: figure(value, 140),
            macro_f1: figure(value, 140),
            precision: figure(value, 140),
            must_refuse: figure(value, 60),
            must_answer: figure(value, 80),
            over_refusal: figure(0.0, 80),
            contested_refused: None,
            counts: RefusalCounts::default(),
        },
        answer_tokens: 21.5,
        cut_off: 1,
    }
}

/// 64 hexadecimal digits that depend on the name.
fn hex(name: &str) -> String {
    let digits: String = name.bytes().map(|b| format!("{b:02x}")).collect();
    format!("{digits:0<64}")
}

fn routing(value: f64) -> RoutingReport {
    let count = (value * 1000.0) as u64;
    let share = Share::of(count, 1000).unwrap();
    let figures =
        RoutingFigures { agreement: share, overlap: value, mass: value, top1: share, margin_correlation: Some(0.5) };
    let layers = (1..5).map(|layer| LayerFigures { layer, figures: figures.clone() }).collect();
    RoutingReport { figures, layers, worst_layer: 4 }
}

/// A report of a student whose gates all have this figure, with a hostile text wherever a text comes from outside.
fn report(value: f64) -> GateReport {
    let student = model("student", value);
    let verdict = Verdict::of(&student.gates, &GateThresholds::default()).unwrap();
    let worst = WorstPrompt {
        prompt_id: HOSTILE.into(),
        label: "resolved".into(),
        why: HOSTILE.into(),
        question: HOSTILE.into(),
        response: HOSTILE.into(),
        teacher_response: HOSTILE.into(),
    };
    let failures = student.misses().map(|result| Failure {
        gate: result.gate,
        what: format!("{} is {value}", result.gate),
        worst_layers: vec![4, 2],
        worst_prompts: vec![worst.clone()],
        misrouted: vec![Misrouted { prompt_id: HOSTILE.into(), layer: 4, tokens: vec![1, 2, 3, 9] }],
        remedy: result.gate.remedy(),
    });
    let failures: Vec<Failure> = failures.collect();
    let prompt = |id: &str, failed: Vec<BehavioralGate>| PromptReport {
        prompt_id: id.into(),
        label: "resolved".into(),
        failed,
        routing: [400, 390],
        citations: [3, 2],
        relevant: [4, 2],
        refused: false,
        teacher_refused: false,
        stop_reason: "stop".into(),
        response: HOSTILE.into(),
    };
    let missed = student.misses().map(|result| result.gate).collect();
    GateReport {
        verdict,
        summary: vec![HOSTILE.into()],
        schema: SCHEMA,
        suite: SuiteFacts {
            name: HOSTILE.into(),
            identity: "a".repeat(64),
            prompts: 200,
            counts: LabelCounts { resolved: 80, contested: 60, indeterminate: 60, unlabelled: 0 },
            labels: LabelSource::Suite,
        },
        settings: Settings {
            strict: false,
            max_new_tokens: 64,
            compute: "f32".into(),
            thresholds: GateThresholds::default(),
            label_thresholds: LabelThresholds::default(),
            refusal_signals: vec!["cannot determine".into(), HOSTILE.into()],
        },
        teacher: model("teacher", 0.99),
        retention: vec![Retention {
            gate: "must_answer".parse().unwrap(),
            teacher: 0.99,
            student: value,
            kept: Some(0.9),
        }],
        student,
        routing: routing(value),
        local_routing: Some(routing(0.999)),
        coherence: Some(Coherence { mean: 0.98, lowest: 0.4, n: 1000 }),
        fidelity: Some(AnswerFidelity {
            kl_mean: 0.02,
            tail_mass: 0.001,
            same_top1: figure(0.9, 500),
            kl_by_position: vec![0.1, 0.02, 0.03],
        }),
        labels: LabelFigures {
            counts: LabelCounts::default(),
            accuracy: Some(figure(0.97, 200)),
            confusion: vec![LabelMove { from: Some(Label::Resolved), to: None, prompts: 2 }],
            sensitivity: vec![SensitivityRow {
                threshold: "redundancy",
                value: 3.1,
                flips: 3,
                moves: vec![LabelMove { from: Some(Label::Resolved), to: Some(Label::Contested), prompts: 3 }],
            }],
        },
        perturbation: Some(Stability {
            perturbation: Perturbation::default(),
            chunks_removed: 129,
            prompts: 200,
            prompts_touched: 98,
            prompts_surviving: 170,
            figures: vec![FigureMove::new("refusal_f1", 0.9, 0.8, false)],
            stable: false,
        }),
        failures,
        prompts: vec![prompt("p-1", missed), prompt(HOSTILE, vec![])],
        baseline: None,
        repaired: None,
        run: RunFacts {
            finished: "2026-01-02T03:04:05Z".into(),
            files: BTreeMap::from([("trace".to_owned(), HOSTILE.to_owned())]),
            ..RunFacts::default()
        },
    }
}

/// Just enough of JSON Schema for the schema of this crate: any other keyword is an error.
fn validate(value: &Value, schema: &Value, root: &Value, at: &str) -> Result<(), String> {
    let object = schema.as_object().ok_or_else(|| format!("{at}: the schema is no object"))?;
    for (keyword, rule) in object {
        let ok = match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" => true,
            "$ref" => {
                let name = rule.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
                return validate(value, &root["$defs"][name], root, at);
            }
            "type" => {
                let is = |name: &str| match name {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "boolean" => value.is_boolean(),
                    "null" => value.is_null(),
                    "integer" => value.is_u64() || value.is_i64(),
                    "number" => value.is_number(),
                    other => panic!("unknown type {other}"),
                };
                match rule {
                    Value::Array(names) => names.iter().any(|name| is(name.as_str().unwrap())),
                    name => is(name.as_str().unwrap()),
                }
            }
            "enum" => rule.as_array().unwrap().contains(value),
            "const" => rule == value,
            "minimum" => value.as_f64().is_none_or(|x| x >= rule.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|x| x <= rule.as_f64().unwrap()),
            "minItems" => value.as_array().is_none_or(|a| a.len() as u64 >= rule.as_u64().unwrap()),
            "maxItems" => value.as_array().is_none_or(|a| a.len() as u64 <= rule.as_u64().unwrap()),
            "pattern" => {
                assert_eq!(rule, "^[0-9a-f]{64}$");
                let text = value.as_str().unwrap();
                text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
            }
            "required" => {
                value.is_null() || rule.as_array().unwrap().iter().all(|key| value.get(key.as_str().unwrap()).is_some())
            }
            "properties" => {
                for (key, inner) in value.as_object().into_iter().flatten() {
                    match (rule.get(key), object.get("additionalProperties")) {
                        (Some(rule), _) => validate(inner, rule, root, &format!("{at}.{key}"))?,
                        (None, Some(Value::Bool(false))) => return Err(format!("{at}.{key} is not in the schema")),
                        (None, _) => {}
                    }
                }
                true
            }
            "additionalProperties" => match rule {
                Value::Bool(false) => true, // see `properties`
                rule => {
                    let values = value.as_object().unwrap();
                    values.iter().all(|(key, inner)| validate(inner, rule, root, &format!("{at}.{key}")).is_ok())
                }
            },
            "items" => {
                for (i, inner) in value.as_array().into_iter().flatten().enumerate() {
                    validate(inner, rule, root, &format!("{at}[{i}]"))?;
                }
                true
            }
            other => return Err(format!("{at}: the test does not know the keyword {other}")),
        };
        if !ok {
            return Err(format!("{at}: {value} breaks {keyword} {rule}"));
        }
    }
    Ok(())
}

fn check_schema(json: &str) -> Result<(), String> {
    let schema: Value = serde_json::from_str(include_str!("../../schema/gate-report.schema.json")).unwrap();
    validate(&serde_json::from_str(json).unwrap(), &schema, &schema, "report")
}

#[test]
fn reports_follow_the_committed_schema_and_open_with_the_verdict() {
    for value in [0.99, 0.4] {
        let mut report = report(value);
        let baseline = Baseline::parse(&report.json()).unwrap();
        report.baseline = Some(baseline.compare(&report).unwrap());
        report.set_repaired(&self::report(0.4), vec![HOSTILE.into()]);
        check_schema(&report.json()).unwrap();
        // Everything that may be absent.
        (report.local_routing, report.coherence, report.fidelity) = (None, None, None);
        (report.labels.accuracy, report.perturbation, report.baseline) = (None, None, None);
        report.repaired = None;
        report.student.citations.support_precision = None;
        report.student.citations.contested = None;
        report.student.gates[1].figure = None;
        check_schema(&report.json()).unwrap();
    }
    let stamp = Stamp::of(&report(0.97));
    assert_eq!((stamp.verdict, stamp.prompts), (Verdict::Ship, 200));
    assert!(report(0.99).json().starts_with("{\n  \"verdict\": \"SHIP\""));
    assert!(report(0.4).json().starts_with("{\n  \"verdict\": \"NO-SHIP\""));
}

#[test]
fn a_repaired_student_is_set_beside_itself_before() {
    let (before, mut after) = (report(0.4), report(0.93));
    after.set_repaired(&before, vec!["routers fitted".into(), "trained".into()]);
    let sentence = after.summary.last().unwrap();
    // must_answer demands 0.95.
    assert!(sentence.contains("missed 6 gates") && sentence.contains("(routers fitted, then trained)"), "{sentence}");
    assert!(sentence.contains("5 of them pass now, and 0 that passed do not"), "{sentence}");
    let repaired = after.repaired.as_ref().unwrap();
    assert_eq!((&repaired.name, &repaired.identity), (&before.student.name, &before.student.identity));
    let value = |figure: &Option<Figure>| figure.unwrap().value;
    assert!(repaired.gates.iter().all(|gate| value(&gate.before) == 0.4 && value(&gate.after) == 0.93));
    let page = markdown(&after);
    assert!(page.contains("Before the repair") && page.contains("FAIL 0.4000"), "{page}");
    after.set_repaired(&report(0.99), Vec::new());
    assert!(after.summary.last().unwrap().contains("missed 0 gates"));
}

#[test]
fn the_schema_refuses_what_is_no_report() {
    let whole: Value = serde_json::from_str(&report(0.4).json()).unwrap();
    let broken = |change: &dyn Fn(&mut Value)| {
        let mut json = whole.clone();
        change(&mut json);
        check_schema(&json.to_string()).unwrap_err()
    };
    broken(&|json| json["verdict"] = "MAYBE".into());
    broken(&|json| json["extra"] = 1.into());
    broken(&|json| json["student"]["identity"] = "x".into());
    broken(&|json| json["student"]["gates"][0]["figure"]["value"] = 1.5.into());
    broken(&|json| drop(json["suite"].as_object_mut().unwrap().remove("prompts")));
}

#[test]
fn html_shows_hostile_texts_and_never_obeys_them() {
    let page = html(&report(0.4));
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;") && !page.contains("<script"));
    assert!(page.chars().all(|c| !c.is_control() || c == '\n' || c == '\t'));
    for outside in ["http-equiv=\"refresh\"", "src=", "href=", "@import", "url("] {
        assert!(!page.contains(outside), "the page needs nothing else: {outside}");
    }
    assert!(page.contains("<h1 class=\"bad\">NO-SHIP: student against teacher"));
    assert_eq!(page.matches("<svg ").count(), 3);
    balanced(&page.replacen("<!doctype html>", "", 1), &["meta"]);
}

#[test]
fn junit_is_well_formed_and_counts_failures() {
    let bad = junit(&report(0.4));
    balanced(bad.strip_prefix("<?xml version=\"1.0\" encoding=\"UTF-8\"?>").unwrap(), &[]);
    assert!(bad.contains("tests=\"6\" failures=\"6\""), "{bad}");
    assert_eq!(bad.matches("<failure ").count(), 6);
    let good = junit(&report(0.99));
    assert!(good.contains("tests=\"6\" failures=\"0\"") && !good.contains("<failure "));
    assert!(good.contains("name=\"teacher.citation_recall\""));
}

#[test]
fn markdown_keeps_its_tables_whole() {
    let text = markdown(&report(0.4));
    assert!(text.starts_with("# NO-SHIP: student against teacher"));
    assert!(!text.contains("<script"));
    let mut columns = 0;
    for line in text.lines() {
        let bars = line.replace("\\\\", "").replace("\\|", "").matches('|').count();
        match (line.starts_with('|'), columns) {
            (true, 0) => columns = bars,
            (true, _) => assert_eq!(bars, columns, "{line}"),
            (false, _) => columns = 0,
        }
    }
    assert!(text.contains("1-3, 9"), "misrouted tokens are listed");
    assert!(text.contains("Remedy: router repair: routers are fitted"));
}

/// Every element that is opened is closed, in order; quotes in tags are closed.
fn balanced(text: &str, void: &[&str]) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        let end = at + rest[at..].find('>').expect("every tag ends");
        let tag = &rest[at + 1..end];
        rest = &rest[end + 1..];
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "</{name}>");
        } else if !tag.ends_with('/') && !void.contains(&name) {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn a_drop_beyond_chance_regresses_and_a_smaller_one_does_not() {
    let baseline = Baseline::parse(&report(0.97).json()).unwrap();
    let compared = |value| baseline.compare(&report(value)).unwrap();
    assert!(compared(0.97).regressions.is_empty());
    assert!(compared(0.99).regressions.is_empty(), "better is no regression");
    // 0.96 is inside the interval of 0.97 and passes every gate.
    let small = compared(0.96);
    assert!(small.regressions.is_empty() && small.figures.iter().all(|f| !f.regressed), "{small:?}");
    assert!((small.figures[0].change.unwrap() + 0.01).abs() < 1e-12);
    // 0.94 is inside the interval, but must_answer passed before and does not now.
    let gate = compared(0.94);
    assert_eq!(gate.regressions.len(), 1, "{gate:?}");
    assert!(gate.regressions[0].starts_with("must_answer passed at 0.9700"), "{gate:?}");
    // 0.92 is below the lower end 0.93 of every figure.
    assert_eq!(compared(0.92).regressions.len(), 6);
    // A figure that can no longer be measured is a regression, too.
    let mut lost = report(0.97);
    lost.student.gates[1].figure = None;
    lost.student.gates[1].outcome = Outcome::TooFew;
    assert_eq!(baseline.compare(&lost).unwrap().regressions.len(), 1);

    let mut failed = report(0.92);
    failed.verdict = Verdict::Ship;
    assert!(failed.passed());
    failed.set_baseline(compared(0.97));
    assert!(failed.passed() && failed.summary.len() == 1);
    failed.set_baseline(compared(0.92));
    assert!(!failed.passed(), "a regression fails a run that would ship");
    assert!(failed.summary[1].starts_with("The student fell behind the baseline in 6"), "{:?}", failed.summary);
    assert_eq!(compared(0.4).newly_failing, ["p-1"]);
    let worse = Baseline::parse(&report(0.4).json()).unwrap();
    assert_eq!(worse.failing_prompts(), ["p-1"]);
    assert_eq!(worse.compare(&report(0.97)).unwrap().newly_passing, ["p-1"]);
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let baseline = Baseline::parse(&report(0.97).json()).unwrap();
    let refused = |change: &dyn Fn(&mut GateReport), word: &str| {
        let mut other = report(0.97);
        change(&mut other);
        let error = baseline.compare(&other).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    };
    refused(&|r| r.suite.identity = "b".repeat(64), "suite");
    refused(&|r| r.teacher.identity = "c".repeat(64), "teacher");
    refused(&|r| r.settings.max_new_tokens = 60, "tokens");
    refused(&|r| r.settings.compute = "a8-block".into(), "computing");
    refused(&|r| r.settings.refusal_signals.push("pass".into()), "refusal signals");
    refused(&|r| r.settings.label_thresholds.redundancy = 2.0, "redundancy > 3, fragility > 0.7, and this run's is");
}

#[test]
fn hostile_baselines_are_refused_with_the_reason() {
    let whole: Value = serde_json::from_str(&report(0.97).json()).unwrap();
    let refused = |change: &dyn Fn(&mut Value), word: &str| {
        let mut json = whole.clone();
        change(&mut json);
        let error = Baseline::parse(&json.to_string()).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    };
    refused(&|json| json["schema"] = 2.into(), "schema is 2");
    refused(&|json| drop(json.as_object_mut().unwrap().remove("schema")), "schema");
    refused(&|json| json["student"]["gates"] = "none".into(), "expected a sequence");
    refused(&|json| json["student"]["gates"] = Value::Array(vec![]), "routing_agreement");
    refused(&|json| json["student"]["gates"][2] = json["student"]["gates"][1].clone(), "citation_precision");
    refused(&|json| json["student"]["gates"][1]["figure"]["value"] = 7.into(), "citation_precision is 7");
    refused(&|json| json["student"]["gates"][1]["figure"]["low95"] = (-1).into(), "citation_precision");
    refused(&|json| json["student"]["gates"][1]["figure"]["n"] = (-1).into(), "");
    refused(&|json| json["student"]["gates"][1]["gate"] = "vibes".into(), "vibes");
    refused(&|json| json["settings"]["thresholds"]["must_answer"] = "high".into(), "");
    refused(&|json| json["prompts"][0]["failed"] = 3.into(), "");
    let twice = report(0.97).json().replacen("\"strict\": false", "\"strict\": true, \"strict\": false", 1);
    let error = Baseline::parse(&twice).unwrap_err().to_string();
    assert!(error.contains("duplicate field `strict` at line "), "{error}");
    for text in ["", "{", "[]", "null", "{\"schema\": 1e99}", &"[".repeat(200_000)] {
        assert!(Baseline::parse(text).is_err(), "{:.20}", text);
    }
}
