//! The dialects, whole and event by event. The mini student answers greedily, so both forms have one text.

use serde_json::{Value, json};

use super::client::{Reply, Server};

const PROMPT: &str = "Which route does the ferry take?";

fn with(base: &Value, more: Value) -> Value {
    let mut body = base.clone();
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// The data of all events but the end of the stream, as JSON.
fn data(reply: &Reply) -> Vec<Value> {
    let events = reply.events();
    events.iter().filter(|(_, data)| data != "[DONE]").map(|(_, data)| serde_json::from_str(data).unwrap()).collect()
}

fn is_id(id: &Value, prefix: &str) -> bool {
    let id = id.as_str().unwrap_or_default();
    id.len() == prefix.len() + 24 && id.starts_with(prefix)
}

#[test]
fn chat_completions_have_one_text_whole_and_streamed() {
    let server = Server::start(&["--slots", "2"]);
    let body = json!({"messages": [{"role": "user", "content": PROMPT}], "temperature": 0, "max_completion_tokens": 12,
                      "chat_template_kwargs": {"enable_thinking": false}});
    let reply = server.post("/v1/chat/completions", &body);
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")), "{reply:?}");
    let whole = reply.json();
    assert!(is_id(&whole["id"], "chatcmpl-") && whole["object"] == "chat.completion", "{whole}");
    let choice = &whole["choices"][0];
    let text = choice["message"]["content"].as_str().unwrap();
    assert!(!text.is_empty() && choice["message"]["role"] == "assistant", "{whole}");
    assert!(["stop", "length"].contains(&choice["finish_reason"].as_str().unwrap()) && choice["logprobs"].is_null());
    let usage = &whole["usage"];
    let [prompt, answer, total] =
        ["prompt_tokens", "completion_tokens", "total_tokens"].map(|name| usage[name].as_u64().unwrap());
    assert!(
        prompt > 0 && answer <= 12 && total == prompt + answer && usage["prompt_tokens_details"]["cached_tokens"] == 0
    );
    assert_eq!(whole["system_fingerprint"].as_str().unwrap().len(), 12);

    let streamed = server
        .post("/chat/completions", &with(&body, json!({"stream": true, "stream_options": {"include_usage": true}})));
    assert_eq!((streamed.status, streamed.header("content-type")), (200, Some("text/event-stream")));
    assert_eq!(streamed.events().last().unwrap().1, "[DONE]");
    let chunks = data(&streamed);
    assert_eq!(chunks[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    let (last, rest) = chunks.split_last().unwrap();
    let (end, middle) = rest.split_last().unwrap();
    assert_eq!((&last["choices"], &last["usage"]["completion_tokens"]), (&json!([]), &usage["completion_tokens"]));
    assert!(
        last["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap() > 0,
        "the second time it is cached"
    );
    assert_eq!(
        (&end["choices"][0]["delta"], &end["choices"][0]["finish_reason"]),
        (&json!({}), &choice["finish_reason"])
    );
    let mut joined = String::new();
    for chunk in middle {
        let choice = &chunk["choices"][0];
        assert!(choice["finish_reason"].is_null() && chunk["usage"].is_null(), "{chunk}");
        assert!(choice.get("logprobs").is_some() && chunk["object"] == "chat.completion.chunk");
        joined.push_str(choice["delta"]["content"].as_str().unwrap());
    }
    assert_eq!(joined, text);

    let fresh = json!({"messages": [{"role": "user", "content": "the market opens near the bridge ".repeat(20)}],
                       "max_tokens": 1, "stream": true, "return_progress": true});
    let chunks = data(&server.post("/v1/chat/completions", &fresh));
    let progress = chunks.iter().map(|chunk| &chunk["prompt_progress"]).find(|progress| !progress.is_null()).unwrap();
    assert!(progress["time_ms"].is_u64() && progress["processed"].as_u64() <= progress["total"].as_u64(), "{progress}");
}

#[test]
fn messages_follow_the_order_of_events() {
    let server = Server::start(&[]);
    let body =
        json!({"model": "any", "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 8, "temperature": 0});
    let whole = server.post("/v1/messages", &body).json();
    assert!(is_id(&whole["id"], "msg_") && whole["type"] == "message" && whole["role"] == "assistant", "{whole}");
    let text = whole["content"][0]["text"].as_str().unwrap();
    assert_eq!(whole["content"][0]["type"], "text");
    let usage = &whole["usage"];
    let input = usage["input_tokens"].as_u64().unwrap();
    let counted = server.post("/v1/messages/count_tokens", &body).json();
    assert_eq!(counted["input_tokens"].as_u64(), Some(input));

    let reply = server.post("/messages", &with(&body, json!({"stream": true})));
    let events = data(&reply);
    for (name, data) in reply.events() {
        assert!(data.contains(&format!("\"type\":\"{name}\"")), "{name}: {data}");
    }
    assert_eq!(events[0]["type"], "message_start");
    let start = &events[0]["message"];
    let cached = start["usage"]["cache_read_input_tokens"].as_u64().unwrap();
    assert_eq!(start["usage"]["input_tokens"].as_u64().unwrap() + cached, input, "input_tokens leaves out cached ones");
    assert!(cached > 0 && start["content"] == json!([]) && start["stop_reason"].is_null());
    let block = events.iter().find(|event| event["type"] == "content_block_start").unwrap();
    assert_eq!((&block["index"], &block["content_block"]), (&json!(0), &json!({"type": "text", "text": ""})));
    let joined: String = events.iter().filter_map(|event| event["delta"]["text"].as_str()).collect();
    assert_eq!(joined, text);
    let end = &events[events.len() - 2];
    assert_eq!((&end["type"], &end["delta"]["stop_reason"]), (&json!("message_delta"), &whole["stop_reason"]));
    assert_eq!(end["usage"]["output_tokens"], usage["output_tokens"]);
    assert_eq!(events.last().unwrap(), &json!({"type": "message_stop"}));
}

#[test]
fn responses_number_their_events() {
    let server = Server::start(&[]);
    let body = json!({"input": [{"role": "user", "content": [{"type": "input_text", "text": PROMPT}]}], "temperature": 0,
                      "max_output_tokens": 8, "reasoning": {"effort": "none"}, "store": true, "include": []});
    let whole = server.post("/v1/responses", &body).json();
    assert!(is_id(&whole["id"], "resp_") && whole["object"] == "response" && whole["store"] == false, "{whole}");
    let item = &whole["output"][0];
    assert!(item["type"] == "message" && is_id(&item["id"], "msg_") && item["status"] == whole["status"]);
    let text = item["content"][0]["text"].as_str().unwrap();
    let counted = server.post("/v1/responses/input_tokens", &body).json();
    assert_eq!(counted["input_tokens"], whole["usage"]["input_tokens"]);

    let reply = server.post("/v1/responses", &with(&body, json!({"stream": true})));
    let events = data(&reply);
    for (number, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"].as_u64(), Some(number as u64));
    }
    let mut names: Vec<String> = reply.events().into_iter().map(|(name, _)| name).collect();
    names.dedup();
    let last = format!("response.{}", whole["status"].as_str().unwrap());
    let want = [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        &last,
    ];
    assert_eq!(names, want);
    let joined: String = events
        .iter()
        .filter(|e| e["type"] == "response.output_text.delta")
        .map(|e| e["delta"].as_str().unwrap())
        .collect();
    assert_eq!(joined, text);
    let done = events.last().unwrap();
    assert_eq!(done["response"]["output"][0]["content"], whole["output"][0]["content"]);
    assert_eq!(done["response"]["output"][0]["status"], whole["status"]);
    let exact = server.post("/v1/responses", &with(&body, json!({"temperature": 0.7, "top_p": 0.95})));
    assert!(exact.body.contains("\"temperature\":0.7,") && exact.body.contains("\"top_p\":0.95,"), "{exact:?}");
    assert_eq!(done["response"]["usage"]["output_tokens"], whole["usage"]["output_tokens"]);
    assert!(!reply.body.contains("[DONE]"));
    assert_eq!(server.get("/v1/responses/resp_x").status, 404);
}

/// The id of a token that the tokenizer hides from text.
fn control_token(server: &Server) -> u64 {
    let body = json!({"content": "<|endoftext|>", "parse_special": true});
    let tokens = server.post("/tokenize", &body).json()["tokens"].clone();
    assert_eq!(tokens.as_array().unwrap().len(), 1, "{tokens}");
    tokens[0].as_u64().unwrap()
}

#[test]
fn completions_take_texts_and_tokens() {
    let server = Server::start(&[]);
    let body = json!({"prompt": "The ferry", "temperature": 0, "max_tokens": 5});
    let whole = server.post("/v1/completions", &body).json();
    let choice = &whole["choices"][0];
    let text = choice["text"].as_str().unwrap();
    assert!(whole["object"] == "text_completion" && !text.is_empty() && choice["finish_reason"] == "length", "{whole}");
    let reply = server.post("/completions", &with(&body, json!({"stream": true})));
    let chunks = data(&reply);
    let joined: String = chunks.iter().map(|chunk| chunk["choices"][0]["text"].as_str().unwrap()).collect();
    assert_eq!((joined.as_str(), reply.events().last().unwrap().1.as_str()), (text, "[DONE]"));
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "length");
    // Two texts, two choices each, and the prompt in front.
    let many = with(&body, json!({"prompt": ["The ferry", "The harbor"], "n": 2, "echo": true}));
    let many = server.post("/v1/completions", &many).json();
    let texts: Vec<&str> = many["choices"].as_array().unwrap().iter().map(|c| c["text"].as_str().unwrap()).collect();
    assert_eq!(texts.len(), 4);
    assert!(texts[0] == format!("The ferry{text}") && texts[0] == texts[1] && texts[2].starts_with("The harbor"));
    // The tokens of a text continue as the text does.
    let usage = whole["usage"]["prompt_tokens"].as_u64().unwrap();
    let control = json!({"prompt": [control_token(&server), 65], "max_tokens": 0, "echo": true});
    let echoed = server.post("/v1/completions", &control).json();
    let shown = server.post("/detokenize", &json!({"tokens": control["prompt"]})).json();
    assert_eq!(echoed["choices"][0]["text"], shown["content"], "control tokens are shown");
    let ids = with(&body, json!({"prompt": [[1, 2, 3], [4, 5]], "max_tokens": 1}));
    let ids = server.post("/v1/completions", &ids).json();
    assert_eq!((ids["choices"].as_array().unwrap().len(), usage > 0), (2, true));
}

#[test]
fn models_serve_both_vendors() {
    let server = Server::start(&["--alias", "mini"]);
    let list = server.get("/v1/models").json();
    assert_eq!(
        (&list["object"], &list["has_more"], &list["first_id"]),
        (&json!("list"), &json!(false), &json!("mini"))
    );
    let model = &list["data"][0];
    assert_eq!((&model["id"], &model["object"], &model["type"]), (&json!("mini"), &json!("model"), &json!("model")));
    assert!(model["created"].is_u64() && model["created_at"].as_str().unwrap().ends_with('Z'));
    for name in ["n_ctx_train", "n_ctx", "n_params", "size"] {
        assert!(model["meta"][name].as_u64().unwrap() > 0, "{name}");
    }
    assert_eq!(server.get("/models/mini").json(), *model);
    assert_eq!(server.get("/v1/models/other").status, 404);
    let head = server.send("HEAD", "/v1/models", &[], b"");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}
