//! The mini teacher under a template with thoughts and tool calls. Grammars make it write calls, which it was never taught.

use std::path::PathBuf;
use std::sync::OnceLock;

use serde_json::{Value, json};

use super::client::Server;

/// Control tokens that the template below does without, and the markup in their place.
const RENAMED: [(&str, &str); 6] = [
    ("[MASK]", "<tool_call>"),
    ("[sMASK]", "</tool_call>"),
    ("<eop>", "<arg_key>"),
    ("<|system|>", "</arg_key>"),
    ("<|observation|>", "<arg_value>"),
    ("[gMASK]", "</arg_value>"),
];

const TEMPLATE: &str = "{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|>\
    {% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}\
    {% for c in m.tool_calls or [] %}<tool_call>{{ c.function.name }}{{ c.function.arguments | tojson }}</tool_call>{% endfor %}\
    <|endoftext|>{% else %}<|user|>{{ m.content }}{% endif %}{% endfor %}\
    {% if add_generation_prompt %}<|assistant|>{% if enable_thinking is not defined or enable_thinking %}<think>{% endif %}\
    {% endif %}";

/// The folder of the model, made once per run of the tests.
pub(super) fn thinker() -> &'static str {
    static FOLDER: OnceLock<String> = OnceLock::new();
    FOLDER.get_or_init(|| renamed("it-thinker", &RENAMED))
}

/// Makes the folder of the mini teacher with other texts for control tokens, and the template.
fn renamed(folder: &str, names: &[(&str, &str)]) -> String {
    let from = fixtures::path("craftsman-mini");
    let to = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(folder);
    std::fs::create_dir_all(&to).unwrap();
    for name in ["config.json", "generation_config.json", "model.safetensors"] {
        std::fs::copy(from.join(name), to.join(name)).unwrap();
    }
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        let mut text = std::fs::read_to_string(from.join(name)).unwrap();
        for (old, new) in names {
            text = text.replace(&format!("\"{old}\""), &format!("\"{new}\""));
        }
        if name == "tokenizer_config.json" {
            let mut config: Value = serde_json::from_str(&text).unwrap();
            config["chat_template"] = TEMPLATE.into();
            text = config.to_string();
        }
        std::fs::write(to.join(name), text).unwrap();
    }
    to.to_str().unwrap().to_owned()
}

/// A tool whose numbers are bounded: this model writes digits without end where it may.
fn tool() -> Value {
    json!({"type": "function", "function": {"name": "ferry", "description": "Times of a ferry", "parameters": {
        "type": "object", "required": ["to"], "properties": {
            "to": {"type": "string", "enum": ["north", "south"]}, "day": {"type": "integer", "minimum": 1, "maximum": 31}}}}})
}

fn chat(more: Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": "Which route does the ferry take?"}], "temperature": 0,
                          "max_tokens": 80, "chat_template_kwargs": {"enable_thinking": false}});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn arguments(text: &str) -> Value {
    let arguments: Value = serde_json::from_str(text).unwrap();
    assert!(["north", "south"].contains(&arguments["to"].as_str().unwrap()), "{arguments}");
    assert!(arguments.get("day").is_none_or(Value::is_i64), "{arguments}");
    arguments
}

#[test]
fn a_demanded_call_has_its_shape_in_every_dialect() {
    let server = Server::start_model(thinker(), &[]);
    let body = chat(json!({"tools": [tool()], "tool_choice": "required", "parallel_tool_calls": false}));
    let whole = server.post("/v1/chat/completions", &body).json();
    let choice = &whole["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls", "{whole}");
    let call = &choice["message"]["tool_calls"][0];
    assert_eq!((&call["type"], &call["function"]["name"]), (&json!("function"), &json!("ferry")));
    assert!(call["id"].as_str().unwrap().starts_with("call_"));
    let wanted = arguments(call["function"]["arguments"].as_str().unwrap());

    let reply = server.post("/v1/chat/completions", &{
        let mut body = body.clone();
        body["stream"] = true.into();
        body
    });
    let deltas: Vec<Value> =
        reply.events().iter().filter_map(|(_, data)| serde_json::from_str::<Value>(data).ok()).collect();
    let calls: Vec<&Value> =
        deltas.iter().map(|chunk| &chunk["choices"][0]["delta"]["tool_calls"][0]).filter(|c| !c.is_null()).collect();
    assert_eq!(calls.len(), 2, "the name once, then the arguments: {calls:?}");
    assert_eq!((&calls[0]["function"]["name"], &calls[0]["function"]["arguments"]), (&json!("ferry"), &json!("")));
    assert!(calls[1].get("id").is_none() && calls[1]["function"].get("name").is_none());
    assert_eq!(arguments(calls[1]["function"]["arguments"].as_str().unwrap()), wanted);

    let schema = tool()["function"]["parameters"].clone();
    let anthropic = json!({"messages": body["messages"], "max_tokens": 80, "temperature": 0,
        "tools": [{"name": "ferry", "input_schema": schema}], "tool_choice": {"type": "any", "disable_parallel_tool_use": true}});
    let message = server.post("/v1/messages", &anthropic).json();
    let block = message["content"].as_array().unwrap().last().unwrap();
    assert_eq!(
        (&message["stop_reason"], &block["type"], &block["input"]),
        (&json!("tool_use"), &json!("tool_use"), &wanted)
    );

    let space = json!({"type": "namespace", "name": "boats", "tools": [{"type": "function", "name": "ferry", "parameters": schema}]});
    let responses = json!({"input": "Which route does the ferry take?", "max_output_tokens": 80, "temperature": 0,
        "tools": [space, {"type": "web_search"}], "tool_choice": "required", "reasoning": {"effort": "none"}, "stream": true,
        "parallel_tool_calls": false});
    let reply = server.post("/v1/responses", &responses);
    let names: Vec<String> = reply.events().into_iter().map(|(name, _)| name).collect();
    let want = [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ];
    assert_eq!(names, want, "{}", reply.body);
    let done: Value = serde_json::from_str(&reply.events().last().unwrap().1).unwrap();
    let item = &done["response"]["output"][0];
    assert_eq!((&item["name"], &item["namespace"]), (&json!("ferry"), &json!("boats")), "{item}");
    arguments(item["arguments"].as_str().unwrap());
}

#[test]
fn arguments_follow_references_and_unions_and_forms_may_repeat() {
    let server = Server::start_model(thinker(), &[]);
    let parameters = json!({"type": "object", "$defs": {"day": {"enum": [3, 5]}}, "required": ["day", "week"],
        "properties": {"day": {"$ref": "#/$defs/day"}, "week": {"type": ["integer", "null"], "minimum": 1, "maximum": 9}}});
    let call = |tools: Value, choice: Value| {
        let body = chat(json!({"tools": tools, "tool_choice": choice, "parallel_tool_calls": false}));
        let reply = server.post("/v1/chat/completions", &body);
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()["choices"][0]["message"]["tool_calls"][0]["function"].clone()
    };
    let function = |name: &str| json!({"type": "function", "function": {"name": name, "parameters": parameters}});
    let named = call(json!([tool(), function("plan")]), json!({"type": "function", "function": {"name": "plan"}}));
    let arguments: Value = serde_json::from_str(named["arguments"].as_str().unwrap()).unwrap();
    let [day, week] = [&arguments["day"], &arguments["week"]];
    assert!(named["name"] == "plan" && [3, 5].contains(&day.as_i64().unwrap()), "{named}");
    assert!(week.is_null() || (1..=9).contains(&week.as_i64().unwrap()), "{named}");
    let allowed = json!({"type": "allowed_tools", "allowed_tools": {"mode": "required",
        "tools": [{"type": "function", "function": {"name": "plan"}}]}});
    assert_eq!(call(json!([tool(), function("plan")]), allowed)["name"], "plan");

    // 16 pairs of the same two letters are a loop for the detector, and what this form demands.
    let whole = server.post("/v1/chat/completions", &chat(json!({"regex": "(a b ){40}", "max_tokens": 400}))).json();
    assert_eq!(whole["choices"][0]["message"]["content"], "a b ".repeat(40), "{whole}");
}

#[test]
fn a_schema_binds_the_content_but_not_the_thought() {
    let server = Server::start_model(thinker(), &[]);
    let schema = json!({"type": "object", "properties": {"sure": {"type": "boolean"}}, "required": ["sure"], "additionalProperties": false});
    let format = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
    for thinking in [false, true] {
        let more = json!({"response_format": format, "chat_template_kwargs": {"enable_thinking": thinking},
                          "thinking": {"type": "enabled", "budget_tokens": 5}, "frequency_penalty": 2.0});
        let whole = server.post("/v1/chat/completions", &chat(more)).json();
        let message = &whole["choices"][0]["message"];
        let content: Value =
            serde_json::from_str(message["content"].as_str().unwrap()).unwrap_or_else(|e| panic!("{e}: {whole}"));
        assert!(content["sure"].is_boolean(), "{whole}");
        let reasoning = whole["usage"]["completion_tokens_details"]["reasoning_tokens"].as_u64().unwrap();
        assert_eq!(message.get("reasoning_content").is_some(), thinking, "{whole}");
        assert!(reasoning <= 5 && (reasoning > 0) == thinking, "the budget ends the thought: {whole}");
    }
    let lark = server.post("/v1/chat/completions", &chat(json!({"regex": "yes|no"}))).json();
    assert!(["yes", "no"].contains(&lark["choices"][0]["message"]["content"].as_str().unwrap()), "{lark}");
}

#[test]
fn thoughts_are_apart_from_the_content_and_come_back() {
    let server = Server::start_model(thinker(), &[]);
    // The model was never taught to think, so that a short answer is all thought.
    let body = chat(json!({"chat_template_kwargs": {"enable_thinking": true}, "max_tokens": 6}));
    let whole = server.post("/v1/chat/completions", &body).json();
    let message = &whole["choices"][0]["message"];
    let thought = message["reasoning_content"].as_str().unwrap_or_else(|| panic!("{whole}"));
    assert_eq!(
        (message["content"].as_str(), whole["choices"][0]["finish_reason"].as_str()),
        (Some(""), Some("length"))
    );
    assert_eq!(whole["usage"]["completion_tokens_details"]["reasoning_tokens"], 6);

    let anthropic = json!({"messages": body["messages"], "max_tokens": 6, "temperature": 0, "thinking": {"type": "adaptive"}, "stream": true});
    let reply = server.post("/v1/messages?beta=true", &anthropic);
    let events: Vec<Value> = reply.events().iter().map(|(_, data)| serde_json::from_str(data).unwrap()).collect();
    let names: Vec<&str> =
        events.iter().map(|event| event["type"].as_str().unwrap()).filter(|name| *name != "ping").collect();
    assert_eq!(names[..2], ["message_start", "content_block_start"]);
    assert_eq!(names[names.len() - 3..], ["content_block_stop", "message_delta", "message_stop"]);
    let deltas: Vec<&Value> = events.iter().filter(|event| event["type"] == "content_block_delta").collect();
    let (signature, thoughts) = deltas.split_last().unwrap();
    assert_eq!(signature["delta"]["type"], "signature_delta");
    let joined: String = thoughts.iter().map(|event| event["delta"]["thinking"].as_str().unwrap()).collect();
    assert_eq!(joined, thought);
    let absent = json!({"messages": body["messages"], "max_tokens": 6, "temperature": 0});
    assert_eq!(
        server.post("/v1/messages", &absent).json()["content"][0]["type"],
        "text",
        "no thought unless asked for"
    );

    // The sealed thought of an answer becomes part of the next prompt.
    let responses =
        json!({"input": "Which route?", "max_output_tokens": 6, "temperature": 0, "reasoning": {"effort": "low"}});
    let whole = server.post("/v1/responses", &responses).json();
    assert_eq!(
        (&whole["status"], &whole["incomplete_details"]["reason"]),
        (&json!("incomplete"), &json!("max_output_tokens"))
    );
    assert_eq!(whole["output"][0]["status"], "incomplete", "the end cuts the thought");
    let sealed = &whole["output"][0]["encrypted_content"];
    let count = |sealed: &Value| {
        let items = json!([{"role": "user", "content": "Which route?"},
            {"type": "reasoning", "summary": [], "encrypted_content": sealed}, {"role": "assistant", "content": "x"},
            {"role": "user", "content": "more"}]);
        server.post("/v1/responses/input_tokens", &json!({"input": items})).json()["input_tokens"].as_u64().unwrap()
    };
    assert!(count(sealed) > count(&json!("of another server")), "{sealed}");
}

#[test]
fn a_gap_between_two_texts_is_filled_where_the_vocabulary_has_tokens_for_it() {
    let names = [("[MASK]", "<|code_prefix|>"), ("[sMASK]", "<|code_suffix|>"), ("<eop>", "<|code_middle|>")];
    let server = Server::start_model(&renamed("it-infill", &names), &[]);
    let body = |prompt: Value| json!({"prompt": prompt, "temperature": 0, "max_tokens": 8, "logprobs": 1});
    let mut gap = body(json!("The ferry"));
    gap["suffix"] = " the harbor".into();
    let filled = server.post("/v1/completions", &gap).json();
    let spelled = json!({"content": "<|code_prefix|>The ferry<|code_suffix|> the harbor<|code_middle|>",
                         "add_special": true, "parse_special": true});
    let ids = server.post("/tokenize", &spelled).json()["tokens"].clone();
    let same = server.post("/v1/completions", &body(ids.clone())).json();
    assert_eq!(filled["choices"], same["choices"], "the tokens of the gap are {ids}");
    assert_eq!(filled["usage"]["prompt_tokens"].as_u64(), ids.as_array().map(|ids| ids.len() as u64));
    // Texts that spell such tokens are words.
    gap["suffix"] = "<|code_middle|>".into();
    let spelled = server.post("/v1/completions", &gap).json();
    assert!(spelled["usage"]["prompt_tokens"].as_u64() > Some(6), "{spelled}");
    gap["echo"] = true.into();
    let refused = server.post("/v1/completions", &gap);
    assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!("echo")));
}

#[test]
fn a_strict_tool_binds_its_calls_and_leaves_the_text_free() {
    let server = Server::start_model(thinker(), &[]);
    let start = server.post("/tokenize", &json!({"content": "<tool_call>", "parse_special": true})).json();
    let start = start["tokens"][0].to_string();
    let end = server.post("/tokenize", &json!({"content": "<|endoftext|>", "parse_special": true})).json();
    let end = end["tokens"][0].to_string();
    let mut strict = tool();
    strict["function"]["strict"] = true.into();
    let body = |tools: Value, bias: i32| {
        let biases = json!({start.as_str(): bias, end.as_str(): bias / 2});
        chat(json!({"tools": tools, "logit_bias": biases, "parallel_tool_calls": false, "max_tokens": 60}))
    };
    // The model was never taught to call: without a push it writes the text that it writes without a grammar.
    let text = |tool: Value| {
        let mut body = body(json!([tool]), 0);
        body["max_tokens"] = 12.into();
        let whole = server.post("/v1/chat/completions", &body).json();
        whole["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
    };
    let free = text(tool());
    assert!(!free.is_empty());
    assert_eq!(text(strict.clone()), free);

    let call = |body: &Value| server.post("/v1/chat/completions", body).json()["choices"][0].clone();
    let bound = call(&body(json!([strict]), 100));
    let function = &bound["message"]["tool_calls"][0]["function"];
    assert_eq!((&bound["finish_reason"], &function["name"]), (&json!("tool_calls"), &json!("ferry")), "{bound}");
    arguments(function["arguments"].as_str().unwrap());
    // The same push without `strict` gives no call of this tool.
    let unbound = call(&body(json!([tool()]), 100));
    assert_ne!(unbound["message"]["tool_calls"][0]["function"]["name"], "ferry", "{unbound}");
    // The other dialects read the word at their places.
    let schema = tool()["function"]["parameters"].clone();
    let named = json!({"name": "ferry", "parameters": {"type": "nothing"}, "strict": true, "type": "function"});
    let space = json!([{"type": "namespace", "name": "boats", "tools": [{"type": "function", "name": "ferry", "strict": true,
        "parameters": {"type": "object", "properties": {"a": {"type": "nothing"}}}}]}]);
    let refused = server.post("/v1/responses", &json!({"input": "x", "max_output_tokens": 1, "tools": space}));
    assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!("tools")), "{refused:?}");
    let taken = server.post("/v1/responses", &json!({"input": "x", "max_output_tokens": 1, "tools": [named]}));
    assert_eq!(taken.status, 200, "a schema without properties says nothing: {taken:?}");
    let ask = |strict: bool, schema: &Value| {
        let tools = json!([{"name": "ferry", "input_schema": schema, "strict": strict}]);
        server.post(
            "/v1/messages",
            &json!({"messages": [{"role": "user", "content": "x"}], "max_tokens": 1, "tools": tools}),
        )
    };
    let wrong = json!({"type": "object", "properties": {"a": {"type": "nothing"}}});
    let statuses = [ask(true, &schema).status, ask(false, &wrong).status, ask(true, &wrong).status];
    assert_eq!(statuses, [200, 200, 400]);
}

#[test]
fn thoughts_stand_in_the_content_where_that_is_asked_for() {
    let server = Server::start_model(thinker(), &["--reasoning-format", "content"]);
    let more = json!({"chat_template_kwargs": {"enable_thinking": true}, "thinking": {"budget_tokens": 3}, "max_tokens": 8,
                      "regex": "yes|no"});
    let whole = server.post("/v1/chat/completions", &chat(more.clone())).json();
    let message = &whole["choices"][0]["message"];
    let content = message["content"].as_str().unwrap();
    assert!(message.get("reasoning_content").is_none() && content.starts_with("<think>"), "{whole}");
    assert!(["yes", "no"].contains(&content.split_once("</think>").unwrap().1.trim()), "{whole}");
    let mut body = chat(more);
    body["stream"] = true.into();
    let reply = server.post("/v1/chat/completions", &body);
    let chunks = reply.events();
    let joined: String = chunks
        .iter()
        .filter_map(|(_, data)| serde_json::from_str::<Value>(data).ok())
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(joined, content);
    assert!(!reply.body.contains("reasoning_content"));
}
