//! Models without weights, files that leave facts open, and models that cannot be run: each is told before it runs.

use std::fs;
use std::path::{Path, PathBuf};

use gguf_bitnet::{GgufFile, GgufWriter, Metadata, TensorInfo, TensorSource, TensorType};
use ternary_core::Bytes;

use crate::common::{Ended, bitnet, fixture, listing, student, teacher, text};

type Tensors = Vec<(TensorInfo, Bytes)>;

/// The student with other metadata and tensors.
fn edited(path: &Path, edit: impl FnOnce(&mut Metadata, &mut Tensors)) {
    let file = GgufFile::open(student()).unwrap();
    let mut metadata = file.metadata().clone();
    let bytes = |i: usize| file.bytes(i).unwrap();
    let mut tensors = file.tensors().iter().cloned().enumerate().map(|(i, info)| (info, bytes(i))).collect();
    edit(&mut metadata, &mut tensors);
    GgufWriter::write_file(path, &metadata, &tensors).unwrap();
}

/// Every verb that computes with a model; `quantize` and `dump` write into `dir`.
fn computing(model: &str, dir: &Path, more: &[&str]) -> Vec<(&'static str, Ended)> {
    let (student, dump) = (dir.join("out.gguf"), dir.join("out.safetensors"));
    let heldout = fixture("texts/heldout.txt");
    let commands: [(&str, Vec<&str>); 5] = [
        ("run", vec!["run", model, "-p", "hi", "-n", "1"]),
        ("quantize", vec!["quantize", "-m", model, "-o", text(&student)]),
        ("dump", vec!["dump", "-m", model, "--tokens", "1", "-o", text(&dump)]),
        ("bench", vec!["bench", "-m", model, "-p", "2", "-n", "1", "-r", "1"]),
        ("eval", vec!["eval", "fidelity", "--text", &heldout, "--student", model, "--windows", "1"]),
    ];
    commands.into_iter().map(|(verb, args)| (verb, bitnet(args.into_iter().chain(more.iter().copied())))).collect()
}

#[test]
fn the_zero_end_of_a_file_stops_every_verb_that_computes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cut.gguf");
    let mut bytes = fs::read(student()).unwrap();
    let n = bytes.len();
    bytes[n - 1_000_000..].fill(0);
    fs::write(&path, &bytes).unwrap();
    let out = tempfile::tempdir().unwrap();
    for (verb, ended) in computing(text(&path), out.path(), &[]) {
        let sentence = ended.refusal();
        for part in ["cut.gguf", &format!("of {n} bytes are zero"), "%", "download it again", "--allow-zero"] {
            assert!(sentence.contains(part), "{verb}: {part}: {sentence}");
        }
    }
    let (suite, corpus) = (fixture("suites/suite-200.jsonl"), fixture("suites/suite-200.corpus.jsonl"));
    let gates =
        ["eval-gates", "--teacher", &teacher(), "--student", text(&path), "--suite", &suite, "--corpus", &corpus];
    let refused =
        bitnet(gates.iter().chain(&["--artifacts", text(out.path()), "--report", text(out.path())])).refusal();
    assert!(refused.contains("cut.gguf") && refused.contains("bytes are zero"), "{refused}");
    assert!(listing(out.path()).is_empty(), "the teacher was not asked: {:?}", listing(out.path()));
    let verified = bitnet(["verify", text(&path)]);
    assert!(verified.stdout.contains("bytes are zero") && verified.stdout.contains("DAMAGED"), "{verified:?}");
    assert_eq!(verified.code, Some(1));
    let inspected = bitnet(["inspect", text(&path)]).done();
    assert!(inspected.contains("runs here: no: ") && inspected.contains("bytes are zero"), "{inspected}");

    for (verb, ended) in computing(text(&path), out.path(), &["--allow-zero"]) {
        if verb == "run" || verb == "quantize" {
            assert!(ended.stderr.contains("notice: ") && ended.stderr.contains("bytes are zero"), "{verb}: {ended:?}");
        }
        assert!(!ended.stderr.contains("--allow-zero"), "{verb}: {}", ended.stderr);
    }
    let allowed = bitnet(["verify", text(&path), "--allow-zero"]).done();
    assert!(allowed.contains("sound") && allowed.contains("notice: "), "{allowed}");
    assert!(allowed.contains("bytes are zero"), "{allowed}");
    let report = bitnet(["verify", text(&path), "--allow-zero", "--json"]).json();
    assert_eq!((&report["zero_allowed"], &report["zero_tails"][0]["file_bytes"]), (&true.into(), &n.into()));
}

#[test]
fn the_last_blocks_of_a_student_are_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let [path, ternary] = ["cut.gguf", "ternary.gguf"].map(|name| dir.path().join(name));
    // The last tensor, of a shared expert, is Q6_K in the default student.
    bitnet(["quantize", "-m", &teacher(), "-o", text(&ternary), "--preset", "phase2"]).done();
    for student in [student(), text(&ternary)] {
        let whole = fs::read(student).unwrap();
        for zero in [60, 100, 4020, 4090, 4096, 4160] {
            let mut bytes = whole.clone();
            bytes[whole.len() - zero..].fill(0);
            fs::write(&path, &bytes).unwrap();
            let verified = bitnet(["verify", text(&path)]);
            assert!(verified.stdout.contains("DAMAGED") && verified.code == Some(1), "{zero}: {verified:?}");
            let refused = bitnet(["run", text(&path), "-p", "hi", "-n", "1"]).refusal();
            assert!(refused.contains("bytes are zero"), "{zero}: {refused}");
        }
    }
}

#[test]
fn a_norm_without_weights_stops_every_verb_that_computes() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    copy(&teacher(), &source);
    let weights = source.join("model.safetensors");
    let whole = fs::read(&weights).unwrap();
    let out = tempfile::tempdir().unwrap();
    // The final norm is the last tensor, of 512 bytes.
    for (zero, part) in [(512, "all weights of `output_norm.weight` are zero"), (4096, "bytes are zero")] {
        let mut bytes = whole.clone();
        bytes[whole.len() - zero..].fill(0);
        fs::write(&weights, bytes).unwrap();
        for (verb, ended) in computing(text(&source), out.path(), &[]) {
            let sentence = ended.refusal();
            assert!(sentence.contains(part) && sentence.contains("--allow-zero"), "{verb}: {sentence}");
        }
        let verified = bitnet(["verify", text(&source)]);
        assert!(verified.stdout.contains("DAMAGED") && verified.code == Some(1), "{verified:?}");
        let allowed = bitnet(["verify", text(&source), "--allow-zero"]).done();
        assert!(allowed.contains("sound") && allowed.contains("notice: "), "{allowed}");
        let ran = bitnet(["run", text(&source), "-p", "hi", "-n", "1", "--allow-zero"]);
        assert!(ran.stderr.contains("notice: ") && ran.stderr.contains(part), "{}", ran.stderr);
        ran.done();
    }
}

#[test]
fn experts_without_weights_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("experts.gguf");
    edited(&path, |_, tensors| {
        let (_, bytes) = tensors.iter_mut().find(|(info, _)| info.name == "blk.3.ffn_up_exps.weight").unwrap();
        let (mut new, expert) = (bytes.to_vec(), bytes.len() / 8);
        for e in [1, 4, 6] {
            new[e * expert..(e + 1) * expert].fill(0);
        }
        *bytes = new.into();
    });
    let out = tempfile::tempdir().unwrap();
    for (verb, ended) in computing(text(&path), out.path(), &[]) {
        let sentence = ended.refusal();
        for part in ["experts.gguf", "3 of 8 experts", "blk.3.ffn_up_exps.weight", "the first is expert 1"] {
            assert!(sentence.contains(part), "{verb}: {part}: {sentence}");
        }
    }
    let verified = bitnet(["verify", text(&path)]);
    assert!(verified.stdout.contains("3 of 8 experts have no weights") && verified.code == Some(1), "{verified:?}");
    let ran = bitnet(["run", text(&path), "-p", "hi", "-n", "1", "--temp", "0", "--allow-zero"]);
    assert!(ran.stderr.contains("notice: ") && ran.stderr.contains("3 of 8 experts"), "{}", ran.stderr);
    ran.done();

    // A checkpoint stores its experts one by one; the hole in one of them is found while it is read.
    let source = dir.path().join("source");
    copy(&teacher(), &source);
    let weights = source.join("model.safetensors");
    let spoil = |name: &str, from: usize, len: usize| {
        let file = gguf_bitnet::SafetensorsDir::open(teacher()).unwrap();
        let data = file.bytes(file.index_of(name).unwrap()).unwrap();
        let mut bytes = fs::read(fixtures::path("craftsman-mini/model.safetensors")).unwrap();
        let at = bytes.windows(data.len()).position(|window| *window == data[..]).unwrap();
        bytes[at + from..at + from + len].fill(0);
        fs::write(&weights, bytes).unwrap();
    };
    let name = "model.layers.2.mlp.experts.5.down_proj.weight";
    let student = dir.path().join("student.gguf");
    spoil(name, 0, 256 * 256 * 2);
    let refused = bitnet(["quantize", "-m", text(&source), "-o", text(&student)]).refusal();
    assert!(refused.contains("1 of 8 experts") && refused.contains("blk.2.ffn_down_exps.weight"), "{refused}");
    spoil(name, 5000, 40_000);
    let refused = bitnet(["quantize", "-m", text(&source), "-o", text(&student)]).refusal();
    assert!(refused.contains(name) && refused.contains("hole of zeros"), "{refused}");
    let made = bitnet(["quantize", "-m", text(&source), "-o", text(&student), "--allow-zero"]);
    assert!(made.stderr.contains("notice: the source: ") && made.stderr.contains("hole"), "{}", made.stderr);
    made.done();
}

fn copy(from: &str, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

fn notes(ended: &Ended) -> Vec<&str> {
    ended.stderr.lines().filter(|line| line.contains("is missing and taken as")).collect()
}

#[test]
fn a_guess_is_told_once_and_a_stated_fact_never() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("silent.gguf");
    let out = dir.path().join("student.gguf");
    let verbs = |model: &str| {
        [
            bitnet(["run", model, "-p", "What is the capital?", "-n", "8", "--temp", "0"]),
            bitnet(["inspect", model]),
            bitnet(["quantize", "-m", model, "-o", text(&out), "--force"]),
        ]
    };
    let whole = verbs(student());
    assert!(whole.iter().all(|ended| notes(ended).is_empty()), "{whole:?}");
    let cases = [
        ("deepseek2.expert_gating_func", "sigmoid"),
        ("deepseek2.expert_weights_scale", "1"),
        ("deepseek2.expert_weights_norm", "false"),
        ("deepseek2.rope.freq_base", "10000"),
        ("tokenizer.ggml.add_bos_token", "false"),
        ("tokenizer.ggml.token_type", "normal"),
        ("tokenizer.chat_template", "none"),
    ];
    for (key, value) in cases {
        edited(&path, |metadata, _| assert!(metadata.remove(key).is_some(), "{key}"));
        for ended in verbs(text(&path)) {
            let expected = format!("note: `{key}` is missing and taken as {value}: ");
            let notes = notes(&ended);
            assert!(matches!(notes[..], [note] if note.starts_with(&expected)), "{key}: {notes:?}");
            assert_eq!(ended.code, Some(0), "{key}: {}", ended.stderr);
        }
    }
    edited(&path, |metadata, _| drop(metadata.remove("deepseek2.expert_gating_func")));
    let [silent, ..] = verbs(text(&path));
    assert_eq!(silent.stdout, whole[0].stdout, "the selection bias tells the router");
    edited(&path, |metadata, _| drop(metadata.insert("deepseek2.expert_gating_func", 1u32)));
    let [refused, ..] = verbs(text(&path));
    assert!(refused.refusal().contains("contradicts itself"));

    // Rows of the embedding without a token.
    let padded = dir.path().join("padded");
    copy(&teacher(), &padded);
    let config = fs::read_to_string(padded.join("config.json")).unwrap();
    fs::write(padded.join("config.json"), config.replace("\"vocab_size\": 2048", "\"vocab_size\": 2058")).unwrap();
    let ended = bitnet(["inspect", text(&padded)]);
    assert!(matches!(notes(&ended)[..], [note] if note.contains("10 tokens of padding")), "{}", ended.stderr);

    // A model whose prompt is continued as text, or whose text is measured, has no use for a template.
    edited(&path, |metadata, _| drop(metadata.remove("tokenizer.chat_template")));
    assert_eq!(notes(&bitnet(["run", text(&path), "--raw", "-p", "x", "-n", "1"])), [""; 0]);
    let heldout = fixture("texts/heldout.txt");
    let measure = || bitnet(["eval", "fidelity", "--text", &heldout, "--student", text(&path), "--windows", "1"]);
    assert_eq!(notes(&measure()), [""; 0]);
    edited(&path, |metadata, _| drop(metadata.remove("deepseek2.rope.freq_base")));
    let ended = measure();
    assert!(matches!(notes(&ended)[..], [note] if note.contains("rope.freq_base")), "{}", ended.stderr);
    ended.done();
}

#[test]
fn experts_of_a_block_that_is_not_used_may_be_zero() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mtp.gguf");
    edited(&path, |metadata, tensors| {
        let blocks = metadata.u64("deepseek2.block_count").unwrap().unwrap();
        metadata.insert("deepseek2.block_count", u32::try_from(blocks + 1).unwrap());
        metadata.insert("deepseek2.nextn_predict_layers", 1u32);
        for (expert, weight) in [(0, 0.0f32), (1, 1.0)] {
            let name = format!("blk.{blocks}.ffn_up.{expert}.weight");
            let info = TensorInfo { name, shape: vec![4, 256], ty: TensorType::F32, bytes: 4096 };
            tensors.insert(0, (info, weight.to_le_bytes().repeat(1024).into()));
        }
    });
    let verified = bitnet(["verify", text(&path)]);
    assert!(verified.stdout.contains("1 of 2 matrices have no weights") && verified.code == Some(1), "{verified:?}");
    bitnet(["quantize", "-m", text(&path), "-o", text(&dir.path().join("out.gguf"))]).done();
}

#[test]
fn inspect_gives_the_reason_with_which_run_refuses() {
    type Edit = fn(&mut Metadata, &mut Tensors);
    let cases: [(&str, Edit, &str); 9] = [
        ("architecture", |m, _| drop(m.insert("general.architecture", "gemma3")), "gemma3"),
        ("key", |m, _| drop(m.remove("deepseek2.context_length")), "deepseek2.context_length"),
        ("scaling", |m, _| drop(m.insert("deepseek2.rope.scaling.type", "longrope")), "longrope"),
        ("pre-tokenizer", |m, _| drop(m.insert("tokenizer.ggml.pre", "tekken")), "tekken"),
        ("tokenizer", |m, _| drop(m.insert("tokenizer.ggml.model", "t5")), "t5"),
        ("template", |m, _| drop(m.insert("tokenizer.chat_template", "{% for %}")), "chat template"),
        ("sampling", |m, _| drop(m.insert("general.sampling.temp", "hot")), "general.sampling.temp"),
        ("missing", |_, t| t.retain(|(info, _)| info.name != "blk.2.ffn_norm.weight"), "blk.2.ffn_norm.weight"),
        ("shape", |m, _| drop(m.insert("deepseek2.vocab_size", 2000u32)), "token_embd.weight"),
    ];
    let dir = tempfile::tempdir().unwrap();
    for (what, edit, part) in cases {
        let path = dir.path().join(format!("{what}.gguf"));
        edited(&path, edit);
        let refused = bitnet(["run", text(&path), "-p", "hi", "-n", "1"]).refusal();
        let sentence = refused.strip_prefix("error: ").unwrap();
        assert!(sentence.contains(part), "{what}: {sentence}");
        let shown = bitnet(["inspect", text(&path)]).done();
        assert!(shown.contains(&format!("runs here: no: {sentence}\n")), "{what}: {sentence}\n{shown}");
        let facts = bitnet(["inspect", text(&path), "--json"]).json();
        assert_eq!((&facts["runs"], &facts["obstacles"][0]), (&false.into(), &sentence.into()), "{what}");
        assert!(facts["metadata"]["tokenizer.ggml.tokens"].is_object(), "{what}: {facts}");
    }
    let several = dir.path().join("several.gguf");
    edited(&several, |metadata, tensors| {
        metadata.insert("tokenizer.ggml.pre", "tekken");
        tensors.pop();
    });
    let shown = bitnet(["inspect", text(&several)]).done();
    assert_eq!(shown.matches("runs here: no: ").count(), 2, "{shown}");
    for model in [student(), &teacher(), &fixture("goldens/no-q-lora")] {
        let shown = bitnet(["inspect", model]).done();
        assert_eq!(shown.matches("runs here: yes").count(), 1, "{shown}");
        assert_eq!(bitnet(["inspect", model, "--json"]).json()["runs"], true);
    }

    // A checkpoint whose configuration cannot be used still shows its tensors.
    let source: PathBuf = dir.path().join("source");
    copy(&fixture("goldens/no-q-lora"), &source);
    let config = fs::read_to_string(source.join("config.json")).unwrap();
    fs::write(source.join("config.json"), config.replace("glm4_moe_lite", "gemma3")).unwrap();
    let refused = bitnet(["run", text(&source), "-p", "hi"]).refusal();
    let shown = bitnet(["inspect", text(&source), "--tensors"]).done();
    assert!(shown.contains(&refused.replace("error: ", "runs here: no: ")), "{shown}");
    assert!(shown.contains("model.embed_tokens.weight"), "{shown}");
}
