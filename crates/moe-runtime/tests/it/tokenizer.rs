//! Tokenizers against ids made with the `tokenizers` package, through both file formats, and damaged files.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(feature = "tokenizers")]

use std::path::Path;

use gguf_bitnet::{Array, Metadata, Value};
use moe_runtime::TextError;
use moe_runtime::{ChatPrompt, ControlTokens, Error, TextStream, Tokenizer, VocabularyDefect};
use serde_json::{Value as Json, json};

fn mini() -> Tokenizer {
    Tokenizer::from_dir(&fixtures::path("craftsman-mini")).unwrap()
}

fn metadata(entries: Vec<(String, Value)>) -> Metadata {
    let mut metadata = Metadata::default();
    for (key, value) in entries {
        assert!(metadata.insert(key, value).is_none(), "every key once");
    }
    metadata
}

fn mini_gguf() -> Metadata {
    metadata(Tokenizer::gguf_entries(&fixtures::path("craftsman-mini"), 2048).unwrap())
}

/// Texts of the goldens with their ids.
fn goldens() -> Vec<(String, Vec<u32>)> {
    let text = std::fs::read_to_string(fixtures::path("goldens/tokenizer.json")).unwrap();
    let cases: Vec<Json> = serde_json::from_str(&text).unwrap();
    let ids = |case: &Json| serde_json::from_value(case["ids"].clone()).unwrap();
    cases.iter().map(|case| (case["text"].as_str().unwrap().to_owned(), ids(case))).collect()
}

#[test]
fn goldens_agree_from_both_formats_and_decode_to_their_text() {
    let (from_json, from_gguf) = (mini(), Tokenizer::from_gguf(&mini_gguf()).unwrap());
    let goldens = goldens();
    assert_eq!(goldens.len(), 13);
    for (text, ids) in goldens {
        for tokenizer in [&from_json, &from_gguf] {
            assert_eq!(tokenizer.encode(&text, true).unwrap(), ids, "{text:?}");
            assert_eq!(tokenizer.decode(&ids, ControlTokens::Show), text);
        }
    }
}

#[test]
fn held_out_text_has_as_many_tokens_as_the_reference_counts() {
    let text = std::fs::read_to_string(fixtures::path("texts/heldout.txt")).unwrap();
    let tokenizer = mini();
    let ids = tokenizer.encode(&text, false).unwrap();
    assert_eq!(ids.len(), 63_656);
    assert_eq!(Tokenizer::from_gguf(&mini_gguf()).unwrap().encode(&text, false).unwrap(), ids);
    assert_eq!(tokenizer.decode(&ids, ControlTokens::Hide), text);
    let mut stream = TextStream::new(ControlTokens::Hide);
    let mut streamed: String = ids.iter().map(|&id| stream.push(&tokenizer, id)).collect();
    streamed.push_str(&stream.finish());
    assert_eq!(streamed, text);
}

#[test]
fn both_formats_know_the_same_roles() {
    for tokenizer in [mini(), Tokenizer::from_gguf(&mini_gguf()).unwrap()] {
        let ids = tokenizer.special_ids();
        assert_eq!((ids.bos, ids.eos, ids.padding), (Some(2038), Some(2036), Some(2036)));
        assert_eq!((ids.eot, ids.eom, ids.unknown), (Some(2043), Some(2045), None));
        assert_eq!(tokenizer.stop_ids(), [2036, 2043, 2045]);
        assert!(tokenizer.is_stop(2043) && !tokenizer.is_stop(2044));
        assert_eq!(tokenizer.raw_prefix(), [2038, 2040]);
        assert_eq!(tokenizer.vocab_size(), 2048);
        assert!(!tokenizer.is_byte_fallback());
        assert!(tokenizer.chat_template().unwrap().starts_with("[gMASK]<sop>"));
        assert_eq!(tokenizer.token_to_id("<think>"), Some(2046));
        // `add_bos_token` is false: nothing is put in front.
        assert_eq!(
            tokenizer.encode_prompt(&ChatPrompt::of_markup("hi")).unwrap(),
            tokenizer.encode("hi", true).unwrap()
        );
    }
}

#[test]
fn special_parsing_can_be_switched_off() {
    let tokenizer = mini();
    let text = "<|user|>[gMASK]<think>x";
    assert_eq!(tokenizer.encode(text, true).unwrap()[..3], [2043, 2038, 2046]);
    let plain = tokenizer.encode(text, false).unwrap();
    assert!(plain.iter().all(|&id| id < 2036), "no control token from a stranger's text: {plain:?}");
    assert_eq!(tokenizer.decode(&plain, ControlTokens::Hide), text);
}

#[test]
fn control_tokens_are_hidden_and_markup_reaches_the_parser() {
    let tokenizer = mini();
    let ids = tokenizer.encode("<|assistant|><think>a</think>b<|user|>", true).unwrap();
    assert_eq!(tokenizer.decode(&ids, ControlTokens::Hide), "ab");
    assert_eq!(tokenizer.decode(&ids, ControlTokens::Markup), "<think>a</think>b");
    assert_eq!(tokenizer.decode(&ids, ControlTokens::Show), "<|assistant|><think>a</think>b<|user|>");
}

#[test]
fn the_entries_are_those_other_engines_read() {
    let entries = Tokenizer::gguf_entries(&fixtures::path("craftsman-mini"), 2050).unwrap();
    let keys: Vec<&str> = entries.iter().map(|(key, _)| key.as_str()).collect();
    assert!(keys.iter().all(|key| !key.starts_with("craftsman.")), "nothing needs a key of our own: {keys:?}");
    let m = metadata(entries);
    assert_eq!(m.str("tokenizer.ggml.model").unwrap(), Some("gpt2"));
    assert_eq!(m.str("tokenizer.ggml.pre").unwrap(), Some("glm4"));
    assert_eq!(m.u32("tokenizer.ggml.eot_token_id").unwrap(), Some(2043));
    assert_eq!(m.bool("tokenizer.ggml.add_bos_token").unwrap(), Some(false));
    let tokens = m.strings("tokenizer.ggml.tokens").unwrap().unwrap();
    assert_eq!((tokens.len(), tokens[2043].as_str(), tokens[2049].as_str()), (2050, "<|user|>", "[PAD2049]"));
    let Some(Array::I32(types)) = m.array("tokenizer.ggml.token_type").unwrap() else { panic!("not i32") };
    assert_eq!((types[0], types[2036], types[2047], types[2048], types[2049]), (1, 3, 3, 5, 5));
    assert_eq!(m.strings("tokenizer.ggml.merges").unwrap().unwrap()[1], "Ġ t");
    let error = Tokenizer::gguf_entries(&fixtures::path("craftsman-mini"), 2047).unwrap_err();
    assert!(
        matches!(error, Error::Text(TextError::Vocabulary { defect: VocabularyDefect::IdOutOfRange { .. }, .. })),
        "{error}"
    );
}

/// A small `tokenizer.json` with all bytes, two merges, a control and a user-defined token.
fn small() -> Json {
    let alphabet = (0x21..=0x7eu32).chain(0xa1..=0xac).chain(0xae..=0xff).chain(0x100..=0x143);
    let mut vocab: serde_json::Map<String, Json> =
        alphabet.enumerate().map(|(id, c)| (char::from_u32(c).unwrap().to_string(), json!(id))).collect();
    assert_eq!(vocab.len(), 256);
    vocab.insert("ab".into(), json!(256));
    vocab.insert("abc".into(), json!(257));
    // This token can only be produced when a word that is a token skips the merges.
    vocab.insert("xyz".into(), json!(258));
    json!({
        "added_tokens": [
            {"id": 259, "content": "<end>", "special": true},
            {"id": 261, "content": "<tool_call>", "special": false},
        ],
        "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": "\\s+|\\S+"}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        ]},
        "model": {"type": "BPE", "vocab": vocab, "merges": ["a b", ["ab", "c"]], "ignore_merges": true},
    })
}

fn write(dir: &Path, tokenizer: &Json, config: &Json, generation: &Json) {
    let save = |name: &str, value: &Json| std::fs::write(dir.join(name), value.to_string()).unwrap();
    save("tokenizer.json", tokenizer);
    save("tokenizer_config.json", config);
    save("generation_config.json", generation);
}

fn load(tokenizer: &Json) -> Result<Tokenizer, Error> {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), tokenizer, &json!({}), &json!({}));
    Tokenizer::from_dir(dir.path())
}

#[test]
fn an_unnamed_pre_tokenizer_a_hole_and_odd_settings_survive_the_gguf_form() {
    let dir = tempfile::tempdir().unwrap();
    let config = json!({"bos_token": {"content": "<end>"}, "add_bos_token": true,
        "chat_template": [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]});
    write(dir.path(), &small(), &config, &json!({"eos_token_id": [259, 7]}));
    let from_dir = Tokenizer::from_dir(dir.path()).unwrap();
    let from_gguf = Tokenizer::from_gguf(&metadata(Tokenizer::gguf_entries(dir.path(), 270).unwrap())).unwrap();
    assert_eq!((from_dir.vocab_size(), from_gguf.vocab_size()), (262, 270));
    for t in [&from_dir, &from_gguf] {
        assert_eq!(t.stop_ids(), [7, 259]);
        assert_eq!(t.chat_template(), Some("D"));
        assert_eq!(t.raw_prefix(), [259], "the begin token where it is demanded");
        assert_eq!(t.encode_prompt(&ChatPrompt::of_markup("abc")).unwrap(), [259, 257]);
        assert_eq!(t.encode_prompt(&ChatPrompt::of_markup("<end>abc")).unwrap(), [259, 257], "not twice");
        assert_eq!(t.encode("xyz", true).unwrap(), [258]);
        assert_eq!(t.encode("abab c<tool_call>", false).unwrap()[..2], [256, 256]);
        assert_eq!(t.encode("<tool_call>", false).unwrap(), [261], "a user-defined token is always whole");
        assert_eq!(t.token_text(260), Some("[PAD260]"), "the hole is filled");
        assert!(t.encode("<end>", false).unwrap().iter().all(|&id| id != 259));
        assert_eq!(t.decode(&[261, 259, 97], ControlTokens::Hide).find("<tool_call>"), Some(0), "user-defined: shown");
    }
    let jinja = dir.path().join("chat_template.jinja");
    std::fs::write(jinja, "J").unwrap();
    assert_eq!(Tokenizer::from_dir(dir.path()).unwrap().chat_template(), Some("J"));

    // When the merges are used, the word is built from its parts.
    let mut plain = small();
    plain["model"]["ignore_merges"] = json!(false);
    assert_eq!(load(&plain).unwrap().encode("xyz", true).unwrap().len(), 3);
}

#[test]
fn a_setting_that_the_name_does_not_imply_is_written_down() {
    let dir = tempfile::tempdir().unwrap();
    let mut tokenizer = small();
    tokenizer["pre_tokenizer"] = json!({"type": "ByteLevel", "add_prefix_space": false});
    write(dir.path(), &tokenizer, &json!({}), &json!({}));
    let m = metadata(Tokenizer::gguf_entries(dir.path(), 262).unwrap());
    assert_eq!(m.str("tokenizer.ggml.pre").unwrap(), Some("gpt-2"));
    assert_eq!(m.bool("craftsman.tokenizer.ignore_merges").unwrap(), Some(true));
    assert_eq!(Tokenizer::from_gguf(&m).unwrap().encode("xyz", true).unwrap(), [258]);
}

#[test]
fn damaged_vocabularies_are_errors_that_say_what_is_wrong() {
    let with = |change: fn(&mut Json)| {
        let mut tokenizer = small();
        change(&mut tokenizer);
        load(&tokenizer).map(|_| ()).unwrap_err().to_string()
    };
    for (error, needle) in [
        (with(|t| t["model"]["merges"] = json!(["a zz"])), "merge 0 (\"a zz\")"),
        (with(|t| t["model"]["merges"] = json!(["b a"])), "merge 0"),
        (with(|t| t["model"]["merges"] = json!(["abc"])), "merge 0"),
        (with(|t| t["model"]["merges"] = json!([["abc", "abcabcabcabcabc"]])), "merge 0"),
        (with(|t| t["model"]["merges"] = json!([["<", "end>"]])), "merge 0"),
        (with(|t| t["model"]["vocab"]["abc"] = json!(256)), "id 256 belongs to"),
        (with(|t| t["model"]["vocab"]["abc"] = json!(4_294_967_295u32)), "4294967295"),
        (with(|t| t["model"]["vocab"]["abc"] = json!(-1)), "tokenizer.json"),
        (with(|t| t["model"]["vocab"]["abc"] = json!(4_294_967_296u64)), "tokenizer.json"),
        (with(|t| t["added_tokens"][0]["id"] = json!(70_000)), "70000"),
        (with(|t| t["added_tokens"][0]["id"] = json!(5)), "id 5 belongs to"),
        (with(|t| t["added_tokens"][0]["content"] = json!("ab")), "ids 256 and 259"),
        (with(|t| t["added_tokens"][0]["content"] = json!("")), "no text"),
        (with(|t| drop(t["model"]["vocab"].as_object_mut().unwrap().remove("Ġ"))), "0x20"),
        (with(|t| t["model"]["vocab"] = json!({})), "byte 0x09"),
        (with(|t| t["model"]["type"] = json!("Unigram")), "`Unigram`"),
        (with(|t| t["model"]["byte_fallback"] = json!(true)), "byte_fallback"),
        (with(|t| t["added_tokens"][0]["lstrip"] = json!(true)), "`<end>`"),
        (with(|t| t["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = json!("(")), "pre-tokenizer"),
        (with(|t| t["pre_tokenizer"] = json!(null)), "pre-tokenizer"),
        (with(|t| drop(t.as_object_mut().unwrap().remove("model"))), "tokenizer.json"),
    ] {
        assert!(error.contains(needle), "{error} lacks {needle}");
    }
    // A repeated key, which a JSON map would hide.
    let dir = tempfile::tempdir().unwrap();
    let text = small().to_string().replacen("\"ab\":256", "\"ab\":256,\"ab\":300", 1);
    std::fs::write(dir.path().join("tokenizer.json"), text).unwrap();
    let error = Tokenizer::from_dir(dir.path()).unwrap_err().to_string();
    assert!(error.contains("\"ab\" has the ids 256 and 300"), "{error}");
}

#[test]
fn damaged_neighbours_of_the_vocabulary_are_named() {
    for (name, content, needle) in [
        ("tokenizer.json", "{", "tokenizer.json"),
        ("tokenizer_config.json", "[", "tokenizer_config.json"),
        ("generation_config.json", "{\"eos_token_id\": -3}", "`eos_token_id` is -3"),
        ("generation_config.json", "{\"eos_token_id\": 262}", "has id 262"),
        ("generation_config.json", "{\"bos_token_id\": 4294967295}", "4294967295"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &small(), &json!({}), &json!({}));
        std::fs::write(dir.path().join(name), content).unwrap();
        let error = Tokenizer::from_dir(dir.path()).unwrap_err().to_string();
        assert!(error.contains(needle), "{name} {content}: {error}");
    }
}

#[test]
fn damaged_gguf_metadata_is_an_error_or_works_but_never_panics() {
    let whole = mini_gguf();
    let with = |key: &str, value: Value| {
        let mut m = whole.clone();
        m.insert(key, value);
        Tokenizer::from_gguf(&m).map(|_| ())
    };
    for (key, value) in [
        ("tokenizer.ggml.model", Value::from("llama")),
        ("tokenizer.ggml.model", Value::U32(3)),
        ("tokenizer.ggml.pre", Value::from("nobody-knows")),
        ("tokenizer.ggml.tokens", Value::from(Vec::<String>::new())),
        ("tokenizer.ggml.tokens", Value::from(vec![1u32, 2])),
        ("tokenizer.ggml.tokens", Value::from(vec!["a".to_owned(); 2048])),
        ("tokenizer.ggml.token_type", Value::from(vec![1i32; 2047])),
        ("tokenizer.ggml.token_type", Value::from(vec![7i32; 2048])),
        ("tokenizer.ggml.token_type", Value::from(vec![5i32; 2048])),
        ("tokenizer.ggml.merges", Value::from(vec!["ab".to_owned()])),
        ("tokenizer.ggml.merges", Value::from(vec!["q qq".to_owned()])),
        ("tokenizer.ggml.merges", Value::from(vec![String::new()])),
        ("tokenizer.ggml.eos_token_id", Value::U32(u32::MAX)),
        ("tokenizer.ggml.eos_token_id", Value::from("two")),
        ("tokenizer.ggml.add_bos_token", Value::U32(1)),
        ("craftsman.tokenizer.stop_token_ids", Value::from(vec![-1i32])),
        ("craftsman.tokenizer.stop_token_ids", Value::from(vec![2048u32])),
        ("craftsman.tokenizer.pre_tokenizer", Value::from("{")),
        ("craftsman.tokenizer.pre_tokenizer", Value::from("{}")),
    ] {
        assert!(with(key, value.clone()).is_err(), "{key} = {value}");
    }
    // Without types only the tokens with a role are known to be control tokens.
    let mut m = whole.clone();
    m.remove("tokenizer.ggml.token_type");
    let t = Tokenizer::from_gguf(&m).unwrap();
    assert_eq!(t.encode("<|user|>", true).unwrap(), [2043]);
}

#[test]
fn a_model_without_a_vocabulary_falls_back_to_bytes() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("generation_config.json"), "{\"eos_token_id\": 2}").unwrap();
    let mut none = Metadata::default();
    none.insert("tokenizer.ggml.model", "none");
    for (t, stops) in [
        (Tokenizer::from_dir(dir.path()).unwrap(), &[2, 257][..]),
        (Tokenizer::from_gguf(&Metadata::default()).unwrap(), &[257]),
        (Tokenizer::from_gguf(&none).unwrap(), &[257]),
    ] {
        assert!(t.is_byte_fallback());
        assert_eq!((t.vocab_size(), t.stop_ids()), (260, stops));
        let text = "é🚀 <|eos|>";
        let ids = t.encode(text, false).unwrap();
        assert_eq!(ids, text.bytes().map(u32::from).collect::<Vec<_>>());
        assert_eq!(t.decode(&ids, ControlTokens::Hide), text);
        assert_eq!(t.encode("a<|eos|>", true).unwrap(), [97, 257]);
        assert!(t.raw_prefix().is_empty());
    }
    assert!(Tokenizer::gguf_entries(dir.path(), 260).unwrap().is_empty());
}

/// The mini teacher's `generation_config.json` says temperature 1 and `top_p` 0.95; a missing file means the defaults.
#[test]
fn a_checkpoint_says_how_its_tokens_are_chosen() {
    use moe_runtime::SamplerConfig;
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(SamplerConfig::from_dir(dir.path()).unwrap(), SamplerConfig::default());
    std::fs::write(dir.path().join("generation_config.json"), r#"{ "temperature": 0.6, "top_k": 40 }"#).unwrap();
    let config = SamplerConfig::from_dir(dir.path()).unwrap();
    assert_eq!((config.temperature, config.top_k, config.top_p), (0.6, 40, 0.95));
    std::fs::write(dir.path().join("generation_config.json"), r#"{ "top_p": 7 }"#).unwrap();
    assert!(SamplerConfig::from_dir(dir.path()).is_err());
    std::fs::write(dir.path().join("generation_config.json"), "{").unwrap();
    assert!(SamplerConfig::from_dir(dir.path()).is_err());
}
