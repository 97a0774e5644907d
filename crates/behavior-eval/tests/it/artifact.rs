//! Teacher artifacts: round trip, reuse, resume to the same bytes, and everything that must be refused.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use behavior_eval::records::RecordError;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use behavior_eval::Error;
use behavior_eval::model::{AnswerEnd, ScriptedSubject, Subject};
use behavior_eval::records::ArtifactDefect;
use behavior_eval::records::artifact::{
    ArtifactSpec, ArtifactWriter, Columns, LogitsAt, TeacherArtifact, open_or_record, record,
};
use behavior_eval::suite::{Label, Prompt};

/// Three prompts; only what a recording needs of them.
static PROMPTS: LazyLock<[Prompt; 3]> = LazyLock::new(|| {
    [
        ("p-1", "Cite.", "What?", Some(Label::Resolved)),
        ("p-2", "Cite.", "Where is the sea?", None),
        ("p-3", "", "Who", Some(Label::Indeterminate)),
    ]
    .map(|(id, system, user, label)| {
        let (id, system, user) = (id.to_owned(), system.to_owned(), user.to_owned());
        Prompt { id, system, user, label, ..Prompt::default() }
    })
});

/// All prompts from this one on.
fn prompts(from: usize) -> Vec<&'static Prompt> {
    PROMPTS[from..].iter().collect()
}

fn teacher() -> ScriptedSubject {
    ScriptedSubject::new("teacher").answering(|prompt| format!("About {}: Grüße!", prompt.trim()))
}

fn spec(columns: Columns) -> ArtifactSpec {
    ArtifactSpec {
        model: teacher().info().clone(),
        suite: blake3::hash(b"suite").to_string(),
        max_new_tokens: 12,
        columns,
        settings: BTreeMap::from([("kv".to_owned(), "f32".into())]),
    }
}

fn all() -> Columns {
    Columns { scores: true, router_inputs: true, final_hidden: true, logits: LogitsAt::Everywhere, kept: 16 }
}

fn make(root: &Path, spec: &ArtifactSpec) -> TeacherArtifact {
    open_or_record(root, spec, &mut teacher(), &prompts(0), &mut |_, _| {}).unwrap()
}

#[test]
fn what_was_recorded_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    for columns in [all(), Columns { kept: 300, logits: LogitsAt::Answer, ..all() }] {
        let spec = spec(columns);
        let artifact = make(dir.path(), &spec);
        assert_eq!(artifact.prompts().len(), 3);
        for (i, input) in PROMPTS.iter().enumerate() {
            let want = record(&spec, &mut teacher(), input).unwrap();
            let entry = &artifact.prompts()[i];
            assert_eq!((entry.prompt_id.as_str(), entry.label), (input.id.as_str(), input.label));
            assert_eq!(artifact.tokens(i).unwrap(), [&want.prompt[..], &want.answer.tokens].concat());
            assert_eq!(artifact.answer(i).unwrap(), want.answer);
            assert_eq!(artifact.routing(i).unwrap(), want.run.routing);
            assert_eq!(artifact.local_routing(i).unwrap().unwrap(), want.run.routing);
            assert_eq!(artifact.router_inputs(i).unwrap(), want.run.router_inputs, "small whole numbers are exact");
            assert_eq!(artifact.sparse_logits(i).unwrap().unwrap(), want.logits);
            for (got, want) in [
                (artifact.scores(i).unwrap().unwrap(), want.run.scores.unwrap()),
                (artifact.final_hidden(i).unwrap().unwrap(), want.run.final_hidden.unwrap()),
            ] {
                assert_eq!(got.len(), want.len());
                assert!(got.iter().zip(&want).all(|(g, w)| (g - w).abs() <= w.abs() / 1024.0 + 1e-7));
            }
            let first = if columns.logits == LogitsAt::Answer { want.prompt.len() - 1 } else { 0 };
            let positions: Vec<usize> = want.logits.iter().map(|row| row.position as usize).collect();
            assert_eq!(positions, (first..entry.tokens).collect::<Vec<_>>());
            // 257 tokens: 300 keep everything.
            assert!(want.logits.iter().all(|row| (row.tail == 0.0) == (columns.kept == 300)));
        }
        assert_eq!(artifact.answer(0).unwrap().stop_reason, AnswerEnd::Length);
    }
}

#[test]
fn a_column_that_was_not_recorded_is_absent() {
    let dir = tempfile::tempdir().unwrap();
    let none =
        Columns { scores: false, router_inputs: false, final_hidden: false, logits: LogitsAt::Nowhere, kept: 16 };
    let artifact = make(dir.path(), &spec(none));
    assert!(artifact.routing(1).unwrap().n > 0);
    assert!(artifact.scores(1).unwrap().is_none() && artifact.router_inputs(1).unwrap().is_none());
    assert!(artifact.final_hidden(1).unwrap().is_none() && artifact.sparse_logits(1).unwrap().is_none());
    assert!(artifact.local_routing(1).unwrap().is_none());
}

#[test]
fn a_second_time_nothing_runs_and_nothing_changes() {
    let dir = tempfile::tempdir().unwrap();
    let spec = spec(all());
    let mut subject = teacher();
    let first = open_or_record(dir.path(), &spec, &mut subject, &prompts(0), &mut |_, _| {}).unwrap();
    assert_eq!(subject.runs(), 6, "an answer and a run per prompt");
    let bytes = fs::read(first.path()).unwrap();
    let mut renamed = spec.clone();
    renamed.model.name = "the same model in another file".to_owned();
    let again = open_or_record(dir.path(), &renamed, &mut subject, &prompts(0), &mut |_, _| {}).unwrap();
    assert_eq!(subject.runs(), 6);
    assert_eq!((fs::read(again.path()).unwrap(), again.path()), (bytes, first.path()));
    // Another setting is another artifact.
    let mut other = spec.clone();
    other.max_new_tokens = 13;
    assert_ne!(make(dir.path(), &other).path(), first.path());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

/// Stops after `n` prompts, then tears the end of the journal, of the data or of both.
#[test]
fn a_recording_that_was_stopped_ends_in_the_same_bytes() {
    let whole = tempfile::tempdir().unwrap();
    let spec = spec(all());
    let want = fs::read(make(whole.path(), &spec).path()).unwrap();
    for n in 0..=3 {
        for tear in 0..4 {
            let dir = tempfile::tempdir().unwrap();
            let mut writer = ArtifactWriter::open(dir.path(), &spec).unwrap();
            for input in &PROMPTS[..n] {
                writer.append(&record(&spec, &mut teacher(), input).unwrap()).unwrap();
            }
            drop(writer);
            let partial = PathBuf::from(format!("{}.partial", spec.path(dir.path()).display()));
            let cut = |name: &str, by: u64| {
                let file = fs::OpenOptions::new().write(true).open(partial.join(name)).unwrap();
                let len = file.metadata().unwrap().len();
                file.set_len(len.saturating_sub(by)).unwrap();
            };
            if tear & 1 == 1 {
                cut("journal.jsonl", 9);
            }
            if tear & 2 == 2 {
                cut("data", 5);
            }
            let mut done = Vec::new();
            let artifact =
                open_or_record(dir.path(), &spec, &mut teacher(), &prompts(0), &mut |d, of| done.push((d, of)))
                    .unwrap();
            let kept = n.saturating_sub(usize::from(tear != 0));
            assert_eq!(done, (kept..=3).map(|d| (d, 3)).collect::<Vec<_>>(), "{n} {tear}");
            assert!(fs::read(artifact.path()).unwrap() == want, "{n} {tear}");
            assert!(!partial.exists());
        }
    }
}

#[test]
fn a_recording_goes_on_with_the_prompts_it_began_with_only() {
    let dir = tempfile::tempdir().unwrap();
    let spec = spec(all());
    let mut writer = ArtifactWriter::open(dir.path(), &spec).unwrap();
    let first = record(&spec, &mut teacher(), &PROMPTS[0]).unwrap();
    writer.append(&first).unwrap();
    assert!(writer.append(&first).unwrap_err().to_string().contains("recorded already"));
    let mut bad = record(&spec, &mut teacher(), &PROMPTS[1]).unwrap();
    bad.local = None;
    assert!(writer.append(&bad).unwrap_err().to_string().contains("column local_ids of prompt p-2"));
    assert_eq!(writer.done().collect::<Vec<_>>(), ["p-1"]);
    drop(writer);
    let error = open_or_record(dir.path(), &spec, &mut teacher(), &prompts(1), &mut |_, _| {}).unwrap_err();
    assert!(
        matches!(&error, Error::Records(RecordError::PromptOrder { recorded, given }) if recorded == "p-1" && given == "p-2"),
        "{error}"
    );
    assert!(ArtifactWriter::open(dir.path(), &spec).unwrap().done().eq(["p-1"]), "nothing was lost");
}

fn defect(error: Error) -> ArtifactDefect {
    match error {
        Error::Records(RecordError::Artifact { defect, .. }) => defect,
        other => panic!("{other}"),
    }
}

#[test]
fn a_recording_of_something_else_is_refused_with_both_values() {
    let dir = tempfile::tempdir().unwrap();
    let spec = spec(all());
    let path = make(dir.path(), &spec).path().to_owned();
    let refused = |change: fn(&mut ArtifactSpec)| {
        let mut other = spec.clone();
        change(&mut other);
        (defect(TeacherArtifact::open_for(&path, &other).unwrap_err()).to_string(), other)
    };
    let (text, other) = refused(|spec| spec.model.id = blake3::hash(b"another").to_string());
    assert!(text.contains("model") && text.contains(&spec.model.id) && text.contains(&other.model.id), "{text}");
    let (text, other) = refused(|spec| spec.suite = blake3::hash(b"another").to_string());
    assert!(text.contains("suite") && text.contains(&spec.suite) && text.contains(&other.suite), "{text}");
    let (text, _) = refused(|spec| spec.max_new_tokens = 64);
    assert!(text.contains("max_new_tokens 12, but 64"), "{text}");
    let (text, _) = refused(|spec| drop(spec.settings.insert("kv".to_owned(), "f16".into())));
    assert!(text.contains("settings") && text.contains("f32") && text.contains("f16"), "{text}");
    let (text, _) = refused(|spec| spec.model.n_experts = 16);
    assert!(text.contains("experts"), "{text}");
    // In the folder of another key it is found out by itself.
    let moved = dir.path().join("a".repeat(64));
    fs::rename(path.parent().unwrap(), &moved).unwrap();
    let text = defect(TeacherArtifact::open(&moved).unwrap_err()).to_string();
    assert!(text.contains(&spec.key()) && text.contains("aaaa"), "{text}");
}

/// Writes `bytes` where the artifact of `spec` belongs, opens it and reads every column.
fn reopen(root: &Path, spec: &ArtifactSpec, bytes: &[u8]) -> Result<(), Error> {
    let path = spec.path(root);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    let artifact = TeacherArtifact::open(&path)?;
    for prompt in 0..artifact.prompts().len() {
        artifact.answer(prompt)?;
        artifact.routing(prompt)?;
        artifact.local_routing(prompt)?;
        artifact.scores(prompt)?;
        artifact.router_inputs(prompt)?;
        artifact.final_hidden(prompt)?;
        artifact.sparse_logits(prompt)?;
    }
    Ok(())
}

#[test]
fn no_byte_can_be_changed_lost_or_added_unnoticed() {
    let dir = tempfile::tempdir().unwrap();
    let spec = spec(Columns { kept: 4, logits: LogitsAt::Answer, ..all() });
    let whole = fs::read(make(dir.path(), &spec).path()).unwrap();
    let root = tempfile::tempdir().unwrap();
    reopen(root.path(), &spec, &whole).unwrap();
    // Every byte of the ends, every 101st in between.
    let places = (0..whole.len()).filter(|&i| i < 24 || i + 56 > whole.len() || i % 101 == 0);
    for i in places.clone() {
        let mut bytes = whole.clone();
        bytes[i] ^= 0x41;
        assert!(reopen(root.path(), &spec, &bytes).is_err(), "byte {i}");
    }
    for i in places.step_by(5) {
        assert!(reopen(root.path(), &spec, &whole[..i]).is_err(), "cut at {i}");
    }
    let mut longer = whole.clone();
    longer.push(0);
    assert!(reopen(root.path(), &spec, &longer).is_err());
    // And a damaged artifact is neither replaced nor recorded again.
    longer.truncate(100);
    reopen(root.path(), &spec, &longer).unwrap_err();
    let error = open_or_record(root.path(), &spec, &mut teacher(), &prompts(0), &mut |_, _| {}).unwrap_err();
    assert!(error.to_string().contains("remove its folder to record it again"), "{error}");
    assert_eq!(fs::read(spec.path(root.path())).unwrap(), longer);
}

/// A change to the JSON of an index.
type Lie = fn(&mut serde_json::Value);

/// Rebuilds an artifact with another index, hash and all.
fn with_index(whole: &[u8], change: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
    let tail = whole.len() - 48;
    let length = usize::try_from(u64::from_le_bytes(whole[tail..tail + 8].try_into().unwrap())).unwrap();
    let mut index = serde_json::from_slice(&whole[tail - length..tail]).unwrap();
    change(&mut index);
    let text = index.to_string();
    let hash = blake3::hash(text.as_bytes());
    [&whole[..tail - length], text.as_bytes(), &(text.len() as u64).to_le_bytes(), hash.as_bytes(), b"CRAFTTAE"]
        .concat()
}

#[test]
fn an_index_that_lies_with_the_right_hash_is_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let spec = spec(all());
    let whole = fs::read(make(dir.path(), &spec).path()).unwrap();
    let root = tempfile::tempdir().unwrap();
    reopen(root.path(), &spec, &with_index(&whole, |_| {})).unwrap();
    let lies: [(Lie, &str); 11] = [
        (|index| index["prompts"][0]["columns"][0]["bytes"] = u64::MAX.into(), "bytes where"),
        (|index| index["prompts"][0]["columns"][1]["bytes"] = (u64::MAX - 3).into(), "reaches past the end"),
        (|index| index["prompts"][0]["columns"][1]["bytes"] = 1.into(), "its prompts end at byte"),
        (|index| index["prompts"][1]["tokens"] = (u64::MAX >> 1).into(), "bytes where"),
        (|index| index["prompts"][1]["prompt_tokens"] = 0.into(), "are its question"),
        (|index| index["prompts"][1]["prompt_tokens"] = 1_000_000.into(), "are its question"),
        (|index| index["prompts"][1]["prompt_id"] = "p-1".into(), "stands in it twice"),
        (|index| index["prompts"][1]["label"] = "perhaps".into(), "perhaps"),
        (|index| drop(index["prompts"][2]["columns"].as_array_mut().unwrap().pop()), "not those of the header"),
        (|index| index["prompts"] = serde_json::json!([]), "its prompts end at byte"),
        (|index| index["header"] = "0".into(), "hash of the index"),
    ];
    for (lie, says) in lies {
        let error = reopen(root.path(), &spec, &with_index(&whole, lie)).unwrap_err().to_string();
        assert!(error.contains(says), "{says}: {error}");
    }
}

/// Rebuilds an artifact with another header text, length and hash and all.
fn with_header(whole: &[u8], change: impl FnOnce(&str) -> String) -> Vec<u8> {
    let end = 16 + usize::try_from(u64::from_le_bytes(whole[8..16].try_into().unwrap())).unwrap();
    let header = change(std::str::from_utf8(&whole[16..end]).unwrap());
    let whole = with_index(whole, |index| index["header"] = blake3::hash(header.as_bytes()).to_string().into());
    [&whole[..8], &(header.len() as u64).to_le_bytes(), header.as_bytes(), &whole[end..]].concat()
}

#[test]
fn a_header_that_says_a_thing_twice_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let spec = spec(all());
    let whole = fs::read(make(dir.path(), &spec).path()).unwrap();
    let root = tempfile::tempdir().unwrap();
    reopen(root.path(), &spec, &with_header(&whole, str::to_owned)).unwrap();
    for (once, twice, field) in [
        (r#""kv":"f32""#, r#""kv":"f16","kv":"f32""#, "settings.kv"),
        (r#""max_new_tokens":12"#, r#""max_new_tokens":64,"max_new_tokens":12"#, "max_new_tokens"),
    ] {
        let bytes = with_header(&whole, |text| {
            assert!(text.contains(once), "{text}");
            text.replacen(once, twice, 1)
        });
        let error = reopen(root.path(), &spec, &bytes).unwrap_err().to_string();
        assert!(error.contains(&format!("header is damaged: field `{field}`: it stands in the line twice")), "{error}");
    }
}

#[test]
fn settings_that_no_artifact_can_have_are_refused_before_anything_runs() {
    let dir = tempfile::tempdir().unwrap();
    let changes: [fn(&mut ArtifactSpec); 6] = [
        |spec| spec.model.id = "../../etc".to_owned(),
        |spec| spec.suite = String::new(),
        |spec| spec.model.n_experts = 1 << 17,
        |spec| spec.model.top_k = 0,
        |spec| spec.model.moe_layers.clear(),
        |spec| spec.columns.kept = 0,
    ];
    for change in changes {
        let mut spec = spec(all());
        change(&mut spec);
        let mut subject = teacher();
        let error = open_or_record(dir.path(), &spec, &mut subject, &prompts(0), &mut |_, _| {}).unwrap_err();
        assert!(matches!(defect(error), ArtifactDefect::Damaged { what: "header", .. }));
        assert_eq!(subject.runs(), 0);
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_recording_that_no_disk_holds_is_refused_before_the_teacher_runs() {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = spec(all());
    spec.max_new_tokens = 1 << 50;
    let mut subject = teacher();
    let error = open_or_record(dir.path(), &spec, &mut subject, &prompts(0), &mut |_, _| {}).unwrap_err();
    assert!(matches!(error, Error::Store(_)) && error.to_string().contains("free"), "{error}");
    assert_eq!(subject.runs(), 0);
}
