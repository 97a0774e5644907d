//! The files of a directory that make a checkpoint, and the errors of directories that hold none.

use std::fs;
use std::path::Path;

use crate::support::{defect_name, tensor, values, write_safetensors};
use gguf_bitnet::SourceError;
use gguf_bitnet::{Error, SafetensorsDir, TensorSource};

fn shard(dir: &Path, file: &str, names: &[&str]) {
    let tensors: Vec<_> = names.iter().map(|name| tensor(*name, &[2, 3], values(name.len(), 6))).collect();
    write_safetensors(&dir.join(file), "F32", &tensors);
}

fn index(dir: &Path, map: &[(&str, &str)]) {
    let map: serde_json::Map<_, _> = map.iter().map(|(tensor, file)| ((*tensor).to_owned(), (*file).into())).collect();
    let text = serde_json::json!({ "metadata": {}, "weight_map": map }).to_string();
    fs::write(dir.join("model.safetensors.index.json"), text).unwrap();
}

fn names(checkpoint: &SafetensorsDir) -> Vec<&str> {
    checkpoint.tensors().iter().map(|tensor| tensor.name.as_str()).collect()
}

const FIRST: &str = "model-00001-of-00002.safetensors";
const SECOND: &str = "model-00002-of-00002.safetensors";

#[test]
fn real_checkpoints_read_as_with_the_formats_own_crate() {
    for case in ["goldens/glm-tiny", "goldens/glm4-moe-gqa", "craftsman-mini"] {
        let dir = fixtures::path(case);
        let checkpoint = SafetensorsDir::open(&dir).unwrap();
        let mut seen = 0;
        for file in checkpoint.files() {
            let content = fs::read(file).unwrap();
            let theirs = safetensors::SafeTensors::deserialize(&content).unwrap();
            for (name, view) in theirs.tensors() {
                let index = checkpoint.index_of(&name).unwrap();
                assert_eq!(checkpoint.tensors()[index].shape, view.shape());
                assert_eq!(&checkpoint.bytes(index).unwrap()[..], view.data());
                seen += 1;
            }
        }
        assert_eq!(seen, checkpoint.tensors().len());
        assert!(seen > 20 && checkpoint.files().all(|file| !file.ends_with("golden.safetensors")));
    }
}

#[test]
fn views_outlive_the_checkpoint_and_releasing_pages_changes_nothing() {
    let checkpoint = SafetensorsDir::open(fixtures::path("craftsman-mini")).unwrap();
    let index = checkpoint.index_of("model.embed_tokens.weight").unwrap();
    let before = checkpoint.bytes(index).unwrap().to_vec();
    checkpoint.prefetch(index);
    let view = checkpoint.bytes(index).unwrap();
    checkpoint.release(index);
    checkpoint.release(usize::MAX);
    checkpoint.prefetch(usize::MAX);
    assert!(matches!(checkpoint.bytes(usize::MAX), Err(Error::Source(SourceError::NoTensor { .. }))));
    drop(checkpoint);
    assert_eq!(&view[..], before);
}

#[test]
fn every_layout_of_a_directory_is_found() {
    let single = tempfile::tempdir().unwrap();
    shard(single.path(), "model.safetensors", &["a", "bb"]);
    shard(single.path(), "golden.safetensors", &["logits"]);
    assert_eq!(names(&SafetensorsDir::open(single.path()).unwrap()), ["a", "bb"]);
    let file = single.path().join("golden.safetensors");
    assert_eq!(names(&SafetensorsDir::open(&file).unwrap()), ["logits"]);

    let any_name = tempfile::tempdir().unwrap();
    shard(any_name.path(), "weights.safetensors", &["a"]);
    assert_eq!(names(&SafetensorsDir::open(any_name.path()).unwrap()), ["a"]);

    let numbered = tempfile::tempdir().unwrap();
    shard(numbered.path(), SECOND, &["bb"]);
    shard(numbered.path(), FIRST, &["a"]);
    assert_eq!(names(&SafetensorsDir::open(numbered.path()).unwrap()), ["a", "bb"]);

    let indexed = numbered;
    shard(indexed.path(), "golden.safetensors", &["logits"]);
    index(indexed.path(), &[("a", FIRST), ("bb", SECOND)]);
    let checkpoint = SafetensorsDir::open(indexed.path()).unwrap();
    assert_eq!(names(&checkpoint), ["a", "bb"]);
    assert_eq!(checkpoint.files().count(), 2);
    assert_eq!(checkpoint.path(), indexed.path());
}

/// Builds a directory, opens it, and returns the message and the name of its error.
fn defect(build: impl FnOnce(&Path)) -> (String, String) {
    let dir = tempfile::tempdir().unwrap();
    build(dir.path());
    let error = SafetensorsDir::open(dir.path()).expect_err("a defect");
    (error.to_string(), defect_name(&error))
}

#[test]
fn an_index_cannot_reach_out_of_its_directory() {
    let outside = tempfile::tempdir().unwrap();
    shard(outside.path(), "secret.safetensors", &["a"]);
    let absolute = outside.path().join("secret.safetensors");
    for file in ["../secret.safetensors", "sub/../../x", "..", absolute.to_str().unwrap(), "a\\b", "C:x", ""] {
        let (text, variant) = defect(|dir| {
            shard(dir, FIRST, &["bb"]);
            index(dir, &[("bb", FIRST), ("a", file)]);
        });
        assert_eq!(variant, "IndexEscape", "{file}: {text}");
        assert!(text.contains("`a`") && text.contains("index.json"), "{text}");
    }
}

#[test]
fn broken_sets_of_shards_name_what_is_wrong() {
    let (text, variant) = defect(|dir| {
        shard(dir, FIRST, &["a"]);
        index(dir, &[("a", FIRST), ("bb", SECOND)]);
    });
    assert_eq!(variant, "ShardsMissing");
    assert!(text.contains(SECOND), "{text}");

    let (text, variant) = defect(|dir| shard(dir, SECOND, &["a"]));
    assert_eq!(variant, "ShardsMissing");
    assert!(text.contains(FIRST), "{text}");

    let (text, variant) = defect(|dir| {
        shard(dir, FIRST, &["a", "bb"]);
        shard(dir, SECOND, &["bb"]);
    });
    assert_eq!(variant, "DuplicateInShards");
    assert!(text.contains("`bb`") && text.contains(FIRST) && text.contains(SECOND), "{text}");

    let (text, variant) = defect(|dir| {
        shard(dir, FIRST, &["a"]);
        shard(dir, SECOND, &["bb"]);
        index(dir, &[("a", FIRST), ("bb", FIRST)]);
    });
    assert_eq!(variant, "IndexMismatch", "{text}");
    assert!(text.contains("`bb`"), "{text}");

    let (text, variant) = defect(|dir| {
        shard(dir, FIRST, &["a"]);
        index(dir, &[("a", FIRST), ("lost", FIRST)]);
    });
    assert_eq!(variant, "IndexMismatch");
    assert!(text.contains("`lost`") && text.contains(FIRST), "{text}");

    for (content, expected) in [
        ("", "IndexJson"),
        ("[]", "IndexJson"),
        (r#"{"weight_map":{"a":1}}"#, "IndexJson"),
        (r#"{"metadata":{}}"#, "IndexJson"),
        (r#"{"weight_map":{}}"#, "IndexEmpty"),
    ] {
        let (text, variant) = defect(|dir| {
            shard(dir, FIRST, &["a"]);
            fs::write(dir.join("model.safetensors.index.json"), content).unwrap();
        });
        assert_eq!(variant, expected, "{content}: {text}");
        assert!(text.contains("model.safetensors.index.json"), "{text}");
    }
}

#[test]
fn directories_of_no_or_several_checkpoints_are_refused() {
    assert_eq!(defect(|_| {}).1, "EmptyDirectory");
    assert_eq!(defect(|dir| fs::write(dir.join("notes.txt"), "x").unwrap()).1, "NoModelFiles");
    let several: [&dyn Fn(&Path); 4] = [
        &|dir| {
            shard(dir, "one.safetensors", &["a"]);
            shard(dir, "two.safetensors", &["a"]);
        },
        &|dir| {
            shard(dir, "x-00001-of-00001.safetensors", &["a"]);
            shard(dir, "y-00001-of-00001.safetensors", &["a"]);
        },
        &|dir| {
            shard(dir, "model.safetensors", &["a"]);
            shard(dir, FIRST, &["a"]);
            index(dir, &[("a", FIRST)]);
        },
        &|dir| {
            shard(dir, FIRST, &["a"]);
            index(dir, &[("a", FIRST)]);
            fs::write(dir.join("other.safetensors.index.json"), "{}").unwrap();
        },
    ];
    for build in several {
        let (text, variant) = defect(build);
        assert_eq!(variant, "AmbiguousDirectory", "{text}");
    }
}

#[test]
fn a_defect_in_a_shard_names_file_and_tensor() {
    let (text, variant) = defect(|dir| {
        shard(dir, FIRST, &["a"]);
        shard(dir, SECOND, &["bb"]);
        let path = dir.join(SECOND);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    });
    assert_eq!(variant, "TruncatedData");
    assert!(text.contains(SECOND) && text.contains("`bb`") && text.contains("fetch"), "{text}");
    let (text, variant) = defect(|dir| fs::write(dir.join("model.safetensors"), "").unwrap());
    assert_eq!(variant, "EmptyFile");
    assert!(text.contains("model.safetensors"), "{text}");
}
