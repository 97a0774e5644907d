//! Missing, foreign and damaged models: every verb ends with one sentence and exit code 1, and leaves no file behind.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{Ended, bitnet, fixture, listing, student, text};

/// Damages the bytes of a file.
type Spoil<'a> = &'a dyn Fn(&mut Vec<u8>);

/// Every verb on this model, with its output (where it has one) in `dir`.
fn verbs(model: &str, dir: &Path) -> Vec<(&'static str, Ended)> {
    let out = dir.join("out");
    let heldout = fixture("texts/heldout.txt");
    let commands: [(&str, Vec<&str>); 7] = [
        ("run", vec!["run", model, "-p", "hi", "-n", "1"]),
        ("quantize", vec!["quantize", "-m", model, "-o", text(&out)]),
        ("inspect", vec!["inspect", model]),
        ("verify", vec!["verify", model]),
        ("tokenize", vec!["tokenize", "-m", model, "--text", "hi"]),
        ("dump", vec!["dump", "-m", model, "--tokens", "1", "-o", text(&out)]),
        ("eval", vec!["eval", "fidelity", "--text", &heldout, "--teacher", model, "--windows", "1"]),
    ];
    commands.into_iter().map(|(verb, args)| (verb, bitnet(args))).collect()
}

/// All verbs but `except` refuse `model` with a sentence that holds all of `parts`.
fn refused_by_all_but(except: &[&str], model: &Path, parts: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    for (verb, ended) in verbs(text(model), dir.path()) {
        if except.contains(&verb) {
            ended.done();
            continue;
        }
        let sentence = ended.refusal();
        for part in parts {
            assert!(sentence.contains(part), "{verb}: `{part}` is not in: {sentence}");
        }
        assert!(sentence.len() < 600, "{verb}: {sentence}");
    }
    let left: Vec<String> = listing(dir.path()).into_iter().filter(|name| name != "out").collect();
    assert!(left.is_empty(), "{left:?}");
}

/// A copy of a small checkpoint.
fn copy(dir: &Path, case: &str) -> PathBuf {
    let to = dir.join("model");
    fs::create_dir(&to).unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(fixtures::path(format!("goldens/{case}")).join(name), to.join(name)).unwrap();
    }
    to
}

#[test]
fn things_that_are_no_model() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    refused_by_all_but(&[], &path("missing"), &["missing", "give an existing file"]);
    refused_by_all_but(&[], Path::new("organisation/model"), &["organisation/model", "download it first"]);
    fs::write(path("empty"), "").unwrap();
    refused_by_all_but(&[], &path("empty"), &["empty", "download or write it again"]);
    fs::write(path("text"), "Call me Ishmael.").unwrap();
    refused_by_all_but(&[], &path("text"), &["text", "neither GGUF nor safetensors"]);
    fs::create_dir(path("folder")).unwrap();
    refused_by_all_but(&[], &path("folder"), &["folder", "empty"]);
    fs::write(path("folder/readme"), "text").unwrap();
    refused_by_all_but(&[], &path("folder"), &["folder", "neither a `.safetensors` nor a `.gguf` file"]);
}

#[test]
fn checkpoints_that_are_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let model = copy(dir.path(), "no-q-lora");
    let (config, weights) = (model.join("config.json"), model.join("model.safetensors"));
    let (whole_config, whole_weights) = (fs::read_to_string(&config).unwrap(), fs::read(&weights).unwrap());

    // `verify` reads weights alone and does not need the configuration; `inspect` says that `run` does.
    fs::remove_file(&config).unwrap();
    refused_by_all_but(&["verify", "inspect"], &model, &["config.json"]);
    fs::write(&config, "{ not json").unwrap();
    refused_by_all_but(&["verify", "inspect"], &model, &["config.json"]);
    fs::write(&config, "[]").unwrap();
    refused_by_all_but(&["verify", "inspect"], &model, &["config.json"]);
    fs::write(&config, whole_config.replace("glm4_moe_lite", "bloom")).unwrap();
    refused_by_all_but(&["verify", "inspect"], &model, &["config.json", "bloom"]);
    fs::write(&config, whole_config.replace("\"hidden_size\": 64", "\"hidden_size\": \"wide\"")).unwrap();
    refused_by_all_but(&["verify", "inspect"], &model, &["config.json", "hidden_size"]);

    // Shapes that contradict the configuration: verbs that do not load the model still show it.
    fs::write(&config, whole_config.replace("\"vocab_size\": 128", "\"vocab_size\": 130")).unwrap();
    refused_by_all_but(&["verify", "inspect", "tokenize"], &model, &["token_embd.weight"]);
    fs::write(&config, &whole_config).unwrap();

    fs::write(&weights, &whole_weights[..whole_weights.len() - 1000]).unwrap();
    refused_by_all_but(&[], &model, &["model.safetensors"]);
    fs::write(&weights, &whole_weights[..20]).unwrap();
    refused_by_all_but(&[], &model, &["model.safetensors"]);
    fs::write(&weights, "").unwrap();
    refused_by_all_but(&[], &model, &["model.safetensors"]);
    fs::remove_file(&weights).unwrap();
    refused_by_all_but(&[], &model, &["neither a `.safetensors` nor a `.gguf` file"]);
}

#[test]
fn ggufs_that_are_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("damaged.gguf");
    let whole = fs::read(student()).unwrap();
    let find = |what: &[u8]| whole.windows(what.len()).position(|window| window == what).unwrap();
    // Behind a tensor's name: n_dims u32, the dimensions u64 each, the type u32, the offset u64.
    let info = find(b"blk.1.attn_q_a.weight") + b"blk.1.attn_q_a.weight".len();
    let key = find(b"general.type");
    let cases: [(&str, Spoil<'_>, &[&str]); 8] = [
        ("version", &|bytes| bytes[4] = 9, &["version 9"]),
        ("counts", &|bytes| bytes[8..16].fill(0xff), &["18446744073709551615"]),
        (
            "type",
            &|bytes| bytes[info + 20..info + 24].copy_from_slice(&40u32.to_le_bytes()),
            &["blk.1.attn_q_a.weight", "NVFP4"],
        ),
        ("offset", &|bytes| bytes[info + 24] = 1, &["blk.1.attn_q_a.weight"]),
        ("shape", &|bytes| bytes[info + 10] = 0x7f, &["blk.1.attn_q_a.weight"]),
        ("duplicate key", &|bytes| bytes[key..key + 12].copy_from_slice(b"general.name"), &["general.name"]),
        ("half", &|bytes| bytes.truncate(bytes.len() / 2), &["blk."]),
        ("header", &|bytes| bytes.truncate(5000), &[]),
    ];
    for (what, spoil, parts) in cases {
        let mut bytes = whole.clone();
        spoil(&mut bytes);
        fs::write(&path, bytes).unwrap();
        assert!(fs::read(&path).unwrap() != whole, "{what}");
        refused_by_all_but(&[], &path, &[&["damaged.gguf"], parts].concat());
    }
    let architecture = find(b"deepseek2");
    let mut bytes = whole.clone();
    bytes[architecture..architecture + 9].copy_from_slice(b"deepseekX");
    fs::write(&path, bytes).unwrap();
    refused_by_all_but(&["verify", "inspect"], &path, &["damaged.gguf", "deepseekX"]);
}

#[cfg(unix)]
#[test]
fn files_that_may_not_be_read() {
    use std::os::unix::fs::PermissionsExt;

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret.gguf");
    fs::copy(student(), &path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    // The superuser can read every file, so there the test uses a link to a missing file instead.
    if fs::File::open(&path).is_ok() {
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("nowhere", &path).unwrap();
    }
    refused_by_all_but(&[], &path, &["secret.gguf"]);
}

#[test]
fn weights_that_are_no_numbers_stop_every_verb_that_reads_them() {
    let dir = tempfile::tempdir().unwrap();
    let model = copy(dir.path(), "no-q-lora");
    let weights = model.join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let json: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let at = json["model.layers.0.mlp.up_proj.weight"]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[8 + header + at..][..2].copy_from_slice(&[0xc0, 0x7f]);
    fs::write(&weights, bytes).unwrap();
    let out = dir.path().join("student.gguf");
    let sentence = bitnet(["quantize", "-m", text(&model), "-o", text(&out)]).refusal();
    assert!(sentence.contains("blk.0.ffn_up.weight") && sentence.contains(text(&model)), "{sentence}");
    let verified = bitnet(["verify", text(&model)]);
    assert_eq!(verified.code, Some(1));
    assert!(verified.stdout.contains("model.layers.0.mlp.up_proj.weight"), "{}", verified.stdout);
    // A model without a vocabulary reads text as bytes.
    let words = dir.path().join("model/words.txt");
    fs::write(&words, "hello world ".repeat(50)).unwrap();
    let numbers = dir.path().join("numbers.safetensors");
    for args in [
        &["run", text(&model), "-p", "hi", "-n", "1"][..],
        &["dump", "-m", text(&model), "--tokens", "1,2", "-o", text(&numbers)],
        &["eval", "fidelity", "--text", text(&words), "--student", text(&model), "--windows", "1"],
    ] {
        let sentence = bitnet(args).refusal();
        let named = sentence.contains("tensor `model.layers.0.mlp.up_proj.weight` (BF16)");
        assert!(named && sentence.contains(text(&model)), "{sentence}");
    }
    assert_eq!(listing(dir.path()), ["model"]);
}

#[test]
fn a_student_is_not_measured_on_the_text_it_was_calibrated_on() {
    let dir = tempfile::tempdir().unwrap();
    let (out, seen) = (dir.path().join("student.gguf"), dir.path().join("seen.txt"));
    let book = fs::read_to_string(fixture("texts/calibration.txt")).unwrap();
    let (seen_text, unseen) = (book.chars().take(8000).collect::<String>(), fixture("texts/heldout.txt"));
    fs::write(&seen, seen_text).unwrap();
    let teacher = fixture("craftsman-mini");
    let quantize = ["quantize", "-m", &teacher, "-o", text(&out), "--method", "gptq", "--calibration", text(&seen)];
    let effort = ["--sweeps", "1", "--kicks", "0"];
    let printed = bitnet(quantize.into_iter().chain(effort)).done();
    assert!(printed.contains("least squares") && printed.contains("drift"), "{printed}");
    let eval = |text: &str, role: &str| {
        bitnet(["eval", "fidelity", role, out.to_str().unwrap(), "--text", text, "--windows", "1"])
    };
    for role in ["--student", "--teacher"] {
        let sentence = eval(text(&seen), role).refusal();
        assert!(sentence.contains("was calibrated on parts of") && sentence.contains("--exclude"), "{sentence}");
        eval(&unseen, role).done();
    }
}
