//! Traces: what is written is read, unknown fields included; everything else is refused with file, line and field.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use behavior_eval::gates::GateError;
use std::fs;

use behavior_eval::gates::{RoutingGate, RoutingReport};
use behavior_eval::model::{ScriptedSubject, Subject, Want};
use behavior_eval::records::MAX_LINE_BYTES;
use behavior_eval::records::trace::{
    CitationTrace, RefusalTrace, TraceReader, TraceRecord, TraceWriter, diff, summarize, trace_path,
};
use behavior_eval::{Error, Result};

fn record(prompt_id: &str, token: u64, layer: u32, student: [u32; 2]) -> TraceRecord {
    TraceRecord::new(prompt_id, token, layer, (&[0, 1], &[1.25, 0.55]), (&student, &[1.0, 0.8]))
}

fn last(mut record: TraceRecord, refusal: RefusalTrace, valid: &[bool]) -> TraceRecord {
    record.stop_reason = Some("stop".to_owned());
    record.refusal = Some(refusal);
    let citation =
        |&valid: &bool| CitationTrace { chunk_id: "doc-1".into(), span: "So.".into(), valid, ..Default::default() };
    record.citations = valid.iter().map(citation).collect();
    record
}

/// Two prompts of two tokens in two layers; of the eight lines five agree.
fn lines() -> Vec<TraceRecord> {
    let mut lines = vec![
        record("p-1", 0, 1, [0, 1]),
        record("p-1", 0, 2, [0, 2]),
        record("p-1", 1, 1, [0, 1]),
        last(record("p-1", 1, 2, [2, 3]), RefusalTrace::new(Some(false), false), &[true, false, true]),
        record("p-2", 0, 1, [0, 1]),
        record("p-2", 0, 2, [0, 1]),
        record("p-2", 1, 1, [1, 2]),
        last(record("p-2", 1, 2, [0, 1]), RefusalTrace::new(Some(true), false), &[]),
    ];
    lines[1].coherence_score = Some(0.5);
    lines[3].coherence_score = Some(1.0);
    lines
}

fn text(lines: &[TraceRecord]) -> String {
    let mut out = Vec::new();
    lines.iter().for_each(|line| line.write(&mut out).unwrap());
    String::from_utf8(out).unwrap()
}

fn read(text: &str) -> Result<Vec<TraceRecord>> {
    TraceReader::new(text.as_bytes(), "run.jsonl").collect()
}

#[test]
fn a_file_is_read_as_it_was_written_and_appears_when_it_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = trace_path(dir.path(), "mini", "suite-200", "20260102T030405Z");
    assert!(path.ends_with("eval/traces/mini_suite-200_20260102T030405Z.jsonl"));
    let mut writer = TraceWriter::create(&path).unwrap();
    lines().iter().for_each(|line| writer.write(line).unwrap());
    assert!(!path.exists());
    assert_eq!(writer.finish().unwrap(), path);
    let back: Vec<TraceRecord> = TraceReader::open(&path).unwrap().collect::<Result<_>>().unwrap();
    assert_eq!(back, lines());
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    // A trace is never overwritten, and one that was given up leaves nothing.
    let error = TraceWriter::create(&path).unwrap_err().to_string();
    assert!(error.contains("exists already"), "{error}");
    let other = path.with_file_name("other.jsonl");
    TraceWriter::create(&other).unwrap().write(&lines()[0]).unwrap();
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn the_schema_is_the_documented_one() {
    let want = concat!(
        r#"{"version":1,"prompt_id":"p-1","token_idx":1,"layer_idx":2,"routing":{"topk_expert_ids":[2,3],"#,
        r#""topk_weights":[1.0,0.8],"teacher_expert_ids":[0,1],"teacher_weights":[1.25,0.55],"agreement":false},"#,
        r#""citations":[{"chunk_id":"doc-1","span":"So.","valid":true}],"#,
        r#""refusal":{"should_refuse":false,"did_refuse":false,"correct":true},"coherence_score":null,"#,
        r#""stop_reason":"stop"}"#,
        "\n"
    );
    let line = last(record("p-1", 1, 2, [2, 3]), RefusalTrace::new(Some(false), false), &[true]);
    assert_eq!(text(&[line]), want);
}

#[test]
fn unknown_fields_are_kept_from_reading_to_writing() {
    let line = concat!(
        r#"{"version":1,"prompt_id":"p-1","token_idx":0,"layer_idx":1,"routing":{"topk_expert_ids":[0],"topk_weights":[1.0],"#,
        r#""teacher_expert_ids":[0],"teacher_weights":[1.0],"agreement":true,"entropy":[0.25,null]},"#,
        r#""citations":[{"chunk_id":"d","span":"s","valid":true,"score":3}],"#,
        r#""refusal":{"should_refuse":null,"did_refuse":true,"correct":null,"phrase":"cannot"},"#,
        r#""coherence_score":null,"stop_reason":"length","later":{"a":1e3,"b":"x"}}"#,
        "\n"
    );
    let records = read(line).unwrap();
    assert_eq!(records[0].other["later"]["b"], "x");
    let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert_eq!(value(&text(&records)), value(line));
    assert_eq!(read(&text(&records)).unwrap(), records);
}

/// One defect each, in the second of two lines; what the message must say after `run.jsonl line 2: `.
#[test]
fn hostile_lines_are_refused_with_their_line_and_field() {
    let (good, next) = (text(&lines()[..1]), text(&lines()[1..2]));
    let changed = |from: &str, to: &str| {
        assert!(next.contains(from), "{from}");
        next.replacen(from, to, 1)
    };
    let huge = "1".repeat(400);
    let cases = [
        (next[..60].to_owned(), "the line is cut off"),
        (next[..next.len() - 2].to_owned(), "the line is cut off"),
        ("[1]\n".to_owned(), "the line is no JSON object: a list instead of an object"),
        ("\n".to_owned(), "the line is cut off"),
        ("not json\n".to_owned(), "the line is no JSON object"),
        (changed("\"version\":1", "\"version\":2"), "field `version`: 2 is unknown here"),
        (changed("\"version\":1,", ""), "field `version`: it is missing"),
        (changed("\"p-1\"", "\"\""), "field `prompt_id`: it is empty"),
        (changed("\"p-1\"", "7"), "field `prompt_id`: invalid type"),
        (changed("\"token_idx\":0", "\"token_idx\":-1"), "field `token_idx`: invalid value"),
        (changed("\"token_idx\":0", "\"token_idx\":0.5"), "field `token_idx`: invalid type"),
        (changed("\"token_idx\":0", &format!("\"token_idx\":{huge}")), "field `token_idx`:"),
        (
            changed("\"token_idx\":0", "\"token_idx\":0,\"token_idx\":1"),
            "field `token_idx`: it stands in the line twice",
        ),
        (
            changed("\"agreement\":false", "\"agreement\":true,\"agreement\":false"),
            "field `routing.agreement`: it stands in the line twice",
        ),
        (changed("\"layer_idx\":2", "\"layer_idx\":4294967296"), "field `layer_idx`: invalid value"),
        (changed("\"layer_idx\":2", "\"layer_idx\":1e999"), "field `layer_idx`: number out of range"),
        (changed("\"routing\":{", "\"routing\":[],\"was\":{"), "field `routing`: a list instead of an object"),
        (
            changed("\"topk_expert_ids\":[0,2]", "\"topk_expert_ids\":[0,-2]"),
            "field `routing.topk_expert_ids`: invalid",
        ),
        (
            changed("\"topk_expert_ids\":[0,2]", "\"topk_expert_ids\":[2,0]"),
            "field `routing.topk_expert_ids`: expert ids",
        ),
        (
            changed("\"topk_expert_ids\":[0,2]", "\"topk_expert_ids\":[0,0]"),
            "field `routing.topk_expert_ids`: expert ids",
        ),
        (changed("\"topk_expert_ids\":[0,2]", "\"topk_expert_ids\":[]"), "field `routing.topk_expert_ids`: expert ids"),
        (changed("[1.0,0.8]", "[1.0]"), "field `routing.topk_weights`: 1 weights for 2 experts"),
        (changed("[1.0,0.8]", "[1.0,\"NaN\"]"), "field `routing.topk_weights`: invalid type: string"),
        (changed("[1.0,0.8]", "[1.0,null]"), "field `routing.topk_weights`: invalid type: null"),
        (changed("[1.0,0.8]", "[1.0,1e39]"), "field `routing.topk_weights`: a weight is too large"),
        (changed("[1.0,0.8]", "[1.0,NaN]"), "field `topk_weights`: expected value"),
        (changed("\"agreement\":false", "\"agreement\":true"), "field `routing.agreement`: it contradicts"),
        (changed("\"agreement\":false", "\"agreement\":0"), "field `routing.agreement`: invalid type"),
        (changed("\"coherence_score\":0.5", "\"coherence_score\":1.5"), "field `coherence_score`: a cosine"),
        (changed("\"citations\":[]", "\"citations\":[{\"chunk_id\":1}]"), "field `citations.0.chunk_id`: invalid type"),
        (changed("\"citations\":[]", "\"citations\":[3]"), "field `citations.0`: a number instead of an object"),
        (changed("\"citations\":[]", "\"citations\":null"), "field `citations`: invalid type"),
        (
            changed("\"refusal\":null", "\"refusal\":{\"should_refuse\":true,\"did_refuse\":true,\"correct\":false}"),
            "field `refusal.correct`: it contradicts",
        ),
        (
            changed("\"refusal\":null", "\"refusal\":{\"should_refuse\":true,\"did_refuse\":true,\"correct\":true}"),
            "field `stop_reason`: citations and refusal",
        ),
        (good.clone(), "field `token_idx`: token 0 in layer 1 of prompt p-1 repeats or goes back"),
        (text(&lines()[4..5]), "field `stop_reason`: prompt p-1 ends without one"),
        (String::new(), "field `stop_reason`: prompt p-1 ends without one"),
        (format!("{}\n", " ".repeat(MAX_LINE_BYTES + 1)), "the line has more than"),
        (" ".repeat(MAX_LINE_BYTES + 2), "the line has more than"),
        (format!("{{\"prompt_id\":{}", "[".repeat(100_000)), "field `prompt_id`: recursion limit exceeded"),
    ];
    for (line, says) in cases {
        let mut reader = TraceReader::new([good.as_bytes(), line.as_bytes()].concat().leak() as &[u8], "run.jsonl");
        assert_eq!(reader.next().unwrap().unwrap(), lines()[0]);
        let error = reader.next().unwrap().unwrap_err().to_string();
        let start: String = line.chars().take(80).collect();
        assert!(error.starts_with(&format!("run.jsonl line 2: {says}")), "{start}\n{error}");
        assert!(reader.next().is_none(), "a reader ends after an error");
    }
    let broken = [good.as_bytes(), b"{\"prompt_id\":\"\xff\"}\n"].concat();
    let error = TraceReader::new(&broken[..], "run.jsonl").nth(1).unwrap().unwrap_err().to_string();
    assert_eq!(error, "run.jsonl line 2: the line is not UTF-8");
}

#[test]
fn a_prompt_that_comes_again_is_refused() {
    let twice = text(&lines()) + &text(&lines()[..4]);
    let error = read(&twice).unwrap_err().to_string();
    assert_eq!(
        error,
        "run.jsonl line 9: field `prompt_id`: prompt p-1 has ended before; its lines must stand together"
    );
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(TraceReader::open(dir.path()), Err(Error::Store(_))), "a folder is no trace");
}

#[test]
fn a_summary_by_hand() {
    let summary = summarize(read(&text(&lines())).unwrap().into_iter().map(Ok)).unwrap();
    assert_eq!(summary.records, 8);
    let r = &summary.routing;
    assert_eq!((r.agreement.count, r.agreement.n), (5, 8));
    // Shared experts: 2, 1, 2, 0, 2, 2, 1, 2 of 2 each.
    assert_eq!(r.overlap, 12.0 / 16.0);
    // Heaviest: the teacher's is 0; the student's the first of its two.
    assert_eq!((r.top1.count, r.margin_correlation), (6, None));
    // Weights 1.25, 0.55 against 1.0, 0.8: both shared 1.0 + 0.55, only 0 shared 1.0, only 1 (heaviest there) 0.55.
    let total = f64::from(1.25f32) + f64::from(0.55f32);
    let both = 1.0 + f64::from(0.55f32);
    assert!((r.mass - (5.0 * both + 1.0 + 0.0 + f64::from(0.55f32)) / total / 8.0).abs() < 1e-15);
    let layers: Vec<_> = summary.layers.iter().map(|l| (l.layer, l.figures.agreement.count)).collect();
    assert_eq!(layers, [(1, 3), (2, 2)]);
    let prompts: Vec<_> = summary.prompts.iter().map(|p| (p.prompt_id.as_str(), p.agreement.count)).collect();
    assert_eq!(prompts, [("p-1", 2), ("p-2", 3)]);
    assert_eq!(summary.stop_reasons.into_iter().collect::<Vec<_>>(), [("stop".to_owned(), 2)]);
    let (valid, right) = (summary.valid_citations.unwrap(), summary.right_refusals.unwrap());
    assert_eq!((valid.count, valid.n, right.count, right.n, summary.refusals), (2, 3, 1, 2, 0));
    assert_eq!(
        (summary.coherence, summary.prompts[0].coherence, summary.prompts[1].coherence),
        (Some(0.75), Some(0.75), None)
    );
    assert!(matches!(summarize([]), Err(Error::Gates(GateError::NoCases))));
}

#[test]
fn a_diff_by_hand() {
    let mut second = lines();
    second[0] = record("p-1", 0, 1, [0, 3]);
    second[1].routing = record("p-1", 0, 2, [0, 1]).routing;
    second[6] = record("p-2", 1, 1, [1, 3]);
    second[7] = last(record("p-2", 1, 2, [0, 1]), RefusalTrace::new(Some(true), true), &[true]);
    second[7].stop_reason = Some("length".to_owned());
    let (a, b) = (read(&text(&lines())).unwrap(), read(&text(&second)).unwrap());
    let ok = |records: &[TraceRecord]| records.iter().cloned().map(Ok).collect::<Vec<_>>();
    let d = diff(ok(&a), ok(&b)).unwrap();
    assert_eq!((d.compared, d.lost, d.gained, d.rerouted), (8, 1, 1, 3));
    assert_eq!((d.first_agreement.count, d.second_agreement.count, d.agreement_change), (5, 5, 0.0));
    assert_eq!((d.valid_citations_change, d.newly_refused, d.newly_answered), (1, vec!["p-2".to_owned()], vec![]));
    let places: Vec<_> = d.prompts.iter().map(|p| p.first_divergence.map(|d| (d.token_idx, d.layer_idx))).collect();
    assert_eq!(places, [Some((0, 1)), Some((1, 1))]);
    assert_eq!(d.prompts[1].stop_reasons, Some(["stop".to_owned(), "length".to_owned()]));
    let same = diff(ok(&a), ok(&a)).unwrap();
    assert_eq!((same.rerouted, same.prompts[0].first_divergence), (0, None));
    // Traces that cannot be compared.
    let fails = |second: &[TraceRecord]| diff(ok(&a), ok(second)).unwrap_err().to_string();
    assert!(fails(&a[..7]).contains("prompt p-2, token 1, layer 2 where the second has its end"));
    assert!(fails(&a[4..]).contains("prompt p-2, token 0, layer 1"));
    let mut other = a.clone();
    other[2].routing.teacher_expert_ids = vec![0, 7];
    assert!(fails(&other).contains("with the teacher's experts [0, 7]"));
}

/// The figures of a trace are those of the gate that the same tables went through.
#[test]
fn a_summary_equals_the_gate() {
    let mut teacher = ScriptedSubject::new("teacher");
    let mut student =
        ScriptedSubject::new("student").misrouting(|layer, position| layer == 2 && position.is_multiple_of(3));
    let layers = teacher.info().moe_layers.clone();
    let (mut gate, mut lines, mut prompts) = (RoutingGate::new(&layers), Vec::new(), Vec::new());
    for prompt in ["a first prompt", "another", "the third of them"] {
        let tokens = teacher.encode("", prompt).unwrap();
        let t = teacher.run(&tokens, &Want::default(), &mut |_, _| {}).unwrap().routing;
        let s = student.run(&tokens, &Want::default(), &mut |_, _| {}).unwrap().routing;
        prompts.push((prompt.to_owned(), gate.push(prompt, &t, &s).unwrap().agreement));
        for token in 0..tokens.len() {
            for (l, &layer) in layers.iter().enumerate() {
                lines.push(TraceRecord::new(prompt, token as u64, layer, t.at(l, token), s.at(l, token)));
            }
        }
        lines.last_mut().unwrap().stop_reason = Some("stop".to_owned());
    }
    let report: RoutingReport = gate.finish().unwrap();
    let summary = summarize(read(&text(&lines)).unwrap().into_iter().map(Ok)).unwrap();
    let mut figures = report.figures.clone();
    figures.margin_correlation = None;
    assert_eq!(summary.routing, figures);
    assert!(figures.agreement.value < 1.0);
    for (a, b) in summary.layers.iter().zip(&report.layers) {
        assert_eq!((a.layer, &a.figures.agreement, a.figures.mass), (b.layer, &b.figures.agreement, b.figures.mass));
    }
    let summed: Vec<_> = summary.prompts.into_iter().map(|p| (p.prompt_id, p.agreement)).collect();
    assert_eq!(summed, prompts);
}

/// Any one byte of a trace, replaced by any other, or a cut anywhere: an error that names the file, or records.
#[test]
fn no_mutation_makes_the_reader_panic() {
    let whole = text(&lines()).into_bytes();
    let mut refused = 0;
    for i in 0..whole.len() {
        for byte in [0, b'"', b'9', b'}', b'\n', 0xff] {
            let mut bytes = whole.clone();
            bytes[i] = byte;
            let read: Result<Vec<TraceRecord>> = TraceReader::new(&bytes[..], "run.jsonl").collect();
            if let Err(error) = read {
                assert!(error.to_string().starts_with("run.jsonl line "), "{error}");
                refused += 1;
            }
        }
        let cut: Result<Vec<TraceRecord>> = TraceReader::new(&whole[..i], "run.jsonl").collect();
        // Only between prompts, with the line's end or without, does a cut leave a trace.
        let ends = i == 0 || whole[..i].ends_with(b"\"stop\"}") || whole[..i].ends_with(b"\"stop\"}\n");
        assert_eq!(cut.is_ok(), ends, "cut at {i}");
    }
    assert!(refused > 3 * whole.len());
}
