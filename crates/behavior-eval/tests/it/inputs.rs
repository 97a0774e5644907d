//! The files that a gate run reads, damaged in seeded ways, too large, or no files at all: each is read or refused, without
//! a panic or a hang.

use std::fs;
use std::path::Path;

use behavior_eval::records::artifact::TeacherArtifact;
use behavior_eval::records::trace::TraceReader;
use behavior_eval::report::Baseline;
use behavior_eval::suite::Suite;
use fixtures::Damage;

/// Damaged copies of each file.
const RUNS: usize = 400;

/// The first lines of a fixture.
fn lines(name: &str, n: usize) -> String {
    let text = fs::read_to_string(fixtures::path(name)).expect("the fixture reads");
    text.split_inclusive('\n').take(n).collect()
}

/// Reads damaged copies of `seed` through `read`, which tells whether the copy was accepted.
fn damaged(seed: u64, whole: &str, mut read: impl FnMut(Vec<u8>) -> bool) {
    assert!(read(whole.as_bytes().to_vec()), "the undamaged file is accepted");
    let mut damage = Damage::new(seed);
    let accepted = (0..RUNS).filter(|_| read(damage.text(whole))).count();
    assert!(accepted < RUNS, "no damage was noticed");
}

#[test]
fn damaged_inputs_are_read_or_refused() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| dir.path().join(name);
    let write = |name: &str, bytes: &[u8]| fs::write(path(name), bytes).expect("the folder can be written");
    // The first prompt of the suite, and its chunks.
    let suite = lines("suites/suite-200.jsonl", 1);
    let prompt: serde_json::Value = serde_json::from_str(&suite).expect("it is JSON");
    let id = prompt["prompt_id"].to_string();
    let all = lines("suites/suite-200.corpus.jsonl", usize::MAX);
    let corpus: String = all.split_inclusive('\n').filter(|line| line.contains(&id)).collect();
    let open = || Suite::open(&path("suite"), &path("corpus")).is_ok();
    write("corpus", corpus.as_bytes());
    damaged(1, &suite, |bytes| {
        write("suite", &bytes);
        open()
    });
    write("suite", suite.as_bytes());
    damaged(2, &corpus, |bytes| {
        write("corpus", &bytes);
        open()
    });
    let trace = concat!(
        r#"{"version":1,"prompt_id":"p-1","token_idx":0,"layer_idx":2,"teacher_expert_ids":[0,1],"#,
        r#""teacher_expert_weights":[0.5,0.5],"student_expert_ids":[0,1],"student_expert_weights":[0.5,0.5],"agreement":true}"#
    );
    // Whether the line is a whole trace does not matter here: reading it must end.
    let mut damage = Damage::new(3);
    for _ in 0..RUNS {
        write("trace", &damage.text(trace));
        let _ = TraceReader::open(&path("trace")).map(|reader| reader.count());
        let _ = Baseline::parse(&String::from_utf8_lossy(&damage.text(trace)));
        write("artifact", &damage.text(trace));
        assert!(TeacherArtifact::open(&path("artifact")).is_err());
    }
}

#[test]
fn inputs_that_are_no_regular_files_are_refused() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut places = vec![dir.path().to_owned(), dir.path().join("missing")];
    if cfg!(unix) {
        places.push(Path::new("/dev/zero").to_owned());
    }
    let suite = fixtures::path("suites/suite-200.jsonl");
    for place in places {
        for error in [
            Suite::open(&place, &place).map(drop).expect_err("no suite"),
            Suite::open(&suite, &place).map(drop).expect_err("no corpus"),
            TraceReader::open(&place).map(drop).expect_err("no trace"),
            TeacherArtifact::open(&place).map(drop).expect_err("no artifact"),
        ] {
            let sentence = error.to_string();
            assert!(sentence.contains(place.to_str().expect("UTF-8")), "{sentence}");
        }
    }
}
