//! Jobs of numbered units: shards, parts, and the ways in which parts do not fit each other.

use std::fs;
use std::path::{Path, PathBuf};

use gguf_bitnet::{
    Cut, Error, GgufWriter, Metadata, PartError, Parts, Shard, StoreError, TensorInfo, TensorType, UnitJob, UnitResult,
    VerifyReport, verify_parts, verify_shard,
};
use serde_json::{Value, json};
use ternary_core::Bytes;

const UNITS: usize = 11;

/// The bytes of a unit: some text, none, and text that looks like the lines of a part.
fn result(unit: usize) -> UnitResult {
    let bytes = match unit % 3 {
        0 => format!("unit {unit}\n").into_bytes(),
        1 => Vec::new(),
        _ => b"{\"end\":1,\"digest\":\"x\"}\n".to_vec(),
    };
    let failed = u64::from(unit == 4 || unit == 7);
    UnitResult { bytes, failed, failure: (failed > 0).then(|| format!("unit {unit} is bad")) }
}

fn manifest() -> Value {
    json!({ "job": "test", "model": "abc", "settings": { "seed": 7 } })
}

/// Does at most `most` units of a shard; the number of units that were left to do before.
fn work(out: &Path, manifest: &Value, shard: Option<Shard>, most: usize) -> usize {
    let mut job = UnitJob::open(out, manifest, Cut { units: UNITS, shard }, false).unwrap();
    let (done, all) = job.progress();
    for _ in 0..most {
        let Some(unit) = job.next_unit() else { break };
        job.append(&result(unit)).unwrap();
    }
    if job.next_unit().is_none() {
        job.finish().unwrap();
    }
    all - done
}

fn part(dir: &Path, manifest: &Value, shard: &str) -> PathBuf {
    let path = dir.join(format!("{}.part", shard.replace('/', "-")));
    work(&path, manifest, Some(shard.parse().unwrap()), UNITS);
    path
}

fn bytes(parts: &Parts) -> Vec<u8> {
    (0..parts.units()).flat_map(|unit| parts.read(unit).unwrap()).collect()
}

fn refusal(paths: &[PathBuf]) -> (PartError, String) {
    let error = Parts::open(paths).unwrap_err();
    let message = error.to_string();
    match error {
        Error::InFile { error, .. } => match *error {
            Error::Store(StoreError::Part(part)) => (part, message),
            other => panic!("{other}"),
        },
        Error::Store(StoreError::Part(part)) => (part, message),
        other => panic!("{other}"),
    }
}

#[test]
fn parts_of_any_cut_are_the_job_that_was_not_cut() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    work(&whole, &manifest(), None, UNITS);
    let whole = fs::read(whole).unwrap();
    assert_eq!(whole, (0..UNITS).flat_map(|unit| result(unit).bytes).collect::<Vec<u8>>());
    for n in [1, 2, 5, UNITS, UNITS + 2] {
        let cut = dir.path().join(n.to_string());
        fs::create_dir(&cut).unwrap();
        // In no order, and one of them twice.
        let mut paths: Vec<PathBuf> = (1..=n).rev().map(|i| part(&cut, &manifest(), &format!("{i}/{n}"))).collect();
        let copy = cut.join("copy");
        fs::copy(&paths[0], &copy).unwrap();
        paths.push(copy);
        let parts = Parts::open(&paths).unwrap();
        assert_eq!((bytes(&parts), parts.failed()), (whole.clone(), (2, Some("unit 4 is bad"))), "{n} shards");
        assert_eq!(parts.manifest(), &manifest());
    }
}

#[test]
fn some_parts_tell_the_shards_that_are_missing_and_where_a_unit_lies() {
    let dir = tempfile::tempdir().unwrap();
    let [two, five] = ["2/5", "5/5"].map(|shard| part(dir.path(), &manifest(), shard));
    let parts = Parts::some(&[five.clone(), two.clone()]).unwrap();
    assert_eq!((parts.shards(), parts.units()), (5, UNITS));
    assert_eq!(parts.missing().unwrap(), "shards 1/5, 3/5 and 4/5 are");
    assert_eq!((parts.path(1), parts.path(6), parts.path(9)), (&*two, &*two, &*five));
    assert_eq!(parts.read(6).unwrap(), result(6).bytes);
    let files: Vec<_> = (0..=6).map(|number| parts.path_of_shard(number)).collect();
    assert_eq!(files, [None, None, Some(&*two), None, None, Some(&*five), None]);

    let rest = ["1/5", "3/5", "4/5"].map(|shard| part(dir.path(), &manifest(), shard));
    assert_eq!(Parts::some(&[&rest[..], &[two, five]].concat()).unwrap().missing(), None);
    let none = Parts::some(&[]).unwrap_err().to_string();
    assert!(none.contains("all parts are missing"), "{none}");
}

#[test]
fn a_shard_that_is_stopped_anywhere_goes_on_to_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let shard: Option<Shard> = Some("2/2".parse().unwrap());
    let undisturbed = part(dir.path(), &manifest(), "2/2");
    let stopped = dir.path().join("stopped");
    for left in [5, 4, 3, 2, 1] {
        assert_eq!(work(&stopped, &manifest(), shard, 1), left);
    }
    assert_eq!(fs::read(stopped).unwrap(), fs::read(undisturbed).unwrap());
}

#[test]
fn a_long_reason_is_cut_so_that_its_part_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("1-1.part");
    // Six bytes of JSON for each character: more than a line of a part may have.
    let reason = "\u{1}".repeat(20_000);
    let mut job =
        UnitJob::open(&path, &manifest(), Cut { units: 1, shard: Some("1/1".parse().unwrap()) }, false).unwrap();
    job.append(&UnitResult { bytes: b"x".to_vec(), failed: 1, failure: Some(reason.clone()) }).unwrap();
    job.finish().unwrap();
    let parts = Parts::open(&[path]).unwrap();
    let (failed, kept) = parts.failed();
    let kept = kept.unwrap().strip_suffix('…').unwrap();
    assert_eq!((failed, kept.chars().count()), (1, 999));
    assert!(reason.starts_with(kept) && bytes(&parts) == b"x");
}

#[test]
fn parts_that_do_not_fit_are_named_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let other = json!({ "job": "test", "model": "abd", "settings": { "seed": 7 } });
    let (a, b) = (part(dir.path(), &manifest(), "1/3"), part(dir.path(), &manifest(), "2/3"));
    let c = part(dir.path(), &manifest(), "3/3");
    let alien = dir.path().join("alien");
    work(&alien, &other, Some("2/3".parse().unwrap()), UNITS);
    let two = part(dir.path(), &manifest(), "2/2");

    let (error, message) = refusal(&[a.clone(), alien.clone(), c.clone()]);
    assert!(matches!(&error, PartError::OtherJob { key, .. } if key == "model"), "{error}");
    assert!(message.contains("alien") && message.contains("\"abd\"") && message.contains("1-3.part"), "{message}");

    let (error, message) = refusal(&[a.clone(), c.clone()]);
    assert!(matches!(error, PartError::Missing { .. }) && message.contains("shard 2/3 is missing"), "{message}");
    let (_, message) = refusal(std::slice::from_ref(&c));
    assert!(message.contains("shards 1/3 and 2/3 are missing"), "{message}");

    let (error, message) = refusal(&[a.clone(), two]);
    assert!(matches!(error, PartError::Overlap { .. }) && message.contains("shard 2/2"), "{message}");

    // A second part of shard 2/3 with another result: well-formed, so that only the comparison finds it.
    let wrong = dir.path().join("wrong");
    let mut job =
        UnitJob::open(&wrong, &manifest(), Cut { units: UNITS, shard: Some("2/3".parse().unwrap()) }, false).unwrap();
    while let Some(unit) = job.next_unit() {
        let right = result(unit);
        let bytes = if unit == 7 { b"other".to_vec() } else { right.bytes };
        job.append(&UnitResult { bytes, ..right }).unwrap();
    }
    job.finish().unwrap();
    let (error, message) = refusal(&[a, b, c, wrong]);
    assert!(matches!(error, PartError::Differs { unit: 7, .. }), "{error}");
    assert!(message.contains("wrong") && message.contains("2-3.part") && message.contains("shard 2/3"), "{message}");
}

#[test]
fn damaged_parts_are_refused_at_every_byte() {
    let dir = tempfile::tempdir().unwrap();
    let path = part(dir.path(), &manifest(), "1/1");
    let good = fs::read(&path).unwrap();
    let damaged = dir.path().join("damaged");
    let refused = |bytes: &[u8]| {
        fs::write(&damaged, bytes).unwrap();
        match Parts::open(std::slice::from_ref(&damaged)) {
            Err(_) => true,
            Ok(parts) => (0..parts.units()).any(|unit| parts.read(unit).is_err()),
        }
    };
    assert!(!refused(&good));
    for end in 0..good.len() {
        assert!(refused(&good[..end]), "cut at {end}");
    }
    assert!(refused(&[&good[..], b"\n"].concat()), "bytes behind the end");
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        // The reasons of failures are words for people and have no digest.
        let is_reason = good[..at].windows(9).rev().take(40).any(|part| part == b"failure\":");
        assert!(is_reason || refused(&bytes), "byte {at}");
    }
}

/// The report of a part of shard 1/1 with these units.
fn report_of(path: &Path, manifest: &Value, units: &[Value]) -> Result<VerifyReport, Error> {
    let cut = Cut { units: units.len(), shard: Some("1/1".parse().unwrap()) };
    let mut job = UnitJob::open(path, manifest, cut, true).unwrap();
    for unit in units {
        job.append(&UnitResult { bytes: serde_json::to_vec(unit).unwrap(), ..UnitResult::default() }).unwrap();
    }
    job.finish().unwrap();
    verify_parts(&Parts::open(&[path.to_owned()]).unwrap())
}

/// The digests of such parts fit; [`verify_shard`] writes none.
#[test]
fn whole_parts_that_no_model_can_have_are_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let (model, honest) = (dir.path().join("m.gguf"), dir.path().join("honest.part"));
    let tensor = |name: &str| {
        let info = TensorInfo { name: name.into(), shape: vec![8], ty: TensorType::F32, bytes: 32 };
        (info, Bytes::from(1.5f32.to_le_bytes().repeat(8)))
    };
    GgufWriter::write_file(&model, &Metadata::default(), &[tensor("a"), tensor("b")]).unwrap();
    verify_shard(&model, ("1/1".parse().unwrap(), &honest), false, false, &mut |_, _| {}).unwrap();
    let parts = Parts::open(&[honest]).unwrap();
    let units: Vec<Value> =
        (0..parts.units()).map(|unit| serde_json::from_slice(&parts.read(unit).unwrap()).unwrap()).collect();
    let crafted = dir.path().join("crafted.part");
    let good = report_of(&crafted, parts.manifest(), &units).unwrap();
    assert_eq!((good.elements, good.bytes, good.is_valid()), (16, 64, true));

    let message = report_of(&crafted, parts.manifest(), &[]).unwrap_err().to_string();
    assert!(message.contains("is cut off or damaged (it has no units)"), "{message}");
    let mut huge = units;
    for unit in &mut huge[1..] {
        unit["findings"]["elements"] = (1u64 << 63).into();
    }
    let message = report_of(&crafted, parts.manifest(), &huge).unwrap_err().to_string();
    assert!(message.contains("is cut off or damaged (unit 2)"), "{message}");
}
