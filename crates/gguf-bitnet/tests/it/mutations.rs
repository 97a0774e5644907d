//! Valid files, damaged in seeded ways a fixed number of times: a reader refuses the file or reads it, and never panics.
//!
//! These tests run on stable Rust; `fuzz/` has the libFuzzer targets for the same body (`fuzz/exercise.rs`). A change
//! of the readers that accepts a damaged length shows up here as a panic or as a tensor outside its file.

#[path = "../../../../fuzz/exercise.rs"]
mod exercise;

use std::fs;
use std::path::Path;

use fixtures::Damage;
use gguf_bitnet::{
    Array, GgufWriter, Job, Metadata, OpenModel, SafetensorsDir, TensorInfo, TensorType, Value, peak_rss_bytes,
    resolve_model,
};

const GGUF_RUNS: u32 = 20_000;
const SAFETENSORS_RUNS: u32 = 3_000;
/// Of each kind of side file.
const SIDE_RUNS: u32 = 400;
/// Of each file of a job, which flushes the disk whenever it is opened.
const JOB_RUNS: u32 = 60;
/// Growth of the resident memory that the side files of these tests may cause: they have some hundred kilobytes.
const MAX_GROWTH_BYTES: u64 = 256 << 20;

/// A small file with every kind of value and several types of tensors.
fn gguf_seed() -> Vec<u8> {
    let mut metadata = Metadata::default();
    for (key, value) in [
        ("general.architecture", Value::String("deepseek2".to_owned())),
        ("general.alignment", Value::U32(32)),
        ("a.u8", Value::U8(1)),
        ("a.i64", Value::I64(-1)),
        ("a.f32", Value::F32(0.5)),
        ("a.f64", Value::F64(0.25)),
        ("a.bool", Value::Bool(true)),
        ("a.strings", Value::Array(Array::String(vec!["x".to_owned(), String::new()]))),
        ("a.numbers", Value::Array(Array::U32(vec![1, 2, 3]))),
    ] {
        metadata.insert(key, value);
    }
    let infos: Vec<TensorInfo> = [
        ("token_embd.weight", vec![4, 256], TensorType::F16),
        ("blk.0.ffn_up_exps.weight", vec![2, 3, 256], TensorType::Tq2_0),
        ("blk.0.ffn_down_exps.weight", vec![2, 2, 256], TensorType::Tq1_0),
        ("blk.0.attn_norm.weight", vec![5], TensorType::F32),
        ("blk.0.attn_k_b.weight", vec![2, 2, 32], TensorType::Q8_0),
    ]
    .into_iter()
    .map(|(name, shape, ty)| {
        let bytes = ty.tensor_bytes(&shape).expect("a valid shape");
        TensorInfo { name: name.to_owned(), shape, ty, bytes }
    })
    .collect();
    let mut writer = GgufWriter::new(&metadata, infos.clone()).expect("a valid layout");
    let mut file = Vec::new();
    writer.begin(&mut file).expect("memory takes every byte");
    for (index, info) in infos.iter().enumerate() {
        let data = vec![0x15; usize::try_from(info.bytes).expect("small")];
        writer.write_tensor(&mut file, index, &data).expect("memory takes every byte");
    }
    writer.finish().expect("every tensor was written");
    file
}

fn safetensors_seed() -> Vec<u8> {
    let header = concat!(
        r#"{"__metadata__":{"format":"pt"},"#,
        r#""model.embed_tokens.weight":{"dtype":"BF16","shape":[4,8],"data_offsets":[0,64]},"#,
        r#""model.norm.weight":{"dtype":"F32","shape":[8],"data_offsets":[64,96]},"#,
        r#""model.layers.0.mlp.gate.weight":{"dtype":"F16","shape":[2,4],"data_offsets":[96,112]}}"#
    );
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(&[0x3c; 112]);
    file
}

/// Runs `exercise` on the seed and on `runs` damaged copies. Fails unless some copies are accepted and some refused.
fn run(seed: &[u8], header: usize, runs: u32, mut exercise: impl FnMut(&[u8]) -> bool) {
    assert!(exercise(seed), "the undamaged file is accepted");
    let mut damage = Damage::new(0x00c0_ffee);
    let accepted = (0..runs).filter(|_| exercise(&damage.binary(seed, header))).count();
    let accepted = u32::try_from(accepted).expect("at most `runs`");
    assert!(accepted > runs / 1000, "only {accepted} of {runs} damaged files were accepted: the damage is too coarse");
    assert!(accepted < runs / 2, "{accepted} of {runs} damaged files were accepted: the reader checks too little");
}

#[test]
fn a_damaged_gguf_file_is_read_or_refused_but_never_panics() {
    let seed = gguf_seed();
    let data: usize = 4 * 256 * 2 + 6 * 66 + 4 * 54 + 5 * 4 + 4 * 34;
    run(&seed, seed.len().saturating_sub(data), GGUF_RUNS, exercise::gguf);
}

#[test]
fn a_damaged_safetensors_file_is_read_or_refused_but_never_panics() {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let seed = safetensors_seed();
    run(&seed, seed.len() - 112, SAFETENSORS_RUNS, |data| exercise::safetensors(dir.path(), data));
}

/// Writes damaged copies of `seed` to `path` and reads each through `read`, which tells whether it was accepted.
fn side_file(path: &Path, seed: &str, runs: u32, read: impl Fn() -> bool) {
    let write = |bytes: &[u8]| {
        // The folder of a job without units is removed when the job is dropped.
        path.parent()
            .map(fs::create_dir_all)
            .expect("a path in a folder")
            .expect("the temporary folder can be written");
        fs::write(path, bytes).expect("the temporary folder can be written");
    };
    write(seed.as_bytes());
    assert!(read(), "the undamaged {} is accepted", path.display());
    let before = peak_rss_bytes().unwrap_or(0);
    let mut damage = Damage::new(0x51de);
    let mut accepted = 0;
    for _ in 0..runs {
        write(&damage.text(seed));
        accepted += u32::from(read());
    }
    assert!(accepted < runs, "no damage to {} was noticed", path.display());
    let growth = peak_rss_bytes().unwrap_or(0).saturating_sub(before);
    assert!(growth < MAX_GROWTH_BYTES, "{}: {growth} bytes", path.display());
}

#[test]
fn a_damaged_index_reference_or_job_is_read_or_refused_but_never_panics() {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let hub = dir.path();
    let folder = hub.join("models--a--b");
    let snapshot = folder.join("snapshots/0123abcd");
    for made in [&snapshot, &folder.join("refs")] {
        fs::create_dir_all(made).expect("the temporary folder can be written");
    }
    fs::write(snapshot.join("part.safetensors"), safetensors_seed()).expect("the temporary folder can be written");
    fs::write(folder.join("refs/main"), "0123abcd\n").expect("the temporary folder can be written");
    let index = concat!(
        r#"{"metadata":{"total_size":112},"weight_map":{"model.embed_tokens.weight":"part.safetensors","#,
        r#""model.norm.weight":"part.safetensors","model.layers.0.mlp.gate.weight":"part.safetensors"}}"#
    );
    let index_path = snapshot.join("model.safetensors.index.json");
    side_file(&index_path, index, SIDE_RUNS, || SafetensorsDir::open(&snapshot).is_ok());
    fs::write(&index_path, index).expect("the temporary folder can be written");
    side_file(&folder.join("refs/main"), "0123abcd\n", SIDE_RUNS, || {
        resolve_model("a/b", Some(hub)).is_ok_and(|path| path.starts_with(&folder))
    });

    // A job with two units, and its manifest and journal damaged.
    let out = hub.join("out");
    let manifest = serde_json::json!({ "input": "abc", "n": 3 });
    let mut job = Job::open(&out, &manifest, false).expect("a job can be begun");
    for unit in 0..2 {
        job.append(serde_json::json!({ "unit": unit }), |data| data.write_all(b"bytes")).expect("it can be written");
    }
    drop(job);
    let partial = hub.join("out.partial");
    let names = ["data", "manifest.json", "journal.jsonl"];
    let whole = names.map(|name| fs::read(partial.join(name)).expect("it was written"));
    // Opening a job cuts off what does not fit, so every run begins with the other files as they were.
    let restore = |path: &Path| {
        fs::create_dir_all(&partial).expect("the temporary folder can be written");
        for (name, bytes) in names.iter().zip(&whole).filter(|(name, _)| partial.join(name) != path) {
            fs::write(partial.join(name), bytes).expect("the temporary folder can be written");
        }
    };
    for (name, bytes) in names.into_iter().zip(&whole).skip(1) {
        let path = partial.join(name);
        restore(&path);
        side_file(&path, std::str::from_utf8(bytes).expect("a text"), JOB_RUNS, || {
            restore(&path);
            matches!(Job::open(&out, &manifest, false).map(|job| job.units().len()), Ok(2))
        });
    }
}

#[test]
fn damaged_files_of_other_kinds_are_named_or_refused_but_never_panic() {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let mut tar = vec![b'a'; 512];
    tar[257..262].copy_from_slice(b"ustar");
    let seeds: [&[u8]; 10] = [
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 21820768\n",
        b"<!DOCTYPE html><html><head><title>Sign in</title></head></html>",
        b"{\"error\":\"Repository not found\"}",
        b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x10\0\0\0archive/data.pkl",
        b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.",
        b"\x08\x07\x12\x07pytorch\x1a\x052.0.0",
        b"tjgg\x03\0\0\0\0\x7d\0\0\0\x10\0\0",
        b"FUGG\0\0\0\x03\0\0\0\0\0\0\0\x01",
        b"GGUF\x01\0\0\0\x01\0\0\0\x01\0\0\0",
        &tar,
    ];
    let mut damage = Damage::new(0x0f11e);
    for name in ["m.gguf", "m.safetensors", "m.bin"] {
        let path = dir.path().join(name);
        for seed in seeds {
            for run in 0..100 {
                let bytes = if run == 0 { seed.to_vec() } else { damage.binary(seed, 32) };
                fs::write(&path, bytes).expect("the temporary folder can be written");
                let sentence = match OpenModel::open(&path) {
                    Ok(_) => continue,
                    Err(error) => error.to_string(),
                };
                assert!(sentence.contains(name) && sentence.len() < 600, "{sentence}");
            }
        }
    }
}
