//! `--shard` and `merge`: the joined parts equal the output of the job that was not cut, whatever was killed in between.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use gguf_bitnet::{Cut, Parts, UnitJob, UnitResult};

use crate::batch::conversations;
use crate::common::{bitnet, command, fixture, listing, student, teacher, text, variables};
use crate::gates::{LAX, few_prompts, without_run};

/// Kills of one shard, after which it runs to its end: a model has more tensors than a test has time for.
const MOST_KILLS: usize = 20;

/// Runs a command that writes `part`, with `kill -9` as soon as its journal has grown by a line, until it is done. Returns the
/// number of kills.
fn killed_and_continued(args: &[String], part: &Path) -> usize {
    let journal = part.with_added_extension("partial").join("journal.jsonl");
    let lines = || fs::read(&journal).map_or(0, |text| text.iter().filter(|&&byte| byte == b'\n').count());
    let mut kills = 0;
    for _ in 0..100 {
        let before = lines();
        let mut command = Command::new(env!("CARGO_BIN_EXE_bitnet"));
        variables().iter().for_each(|name| {
            command.env_remove(name);
        });
        let mut child = command.args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while (kills >= MOST_KILLS || lines() <= before) && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        kills += usize::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        if part.exists() {
            // A kill behind the last step but before the folder of the job was cleared away.
            if journal.exists() {
                bitnet(args).done();
            }
            return kills;
        }
    }
    panic!("{args:?} does not end");
}

/// Cuts a job into `n` shards, kills each of them several times, and merges the parts in reverse order.
fn merged(dir: &Path, base: &[&str], n: usize, out: &Path) -> usize {
    let (merge, kills) = killed_shards(dir, base, n, out);
    bitnet(&merge).done();
    kills
}

/// As [`merged`], without the merge, whose arguments it returns with the number of kills.
fn killed_shards(dir: &Path, base: &[&str], n: usize, out: &Path) -> (Vec<String>, usize) {
    let mut kills = 0;
    let mut merge = vec!["merge".to_owned(), text(out).to_owned()];
    for number in (1..=n).rev() {
        let part = dir.join(format!("{number}-of-{n}.part"));
        let mut args: Vec<String> = base.iter().map(|&arg| arg.to_owned()).collect();
        args.extend(["--shard".to_owned(), format!("{number}/{n}"), "--part".to_owned(), text(&part).to_owned()]);
        kills += killed_and_continued(&args, &part);
        merge.push(text(&part).to_owned());
    }
    (merge, kills)
}

#[test]
fn batches_of_killed_shards_are_the_batch_that_was_not_cut() {
    let dir = tempfile::tempdir().unwrap();
    let (input, whole) = (dir.path().join("in.jsonl"), dir.path().join("whole.jsonl"));
    fs::write(&input, conversations(100, 4)).unwrap();
    let base = ["batch", "-m", student(), "-i", text(&input)];
    bitnet(base.into_iter().chain(["-o", text(&whole)])).done();
    let mut kills = 0;
    for n in [1, 2, 5] {
        let out = dir.path().join(format!("{n}.jsonl"));
        kills += merged(dir.path(), &base, n, &out);
        assert_eq!(fs::read(&out).unwrap(), fs::read(&whole).unwrap(), "{n} shards");
        let manifest = |out: &Path| fs::read(out.with_added_extension("manifest.json")).unwrap();
        assert_eq!(manifest(&out), manifest(&whole), "{n} shards");
    }
    assert!(kills >= 3, "{kills} processes were killed before their end");
}

#[test]
fn fidelity_of_killed_shards_is_the_report_that_was_not_cut() {
    let dir = tempfile::tempdir().unwrap();
    let (teacher, heldout) = (teacher(), fixture("texts/heldout.txt"));
    for models in [&["--teacher", &teacher, "--student", student()][..], &["--student", student()]] {
        let place = dir.path().join(models.len().to_string());
        fs::create_dir(&place).unwrap();
        let base = [&["eval", "fidelity", "--text", &heldout, "--n-ctx", "32", "--windows", "7"], models].concat();
        let whole = bitnet(base.iter().chain(&["--json"])).done();
        for n in [1, 2, 5] {
            let out = place.join(format!("{n}.json"));
            merged(&place, &base, n, &out);
            assert_eq!(fs::read_to_string(&out).unwrap(), whole, "{n} shards");
        }
    }
}

#[test]
fn the_student_of_killed_shards_is_the_student_that_was_not_cut() {
    let dir = tempfile::tempdir().unwrap();
    let (teacher, whole) = (teacher(), dir.path().join("whole.gguf"));
    // Little memory makes more units than there are tensors.
    let base = ["quantize", "-m", &teacher, "--max-memory", "140MiB", "--threads", "1"];
    bitnet(base.into_iter().chain(["-o", text(&whole)])).done();
    for n in [1, 2, 5] {
        let out = dir.path().join(format!("{n}.gguf"));
        merged(dir.path(), &base, n, &out);
        assert!(fs::read(&out).unwrap() == fs::read(&whole).unwrap(), "{n} shards");
    }
}

#[test]
fn experts_of_killed_shards_are_those_that_were_trained_in_one_run() {
    let dir = tempfile::tempdir().unwrap();
    let (teacher, whole) = (teacher(), dir.path().join("whole.gguf"));
    let prose = short_text(dir.path());
    let models = ["distill", "-m", student(), "--teacher", &teacher, "--sequential", "--calibration", &prose];
    let base = [&models[..], &["--steps", "2", "--windows", "4", "--threads", "1"]].concat();
    bitnet(base.iter().chain(&["-o", text(&whole)])).done();
    assert!(fs::read(&whole).unwrap() != fs::read(student()).unwrap());
    let mut kills = 0;
    for n in [1, 2, 5] {
        let out = dir.path().join(format!("{n}.gguf"));
        kills += merged(dir.path(), &base, n, &out);
        assert!(fs::read(&out).unwrap() == fs::read(&whole).unwrap(), "{n} shards");
    }
    assert!(kills >= 3, "{kills} processes were killed before their end");
    // Other settings are another job.
    let part = dir.path().join("other.part");
    bitnet(base.iter().chain(&["--seed", "1", "--shard", "2/2", "--part", text(&part)])).done();
    let mine = dir.path().join("1-of-2.part");
    let refusal = bitnet(["merge", text(&dir.path().join("mixed.gguf")), text(&mine), text(&part)]).refusal();
    assert!(refusal.contains("other.part") && refusal.contains("seed"), "{refusal}");
}

/// A file with a text of a few windows.
pub(crate) fn short_text(dir: &Path) -> String {
    let path = dir.join("prose.txt");
    let prose = fs::read_to_string(fixtures::path("texts/calibration.txt")).unwrap();
    fs::write(&path, prose.chars().take(18_000).collect::<String>()).unwrap();
    text(&path).to_owned()
}

#[test]
fn the_check_of_killed_shards_is_the_report_that_was_not_cut() {
    let dir = tempfile::tempdir().unwrap();
    let damaged = dir.path().join("damaged.gguf");
    let mut bytes = fs::read(student()).unwrap();
    let at = bytes.len() - 64;
    bytes[at..at + 64].fill(0xff);
    fs::write(&damaged, bytes).unwrap();
    for (model, code) in [(&teacher(), 0), (&student().to_owned(), 0), (&text(&damaged).to_owned(), 1)] {
        let place = tempfile::tempdir_in(dir.path()).unwrap();
        let whole = command().args(["verify", model, "--json"]).output().unwrap();
        assert_eq!(whole.status.code(), Some(code), "{model}");
        for n in [1, 2, 5] {
            let out = place.path().join(format!("{n}.json"));
            let (merge, _) = killed_shards(place.path(), &["verify", model], n, &out);
            let merged = command().args(&merge).output().unwrap();
            assert_eq!(merged.status.code(), Some(code), "{model}, {n} shards: {merged:?}");
            assert_eq!(fs::read(&out).unwrap(), whole.stdout, "{model}, {n} shards");
        }
    }
    // Another model of the same shape is another job.
    let parts = ["good", "bad"].map(|name| dir.path().join(format!("{name}.part")));
    bitnet(["verify", student(), "--shard", "1/2", "--part", text(&parts[0])]).done();
    bitnet(["verify", text(&damaged), "--shard", "2/2", "--part", text(&parts[1])]).done();
    let out = dir.path().join("mixed.json");
    let refusal = bitnet(["merge", text(&out), text(&parts[0]), text(&parts[1])]).refusal();
    assert!(refusal.contains("bad.part") && refusal.contains("`model`") && !out.exists(), "{refusal}");
}

/// The report but for its facts about the run, the trace, and the teacher's recording.
#[test]
fn gates_of_killed_shards_are_the_report_that_was_not_cut() {
    let dir = tempfile::tempdir().unwrap();
    let [suite, corpus] = few_prompts(dir.path());
    let (teacher, whole) = (teacher(), dir.path().join("whole"));
    let base = [
        &["eval-gates", "--teacher", &teacher, "--student", student(), "--suite", &suite, "--corpus", &corpus],
        &["--min-prompts", "1"][..],
        &LAX,
    ]
    .concat();
    let run = |more: &[&str]| command().current_dir(dir.path()).args(&base).args(more).output().unwrap();
    let output = run(&["--report", text(&whole), "--artifacts", "whole-artifacts"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let recording = |root: &Path| {
        let key = listing(root).into_iter().find(|name| name.len() == 64).unwrap();
        let file = listing(&root.join(&key)).remove(0);
        (key.clone(), fs::read(root.join(key).join(file)).unwrap())
    };
    let trace = dir.path().join("eval/traces");
    let trace = fs::read(trace.join(&listing(&trace)[0])).unwrap();
    for n in [1, 2, 5] {
        let (out, artifacts) = (dir.path().join(n.to_string()), dir.path().join(format!("artifacts-{n}")));
        merged(dir.path(), &[&base[..], &["--artifacts", text(&artifacts)]].concat(), n, &out);
        let report = |folder: &Path| fs::read_to_string(folder.join("report.json")).unwrap();
        assert_eq!(without_run(&report(&out)), without_run(&report(&whole)), "{n} shards");
        assert!(fs::read(out.join("trace.jsonl")).unwrap() == trace, "{n} shards: the traces differ");
        let (joined, undivided) = (recording(&out.join("artifacts")), recording(&dir.path().join("whole-artifacts")));
        assert!(joined == undivided, "{n} shards: the recordings differ");
    }
    // Another student is another job, and the merge names the key.
    let parts = ["1-of-2.part", "other.part"].map(|name| text(&dir.path().join(name)).to_owned());
    let mut other = base.clone();
    other[4] = &teacher;
    let artifacts = dir.path().join("artifacts-other");
    bitnet(other.iter().chain(&["--artifacts", text(&artifacts), "--shard", "2/2", "--part", &parts[1]])).done();
    let out = dir.path().join("mixed");
    let refusal = bitnet(["merge", text(&out), &parts[0], &parts[1]]).refusal();
    assert!(refusal.contains("other.part") && refusal.contains("`student."), "{refusal}");
    assert!(!out.exists());
}

/// The part of a shard of a small batch.
fn part(dir: &Path, model: &str, shard: &str) -> PathBuf {
    let (input, name) = (dir.join("in.jsonl"), format!("{}.part", shard.replace('/', "-")));
    if !input.exists() {
        fs::write(&input, conversations(40, 1)).unwrap();
    }
    let path = dir.join(if model == student() { name } else { format!("other-{name}") });
    bitnet(["batch", "-m", model, "-i", text(&input), "--shard", shard, "--part", text(&path)]).done();
    path
}

#[test]
fn parts_that_do_not_fit_are_one_sentence_and_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.jsonl");
    let [one, two, three] = ["1/3", "2/3", "3/3"].map(|shard| part(dir.path(), student(), shard));
    let alien = part(dir.path(), &teacher(), "2/3");
    let half = part(dir.path(), student(), "2/2");
    let refused = |parts: &[&PathBuf], words: &[&str]| {
        let args = ["merge", text(&out)].into_iter().chain(parts.iter().map(|part| text(part)));
        let refusal = bitnet(args).refusal();
        words.iter().for_each(|word| assert!(refusal.contains(word), "`{word}` is not in: {refusal}"));
        assert!(!out.exists() && !out.with_added_extension("partial").exists(), "{refusal}");
    };
    refused(&[&one, &alien, &three], &["other-2-3.part", "another job", "`model`", "parts of one job"]);
    refused(&[&one, &three], &["shard 2/3 is missing", "--shard"]);
    refused(&[&one, &half], &["2-2.part", "overlap"]);
    let input = dir.path().join("in.jsonl");
    refused(&[&one, &input], &["in.jsonl", "no part of a job"]);

    // The same part twice is no fault; another result of the same shard is one.
    let parts = Parts::open(&[one.clone(), two.clone(), three.clone()]).unwrap();
    let wrong = dir.path().join("wrong.part");
    let cut = Cut { units: parts.units(), shard: Some("2/3".parse().unwrap()) };
    let mut job = UnitJob::open(&wrong, parts.manifest(), cut, false).unwrap();
    while job.next_unit().is_some() {
        job.append(&UnitResult { bytes: b"{}\n".to_vec(), ..UnitResult::default() }).unwrap();
    }
    job.finish().unwrap();
    refused(&[&one, &two, &three, &wrong], &["wrong.part", "holds unit 1 with other bytes", "2-3.part"]);
    bitnet(["merge", text(&out), text(&two), text(&one), text(&three), text(&two)]).done();
    assert_eq!(fs::read_to_string(&out).unwrap().lines().count(), 40);
    let again = bitnet(["merge", text(&out), text(&one), text(&two), text(&three)]).refusal();
    assert!(again.contains("out.jsonl") && again.contains("--force"), "{again}");
}
