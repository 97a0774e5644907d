//! Where models are found and where outputs go: cache variables, companions, links, `-`, and numbers below zero.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::common::{Ended, bitnet, bitnet_reading, command, fixture, listing, teacher, text};

/// The checkpoint of a golden case in `dir`.
fn checkpoint(dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(fixtures::path("goldens/no-q-lora").join(name), dir.join(name)).unwrap();
    }
}

#[test]
fn the_cache_is_where_its_variables_say() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    checkpoint(&home.join("a/hub/models--craft--mini/snapshots/1"));
    checkpoint(&home.join(".cache/huggingface/hub/models--craft--home/snapshots/1"));
    let inspect = |name: &str, variables: &[(&str, &str)]| {
        command().envs(variables.iter().copied()).args(["inspect", name]).output().unwrap().status.success()
    };
    let (home, hub) = (text(home), text(&home.join("a/hub")).to_owned());
    for variables in [
        [("HF_HUB_CACHE", &*hub), ("HF_HOME", "/nowhere")],
        [("HUGGINGFACE_HUB_CACHE", &hub), ("HF_HOME", "/nowhere")],
        [("HF_HOME", "~/a"), ("HOME", home)],
        [("HF_HUB_CACHE", "$PLACE/hub"), ("PLACE", text(&Path::new(home).join("a")))],
    ] {
        assert!(inspect("craft/mini", &variables), "{variables:?}");
        assert!(!inspect("craft/home", &variables), "{variables:?}");
    }
    assert!(inspect("craft/home", &[("HOME", home)]));
    assert!(!inspect("craft/mini", &[("HF_HUB_CACHE", "/nowhere"), ("HF_HOME", &format!("{home}/a"))]));
    let cache = format!("{home}/.cache");
    assert!(inspect("craft/home", &[("XDG_CACHE_HOME", &cache)]));
}

/// The checkpoint of a golden case with other names of tensors.
fn renamed(dir: &Path, name: impl Fn(&str) -> String) {
    let bytes = fs::read(fixtures::path("goldens/no-q-lora/model.safetensors")).unwrap();
    let n = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Map<String, Value> = serde_json::from_slice(&bytes[8..n]).unwrap();
    let renamed =
        header.into_iter().map(|(key, value)| if key == "__metadata__" { (key, value) } else { (name(&key), value) });
    let mut header = Value::Object(renamed.collect()).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let parts = [&(header.len() as u64).to_le_bytes(), &header[..], &bytes[n..]];
    fs::write(dir.join("model.safetensors"), parts.concat()).unwrap();
}

#[test]
fn wrapped_names_and_nested_configurations_are_the_same_model() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    checkpoint(&model);
    let numbers = || {
        let out = dir.path().join("dump");
        bitnet(["dump", "-m", text(&model), "--tokens", "1,2,3", "-o", text(&out), "--force"]).done();
        fs::read(out).unwrap()
    };
    let expected = numbers();
    let config: Value = serde_json::from_slice(&fs::read(model.join("config.json")).unwrap()).unwrap();
    let nested = json!({ "model_type": "glm_pictures", "text_config": config, "vision_config": { "hidden_size": 9 } });
    fs::write(model.join("config.json"), nested.to_string()).unwrap();
    for wrap in [
        &(|name: &str| format!("module.{name}")) as &dyn Fn(&str) -> String,
        &|name| format!("_orig_mod.module.{name}"),
        &|name| format!("language_model.{name}"),
        &|name| name.replacen("model.", "model.language_model.", 1),
        &|name| name.replace(".mlp.", "._orig_mod.mlp."),
    ] {
        renamed(&model, wrap);
        assert!(numbers() == expected, "{}", wrap("model.layers.0.mlp.up_proj.weight"));
    }
}

#[cfg(unix)]
#[test]
fn an_output_that_is_a_link_is_written_where_the_link_points() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let tiny = fixture("goldens/glm-tiny");
    let link = |name: &str| {
        let link = dir.path().join(name);
        symlink(disk.join(name), &link).unwrap();
        link
    };
    let (student, random, dump, checkpoint) = (link("m.gguf"), link("r.gguf"), link("d.safetensors"), link("folder"));
    let synth = ["synth", "--shape", "mini", "--layers", "1", "-o"];
    bitnet(["quantize", "-m", &tiny, "-o", text(&student)]).done();
    bitnet(synth.into_iter().chain([text(&random)])).done();
    bitnet(["dump", "-m", &tiny, "--tokens", "1", "-o", text(&dump)]).done();
    bitnet(synth.into_iter().chain([text(&checkpoint), "--format", "safetensors-bf16"])).done();
    // A second time, over files that are there.
    bitnet(["quantize", "-m", &tiny, "-o", text(&student), "--force"]).done();
    bitnet(["dump", "-m", &tiny, "--tokens", "2", "-o", text(&dump)]).done();
    let names = ["d.safetensors", "folder", "m.gguf", "r.gguf"];
    assert_eq!(listing(&disk), names, "nothing else is left");
    assert_eq!(listing(dir.path()), ["d.safetensors", "disk", "folder", "m.gguf", "r.gguf"]);
    for name in names {
        assert!(dir.path().join(name).is_symlink(), "{name} stays a link");
    }
    // The link names the source: the teacher must not be lost.
    let own = dir.path().join("own.gguf");
    symlink(disk.join("r.gguf"), &own).unwrap();
    let refused = bitnet(["quantize", "-m", text(&disk.join("r.gguf")), "-o", text(&own), "--force"]).usage();
    assert!(refused.contains("choose another name"), "{refused}");

    let lost = dir.path().join("lost.gguf");
    symlink(disk.join("no/such.gguf"), &lost).unwrap();
    assert!(bitnet(["quantize", "-m", &tiny, "-o", text(&lost)]).refusal().contains("create it first"));
    let circle = dir.path().join("circle.gguf");
    symlink(&circle, &circle).unwrap();
    assert!(bitnet(["quantize", "-m", &tiny, "-o", text(&circle)]).refusal().contains("leads back to itself"));
}

#[test]
fn a_hyphen_is_standard_output_or_refused_with_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let tiny = fixture("goldens/glm-tiny");
    let run = |args: &[&str]| {
        let output = command().current_dir(dir.path()).args(args).output().unwrap();
        (output.status.code(), output.stdout, String::from_utf8(output.stderr).unwrap())
    };
    let gates = ["eval-gates", "--teacher", &tiny, "--student", &tiny, "--suite", "a", "--corpus", "b"];
    for args in [
        &["quantize", "-m", &tiny, "-o", "-"][..],
        &["synth", "--shape", "mini", "-o", "-"],
        &["run", &tiny, "-p", "hi", "--layout-cache=-"],
        &[&gates[..], &["--report", "-"]].concat(),
        &[&gates[..], &["--artifacts", "-"]].concat(),
        &["eval-gates", "--teacher", &tiny, "--student", &tiny, "--suite", "-", "--corpus", "b"],
        &["eval-gates", "--teacher", &tiny, "--student", &tiny, "--suite", "a", "--corpus", "-"],
    ] {
        let (code, stdout, stderr) = run(args);
        assert_eq!((code, &*stdout), (Some(2), &b""[..]), "{args:?}: {stderr}");
        assert!(stderr.contains("write ") && stderr.contains("'-'"), "{args:?}: {stderr}");
    }
    for args in
        [&["inspect", "-"][..], &["run", "-", "-p", "hi"], &["verify", "-"], &["quantize", "-m", "-", "-o", "x"]]
    {
        let (code, _, stderr) = run(args);
        assert!(code == Some(1) && stderr.contains("standard input"), "{args:?}: {stderr}");
    }
    let (code, stdout, stderr) = run(&["dump", "-m", &tiny, "--tokens", "1,2", "-o", "-"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("2 positions in standard output"), "{stderr}");
    bitnet(["dump", "-m", &tiny, "--tokens", "1,2", "-o", text(&dir.path().join("d"))]).done();
    assert!(stdout == fs::read(dir.path().join("d")).unwrap(), "the same bytes as in a file");
    assert_eq!(listing(dir.path()), ["d"], "no file is called -");
    // A file of that name can still be named.
    let (code, _, stderr) = run(&["dump", "-m", &tiny, "--tokens", "1", "-o", "./-"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(listing(dir.path()), ["-", "d"]);
}

#[test]
fn a_hyphen_is_standard_input_for_texts() {
    let model = teacher();
    let ids = bitnet(["tokenize", "-m", &model, "--text", "some words"]).done();
    assert_eq!(bitnet_reading("some words", ["tokenize", "-m", &model, "--file", "-"]).done(), ids);
    assert_eq!(bitnet_reading("\u{feff}some words", ["tokenize", "-m", &model]).done(), ids, "no byte order mark");
    let answer = |input: &str, prompt: &[&str]| {
        bitnet_reading(input, ["run", &model, "-n", "4", "--temp", "0"].iter().chain(prompt)).done()
    };
    assert_eq!(answer("What is it?", &["-p", "-"]), answer("", &["-p", "What is it?"]));
    let refused = bitnet_reading("", ["eval", "trace", "-"]).refusal();
    assert!(refused.contains("standard input: the trace has no lines"), "{refused}");
    let twice = bitnet(["eval", "trace", "-", "-"]).usage();
    assert!(twice.contains("standard input holds one trace"), "{twice}");
}

#[test]
fn numbers_below_zero_mean_what_they_mean_in_other_engines() {
    let tiny = fixture("goldens/glm-tiny");
    let base = ["run", &tiny, "--raw", "-p", "hi", "-c", "24"];
    let run = |more: &[&str]| bitnet(base.iter().chain(more));
    // No limit: the answer ends where the context does, or in a loop.
    let ended = run(&["-n", "-1", "--temp", "1"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let ends = ["ended by context", "ended by a loop"];
    assert!(ends.iter().any(|end| ended.stderr.contains(end)), "{}", ended.stderr);
    // A seed that is drawn is printed, and gives the same answer again.
    let drawn = run(&["-n", "8", "--seed", "-1", "--temp", "2"]);
    let seed = drawn.stderr.lines().find_map(|line| line.strip_prefix("note: drawn --seed ")).unwrap().to_owned();
    assert_eq!(run(&["-n", "8", "--seed", &seed, "--temp", "2"]).stdout, drawn.stdout);
    assert_eq!(run(&["-n", "8", "--top-k", "-1"]).done(), run(&["-n", "8", "--top-k", "0"]).done());
    // A text may begin with a hyphen.
    assert!(!run(&["-n", "1", "-p", "-- a list"]).stderr.contains("unexpected argument"));
    let ids = bitnet(["tokenize", "-m", &tiny, "--text", "-5 degrees"]);
    assert_eq!(ids.code, Some(0), "{}", ids.stderr);
}

/// Every option with a value, of every verb, says what to write instead of `-7`.
#[test]
fn a_negative_number_is_never_taken_for_an_option() {
    let verbs: [(&[&str], &[&str]); 7] = [
        (&["run", "m", "-p", "x"], &["-n", "-c", "--top-k", "--seed", "--threads", "--memory", "--expert-memory"]),
        (&["bench", "-m", "m"], &["-p", "-n", "-d", "-r", "--chunk", "--threads"]),
        (&["quantize", "-m", "m", "-o", "x"], &["--max-memory", "--threads"]),
        (&["inspect", "m"], &["-c"]),
        (&["dump", "-m", "m", "-o", "x"], &["--tokens", "--chunk"]),
        (&["eval", "fidelity", "--teacher", "m", "--text", "t"], &["--n-ctx", "--windows"]),
        (&["synth", "--shape", "mini", "-o", "x"], &["--layers", "--seed"]),
    ];
    for (base, options) in verbs {
        for option in options {
            let Ended { code, stderr, .. } = bitnet(base.iter().chain([option, &"-7"]));
            assert_eq!(code, Some(2), "{base:?} {option}: {stderr}");
            assert!(
                stderr.contains("write ") && !stderr.contains("unexpected argument"),
                "{base:?} {option}: {stderr}"
            );
        }
    }
}

/// A model that is cut short while it is in use ends the command with a sentence.
#[cfg(target_os = "linux")]
#[test]
fn a_model_that_shrinks_while_it_runs_ends_in_one_sentence() {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("m.gguf");
    fs::copy(crate::common::student(), &model).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_bitnet"));
    for name in crate::common::variables() {
        command.env_remove(name);
    }
    let mut child = command
        .args(["run", text(&model), "-n", "1", "--raw"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The model is mapped, then its header is read, and the command waits for its prompt.
    let maps = format!("/proc/{}/maps", child.id());
    while !fs::read_to_string(&maps).unwrap_or_default().contains("m.gguf") {
        assert!(child.try_wait().unwrap().is_none(), "the command maps its model");
        std::thread::yield_now();
    }
    fs::File::options().write(true).open(&model).unwrap().set_len(4096).unwrap();
    // The command may have met the end of the file while it read the header: then the write fails.
    let _ = child.stdin.take().unwrap().write_all(b"hi");
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{:?}: {stderr}", output.status);
    assert!(stderr.contains("error: a file of the model can no longer be read"), "{stderr}");
}
