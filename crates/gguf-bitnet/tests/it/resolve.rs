//! Finding a model by path or name: every kind of place, and the error of every mistake.

use std::fs;
use std::path::Path;

use crate::support::{defect_name, tensor, write_safetensors};
use gguf_bitnet::{Error, GgufWriter, Metadata, OpenModel, TensorInfo, TensorType, open_source, resolve_model};
use gguf_bitnet::{ModelError, SourceError};

fn checkpoint(dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    write_safetensors(&dir.join("model.safetensors"), "F32", &[tensor("a", &[2], vec![1.0, 2.0])]);
}

fn gguf(path: &Path) {
    let info = TensorInfo { name: "a".into(), shape: vec![2], ty: TensorType::F32, bytes: 8 };
    let mut writer = GgufWriter::new(&Metadata::default(), vec![info]).unwrap();
    let mut file = Vec::new();
    writer.begin(&mut file).unwrap();
    writer.write_tensor(&mut file, 0, &[0; 8]).unwrap();
    writer.finish().unwrap();
    fs::write(path, file).unwrap();
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn files_directories_and_gguf_directories_are_models() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("checkpoint");
    checkpoint(&dir);
    assert_eq!(resolve_model(text(&dir), None).unwrap(), dir);
    let model = OpenModel::open(&dir).unwrap();
    assert!(matches!(model, OpenModel::Safetensors(_)));
    assert_eq!(model.dir(), dir);
    let file = dir.join("model.safetensors");
    assert_eq!(resolve_model(text(&file), None).unwrap(), file);
    let model = OpenModel::open(&file).unwrap();
    assert!(matches!(model, OpenModel::Safetensors(_)));
    assert_eq!(model.dir(), dir);

    let dir = root.path().join("gguf");
    fs::create_dir(&dir).unwrap();
    let file = dir.join("student.gguf");
    gguf(&file);
    assert_eq!(resolve_model(text(&dir), None).unwrap(), file);
    let model = OpenModel::open(&dir).unwrap();
    assert!(matches!(model, OpenModel::Gguf(_)));
    assert_eq!(model.dir(), dir);
    assert_eq!(open_source(&file).unwrap().tensors().len(), 1);
    // The content of a file decides its format, not its name.
    let renamed = dir.join("student.bin");
    fs::rename(&file, &renamed).unwrap();
    assert!(matches!(OpenModel::open(&renamed).unwrap(), OpenModel::Gguf(_)));
}

#[test]
fn a_split_set_counts_as_one_model() {
    let root = tempfile::tempdir().unwrap();
    for part in 1..=3 {
        fs::write(root.path().join(format!("m-{part:05}-of-00003.gguf")), "GGUF").unwrap();
    }
    assert_eq!(resolve_model(text(root.path()), None).unwrap(), root.path().join("m-00001-of-00003.gguf"));
    fs::write(root.path().join("other.gguf"), "GGUF").unwrap();
    let error = resolve_model(text(root.path()), None).unwrap_err();
    assert!(matches!(error.root(), Error::Source(SourceError::AmbiguousDirectory { .. })), "{error}");
    assert!(error.to_string().contains("other.gguf"), "{error}");
}

#[test]
fn names_are_looked_up_in_the_cache() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("hub/models--zai-org--GLM-4.7-Flash");
    let spec = "zai-org/GLM-4.7-Flash";
    let defect = |spec: &str| resolve_model(spec, Some(home.path())).unwrap_err();

    let error = defect(spec);
    assert!(matches!(error.root(), Error::Model(ModelError::NotCached { .. })), "{error}");
    assert!(error.to_string().contains("models--zai-org--GLM-4.7-Flash"), "{error}");

    fs::create_dir_all(folder.join("refs")).unwrap();
    assert!(matches!(defect(spec).root(), Error::Model(ModelError::BrokenCache { .. })));
    fs::write(folder.join("refs/main"), "0123abcd\n").unwrap();
    assert!(matches!(defect(spec).root(), Error::Model(ModelError::BrokenCache { .. })));
    let snapshot = folder.join("snapshots/0123abcd");
    checkpoint(&snapshot);
    assert_eq!(resolve_model(spec, Some(home.path())).unwrap(), snapshot);
    assert!(open_source(&snapshot).is_ok());

    // Two snapshots: the reference decides; without it only a single one is taken.
    checkpoint(&folder.join("snapshots/ffff"));
    assert_eq!(resolve_model(spec, Some(home.path())).unwrap(), snapshot);
    fs::remove_file(folder.join("refs/main")).unwrap();
    assert!(matches!(defect(spec).root(), Error::Model(ModelError::BrokenCache { .. })));
    fs::remove_dir_all(folder.join("snapshots/ffff")).unwrap();
    assert_eq!(resolve_model(spec, Some(home.path())).unwrap(), snapshot);

    // A reference that leads elsewhere is not followed.
    for revision in ["../../../elsewhere", "/etc", "", "a b"] {
        fs::write(folder.join("refs/main"), revision).unwrap();
        assert!(matches!(defect(spec).root(), Error::Model(ModelError::BrokenCache { .. })), "{revision}");
    }
    for spec in ["zai-org/../x", "a/b/c", "/b", "a/", ".hidden/x", "no-slash", ""] {
        let error = defect(spec);
        assert!(matches!(error.root(), Error::Model(ModelError::NoSuchModel { .. })), "{spec}: {error}");
    }
    assert!(matches!(resolve_model(spec, None).unwrap_err().root(), Error::Model(ModelError::NoSuchModel { .. })));
}

#[cfg(unix)]
#[test]
fn a_cache_of_links_is_followed() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("hub/models--a--b");
    checkpoint(&folder.join("blobs"));
    fs::rename(folder.join("blobs/model.safetensors"), folder.join("blobs/00ff")).unwrap();
    fs::create_dir_all(folder.join("snapshots/1")).unwrap();
    std::os::unix::fs::symlink("../../blobs/00ff", folder.join("snapshots/1/model.safetensors")).unwrap();
    let path = resolve_model("a/b", Some(home.path())).unwrap();
    assert_eq!(open_source(&path).unwrap().tensors().len(), 1);
    // A link whose target was removed is a missing file with its name.
    fs::remove_file(folder.join("blobs/00ff")).unwrap();
    let error = open_source(&path).unwrap_err();
    assert!(error.to_string().contains("model.safetensors"), "{error}");
}

#[test]
fn everything_else_is_one_sentence_with_the_path() {
    let root = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &[u8]| {
        let path = root.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    fs::create_dir(root.path().join("empty")).unwrap();
    fs::create_dir(root.path().join("papers")).unwrap();
    fs::write(root.path().join("papers/notes.txt"), "x").unwrap();
    let missing = root.path().join("missing.gguf");
    assert!(matches!(
        resolve_model(text(&missing), None).unwrap_err().root(),
        Error::Model(ModelError::NoSuchModel { .. })
    ));

    let table = [
        (root.path().join("empty"), "EmptyDirectory"),
        (root.path().join("papers"), "NoModelFiles"),
        (write("empty.gguf", b""), "EmptyFile"),
        (write("empty.safetensors", b""), "EmptyFile"),
        (write("notes.txt", b"Dear diary, today I quantised."), "NotAModel"),
        (write("short", b"ab"), "NotAModel"),
        (write("text.gguf", b"Dear diary, today I quantised."), "BadMagic"),
        (write("text.safetensors", b"Dear diary, today I quantised."), "HeaderLength"),
        (write("cut.gguf", b"GGUF\x03\0\0\0"), "TruncatedHeader"),
        (missing, "Io"),
    ];
    for (path, expected) in table {
        let error = open_source(&path).expect_err("a defect");
        assert_eq!(defect_name(&error), expected, "{}", path.display());
        assert!(error.to_string().contains(text(&path)), "{error}");
    }
}
