//! Constrained answers: random logits give texts of the grammar, and grammars of strangers have limits.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(feature = "grammar")]

use std::ops::ControlFlow;
use std::sync::Arc;

use gguf_bitnet::{Array, Metadata, Value};
use moe_runtime::{
    AnswerReader, ChatPrompt, ControlTokens, CraftsmanBackend, GenerateOptions, Grammar, GrammarCompiler,
    InferenceBackend, LoadOptions, Output, OutputFormat, OutputParser, OutputStart, Prompt, Sampler, SamplerConfig,
    SplitMix64, StopStrings, TokenConstraint, Tokenizer, ToolSchemas,
};
use serde_json::{Value as Json, json};

const MOST_TOKENS: usize = 4000;

fn mini() -> Tokenizer {
    Tokenizer::from_dir(&fixtures::path("craftsman-mini")).unwrap()
}

/// The tokens that a model without any knowledge writes, without the stop token. It likes control tokens, so that what has
/// no other end comes to one.
fn babble(tokenizer: &Tokenizer, sampler: &mut Sampler, seed: u64) -> Vec<u32> {
    let mut rng = SplitMix64::new(seed);
    let mut tokens = Vec::new();
    for _ in 0..MOST_TOKENS {
        let mut logits: Vec<f32> = (0..tokenizer.vocab_size()).map(|_| rng.next_f64() as f32 * 8.0).collect();
        logits[2036..].iter_mut().for_each(|z| *z += 5.0);
        let token = sampler.sample(&logits).unwrap();
        if tokenizer.is_stop(token) {
            return tokens;
        }
        tokens.push(token);
    }
    panic!("no end: {}", tokenizer.decode(&tokens, ControlTokens::Show));
}

fn constrained(tokenizer: &Tokenizer, grammar: &Grammar, seed: u64) -> Vec<u32> {
    let constraint = GrammarCompiler::of_model(tokenizer).compile(grammar).unwrap();
    let sampler = Sampler::new(SamplerConfig { seed, ..SamplerConfig::default() }).unwrap();
    babble(tokenizer, &mut sampler.with_constraint(Box::new(constraint)), seed)
}

fn weather() -> Json {
    json!({"$ref": "#/$defs/weather", "$defs": {"weather": {
        "type": "object", "required": ["city", "days"], "additionalProperties": false,
        "properties": {"city": {"type": "string", "maxLength": 12}, "days": {"type": "integer", "minimum": 0, "maximum": 99}},
    }}})
}

#[test]
fn random_logits_give_json_of_the_schema() {
    let tokenizer = mini();
    for seed in 0..8 {
        let tokens = constrained(&tokenizer, &Grammar::JsonSchema(weather()), seed);
        let text = tokenizer.decode(&tokens, ControlTokens::Show);
        let json: Json = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert!(json["city"].as_str().unwrap().chars().count() <= 12, "{json}");
        assert!(json["days"].as_i64().is_some_and(|days| (0..100).contains(&days)), "{json}");
        assert_eq!(json.as_object().unwrap().len(), 2, "{json}");
    }
    let mut free = Sampler::new(SamplerConfig::default()).unwrap();
    let text = tokenizer.decode(&babble(&tokenizer, &mut free, 0), ControlTokens::Show);
    assert!(serde_json::from_str::<Json>(&text).is_err(), "{text}");
}

#[test]
fn patterns_and_grammars_are_followed_and_name_control_tokens() {
    let tokenizer = mini();
    let date = constrained(&tokenizer, &Grammar::Regex("[0-9]{4}-[0-9]{2}".to_owned()), 3);
    let date = tokenizer.decode(&date, ControlTokens::Show);
    assert!(date.len() == 7 && date.as_bytes()[4] == b'-', "{date}");
    let lark = Grammar::Lark("start: word <think> word\nword: /[ab]/ | \"c\"".to_owned());
    let tokens = constrained(&tokenizer, &lark, 5);
    assert_eq!((tokens.len(), tokens[1]), (3, tokenizer.token_to_id("<think>").unwrap()));
    let object = constrained(&tokenizer, &Grammar::JsonObject, 1);
    assert!(tokenizer.decode(&object, ControlTokens::Show).trim().starts_with('{'));
}

#[test]
fn a_string_holds_no_control_token_and_ends_before_the_answer_does() {
    let tokenizer = mini();
    let compiler = GrammarCompiler::of_model(&tokenizer);
    let mut constraint = compiler.compile(&Grammar::JsonSchema(json!({"type": "string"}))).unwrap();
    let quote = tokenizer.encode("\"", false).unwrap()[0];
    let may = |words: &[u32], id: u32| words[id as usize / 32] >> (id % 32) & 1 == 1;
    constraint.take(quote).unwrap();
    let words = constraint.allowed().unwrap();
    assert!(may(words, tokenizer.encode("a", false).unwrap()[0]) && may(words, quote));
    assert!((2036..2048).all(|id| !may(words, id)), "control tokens and stops");
    constraint.take(quote).unwrap();
    let words = constraint.allowed().unwrap();
    let allowed: Vec<u32> = (0..2048).filter(|&id| may(words, id)).collect();
    assert_eq!(allowed, tokenizer.stop_ids());
    constraint.restart();
    assert!(may(constraint.allowed().unwrap(), quote), "another answer begins at the beginning");
}

/// The mini teacher's vocabulary with GLM's markup of calls in place of six control tokens.
fn with_calls() -> Tokenizer {
    let markup = ["<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"];
    let mut metadata = Metadata::default();
    for (key, mut value) in Tokenizer::gguf_entries(&fixtures::path("craftsman-mini"), 2048).unwrap() {
        if let ("tokenizer.ggml.tokens", Value::Array(Array::String(tokens))) = (key.as_str(), &mut value) {
            for (id, text) in [2037, 2039, 2040, 2041, 2042, 2044].into_iter().zip(markup) {
                tokens[id] = text.to_owned();
            }
        }
        metadata.insert(key, value);
    }
    Tokenizer::from_gguf(&metadata).unwrap()
}

#[test]
fn a_demanded_call_names_a_tool_and_its_arguments_follow_the_schema() {
    let tokenizer = with_calls();
    let format = OutputFormat::of_model(&tokenizer);
    assert!(format.has_calls());
    let parameters = json!({"type": "object", "required": ["city", "days"], "$defs": {"day": {"type": "integer", "minimum": 1, "maximum": 9}},
        "properties": {"city": {"type": "string"}, "days": {"type": "array", "maxItems": 3, "items": {"$ref": "#/$defs/day"}},
            "unit": {"enum": ["C", "F"]}, "round": {"type": "boolean", "description": "see <x> # or // \"y\""}}});
    let tools = [json!({"function": {"name": "get_weather", "parameters": parameters}}), json!({"name": "now"})];
    let schemas = Arc::new(ToolSchemas::new(&tools));
    let mut names = Vec::new();
    for seed in 0..12 {
        let grammar = Grammar::of_calls(&format, &tools, seed % 2 == 0).unwrap();
        let tokens = constrained(&tokenizer, &grammar, seed);
        let parser = OutputParser::new(&format, OutputStart::Content).with_tools(Arc::clone(&schemas));
        let mut reader = AnswerReader::new(parser, StopStrings::default());
        let (mut output, mut events) = (Output::default(), Vec::new());
        for token in tokens {
            assert!(reader.push(&tokenizer, token, &mut events).is_continue());
        }
        reader.finish(&mut events);
        output.extend(events);
        assert_eq!(output.content, "");
        assert!(!output.calls.is_empty() && (seed % 2 == 0 || output.calls.len() == 1));
        for call in output.calls {
            let arguments: Json = serde_json::from_str(&call.arguments).unwrap();
            if call.name == "get_weather" {
                assert!(arguments["city"].is_string(), "{arguments}");
                assert!(
                    arguments["days"].as_array().unwrap().iter().all(|day| (1..10).contains(&day.as_i64().unwrap()))
                );
                assert!(["C", "F"].contains(&arguments["unit"].as_str().unwrap_or("C")), "{arguments}");
            }
            names.push(call.name);
        }
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names, ["get_weather", "now"]);
    assert_eq!(Grammar::of_calls(&OutputFormat::of_model(&mini()), &tools, false), None, "no markup for calls");
    assert_eq!(Grammar::of_calls(&format, &[json!({})], false), None, "no tool");
    let compiler = GrammarCompiler::of_model(&tokenizer);
    for (reference, is_kept) in [("#/definitions/n", true), ("#/properties/a", false)] {
        let tool = json!({"name": "f", "parameters": {"definitions": {"n": {"type": "integer"}},
            "properties": {"a": {"type": "integer"}, "b": {"$ref": reference}}}});
        let grammar = Grammar::of_calls(&format, &[tool], false).unwrap();
        assert_eq!(compiler.compile(&grammar).is_ok(), is_kept, "{reference}");
    }
}

#[test]
fn options_in_a_schema_are_replaced() {
    let tokenizer = mini();
    let compiler = GrammarCompiler::of_model(&tokenizer);
    let refused = json!({"type": "integer", "x-guidance": {"whitespace_pattern": "("}});
    compiler.compile(&Grammar::JsonSchema(refused.clone())).expect("its options count for nothing");
    compiler.compile(&Grammar::Lark(format!("start: %json {refused}"))).expect_err("here they would count");
}

#[test]
fn grammars_of_strangers_have_limits() {
    let tokenizer = mini();
    let compiler = GrammarCompiler::of_model(&tokenizer);
    let deep = |open: &str, close: &str| format!("start: {}\"a\"{}", open.repeat(20_000), close.repeat(20_000));
    let remote = json!({"$ref": "https://example.org/schema.json"});
    for (name, grammar) in [
        ("long", Grammar::Lark("#".repeat(GrammarCompiler::MAX_BYTES + 1))),
        ("long schema", Grammar::JsonSchema(json!({"description": "x".repeat(GrammarCompiler::MAX_BYTES)}))),
        ("remote reference", Grammar::JsonSchema(remote)),
        ("missing reference", Grammar::JsonSchema(json!({"$ref": "#/$defs/none"}))),
        ("unsatisfiable", Grammar::JsonSchema(json!({"type": "integer", "minimum": 3, "maximum": 2}))),
        ("pattern", Grammar::Regex("(a".to_owned())),
        ("deep pattern", Grammar::Regex("(".repeat(30_000))),
        ("deep grammar", Grammar::Lark(deep("(", ")"))),
        ("deep list", Grammar::Lark(deep("[", "]"))),
        ("no grammar", Grammar::Lark("hello".to_owned())),
    ] {
        let error = compiler.compile(&grammar).map(drop).map_err(|error| error.to_string());
        let message = error.expect_err(name);
        assert!(message.starts_with("the answer cannot be constrained: ") && message.len() < 800, "{name}: {message}");
        assert_eq!(message.contains("outside of the schema"), name == "remote reference", "{message}");
    }
}

#[test]
fn heavy_grammars_are_followed_within_the_limits_or_refused() {
    let tokenizer = mini();
    let compiler = GrammarCompiler::of_model(&tokenizer);
    let wide = json!({"type": "array", "minItems": 90_000, "items": {"type": "string", "pattern": "^(a|b){900}$"}});
    let nested = (0..100).fold(
        json!({"type": "integer"}),
        |inner, _| json!({"anyOf": [{"type": "null"}, {"type": "array", "items": inner}]}),
    );
    let ambiguous = "start: a\na: a a | a a a | \"x\" | \"\"".to_owned();
    for (name, grammar) in [
        ("large pattern", Grammar::Regex("((a{500}b{500}){500}c{500}){500}".to_owned())),
        ("wide schema", Grammar::JsonSchema(wide)),
        ("nested schema", Grammar::JsonSchema(nested)),
        ("ambiguous grammar", Grammar::Lark(ambiguous)),
    ] {
        let Ok(mut constraint) = compiler.compile(&grammar) else { continue };
        for _ in 0..100 {
            let Ok(words) = constraint.allowed() else { break };
            let token = (0..2048).find(|id| words[*id as usize / 32] >> (id % 32) & 1 == 1);
            let token = token.unwrap_or_else(|| panic!("{name}: nothing may come next"));
            if constraint.take(token).is_err() {
                break;
            }
        }
    }
}

#[test]
fn a_model_answers_in_json() {
    let mut backend = CraftsmanBackend::load(&fixtures::path("craftsman-mini"), 512, &LoadOptions::default()).unwrap();
    let constraint = GrammarCompiler::of_model(backend.tokenizer()).compile(&Grammar::JsonSchema(weather())).unwrap();
    let mut sampler = Sampler::new(SamplerConfig::greedy()).unwrap().with_constraint(Box::new(constraint));
    let options = GenerateOptions { max_tokens: 200, ..GenerateOptions::default() };
    let mut answers = Vec::new();
    for _ in 0..2 {
        let mut text = String::new();
        let mut on_text = |piece: &str| {
            text.push_str(piece);
            ControlFlow::Continue(())
        };
        backend.generate(Prompt::Raw("The weather in Oslo:"), &mut sampler, &options, &mut on_text).unwrap();
        answers.push(text);
    }
    let json: Json = serde_json::from_str(&answers[0]).unwrap_or_else(|error| panic!("{error}: {}", answers[0]));
    assert!(json["days"].is_i64(), "{json}");
    assert_eq!(answers[0], answers[1], "each answer begins at the beginning of the grammar");
}

#[test]
fn a_thought_has_its_budget_and_is_free_of_the_grammar() {
    let mut backend = CraftsmanBackend::load(&fixtures::path("craftsman-mini"), 512, &LoadOptions::default()).unwrap();
    let constraint = GrammarCompiler::of_model(backend.tokenizer()).compile(&Grammar::JsonSchema(weather())).unwrap();
    let sampler = Sampler::new(SamplerConfig::greedy()).unwrap().with_constraint(Box::new(constraint));
    let mut sampler = sampler.with_thought_budget(Some(5));
    let options = GenerateOptions { max_tokens: 200, ..GenerateOptions::default() };
    let prompt = ChatPrompt::of_markup("[gMASK]<sop><|user|>\nhi<|assistant|>\n<think>");
    let mut text = String::new();
    let mut on_text = |piece: &str| {
        text.push_str(piece);
        ControlFlow::Continue(())
    };
    let answer = backend.generate(Prompt::Rendered(&prompt), &mut sampler, &options, &mut on_text).unwrap();
    let end = backend.tokenizer().token_to_id("</think>").unwrap();
    assert_eq!(answer.tokens.iter().position(|&token| token == end), Some(5), "{text}");
    let (thought, content) = text.split_once("</think>").unwrap();
    assert!(!thought.trim_start().starts_with('{'), "{thought}");
    assert!(serde_json::from_str::<Json>(content).unwrap()["days"].is_i64(), "{content}");
}
