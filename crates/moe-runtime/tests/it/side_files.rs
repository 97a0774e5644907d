//! The files beside the weights of a checkpoint, damaged in seeded ways, too large, or no files at all: each is read or
//! refused with a sentence, without a panic, a hang or much memory.

use std::fs;
use std::path::{Path, PathBuf};

use fixtures::Damage;
use gguf_bitnet::{GgufFile, GgufWriter, TensorInfo, TensorType, peak_rss_bytes};
use moe_runtime::{ChatRequest, ChatTemplate, ModelFiles};
use serde_json::json;
use ternary_core::Bytes;

/// Damaged copies of each file.
const RUNS: usize = 400;
/// Growth of the resident memory that a damaged file of some hundred kilobytes may cause.
const MAX_GROWTH_BYTES: u64 = 512 << 20;

/// A small checkpoint with every side file in `dir`.
fn checkpoint(dir: &Path) -> PathBuf {
    let golden = fixtures::path("goldens/no-q-lora");
    for name in ["config.json", "generation_config.json", "model.safetensors"] {
        fs::copy(golden.join(name), dir.join(name)).expect("the folder can be written");
    }
    fs::write(dir.join("tokenizer.json"), tokenizer()).expect("the folder can be written");
    let config = json!({
        "bos_token": "<s>", "eos_token": { "content": "</s>" }, "add_bos_token": true,
        "chat_template": [{ "name": "default", "template": "{% for m in messages %}{{ m.content }}{% endfor %}" }],
    });
    fs::write(dir.join("tokenizer_config.json"), config.to_string()).expect("the folder can be written");
    fs::write(dir.join("chat_template.jinja"), "{%- for m in messages -%}<{{ m.role }}>{{ m.content }}{%- endfor -%}")
        .expect("the folder can be written");
    dir.to_owned()
}

/// A byte-level tokenizer with one merge.
fn tokenizer() -> String {
    let bytes = fs::read_to_string(fixtures::path("craftsman-mini/tokenizer.json")).expect("the teacher's tokenizer");
    let mut json: serde_json::Value = serde_json::from_str(&bytes).expect("it is JSON");
    let vocab = json["model"]["vocab"].as_object_mut().expect("an object");
    vocab.retain(|token, _| token.chars().count() == 1);
    let n = vocab.len();
    for (id, value) in vocab.values_mut().enumerate() {
        *value = id.into();
    }
    vocab.insert("Ġt".into(), n.into());
    json["model"]["merges"] = json!([["Ġ", "t"]]);
    json["added_tokens"] = json!([
        { "id": n + 1, "content": "<s>", "special": true }, { "id": n + 2, "content": "</s>", "special": true },
    ]);
    json.to_string()
}

/// Reads everything that a verb reads beside the weights; whether all of it was accepted.
fn read(path: &Path) -> bool {
    let files = match ModelFiles::open(path) {
        Ok(files) => files,
        Err(error) => return refused(&error),
    };
    let _ = files.report();
    let sampling = files.sampling().is_ok();
    let tokenizer = match files.tokenizer() {
        Ok(tokenizer) => tokenizer,
        Err(error) => return refused(&error),
    };
    let encoded = tokenizer.encode("What is the time?", true).is_ok();
    let request = ChatRequest { messages: vec![json!({ "role": "user", "content": "hi" })], ..ChatRequest::default() };
    let rendered = match ChatTemplate::of_model(&tokenizer) {
        Ok(template) => template.is_none_or(|template| template.render(&request).is_ok()),
        Err(error) => return refused(&error),
    };
    sampling && encoded && rendered
}

/// A refusal is a sentence.
fn refused(error: &moe_runtime::Error) -> bool {
    assert!(error.to_string().len() > 20, "{error}");
    false
}

#[test]
fn damaged_side_files_are_read_or_refused() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let model = checkpoint(dir.path());
    assert!(read(&model), "the undamaged model is accepted");
    let before = peak_rss_bytes().unwrap_or(0);
    let names =
        ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"];
    for (seed, name) in names.into_iter().enumerate() {
        let path = model.join(name);
        let whole = fs::read_to_string(&path).expect("it was written");
        let mut damage = Damage::new(seed as u64);
        let mut accepted = 0;
        for _ in 0..RUNS {
            fs::write(&path, damage.text(&whole)).expect("the folder can be written");
            accepted += usize::from(read(&model));
        }
        assert!(accepted < RUNS, "no damage to {name} was noticed");
        fs::write(&path, whole).expect("the folder can be written");
    }
    let growth = peak_rss_bytes().unwrap_or(0).saturating_sub(before);
    assert!(growth < MAX_GROWTH_BYTES, "{growth} bytes");
}

#[test]
fn damaged_metadata_is_read_or_refused() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let files = ModelFiles::open(&checkpoint(dir.path())).expect("it opens");
    let metadata = files.config.to_gguf_metadata().expect("it can be written");
    let embedding = vec![files.config.vocab, files.config.hidden];
    let bytes = TensorType::F16.tensor_bytes(&embedding).expect("it fits");
    let info = TensorInfo { name: "token_embd.weight".into(), shape: embedding, ty: TensorType::F16, bytes };
    let mut writer = GgufWriter::new(&metadata, vec![info]).expect("the layout fits");
    let mut whole = Vec::new();
    writer.begin(&mut whole).expect("memory takes every byte");
    let header = whole.len();
    writer.write_tensor(&mut whole, 0, &vec![0; bytes as usize]).expect("memory takes every byte");
    writer.finish().expect("the tensor was written");
    let open = |bytes: Vec<u8>| match GgufFile::from_bytes(Bytes::from(bytes)) {
        Ok(file) => match ModelFiles::from_gguf(std::sync::Arc::new(file)) {
            Ok(files) => {
                let _ = (files.report(), files.sampling(), files.tokenizer());
                true
            }
            Err(error) => refused(&error),
        },
        Err(_) => false,
    };
    assert!(open(whole.clone()), "the undamaged file is accepted");
    let mut damage = Damage::new(7);
    let accepted = (0..5 * RUNS).filter(|_| open(damage.binary(&whole, header))).count();
    assert!(accepted < 5 * RUNS, "no damage was noticed");
}

#[test]
fn side_files_without_end_are_refused_by_their_size() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let model = checkpoint(dir.path());
    let names =
        ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"];
    for name in names {
        let path = model.join(name);
        let whole = fs::read(&path).expect("it was written");
        fs::File::create(&path).and_then(|file| file.set_len(8 << 30)).expect("a sparse file can be made");
        let sentence = reason(&model).unwrap_or_else(|| panic!("{name} was accepted"));
        assert!(sentence.contains(name) && sentence.contains("has more than"), "{name}: {sentence}");
        fs::remove_file(&path).expect("it can be removed");
        fs::create_dir(&path).expect("a folder can be made");
        let sentence = reason(&model).unwrap_or_else(|| panic!("{name} was accepted"));
        assert!(sentence.contains(name) && sentence.contains("directory"), "{name}: {sentence}");
        fs::remove_dir(&path).expect("it can be removed");
        #[cfg(unix)]
        {
            // A device without end, and a link to a file that is gone.
            for target in ["/dev/zero", "gone"] {
                std::os::unix::fs::symlink(target, &path).expect("a link can be made");
                let sentence = reason(&model).unwrap_or_else(|| panic!("{name} was accepted"));
                assert!(sentence.contains(name), "{name}: {sentence}");
                fs::remove_file(&path).expect("it can be removed");
            }
        }
        fs::write(&path, whole).expect("the folder can be written");
    }
    assert!(reason(&model).is_none());
}

/// The sentence of the first refusal.
fn reason(model: &Path) -> Option<String> {
    let files = match ModelFiles::open(model) {
        Ok(files) => files,
        Err(error) => return Some(error.to_string()),
    };
    files.tokenizer().err().or_else(|| files.sampling().err()).map(|error| error.to_string())
}
