//! Finding a model by path or name: every kind of place, and the error of every mistake.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{defect_name, tensor, write_safetensors};
use gguf_bitnet::{Error, GgufWriter, Metadata, OpenModel, Role, TensorInfo, TensorType, open_source, resolve_model};
use gguf_bitnet::{ModelError, SourceError};

fn checkpoint(dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    write_safetensors(&dir.join("model.safetensors"), "F32", &[tensor("a", &[2], vec![1.0, 2.0])]);
}

const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n";

fn gguf(path: &Path) {
    gguf_with(path, "general.type", "model");
}

/// A GGUF with one tensor and one text in its metadata.
fn gguf_with(path: &Path, key: &str, value: &str) {
    let info = TensorInfo { name: "a".into(), shape: vec![2], ty: TensorType::F32, bytes: 8 };
    let mut metadata = Metadata::default();
    metadata.insert(key, value);
    let mut writer = GgufWriter::new(&metadata, vec![info]).unwrap();
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
fn companions_do_not_hide_a_model() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    let found = || resolve_model(text(root.path()), None);
    gguf(&path("model-Q8_0.gguf"));
    for (name, key, value) in [
        ("mmproj-F16.gguf", "general.architecture", "clip"),
        ("a-projector.gguf", "general.type", "mmproj"),
        ("imatrix.gguf", "general.type", "imatrix"),
        ("lora.gguf", "general.type", "adapter"),
        ("steer.gguf", "general.architecture", "controlvector"),
    ] {
        gguf_with(&path(name), key, value);
        assert_eq!(found().unwrap(), path("model-Q8_0.gguf"), "{name}");
    }
    for name in [".DS_Store", "._model-Q8_0.gguf", ".hidden.gguf", "b.gguf.incomplete", "imatrix.dat", "README.md"] {
        fs::write(path(name), "other").unwrap();
    }
    // A file that was not fetched yet, and a folder with the name of a file.
    fs::write(path("model-BF16.gguf"), POINTER).unwrap();
    fs::create_dir(path("folder.gguf")).unwrap();
    assert_eq!(found().unwrap(), path("model-Q8_0.gguf"));
    assert_eq!(OpenModel::open(root.path()).unwrap().role(), Role::Model);

    // Of two models none is chosen; the sentence names the models alone.
    gguf(&path("model-F16.gguf"));
    let sentence = found().unwrap_err().to_string();
    assert!(sentence.contains("model-F16.gguf, model-Q8_0.gguf)") && sentence.contains(":TYPE"), "{sentence}");
    let spec = format!("{}:f16", text(root.path()));
    assert_eq!(resolve_model(&spec, None).unwrap(), path("model-F16.gguf"));

    // Companions alone are opened, so that the reader can say what they are.
    for name in ["model-Q8_0.gguf", "model-F16.gguf", "model-BF16.gguf"] {
        fs::remove_file(path(name)).unwrap();
    }
    let role = OpenModel::open(root.path()).unwrap().role();
    assert_eq!(role, Role::Projector);
}

#[test]
fn files_of_a_checkpoint_are_told_from_those_beside_it() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path();
    checkpoint(dir);
    for name in ["adapter_model.safetensors", "optimizer.safetensors", "._model.safetensors"] {
        fs::write(dir.join(name), "other").unwrap();
    }
    assert_eq!(open_source(dir).unwrap().tensors().len(), 1);
    // A checkpoint goes before a GGUF, but without a configuration it is none.
    fs::write(dir.join("config.json"), "{}").unwrap();
    gguf(&dir.join("m.gguf"));
    assert_eq!(resolve_model(text(dir), None).unwrap(), dir);
    fs::remove_file(dir.join("config.json")).unwrap();
    assert_eq!(resolve_model(text(dir), None).unwrap(), dir.join("m.gguf"));
    // Only an adapter beside a GGUF: the GGUF is the model.
    fs::remove_file(dir.join("model.safetensors")).unwrap();
    assert_eq!(resolve_model(text(dir), None).unwrap(), dir.join("m.gguf"));
    fs::remove_file(dir.join("m.gguf")).unwrap();
    let error = resolve_model(text(dir), None).unwrap_err();
    assert!(matches!(error.root(), Error::Model(ModelError::NoLanguageModel { role: Role::Adapter })), "{error}");

    write_safetensors(
        &dir.join("lora.safetensors"),
        "F32",
        &[tensor("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", &[2], vec![1.0, 2.0])],
    );
    assert_eq!(OpenModel::open(&dir.join("lora.safetensors")).unwrap().role(), Role::Adapter);
}

#[test]
fn shards_of_five_and_six_digits_are_one_checkpoint() {
    for (number, count) in [(5, 5), (5, 6), (6, 6)] {
        let root = tempfile::tempdir().unwrap();
        let name = |n: u32| format!("model-{n:0number$}-of-{:0count$}.safetensors", 3);
        for n in 1..=3 {
            let one = [tensor(format!("t{n}"), &[1], vec![1.0])];
            write_safetensors(&root.path().join(name(n)), "F32", &one);
        }
        assert_eq!(open_source(root.path()).unwrap().tensors().len(), 3);
        fs::remove_file(root.path().join(name(1))).unwrap();
        fs::remove_file(root.path().join(name(3))).unwrap();
        let sentence = open_source(root.path()).unwrap_err().to_string();
        assert!(sentence.contains(&format!("({}, {})", name(1), name(3))), "{sentence}");
    }
}

/// The folder of a model in the cache `hub`.
fn cached(hub: &Path, name: &str) -> PathBuf {
    let folder = hub.join(format!("models--{}", name.replace('/', "--")));
    fs::create_dir_all(folder.join("refs")).unwrap();
    folder
}

#[test]
fn names_are_looked_up_in_the_cache() {
    let hub = tempfile::tempdir().unwrap();
    let spec = "zai-org/GLM-4.7-Flash";
    let defect = |spec: &str| resolve_model(spec, Some(hub.path())).unwrap_err();

    let error = defect(spec);
    assert!(matches!(error.root(), Error::Model(ModelError::NotCached { .. })), "{error}");
    assert!(error.to_string().contains("models--zai-org--GLM-4.7-Flash"), "{error}");

    let folder = cached(hub.path(), spec);
    assert!(matches!(defect(spec).root(), Error::Model(ModelError::BrokenCache { .. })));
    fs::write(folder.join("refs/main"), "0123abcd\n").unwrap();
    assert!(matches!(defect(spec).root(), Error::Model(ModelError::BrokenCache { .. })));
    let snapshot = folder.join("snapshots/0123abcd");
    checkpoint(&snapshot);
    let found = || resolve_model(spec, Some(hub.path())).unwrap();
    assert_eq!(found(), snapshot);
    assert!(open_source(&snapshot).is_ok());

    // Two snapshots: the reference decides; without it only a single one is taken. Notes of the system are none.
    checkpoint(&folder.join("snapshots/ffff"));
    assert_eq!(found(), snapshot);
    fs::remove_file(folder.join("refs/main")).unwrap();
    assert!(matches!(defect(spec).root(), Error::Model(ModelError::BrokenCache { .. })));
    fs::remove_dir_all(folder.join("snapshots/ffff")).unwrap();
    fs::write(folder.join("snapshots/.DS_Store"), "").unwrap();
    fs::write(folder.join("snapshots/Thumbs.db"), "").unwrap();
    assert_eq!(found(), snapshot);

    // A reference that leads elsewhere, or that is no reference, is not followed.
    let long = "a".repeat(1 << 20);
    for revision in ["../../../elsewhere", "/etc", "", "a b", &long] {
        fs::write(folder.join("refs/main"), revision).unwrap();
        assert!(resolve_model(spec, Some(hub.path())).is_err(), "{revision}");
    }
    fs::remove_file(folder.join("refs/main")).unwrap();

    // Old models have no organisation.
    let single = cached(hub.path(), "gpt2").join("snapshots/1");
    checkpoint(&single);
    assert_eq!(resolve_model("gpt2", Some(hub.path())).unwrap(), single);
    for spec in ["zai-org/../x", "a/b/c", "/b", "a/", ".hidden/x", "no-slash", "", "a/b/../c", "a/b/c:"] {
        let error = defect(spec);
        assert!(matches!(error.root(), Error::Model(ModelError::NoSuchModel { .. })), "{spec}: {error}");
    }
    assert!(matches!(resolve_model(spec, None).unwrap_err().root(), Error::Model(ModelError::NoSuchModel { .. })));
    assert!(matches!(defect("-").root(), Error::Model(ModelError::StandardInput)));
}

#[test]
fn a_type_or_a_file_of_a_cached_model_can_be_named() {
    let hub = tempfile::tempdir().unwrap();
    let snapshot = cached(hub.path(), "a/b-GGUF").join("snapshots/1");
    fs::create_dir_all(snapshot.join("BF16")).unwrap();
    fs::create_dir_all(snapshot.join("UD-IQ1_S")).unwrap();
    gguf(&snapshot.join("b-Q4_K_M.gguf"));
    gguf(&snapshot.join("b-q8_0.gguf"));
    gguf_with(&snapshot.join("mmproj-BF16.gguf"), "general.architecture", "clip");
    for part in 1..=2 {
        fs::write(snapshot.join(format!("BF16/b-BF16-{part:05}-of-00002.gguf")), "GGUF").unwrap();
    }
    gguf(&snapshot.join("UD-IQ1_S/b-UD-IQ1_S.gguf"));
    for (spec, expected) in [
        ("a/b-GGUF:Q4_K_M", "b-Q4_K_M.gguf"),
        ("a/b-GGUF:q4_k_m", "b-Q4_K_M.gguf"),
        ("a/b-GGUF:Q8_0", "b-q8_0.gguf"),
        ("a/b-GGUF:bf16", "BF16/b-BF16-00001-of-00002.gguf"),
        ("a/b-GGUF:UD-IQ1_S", "UD-IQ1_S/b-UD-IQ1_S.gguf"),
        ("a/b-GGUF:IQ1_S", "UD-IQ1_S/b-UD-IQ1_S.gguf"),
        ("a/b-GGUF/b-q8_0.gguf", "b-q8_0.gguf"),
        ("a/b-GGUF/UD-IQ1_S/b-UD-IQ1_S.gguf", "UD-IQ1_S/b-UD-IQ1_S.gguf"),
        ("a/b-GGUF/UD-IQ1_S", "UD-IQ1_S/b-UD-IQ1_S.gguf"),
    ] {
        assert_eq!(resolve_model(spec, Some(hub.path())).unwrap(), snapshot.join(expected), "{spec}");
    }
    for (spec, variant, part) in [
        ("a/b-GGUF", "AmbiguousDirectory", "b-Q4_K_M.gguf, b-q8_0.gguf)"),
        ("a/b-GGUF:Q2_K", "NoSuchQuant", "b-Q4_K_M.gguf"),
        ("a/b-GGUF/b-Q2_K.gguf", "NotInSnapshot", "b-Q4_K_M.gguf"),
        ("a/b-GGUF/..", "NoSuchModel", ""),
        ("a/b-GGUF/x/../../y", "NoSuchModel", ""),
    ] {
        let error = resolve_model(spec, Some(hub.path())).unwrap_err();
        assert_eq!(defect_name(&error), variant, "{spec}: {error}");
        assert!(error.to_string().contains(part), "{spec}: {error}");
    }
    // GGUF files in folders alone: a single one is the model.
    let snapshot = cached(hub.path(), "a/one").join("snapshots/1/Q8_0");
    fs::create_dir_all(&snapshot).unwrap();
    gguf(&snapshot.join("one.gguf"));
    assert_eq!(resolve_model("a/one", Some(hub.path())).unwrap(), snapshot.join("one.gguf"));
}

#[cfg(unix)]
#[test]
fn links_of_the_cache_lead_to_its_blobs_and_nowhere_else() {
    use std::os::unix::fs::symlink;
    let hub = tempfile::tempdir().unwrap();
    let folder = cached(hub.path(), "a/b");
    checkpoint(&folder.join("blobs"));
    fs::rename(folder.join("blobs/model.safetensors"), folder.join("blobs/00ff")).unwrap();
    fs::create_dir_all(folder.join("snapshots/1")).unwrap();
    let link = folder.join("snapshots/1/model.safetensors");
    symlink("../../blobs/00ff", &link).unwrap();
    let find = |spec: &str| resolve_model(spec, Some(hub.path()));
    assert_eq!(open_source(&find("a/b").unwrap()).unwrap().tensors().len(), 1);
    assert!(find("a/b/model.safetensors").is_ok());

    // The blobs may lie on another disk.
    let disk = tempfile::tempdir().unwrap();
    fs::rename(folder.join("blobs"), disk.path().join("blobs")).unwrap();
    symlink(disk.path().join("blobs"), folder.join("blobs")).unwrap();
    assert!(find("a/b").is_ok());

    // A blob that was removed, and links to other places.
    fs::remove_file(disk.path().join("blobs/00ff")).unwrap();
    let sentence = find("a/b").unwrap_err().to_string();
    assert!(sentence.contains("content of model.safetensors"), "{sentence}");
    let outside = disk.path().join("outside.json");
    fs::write(&outside, "{}").unwrap();
    for name in ["model.safetensors", "config.json", "tokenizer.json"] {
        let _ = fs::remove_file(&link);
        let link = folder.join("snapshots/1").join(name);
        symlink(&outside, &link).unwrap();
        for spec in ["a/b".to_owned(), format!("a/b/{name}")] {
            let error = find(&spec).unwrap_err();
            assert!(matches!(error.root(), Error::Model(ModelError::BrokenCache { .. })), "{spec}: {error}");
            assert!(error.to_string().contains("out of the cache"), "{error}");
        }
        fs::remove_file(link).unwrap();
    }

    // A whole folder, a file in a folder, and the part of a set that is not named.
    let snapshot = cached(hub.path(), "a/parts").join("snapshots/1");
    let elsewhere = disk.path().join("elsewhere");
    fs::create_dir_all(snapshot.join("BF16")).unwrap();
    fs::create_dir(&elsewhere).unwrap();
    let part = |n: u32| format!("m-{n:05}-of-00002.gguf");
    gguf(&elsewhere.join("m.gguf"));
    gguf(&snapshot.join("BF16").join(part(1)));
    let second = snapshot.join("BF16").join(part(2));
    let named = format!("a/parts/BF16/{}", part(1));
    for (target, link, specs) in [
        (&elsewhere, &snapshot.join("Q8_0"), &["a/parts", "a/parts:Q8_0", "a/parts/Q8_0", "a/parts/Q8_0/m.gguf"][..]),
        (&elsewhere.join("m.gguf"), &second, &["a/parts", "a/parts:BF16", "a/parts/BF16", &named]),
        (&elsewhere.join("m.gguf"), &snapshot.join("M.GGUF"), &["a/parts", "a/parts/M.GGUF"]),
    ] {
        symlink(target, link).unwrap();
        for spec in specs {
            let error = find(spec).unwrap_err().to_string();
            assert!(error.contains("out of the cache"), "{spec}: {error}");
        }
        fs::remove_file(link).unwrap();
    }
    // A file that was not fetched concerns no other model.
    symlink(snapshot.join("none"), snapshot.join("BF16/other.gguf")).unwrap();
    symlink(snapshot.join("none"), snapshot.join("README.md")).unwrap();
    assert!(find(&named).is_ok());

    // A link of the user is followed, and one to nothing is named.
    let model = disk.path().join("m.gguf");
    gguf(&model);
    let link = disk.path().join("link.gguf");
    symlink(&model, &link).unwrap();
    assert!(open_source(&find(text(&link)).unwrap()).is_ok());
    fs::remove_file(&model).unwrap();
    assert!(matches!(find(text(&link)).unwrap_err().root(), Error::Model(ModelError::LostLink)));
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
        (write("notes.txt", b"Dear diary, today I quantised."), "OtherFile"),
        (write("short", b"\x01\x02"), "NotAModel"),
        (write("noise.gguf", b"\x01\x02\x03\x04\x05"), "BadMagic"),
        (write("noise.safetensors", b"\x01\x02\x03\x04\x05\x06\x07\x08\x09"), "HeaderLength"),
        (write("text.gguf", b"Dear diary, today I quantised."), "OtherFile"),
        (write("pointer.gguf", POINTER.as_bytes()), "OtherFile"),
        (write("pointer.safetensors", POINTER.as_bytes()), "OtherFile"),
        (write("cut.gguf", b"GGUF\x03\0\0\0"), "TruncatedHeader"),
        (missing, "Io"),
    ];
    // A pointer in place of a shard.
    let lfs = root.path().join("lfs");
    fs::create_dir(&lfs).unwrap();
    fs::write(lfs.join("model.safetensors"), POINTER).unwrap();
    let sentence = open_source(&lfs).unwrap_err().to_string();
    assert!(sentence.contains("git lfs pull"), "{sentence}");
    // Weights in another form.
    let pickles = root.path().join("pickles");
    fs::create_dir(&pickles).unwrap();
    fs::write(pickles.join("pytorch_model.bin"), b"\x80\x02\x8a\x0al").unwrap();
    let sentence = open_source(&pickles).unwrap_err().to_string();
    assert!(sentence.contains("pytorch_model.bin") && sentence.contains("pickle"), "{sentence}");

    for (path, expected) in table {
        let error = open_source(&path).expect_err("a defect");
        assert_eq!(defect_name(&error), expected, "{}", path.display());
        assert!(error.to_string().contains(text(&path)), "{error}");
    }
}
