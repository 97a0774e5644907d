//! `bitnet eval trace` on traces that are whole, and on one that is not.

use std::fs;

use crate::common::{bitnet, text};
use behavior_eval::records::trace::{RefusalTrace, TraceRecord};

/// Three tokens in one layer; the student agrees on the first `agree`.
fn trace(agree: u64) -> String {
    let mut out = Vec::new();
    for token in 0..3 {
        let student: &[u32] = if token < agree { &[0, 1] } else { &[0, 4] };
        let mut record = TraceRecord::new("p-1", token, 2, (&[0, 1], &[0.9, 0.9]), (student, &[0.9, 0.9]));
        if token == 2 {
            record.stop_reason = Some("stop".to_owned());
            record.refusal = Some(RefusalTrace::new(Some(true), true));
        }
        record.write(&mut out).unwrap();
    }
    String::from_utf8(out).unwrap()
}

#[test]
fn one_trace_is_summed_up_and_two_are_compared() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("a.jsonl"), dir.path().join("b.jsonl"));
    fs::write(&first, trace(3)).unwrap();
    fs::write(&second, trace(1)).unwrap();
    let summary = bitnet(["eval", "trace", text(&second), "--json"]).json();
    assert_eq!((&summary["routing"]["agreement"]["count"], &summary["records"]), (&1.into(), &3.into()));
    let told = bitnet(["eval", "trace", text(&second)]).done();
    for part in ["routing agreement 33.33 % (1 of 3)", "layer 2", "prompt p-1 33.33 %", "stop 1", "refusals 1"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let told = bitnet(["eval", "trace", text(&first), text(&second)]).done();
    for part in ["100.00 % (3 of 3) -> 33.33 % (1 of 3) (-66.67 points)", "2 lost, 0 gained", "differs from token 1"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let diff = bitnet(["eval", "trace", text(&first), text(&second), "--json"]).json();
    assert_eq!(diff["prompts"][0]["first_divergence"]["token_idx"], 1);
}

#[test]
fn a_hostile_prompt_id_stays_on_its_line_and_moves_no_cursor() {
    let dir = tempfile::tempdir().unwrap();
    let hostile = dir.path().join("hostile.jsonl");
    fs::write(&hostile, trace(1).replace("\"p-1\"", "\"p\\u001b[2J\\nSHIP\"")).unwrap();
    let told = bitnet(["eval", "trace", text(&hostile)]).done();
    assert!(told.contains("prompt p\\u{1b}[2J\\u{a}SHIP 33.33 %") && !told.contains('\u{1b}'), "{told:?}");
    let json = bitnet(["eval", "trace", text(&hostile), "--json"]).json();
    assert_eq!(json["prompts"][0]["prompt_id"], "p\u{1b}[2J\nSHIP", "JSON has it as it is");
}

#[test]
fn a_torn_trace_is_refused_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let torn = dir.path().join("torn.jsonl");
    let whole = trace(3);
    fs::write(&torn, &whole[..whole.len() - 40]).unwrap();
    let sentence = bitnet(["eval", "trace", text(&torn)]).refusal();
    assert!(sentence.contains("torn.jsonl line 3: the line is cut off"), "{sentence}");
    let empty = dir.path().join("empty.jsonl");
    fs::write(&empty, "").unwrap();
    let sentence = bitnet(["eval", "trace", text(&empty)]).refusal();
    assert!(sentence.ends_with("empty.jsonl: the trace has no lines"), "{sentence}");
    let sentence = bitnet(["eval", "trace", text(&dir.path().join("no.jsonl"))]).refusal();
    assert!(sentence.contains("no.jsonl"), "{sentence}");
}
