//! Jobs that are stopped, resumed, run on other numbers of threads or in less memory end with the same bytes.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use gguf_bitnet::{Job, TensorType};
use rlm_refine::{Error, Preset, Recipe, Stage, Ternary};
use serde_json::json;
use ternary_core::Rounding;

use crate::sources::{Settings, edited, listing, poke, preset, quantize, quantize_watched};

const CASE: &str = "goldens/glm4-moe-gqa";

fn partial(out: &Path) -> PathBuf {
    out.with_extension("gguf.partial")
}

fn journal_lines(out: &Path) -> usize {
    fs::read_to_string(partial(out).join("journal.jsonl")).unwrap().lines().count()
}

/// Runs until the unit with index `at` is about to be encoded, then stops as a crash does.
fn stop_at(source: &Path, out: &Path, settings: &Settings, at: usize) {
    let mut units = 0;
    let stopped = catch_unwind(AssertUnwindSafe(|| {
        quantize_watched(source, out, settings, &mut |stage, _, _| {
            if stage == Stage::Encode {
                assert!(units < at, "stopped by the test");
                units += 1;
            }
        })
    }));
    stopped.unwrap_err();
    assert!(!out.exists());
    assert!(partial(out).is_dir());
}

/// Damages the directory of a job as a kill or a power cut does.
type Spoil<'a> = &'a dyn Fn(&Path);

fn gguf_error(error: &Error) -> &gguf_bitnet::Error {
    match error {
        Error::Gguf(error) => error.root(),
        other => panic!("{other}"),
    }
}

#[test]
fn threads_and_memory_do_not_change_a_byte() {
    let dir = tempfile::tempdir().unwrap();
    let source = fixtures::path("craftsman-mini");
    let settings = Settings { rounding: Rounding::LeastSquares, ..Settings::default() };
    // The least memory that works, as the error names it.
    let too_little = Settings { max_memory_bytes: Some(1), threads: 1, ..settings.clone() };
    let least = match quantize(&source, &dir.path().join("least"), &too_little) {
        Err(Error::Memory { limit: 1, needed, .. }) => needed,
        other => panic!("{other:?}"),
    };
    assert!(listing(dir.path()).is_empty());
    let small = Settings { max_memory_bytes: Some(least + (1 << 20)), threads: 1, ..settings.clone() };
    let variants = [Settings { threads: 1, ..settings.clone() }, settings, small];
    let mut made: Vec<(Vec<u8>, u64)> = Vec::new();
    for (i, settings) in variants.iter().enumerate() {
        let out = dir.path().join(format!("{i}.gguf"));
        let mut units = 0;
        quantize_watched(&source, &out, settings, &mut |stage, _, _| units += u64::from(stage == Stage::Encode))
            .unwrap();
        made.push((fs::read(out).unwrap(), units));
    }
    assert!(made[0].0 == made[1].0, "two threads change the bytes");
    assert!(made[0].0 == made[2].0, "less memory changes the bytes");
    assert!(made[2].1 > made[0].1, "less memory means more units: {} against {}", made[2].1, made[0].1);
    assert_eq!(listing(dir.path()), ["0.gguf", "1.gguf", "2.gguf"]);
}

#[test]
fn a_stopped_job_resumes_with_the_same_bytes_and_report_and_redoes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (source, settings) = (fixtures::path(CASE), Settings::default());
    let whole = dir.path().join("whole.gguf");
    let mut total = 0;
    let report = quantize_watched(&source, &whole, &settings, &mut |stage, _, _| {
        total += usize::from(stage == Stage::Encode);
    });
    let (report, bytes) = (serde_json::to_value(report.unwrap()).unwrap(), fs::read(&whole).unwrap());
    // One call per unit and one at the end.
    let n_units = total - 1;
    for at in [0, 1, 2, n_units / 2, n_units - 1, n_units] {
        let out = dir.path().join(format!("{at}.gguf"));
        stop_at(&source, &out, &settings, at);
        assert_eq!(journal_lines(&out), 1 + at, "the header and {at} units");
        let mut encoded = 0;
        let resumed = quantize_watched(&source, &out, &settings, &mut |stage, _, _| {
            encoded += usize::from(stage == Stage::Encode);
        });
        assert_eq!(encoded - 1, n_units - at, "units are done once");
        assert_eq!(serde_json::to_value(resumed.unwrap()).unwrap(), report, "stopped at {at}");
        assert!(fs::read(&out).unwrap() == bytes, "stopped at {at}");
        assert!(!partial(&out).exists());
    }
}

#[test]
fn half_written_units_of_a_killed_job_are_redone() {
    let dir = tempfile::tempdir().unwrap();
    let (source, settings) = (fixtures::path(CASE), Settings::default());
    let whole = dir.path().join("whole.gguf");
    quantize(&source, &whole, &settings).unwrap();
    let at = 7;
    let spoil: [(&str, Spoil<'_>); 4] = [
        ("bytes without a line", &|dir| append(&dir.join("data"), &[7; 1000])),
        ("a torn line", &|dir| append(&dir.join("journal.jsonl"), b"{\"end\":12")),
        ("a line without its bytes", &|dir| {
            let data = fs::OpenOptions::new().write(true).open(dir.join("data")).unwrap();
            data.set_len(data.metadata().unwrap().len() - 1).unwrap();
        }),
        ("bytes that never reached the disk", &|dir| {
            let mut data = fs::read(dir.join("data")).unwrap();
            *data.last_mut().unwrap() ^= 1;
            fs::write(dir.join("data"), data).unwrap();
        }),
    ];
    for (i, (what, spoil)) in spoil.iter().enumerate() {
        let out = dir.path().join(format!("{i}.gguf"));
        stop_at(&source, &out, &settings, at);
        spoil(&partial(&out));
        let mut first_done = None;
        quantize_watched(&source, &out, &settings, &mut |stage, done, _| {
            if stage == Stage::Encode {
                first_done.get_or_insert(done);
            }
        })
        .unwrap();
        assert!(first_done.unwrap() > 0, "{what}: everything was redone");
        assert!(fs::read(&out).unwrap() == fs::read(&whole).unwrap(), "{what}");
    }
}

fn append(path: &Path, bytes: &[u8]) {
    use std::io::Write;
    fs::OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

#[test]
fn another_source_or_setting_is_refused_by_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let source = edited(dir.path(), CASE, |_| {});
    let out = dir.path().join("student.gguf");
    let settings = Settings::default();
    stop_at(&source, &out, &settings, 5);

    let refused_for = |settings: &Settings| match quantize(&source, &out, settings) {
        Err(error) => match gguf_error(&error) {
            gguf_bitnet::Error::Store(gguf_bitnet::StoreError::ManifestMismatch { key, .. }) => {
                assert!(error.to_string().contains(key), "{error}");
                key.clone()
            }
            other => panic!("{other}"),
        },
        Ok(_) => panic!("a job with other settings went on"),
    };
    let none = Recipe { ternary: Ternary::Packed(TensorType::Tq1_0), ..Recipe::default() };
    assert_eq!(refused_for(&preset(Preset::Quality)), "recipe");
    assert_eq!(refused_for(&Settings { recipe: none, ..settings.clone() }), "recipe");
    assert_eq!(refused_for(&Settings { rounding: Rounding::LeastSquares, ..settings.clone() }), "method");
    let less = Settings { max_memory_bytes: Some(160 << 20), ..settings.clone() };
    assert_eq!(refused_for(&less), "unit_weights");

    edited(dir.path(), CASE, |tensors| drop(poke(tensors, "lm_head.weight", 3, 0.125)));
    assert_eq!(refused_for(&settings), "source_blake3");
    assert_eq!(journal_lines(&out), 6, "a refusal costs nothing");

    // --force throws the unfinished job away.
    quantize(&source, &out, &Settings { force: true, ..settings }).unwrap();
    assert_eq!(listing(dir.path()), ["source", "student.gguf"]);
}

#[test]
fn existing_files_stay_without_force_and_until_the_student_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let (source, out) = (fixtures::path(CASE), dir.path().join("student.gguf"));
    fs::write(&out, "precious").unwrap();
    let mut hashed = false;
    let refused = quantize_watched(&source, &out, &Settings::default(), &mut |_, _, _| hashed = true).unwrap_err();
    assert!(
        matches!(gguf_error(&refused), gguf_bitnet::Error::Store(gguf_bitnet::StoreError::OutputExists)),
        "{refused}"
    );
    assert!(!hashed, "the source need not be read to refuse");
    assert_eq!(listing(dir.path()), ["student.gguf"]);

    let force = Settings { force: true, ..Settings::default() };
    let stopped = catch_unwind(AssertUnwindSafe(|| {
        quantize_watched(&source, &out, &force, &mut |stage, done, _| {
            assert!(stage != Stage::Encode || done < 100_000, "stopped by the test");
        })
    }));
    stopped.unwrap_err();
    assert_eq!(fs::read(&out).unwrap(), b"precious");
    quantize(&source, &out, &force).unwrap();
    assert!(fs::read(&out).unwrap().starts_with(b"GGUF"));
    assert_eq!(listing(dir.path()), ["student.gguf"]);
}

#[test]
fn a_second_process_is_refused_while_the_first_works() {
    let dir = tempfile::tempdir().unwrap();
    let (source, out) = (fixtures::path(CASE), dir.path().join("student.gguf"));
    let mut first = Job::open(&out, &json!({ "job": "another" }), false).unwrap();
    first.append(json!(0), |data| data.write_all(b"x")).unwrap();
    let refused = quantize(&source, &out, &Settings { force: true, ..Settings::default() }).unwrap_err();
    assert!(matches!(gguf_error(&refused), gguf_bitnet::Error::Store(gguf_bitnet::StoreError::JobBusy)), "{refused}");
    first.discard().unwrap();
    quantize(&source, &out, &Settings::default()).unwrap();
}

#[test]
fn a_student_that_is_damaged_before_it_is_verified_is_not_committed() {
    let dir = tempfile::tempdir().unwrap();
    let (source, out) = (fixtures::path("goldens/glm-tiny"), dir.path().join("student.gguf"));
    let settings = preset(Preset::Phase2);
    let data = partial(&out).join("data");
    let refused = quantize_watched(&source, &out, &settings, &mut |stage, done, total| {
        if stage == Stage::Encode && done == total {
            let mut bytes = fs::read(&data).unwrap();
            // The last 66 bytes of tensor data are a TQ2_0 block of the last expert tensor, or near it.
            let from = bytes.len() - 40_000;
            bytes[from..from + 20_000].fill(0xff);
            fs::write(&data, bytes).unwrap();
        }
    });
    let refused = refused.unwrap_err();
    assert!(matches!(refused, Error::NotAsPlanned { .. }), "{refused}");
    assert!(refused.to_string().contains("blk.1."), "{refused}");
    assert!(listing(dir.path()).is_empty(), "there is nothing to resume: {:?}", listing(dir.path()));
}
