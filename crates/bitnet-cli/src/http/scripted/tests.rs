//! 10,000 bodies and 10,000 answers out of random, damaged and truncated bytes.

use fixtures::Damage;
use gguf_bitnet::read_text;
use serde_json::{Map, Value, json};

use super::exercise::{Dialect, Exercise};

const N: usize = 10_000;

/// An answer with all that an answer can have.
const ANSWER: &str = "It rains?\n</think>\nLet me look é.\n<tool_call>ferry\n<arg_key>to</arg_key><arg_value>north</arg_value>\
    <arg_key>day</arg_key>\n<arg_value>2</arg_value></tool_call>\nand <tool_call>free<arg_key>input</arg_key><arg_value>{\"a\"\
    </arg_value></tool_call> END of it";

fn object(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap()
}

fn schema() -> Value {
    json!({"type": "object", "required": ["to"], "properties": {"to": {"enum": ["north", "south"]}, "day": {"type": "integer"}}})
}

/// A body with many of the fields of a dialect.
fn rich(dialect: Dialect) -> Map<String, Value> {
    let function = json!({"name": "ferry", "description": "Times", "parameters": schema()});
    object(match dialect {
        Dialect::Chat => json!({
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "When?"}]},
                {"role": "assistant", "content": null, "reasoning_content": "Hm.", "tool_calls": [
                    {"id": "call_1", "type": "function", "function": {"name": "ferry", "arguments": "{\"to\": \"north\"}"}}]},
                {"role": "tool", "tool_call_id": "call_1", "content": "at nine"},
            ],
            "tools": [{"type": "function", "function": function}], "tool_choice": "auto", "max_tokens": 400, "n": 2,
            "stop": ["END", "\u{7}"], "logprobs": true, "top_logprobs": 2, "temperature": 0.5, "seed": 3,
            "logit_bias": {"5": 1}, "chat_template_kwargs": {"enable_thinking": true},
        }),
        Dialect::Completions => json!({
            "prompt": ["The ferry", [5, 6, 7]], "max_tokens": 400, "n": 2, "echo": true, "logprobs": 1, "stop": "END",
            "presence_penalty": 0.5, "user": "me",
        }),
        Dialect::Responses => json!({
            "instructions": "Be brief.", "max_output_tokens": 400, "reasoning": {"effort": "high"},
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "When?"}]},
                {"type": "function_call", "call_id": "c", "name": "ferry", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": "at nine"},
            ],
            "tools": [{"type": "function", "name": "ferry", "parameters": schema()}, {"type": "custom", "name": "free"}],
            "parallel_tool_calls": true, "prompt_cache_options": {"comparison_response_id": "resp_1"}, "top_logprobs": 2,
        }),
        Dialect::Messages => json!({
            "system": [{"type": "text", "text": "Be brief."}], "max_tokens": 400, "stop_sequences": ["END"],
            "thinking": {"type": "enabled", "budget_tokens": 200},
            "messages": [
                {"role": "user", "content": "When?"},
                {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "ferry", "input": {"to": "north"}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "at nine"}]},
            ],
            "tools": [{"name": "ferry", "input_schema": schema()}], "diagnostics": {"previous_message_id": "msg_1"},
        }),
    })
}

/// Every route that takes a body, with a body that it answers.
fn bodies() -> Vec<(&'static str, String)> {
    let of_dialects = Dialect::ALL.map(|dialect| (dialect.route(), Value::from(rich(dialect)).to_string()));
    let streamed = Dialect::ALL.map(|dialect| {
        let mut body = rich(dialect);
        body.insert("stream".to_owned(), true.into());
        (dialect.route(), Value::from(body).to_string())
    });
    let user = json!([{"role": "user", "content": "a"}]);
    let form = json!({"type": "json_schema", "json_schema": {"name": "f", "schema": schema()}});
    let others = [
        ("/v1/chat/completions", json!({"messages": user, "response_format": form})),
        ("/v1/chat/completions", json!({"messages": user, "regex": "[a-c]+"})),
        ("/v1/messages/count_tokens", Value::from(rich(Dialect::Messages))),
        ("/v1/responses/input_tokens", Value::from(rich(Dialect::Responses))),
        (
            "/v1/embeddings",
            json!({"model": "script", "input": ["a b", [5, 6]], "encoding_format": "base64", "dimensions": 8}),
        ),
        (
            "/v1/embeddings",
            json!({"model": "encoder", "input": ["a b", ""], "encoding_format": "base64", "dimensions": 96}),
        ),
        (
            "/tokenize",
            json!({"content": "a <think> b", "add_special": true, "parse_special": true, "with_pieces": true}),
        ),
        ("/detokenize", json!({"tokens": [1, 2, 3]})),
        ("/apply-template", Value::from(rich(Dialect::Chat))),
    ];
    let others = others.map(|(route, body)| (route, body.to_string()));
    of_dialects.into_iter().chain(streamed).chain(others).collect()
}

#[test]
fn ten_thousand_bodies_make_no_panic_and_no_server_error() {
    let (exercise, bodies) = (Exercise::start(), bodies());
    let script = exercise.server.tokenizer.encode(ANSWER, true).unwrap();
    for (route, body) in &bodies {
        assert_eq!(exercise.body(route, body.as_bytes(), &script), 200, "{route} {body}");
    }
    let mut damage = Damage::new(17);
    let mut answered = 0;
    for number in 0..N {
        let (route, body) = &bodies[number % bodies.len()];
        let sent = match damage.below(8) {
            0 => (0..damage.below(64)).map(|_| damage.number().to_le_bytes()[0]).collect(),
            1 => body.as_bytes()[..damage.below(body.len())].to_vec(),
            _ => damage.text(body),
        };
        answered += usize::from(exercise.body(route, &sent, &script[..damage.below(12)]) == 200);
    }
    // Damage that leaves a body right reaches the code behind the decoders.
    assert!((N / 50..N / 2).contains(&answered), "{answered} of {N} were answered");
}

#[test]
fn ten_thousand_answers_are_the_same_streamed_and_whole() {
    let exercise = Exercise::start();
    let answer = exercise.server.tokenizer.encode(ANSWER, true).unwrap();
    let mut damage = Damage::new(18);
    for number in 0..N {
        let dialect = Dialect::ALL[number % 4];
        let mut random = || -> Vec<u8> { (0..damage.below(24)).map(|_| damage.number().to_le_bytes()[0]).collect() };
        let bytes = random();
        let script = match damage.below(8) {
            0 => answer[..damage.below(answer.len() + 1)].to_vec(),
            1 => {
                let mut script = answer.clone();
                let at = damage.below(answer.len());
                let end = (at + damage.below(3)).min(answer.len());
                script.splice(at..end, exercise.script(&bytes[..bytes.len().min(6)]));
                script
            }
            _ => exercise.script(&bytes),
        };
        let mut body = rich(dialect);
        // Scores take most of the time where they are asked for.
        if number % 32 >= 4 {
            body.retain(|field, _| !field.ends_with("logprobs"));
        }
        assert_eq!(exercise.both(dialect, &body, &script), 200);
    }
}

/// The seeds of the fuzz targets go through what the targets call, and the server takes each of them.
#[test]
fn seeds_of_the_fuzzer_are_answered() {
    let exercise = Exercise::start();
    for dialect in Dialect::ALL {
        let name = format!("{dialect:?}").to_lowercase();
        let seed = read_text(&fixtures::path(format!("../fuzz/seeds/{name}/rich.json")), 1 << 20).unwrap();
        assert_eq!(exercise.input(dialect, seed.as_bytes()), 200, "{name}");
    }
}

/// The comparison above has to be able to fail.
#[test]
fn an_answer_has_all_its_parts() {
    let exercise = Exercise::start();
    let script = exercise.server.tokenizer.encode(ANSWER, true).unwrap();
    let body = Value::from(rich(Dialect::Chat)).to_string();
    let reply = exercise.server.post(Dialect::Chat.route(), body.as_bytes(), &script).json();
    let message = &reply["choices"][1]["message"];
    assert_eq!(message["reasoning_content"], "It rains?\n");
    let content = message["content"].as_str().unwrap();
    assert!(content.starts_with("Let me look é.") && content.contains("and") && !content.contains("END"), "{content}");
    let calls: Vec<&Value> = message["tool_calls"].as_array().unwrap().iter().map(|call| &call["function"]).collect();
    assert_eq!(calls[0], &json!({"name": "ferry", "arguments": "{\"to\":\"north\",\"day\":2}"}));
    assert_eq!(calls[1], &json!({"name": "free", "arguments": "{\"input\":\"{\\\"a\\\"\"}"}));
    assert_eq!(reply["choices"][0]["finish_reason"], "stop");
}
