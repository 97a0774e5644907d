//! The prompts of a measured model.

use behavior_eval::model::Subject;
use mla_attention::CacheType;
use moe_runtime::{ControlTokens, LoadOptions, ModelFiles, Tokenizer};
use rlm_refine::measure::ModelSubject;

/// A template that asks for the date gets the same one on every day, so that a report can be made again.
#[test]
fn a_template_that_shows_the_date_gives_one_prompt() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(fixtures::path("craftsman-mini").join(name), folder.path().join(name)).unwrap();
    }
    let template = "<|system|>{{ strftime_now('%Y-%m-%d %H:%M:%S') }}<|user|>{{ messages[-1].content }}<|assistant|>";
    std::fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
    let files = ModelFiles::open(folder.path()).unwrap();
    let mut subject = ModelSubject::load(&files, "id".to_owned(), &LoadOptions::default(), CacheType::F32).unwrap();
    let prompt = subject.encode("", "why?").unwrap();
    let text = Tokenizer::from_dir(folder.path()).unwrap().decode(&prompt, ControlTokens::Show);
    assert_eq!(text, "<|system|>2026-01-01 00:00:00<|user|>why?<|assistant|>");
}
