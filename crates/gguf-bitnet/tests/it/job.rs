//! Jobs that are killed: from every state that a kill or a power cut leaves, the job continues from whole
//! units and ends with the same bytes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use gguf_bitnet::Error;
use gguf_bitnet::Job;
use gguf_bitnet::StoreError;
use serde_json::{Value, json};

const UNITS: usize = 5;

fn manifest() -> Value {
    json!({ "inputs": [{ "file": "a", "blake3": "00" }], "settings": { "bits": 1.58, "seed": 7 } })
}

/// The bytes of a unit: some are empty, one is larger than the writer's buffer would need.
fn unit_bytes(i: usize) -> Vec<u8> {
    let len = [100, 0, 3000, 7, 0][i];
    (0..len).map(|k| (k * 31 + i * 7) as u8 ^ (k / 97) as u8).collect()
}

fn payload(i: usize) -> Value {
    // A number that a parser without exact rounding would change.
    json!({ "unit": i, "error": 0.1 + i as f64 * 1.000_000_000_000_000_2e-3, "text": "line\nbreak" })
}

fn whole() -> Vec<u8> {
    (0..UNITS).flat_map(unit_bytes).collect()
}

fn append_from(job: &mut Job, first: usize, end: usize) {
    for i in first..end {
        job.append(payload(i), |data| data.write_all(&unit_bytes(i))).unwrap();
    }
}

/// Runs the job as a command would: open, check the finished units, make the others, commit. Returns the
/// number of units found.
fn run_to_the_end(out: &Path, force: bool) -> usize {
    let mut job = Job::open(out, &manifest(), force).unwrap();
    let found = job.units().len();
    for (i, unit) in job.units().iter().enumerate() {
        assert_eq!(unit.payload, payload(i));
    }
    if !job.is_committed() {
        append_from(&mut job, found, UNITS);
    }
    assert_eq!(job.data_len(), whole().len() as u64);
    job.commit(out).unwrap();
    assert_eq!(fs::read(out).unwrap(), whole());
    assert_eq!(fs::read_dir(out.parent().unwrap()).unwrap().count(), 1, "something was left behind");
    found
}

struct Place {
    _dir: tempfile::TempDir,
    out: PathBuf,
    partial: PathBuf,
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("model.gguf");
    let partial = dir.path().join("model.gguf.partial");
    Place { _dir: dir, out, partial }
}

/// The files of a job that stopped after `n` units.
fn stopped_after(n: usize) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let place = place();
    let mut job = Job::open(&place.out, &manifest(), false).unwrap();
    append_from(&mut job, 0, n);
    drop(job);
    let read = |name: &str| fs::read(place.partial.join(name)).unwrap();
    (read("manifest.json"), read("journal.jsonl"), read("data"))
}

fn restore(place: &Place, manifest: &[u8], journal: &[u8], data: Option<&[u8]>) {
    fs::create_dir_all(&place.partial).unwrap();
    fs::write(place.partial.join("manifest.json"), manifest).unwrap();
    fs::write(place.partial.join("journal.jsonl"), journal).unwrap();
    if let Some(data) = data {
        fs::write(place.partial.join("data"), data).unwrap();
    }
}

#[test]
fn a_job_runs_resumes_and_leaves_only_its_output() {
    let fresh = place();
    assert_eq!(run_to_the_end(&fresh.out, false), 0);
    for stop in 1..=UNITS {
        let place = place();
        let mut job = Job::open(&place.out, &manifest(), false).unwrap();
        append_from(&mut job, 0, stop);
        drop(job);
        assert!(!place.out.exists());
        assert_eq!(run_to_the_end(&place.out, false), stop);
    }
}

#[test]
fn a_journal_torn_at_any_byte_resumes_from_the_lines_before() {
    let (manifest, journal, data) = stopped_after(3);
    let ends: Vec<usize> = journal.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(i, _)| i + 1).collect();
    assert_eq!(ends.len(), 3);
    // Every line end and its neighbours, and a sample of the positions between.
    let near_ends = ends.iter().flat_map(|&end| [end - 1, end, (end + 1).min(journal.len())]);
    for cut in (0..=journal.len()).step_by(17).chain(near_ends) {
        let place = place();
        restore(&place, &manifest, &journal[..cut], Some(&data));
        let whole_lines = ends.iter().filter(|&&end| end <= cut).count();
        assert_eq!(run_to_the_end(&place.out, false), whole_lines, "cut at {cut}");
    }
}

#[test]
fn data_torn_at_any_byte_resumes_from_the_units_before() {
    let (manifest, journal, data) = stopped_after(4);
    for cut in (0..=data.len()).step_by(131).chain([100, 101, 3099, 3100, 3106, data.len()]) {
        let place = place();
        restore(&place, &manifest, &journal, Some(&data[..cut]));
        // Units end at 100, 100, 3100, 3107.
        let expected = [100, 100, 3100, 3107].iter().filter(|&&end| end <= cut).count();
        assert_eq!(run_to_the_end(&place.out, false), expected, "cut at {cut}");
    }
    let place = place();
    restore(&place, &manifest, &journal, None);
    assert_eq!(run_to_the_end(&place.out, false), 0, "no data file at all");
}

#[test]
fn data_that_never_reached_the_disk_are_made_again() {
    // The file has its length, but its last blocks are zeros: a power cut on a disk that reports flushes too early.
    for (lost_from, expected) in [(3101, 3), (3000, 2), (99, 0)] {
        let (manifest, journal, mut data) = stopped_after(5);
        data[lost_from..].fill(0);
        let place = place();
        restore(&place, &manifest, &journal, Some(&data));
        assert_eq!(run_to_the_end(&place.out, false), expected, "lost from {lost_from}");
    }
}

#[test]
fn damage_anywhere_in_the_journal_cuts_it_there() {
    let (manifest, journal, data) = stopped_after(4);
    let first_line = journal.iter().position(|&b| b == b'\n').unwrap() + 1;
    for at in (0..journal.len()).step_by(19).chain([first_line - 1, first_line - 2, journal.len() - 1]) {
        for value in [0u8, b'9'] {
            if journal[at] == value {
                continue;
            }
            let mut damaged = journal.clone();
            damaged[at] = value;
            let place = place();
            restore(&place, &manifest, &damaged, Some(&data));
            let found = run_to_the_end(&place.out, false);
            assert!(found < 4, "byte {at} changed to {value} went unnoticed");
            assert_eq!(found == 0, at < first_line, "byte {at}");
        }
    }
}

#[test]
fn bytes_behind_the_last_unit_are_cut_off() {
    let (manifest, journal, mut data) = stopped_after(3);
    data.extend_from_slice(b"half a unit that no line speaks of");
    let mut torn = journal.clone();
    torn.extend_from_slice(b"{\"check\":\"0123");
    let place = place();
    restore(&place, &manifest, &torn, Some(&data));
    assert_eq!(run_to_the_end(&place.out, false), 3);
}

/// Each moment of `commit` at which the process can die, made by hand from the files of a job
/// that has written its commit line.
#[test]
fn a_kill_at_any_step_of_the_commit_is_finished_by_the_next_run() {
    let committed_journal = {
        let place = place();
        let mut job = Job::open(&place.out, &manifest(), false).unwrap();
        append_from(&mut job, 0, UNITS);
        // The rename fails: a directory has taken the name since the check at the start.
        fs::create_dir(&place.out).unwrap();
        assert!(job.commit(&place.out).is_err());
        fs::read(place.partial.join("journal.jsonl")).unwrap()
    };
    let (manifest_text, journal, data) = stopped_after(UNITS);
    let sealed = {
        // `commit` writes its line before the rename.
        let place = place();
        restore(&place, &manifest_text, &journal, Some(&data));
        let job = Job::open(&place.out, &manifest(), false).unwrap();
        let partial = place.partial.clone();
        let watched = fs::File::open(partial.join("journal.jsonl")).unwrap();
        job.commit(&place.out).unwrap();
        let mut text = Vec::new();
        io::Read::read_to_end(&mut &watched, &mut text).unwrap();
        text
    };
    assert!(sealed.len() > journal.len() && sealed.starts_with(&journal));
    assert_eq!(committed_journal, journal, "a refused commit writes nothing");

    for force in [false, true] {
        // Killed before the rename: the line is there, the data too.
        let before_rename = place();
        restore(&before_rename, &manifest_text, &sealed, Some(&data));
        assert_eq!(run_to_the_end(&before_rename.out, force), UNITS);

        // The commit line torn at any byte.
        for cut in (journal.len()..sealed.len()).step_by(13).chain([sealed.len() - 1]) {
            let place = place();
            restore(&place, &manifest_text, &sealed[..cut], Some(&data));
            assert_eq!(run_to_the_end(&place.out, force), UNITS);
        }

        // Killed after the rename: the output is there, nothing is to be done again.
        let after_rename = place();
        restore(&after_rename, &manifest_text, &sealed, None);
        fs::write(&after_rename.out, &data).unwrap();
        let mut job = Job::open(&after_rename.out, &manifest(), force).unwrap();
        assert!(job.is_committed());
        let late = job.append(json!(0), |_| Ok(())).unwrap_err();
        assert!(matches!(late.root(), Error::Store(StoreError::JobEnded)));
        drop(job);
        assert_eq!(run_to_the_end(&after_rename.out, force), UNITS);

        // Killed while the directory is being removed.
        let removing = place();
        restore(&removing, &manifest_text, &sealed, None);
        fs::write(&removing.out, &data).unwrap();
        fs::rename(&removing.partial, removing.out.with_file_name("model.gguf.partial.done")).unwrap();
        fs::remove_file(removing.out.with_file_name("model.gguf.partial.done").join("manifest.json")).unwrap();
        let again = Job::open(&removing.out, &manifest(), force);
        match again {
            Ok(job) => {
                assert!(force && job.units().is_empty());
                drop(job);
            }
            Err(error) => assert!(!force && matches!(error.root(), Error::Store(StoreError::OutputExists)), "{error}"),
        }
        assert_eq!(fs::read(&removing.out).unwrap(), data);
        assert_eq!(fs::read_dir(removing.out.parent().unwrap()).unwrap().count(), 1);
    }

    // The output was moved away after the rename: the job starts from nothing.
    let moved = place();
    restore(&moved, &manifest_text, &sealed, None);
    assert_eq!(run_to_the_end(&moved.out, false), 0);
}

#[test]
fn kills_while_a_job_starts_leave_a_job_that_starts() {
    let (manifest_text, ..) = stopped_after(1);
    let states: [&[(&str, &[u8])]; 6] = [
        &[],
        &[("journal.jsonl", b"")],
        &[("journal.jsonl", b""), ("manifest.json.tmp", b"{\"inp")],
        &[("journal.jsonl", b""), ("manifest.json", b"{}")],
        &[("journal.jsonl", b""), ("manifest.json", &manifest_text)],
        &[("journal.jsonl", b""), ("manifest.json", &manifest_text), ("data", b"stray")],
    ];
    for (step, files) in states.iter().enumerate() {
        let place = place();
        fs::create_dir(&place.partial).unwrap();
        for (name, content) in *files {
            fs::write(place.partial.join(name), content).unwrap();
        }
        assert_eq!(run_to_the_end(&place.out, false), 0, "state {step}");
    }
}

#[test]
fn another_manifest_is_refused_by_the_key_that_differs() {
    let table = [
        (
            json!({ "inputs": [{ "file": "a", "blake3": "11" }], "settings": { "bits": 1.58, "seed": 7 } }),
            "inputs.0.blake3",
        ),
        (
            json!({ "inputs": [{ "file": "a", "blake3": "00" }], "settings": { "bits": 1.5, "seed": 7 } }),
            "settings.bits",
        ),
        (json!({ "inputs": [{ "file": "a", "blake3": "00" }], "settings": { "bits": 1.58 } }), "settings.seed"),
        (json!({ "inputs": [], "settings": { "bits": 1.58, "seed": 7 } }), "inputs.0"),
        (
            json!({ "inputs": [{ "file": "a", "blake3": "00" }], "settings": { "bits": 1.58, "seed": 7 }, "new": null }),
            "new",
        ),
    ];
    let place = place();
    let mut job = Job::open(&place.out, &manifest(), false).unwrap();
    append_from(&mut job, 0, 2);
    drop(job);
    for (other, key) in table {
        let error = Job::open(&place.out, &other, false).unwrap_err();
        let Error::Store(StoreError::ManifestMismatch { key: found, .. }) = error.root() else { panic!("{error}") };
        assert_eq!(found, key);
        let text = error.to_string();
        assert!(text.contains("model.gguf.partial") && text.contains("--force"), "{text}");
    }
    // Nothing was lost by the refusals, and the order of keys does not matter.
    let same = json!({ "settings": { "seed": 7, "bits": 1.58 }, "inputs": [{ "blake3": "00", "file": "a" }] });
    assert_eq!(Job::open(&place.out, &same, false).unwrap().units().len(), 2);
    // Force starts over with the new one.
    let other = json!({ "inputs": 1 });
    let mut job = Job::open(&place.out, &other, true).unwrap();
    assert!(job.units().is_empty() && job.data_len() == 0);
    job.append(json!(null), |data| data.write_all(b"new")).unwrap();
    drop(job);
    let job = Job::open(&place.out, &other, false).unwrap();
    job.commit(&place.out).unwrap();
    assert_eq!(fs::read(&place.out).unwrap(), b"new");
}

#[test]
fn an_existing_output_needs_force_and_stays_until_the_commit() {
    let place = place();
    fs::write(&place.out, b"old").unwrap();
    let error = Job::open(&place.out, &manifest(), false).unwrap_err();
    assert!(matches!(error.root(), Error::Store(StoreError::OutputExists)));
    assert!(!place.partial.exists());

    let mut job = Job::open(&place.out, &manifest(), true).unwrap();
    append_from(&mut job, 0, 2);
    drop(job);
    assert_eq!(fs::read(&place.out).unwrap(), b"old");
    // The same command again: with force, too, a job with the same manifest is continued.
    assert_eq!(run_to_the_end(&place.out, true), 2);

    // An output that appears while the job runs is not overwritten either.
    fs::remove_file(&place.out).unwrap();
    let mut job = Job::open(&place.out, &manifest(), false).unwrap();
    append_from(&mut job, 0, UNITS);
    fs::write(&place.out, b"someone else's").unwrap();
    assert!(matches!(job.commit(&place.out).unwrap_err().root(), Error::Store(StoreError::OutputExists)));
    assert_eq!(fs::read(&place.out).unwrap(), b"someone else's");
    assert_eq!(run_to_the_end(&place.out, true), UNITS);
}

#[test]
fn a_unit_that_fails_to_write_is_no_unit() {
    let place = place();
    let mut job = Job::open(&place.out, &manifest(), false).unwrap();
    append_from(&mut job, 0, 1);
    let error = job
        .append(json!("bad"), |data| {
            data.write_all(b"partial bytes")?;
            Err(io::Error::other("the source went away"))
        })
        .unwrap_err();
    assert!(error.to_string().contains("the source went away"), "{error}");
    assert_eq!(job.units().len(), 1);
    append_from(&mut job, 1, UNITS);
    assert_eq!(fs::read(job.data_path()).unwrap(), whole());
    job.commit(&place.out).unwrap();
    assert_eq!(fs::read(&place.out).unwrap(), whole());
}

#[test]
fn two_processes_cannot_work_on_one_output() {
    let place = place();
    let mut job = Job::open(&place.out, &manifest(), false).unwrap();
    append_from(&mut job, 0, 1);
    let second = Job::open(&place.out, &manifest(), true).unwrap_err();
    assert!(matches!(second.root(), Error::Store(StoreError::JobBusy)), "{second}");
    drop(job);
    assert_eq!(run_to_the_end(&place.out, false), 1);
}

#[test]
fn a_job_without_a_unit_and_a_discarded_job_leave_nothing() {
    let place = place();
    drop(Job::open(&place.out, &manifest(), false).unwrap());
    assert!(!place.partial.exists());
    let mut job = Job::open(&place.out, &manifest(), false).unwrap();
    append_from(&mut job, 0, 2);
    job.discard().unwrap();
    assert_eq!(fs::read_dir(place.out.parent().unwrap()).unwrap().count(), 0);
}

#[test]
fn files_of_others_are_not_touched() {
    let place = place();
    fs::create_dir(&place.partial).unwrap();
    fs::write(place.partial.join("thesis.txt"), b"precious").unwrap();
    for force in [false, true] {
        let error = Job::open(&place.out, &manifest(), force).unwrap_err();
        assert!(
            matches!(error.root(), Error::Store(StoreError::JobForeignFile { file }) if file == "thesis.txt"),
            "{error}"
        );
    }
    assert_eq!(fs::read(place.partial.join("thesis.txt")).unwrap(), b"precious");

    let dir = tempfile::tempdir().unwrap();
    for bad in [dir.path().to_owned(), dir.path().join("no/such/dir/a.gguf"), dir.path().join("..")] {
        assert!(matches!(
            Job::open(&bad, &manifest(), true).unwrap_err().root(),
            Error::Store(StoreError::BadOutput { .. })
        ));
    }
    let mut job = Job::open(&dir.path().join("a"), &manifest(), false).unwrap();
    append_from(&mut job, 0, 1);
    fs::create_dir(dir.path().join("elsewhere")).unwrap();
    let error = job.commit(&dir.path().join("elsewhere/a")).unwrap_err();
    assert!(matches!(error.root(), Error::Store(StoreError::BadOutput { .. })), "{error}");
}

#[test]
fn an_unreadable_manifest_needs_force() {
    for manifest_text in [&b"not json"[..], b""] {
        let (_, journal, data) = stopped_after(2);
        let place = place();
        restore(&place, manifest_text, &journal, Some(&data));
        let error = Job::open(&place.out, &manifest(), false).unwrap_err();
        assert!(matches!(error.root(), Error::Store(StoreError::JobDamaged { .. })), "{error}");
        assert_eq!(run_to_the_end(&place.out, true), 0);
    }
}

/// A folder that came from elsewhere holds what looks like a job whose files lead away.
#[cfg(unix)]
#[test]
fn a_job_of_links_is_refused_and_their_targets_stay() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let precious = dir.path().join("precious");
    fs::write(&precious, "kept").unwrap();
    let out = dir.path().join("m.gguf");
    let partial = dir.path().join("m.gguf.partial");
    for name in ["data", "journal.jsonl", "manifest.json"] {
        fs::create_dir(&partial).unwrap();
        symlink(&precious, partial.join(name)).unwrap();
        let error = Job::open(&out, &json!({}), true).unwrap_err();
        assert!(matches!(error.root(), Error::Store(StoreError::JobForeignFile { .. })), "{name}: {error}");
        fs::remove_dir_all(&partial).unwrap();
    }
    let elsewhere = dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, &partial).unwrap();
    let error = Job::open(&out, &json!({}), true).unwrap_err();
    assert!(matches!(error.root(), Error::Store(StoreError::BadOutput { .. })), "{error}");
    assert_eq!(fs::read_to_string(&precious).unwrap(), "kept");
}

#[test]
fn states_stay_with_their_job_and_go_with_it() {
    let place = place();
    let mut job = Job::open(&place.out, &manifest(), false).unwrap();
    append_from(&mut job, 0, 1);
    let state = job.states()(3);
    assert!(state.starts_with(&place.partial));
    fs::write(&state, b"half way").unwrap();
    drop(job);

    let mut job = Job::open(&place.out, &manifest(), false).unwrap();
    assert_eq!(fs::read(job.states()(3)).unwrap(), b"half way");
    append_from(&mut job, 1, 2);
    drop(job);
    let mut other = Job::open(&place.out, &json!({ "settings": "others" }), true).unwrap();
    assert!(!state.exists(), "the state of another job");
    append_from(&mut other, 0, UNITS);
    fs::write(other.states()(1), b"the end").unwrap();
    other.commit(&place.out).unwrap();
    assert_eq!(fs::read_dir(place.out.parent().unwrap()).unwrap().count(), 1, "only the output is left");
}
