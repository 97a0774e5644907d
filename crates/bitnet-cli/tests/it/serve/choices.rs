//! The choice of tokens: stop strings, scores, biases; and what is kept of prompts.

use serde_json::{Value, json};

use super::client::Server;
use crate::common::{bitnet, student, text};

fn complete(server: &Server, more: Value) -> Value {
    let mut body = json!({"prompt": "The ferry leaves the harbor", "temperature": 0, "max_tokens": 16});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let reply = server.post("/v1/completions", &body);
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()
}

#[test]
fn a_stop_string_ends_the_answer_before_it() {
    let server = Server::start(&[]);
    let whole = complete(&server, json!({}));
    let full = whole["choices"][0]["text"].as_str().unwrap();
    // A piece across the border of two words, near the middle.
    let middle = full.char_indices().filter(|(_, c)| *c == ' ').nth(2).unwrap().0;
    let stop: String = full[middle - 1..].chars().take(3).collect();
    let cut = complete(&server, json!({"stop": [stop, "never in it"]}));
    let want = &full[..full.find(&stop).unwrap()];
    assert_eq!(
        (cut["choices"][0]["text"].as_str(), cut["choices"][0]["finish_reason"].as_str()),
        (Some(want), Some("stop"))
    );
    assert!(cut["usage"]["completion_tokens"].as_u64() < whole["usage"]["completion_tokens"].as_u64());
    let messages = json!([{"role": "user", "content": "Which route does the ferry take?"}]);
    let body = json!({"messages": messages, "max_tokens": 12, "temperature": 0, "stop_sequences": ["cannot"]});
    let message = server.post("/v1/messages", &body).json();
    assert_eq!(
        (&message["stop_reason"], &message["stop_sequence"]),
        (&json!("stop_sequence"), &json!("cannot")),
        "{message}"
    );
    let many: Vec<String> = (0..17).map(|i| i.to_string()).collect();
    let refused = server.post("/v1/completions", &json!({"prompt": "x", "stop": many}));
    assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!("stop")));
}

#[test]
fn scores_are_those_of_the_tokens() {
    let server = Server::start(&[]);
    let whole = complete(&server, json!({"logprobs": 2, "echo": true, "max_tokens": 4}));
    let choice = &whole["choices"][0];
    let lists = &choice["logprobs"];
    let list = |name: &str| lists[name].as_array().unwrap().clone();
    let tokens: String = list("tokens").iter().map(|token| token.as_str().unwrap()).collect();
    assert_eq!(tokens, choice["text"].as_str().unwrap(), "prompt and answer in order");
    let (scores, tops) = (list("token_logprobs"), list("top_logprobs"));
    assert_eq!(
        (scores.len(), tops.len(), list("text_offset").len()),
        (list("tokens").len(), scores.len(), scores.len())
    );
    // A greedy token is the most likely one.
    let n = scores.len();
    for i in n - 4..n {
        let best = tops[i].as_object().unwrap().values().map(|v| v.as_f64().unwrap()).fold(f64::NEG_INFINITY, f64::max);
        assert_eq!(scores[i].as_f64(), Some(best), "{lists}");
    }
    // The same tokens as a prompt have the same scores: log-likelihoods without an answer.
    let again = complete(&server, json!({"prompt": choice["text"], "logprobs": 2, "echo": true, "max_tokens": 0}));
    assert_eq!(again["choices"][0]["logprobs"]["token_logprobs"], Value::from(scores), "{again}");

    let body = json!({"messages": [{"role": "user", "content": "Which route?"}], "temperature": 0, "max_tokens": 3,
                      "logprobs": true, "top_logprobs": 2});
    let chat = server.post("/v1/chat/completions", &body).json();
    let content = chat["choices"][0]["logprobs"]["content"].as_array().unwrap().clone();
    assert_eq!(content.len(), 3, "{chat}");
    assert!(
        content
            .iter()
            .all(|token| token["top_logprobs"][0]["logprob"] == token["logprob"] && token["bytes"].is_array())
    );
}

#[test]
fn texts_of_responses_have_the_scores_of_their_tokens() {
    let server = Server::start(&[]);
    let ask = |more: Value| {
        let mut body = json!({"input": "Which route?", "temperature": 0, "max_output_tokens": 4,
                              "reasoning": {"effort": "none"}});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        server.post("/v1/responses", &body)
    };
    let part = |response: &Value| response["output"][0]["content"][0].clone();
    let whole = part(&ask(json!({"top_logprobs": 2})).json());
    let scores = whole["logprobs"].as_array().unwrap();
    let tokens: String = scores.iter().map(|score| score["token"].as_str().unwrap()).collect();
    assert_eq!((tokens.as_str(), scores.len()), (whole["text"].as_str().unwrap(), 4), "{whole}");
    assert!(scores.iter().all(|score| score["top_logprobs"][0]["logprob"] == score["logprob"]), "{whole}");

    let events = ask(json!({"top_logprobs": 2, "stream": true})).events();
    let events: Vec<Value> = events.iter().map(|(_, data)| serde_json::from_str(data).unwrap()).collect();
    let of = |ty: &str| events.iter().filter(|event| event["type"] == ty).cloned().collect::<Vec<Value>>();
    let deltas = of("response.output_text.delta");
    let streamed: Vec<Value> = deltas.iter().flat_map(|delta| delta["logprobs"].as_array().unwrap().clone()).collect();
    assert_eq!(Value::from(streamed), whole["logprobs"]);
    assert_eq!(of("response.output_text.done")[0]["logprobs"], whole["logprobs"]);
    assert_eq!(part(&events.last().unwrap()["response"]), whole);

    let included = part(&ask(json!({"include": ["message.output_text.logprobs"]})).json());
    assert_eq!(included["logprobs"][0]["top_logprobs"], json!([]), "the chosen token alone: {included}");
    assert_eq!(part(&ask(json!({})).json())["logprobs"], json!([]));
}

#[test]
fn a_bias_forbids_a_token() {
    let server = Server::start(&[]);
    let free = complete(&server, json!({"max_tokens": 1}));
    let word = free["choices"][0]["text"].as_str().unwrap();
    let id = server.post("/tokenize", &json!({"content": word})).json()["tokens"][0].as_u64().unwrap();
    let biased = complete(&server, json!({"max_tokens": 1, "logit_bias": {id.to_string(): -100}}));
    assert_ne!(biased["choices"][0]["text"], word);
    let refused = server.post("/v1/completions", &json!({"prompt": "x", "logit_bias": {"999999": 1}}));
    assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!("logit_bias")));
}

#[test]
fn prompts_are_found_again_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let place = text(dir.path());
    let prompt = "The ferry leaves the harbor at nine and the market opens near the bridge. ".repeat(12);
    let ask = |server: &Server| {
        let whole = complete(server, json!({"prompt": prompt}));
        let cached = whole["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
        (whole["choices"][0]["text"].as_str().unwrap().to_owned(), cached)
    };
    let server = Server::start(&["--prompt-cache", place]);
    let (first, cached) = ask(&server);
    assert_eq!(cached, 0);
    drop(server);
    let server = Server::start(&["--prompt-cache", place]);
    let (second, cached) = ask(&server);
    assert!(cached >= 64 && cached % 64 == 0, "{cached}");
    assert_eq!(first, second, "resumed from the disk");
    assert!(server.metric("bitnet_prompt_tokens_total{source=\"disk\"}") >= 64.0);
}

#[test]
fn memory_that_is_too_little_is_refused_with_the_options_to_lower() {
    let refusal = bitnet(["serve", "-m", student(), "--memory", "10MB"]).refusal();
    for part in ["--slots", "-c", "--prompt-cache-ram", "--memory", "10.0 MB"] {
        assert!(refusal.contains(part), "{part}: {refusal}");
    }
    let report = bitnet(["tune", student(), "--memory", "100MB", "--json"]).json();
    let command = report["command"].as_str().unwrap();
    assert!(command.starts_with("bitnet serve -m ") && command.contains("--slots"), "{command}");
    let fits = |s: &&Value| s["memory_bytes"].as_u64().unwrap() <= 100_000_000;
    let settings = report["settings"].as_array().unwrap();
    assert!(settings.iter().all(|s| s["fits"].as_bool().unwrap() == fits(&s)) && settings.iter().any(|s| fits(&s)));
}
