//! Wrong, hostile and forbidden requests.

use fixtures::Damage;
use serde_json::{Value, json};

use super::client::{Server, parse};

const ROUTES: [&str; 4] = ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"];

fn good(route: &str) -> Value {
    match route {
        "/v1/completions" => json!({"prompt": "a", "max_tokens": 1}),
        "/v1/responses" => json!({"input": "a", "max_output_tokens": 1}),
        _ => json!({"messages": [{"role": "user", "content": "a"}], "max_tokens": 1}),
    }
}

#[test]
fn wrong_fields_are_refused_by_name_in_the_words_of_the_vendor() {
    let server = Server::start(&["-c", "128"]);
    let message = json!([{"role": "user", "content": "a"}]);
    let image = json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]);
    let foo = json!([{"role": "user", "content": [{"type": "foo", "text": "x"}]}]);
    let cases = [
        ("/v1/chat/completions", json!({}), "messages"),
        ("/v1/chat/completions", json!({"messages": []}), "messages"),
        ("/v1/chat/completions", json!({"messages": [3]}), "messages[0]"),
        ("/v1/chat/completions", json!({"messages": [{"content": "x"}]}), "messages[0].role"),
        ("/v1/chat/completions", json!({"messages": image}), "messages[0].content[0]"),
        ("/v1/chat/completions", json!({"messages": [{"role": "robot", "content": "x"}]}), "messages[0].role"),
        ("/v1/chat/completions", json!({"messages": foo}), "messages[0].content[0]"),
        ("/v1/chat/completions", json!({"messages": message, "tool_choice": "sometimes"}), "tool_choice"),
        ("/v1/responses", json!({"input": "x", "tool_choice": {"type": "file_search"}}), "tool_choice"),
        ("/v1/chat/completions", json!({"messages": message, "repeat_penalty": 0.01}), "repeat_penalty"),
        ("/v1/chat/completions", json!({"messages": message, "temperature": -1}), "temperature"),
        ("/v1/chat/completions", json!({"messages": message, "n": 99}), "n"),
        ("/v1/chat/completions", json!({"messages": message, "functions": []}), "functions"),
        ("/v1/chat/completions", json!({"messages": message, "stream": "yes"}), "stream"),
        ("/v1/completions", json!({"prompt": {}}), "prompt"),
        ("/v1/completions", json!({"prompt": [1, -2]}), "prompt"),
        ("/v1/completions", json!({"prompt": [999_999]}), "prompt"),
        ("/v1/completions", json!({"prompt": "x", "suffix": "y"}), "suffix"),
        ("/v1/responses", json!({"input": "x", "background": true}), "background"),
        ("/v1/responses", json!({"input": "x", "truncation": "auto"}), "truncation"),
        ("/v1/responses", json!({"input": "x", "previous_response_id": "y"}), "previous_response_id"),
    ];
    for (route, body, param) in cases {
        let reply = server.post(route, &body);
        let error = &reply.json()["error"];
        assert_eq!((reply.status, error["type"].as_str()), (400, Some("invalid_request_error")), "{body}: {error}");
        assert_eq!(error["param"], param, "{body}: {error}");
        assert!(error["message"].as_str().unwrap().contains(&format!("`{param}")), "{error}");
    }
    // The compiler of grammars names the problem, and the field says where it is.
    let schema = json!({"type": "nothing"});
    for (route, body, param) in [
        ("/v1/chat/completions", json!({"messages": message, "regex": "("}), "regex"),
        ("/v1/chat/completions", json!({"messages": message, "grammar": "start: ("}), "grammar"),
        (
            "/v1/responses",
            json!({"input": "x", "text": {"format": {"type": "json_schema", "schema": schema}}}),
            "text.format",
        ),
    ] {
        let reply = server.post(route, &body);
        assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!(param)), "{reply:?}");
    }
    let choice = json!({"messages": message, "max_tokens": 1, "tool_choice": {"type": "sometimes"}});
    assert_eq!(server.post("/v1/messages", &choice).status, 400);
    for parts in
        [json!("a"), json!([{"type": "input_text", "text": "a"}]), json!([{"type": "refusal", "refusal": "a"}])]
    {
        let body = json!({"messages": [{"role": "developer", "content": parts}]});
        let prompt = server.post("/apply-template", &body).json()["prompt"].clone();
        let plain = json!({"messages": [{"role": "system", "content": "a"}]});
        assert!(prompt.is_string(), "{body}: {prompt}");
        assert_eq!(prompt, server.post("/apply-template", &plain).json()["prompt"], "{body}");
    }
    let reply = server.post("/v1/messages", &json!({"messages": message}));
    let body = reply.json();
    assert_eq!(
        (reply.status, &body["type"], &body["error"]["type"]),
        (400, &json!("error"), &json!("invalid_request_error"))
    );
    assert!(body["request_id"].as_str().unwrap().starts_with("req_") && body["error"].get("param").is_none());

    let long = "word ".repeat(500);
    let reply = server.post("/v1/chat/completions", &json!({"messages": [{"role": "user", "content": long}]}));
    let error = &reply.json()["error"];
    assert_eq!(
        (reply.status, error["code"].as_str(), error["n_ctx"].as_u64()),
        (400, Some("context_length_exceeded"), Some(128))
    );
    let n = error["n_prompt_tokens"].as_u64().unwrap().to_string();
    assert!(error["message"].as_str().unwrap().contains(&n) && n.len() >= 3, "{error}");

    for path in ["/v1/models/%ff", "/v1/responses/%ff"] {
        let unknown = server.get(path);
        assert_eq!((unknown.status, &unknown.json()["error"]["type"]), (404, &json!("not_found_error")), "{path}");
    }
    let unknown = server.get("/v1/nothing");
    assert_eq!((unknown.status, &unknown.json()["error"]["type"]), (404, &json!("not_found_error")));
    assert_eq!(server.get("/v1/chat/completions").status, 405);
}

#[test]
fn unknown_fields_and_any_content_type_are_taken() {
    let server = Server::start(&[]);
    for route in ROUTES {
        let mut body = good(route);
        body["client_metadata"] = json!({"a": [1]});
        body["metadata"] = json!({"user_id": "me"});
        body["service_tier"] = json!("auto");
        body["temperature"] = Value::Null;
        let reply = server.send("POST", route, &[("Content-Type", "text/plain")], body.to_string().as_bytes());
        assert_eq!(reply.status, 200, "{route}: {reply:?}");
    }
}

#[test]
fn foreign_pages_and_hosts_are_turned_away() {
    let server = Server::start(&[]);
    let port = server.port;
    let own = format!("http://127.0.0.1:{port}");
    let statuses = |headers: &[(&str, &str)]| server.send("GET", "/v1/models", headers, b"").status;
    assert_eq!(statuses(&[("Origin", &own)]), 200);
    assert_eq!(statuses(&[("Origin", "http://evil.example")]), 403);
    assert_eq!(statuses(&[("Origin", "null")]), 403);
    assert_eq!(statuses(&[("Host", "evil.example")]), 403);
    assert_eq!(statuses(&[("Host", &format!("localhost:{port}"))]), 200);
    let reply = server.send("GET", "/v1/models", &[("Origin", "http://evil.example")], b"");
    assert_eq!(reply.json()["error"]["type"], "permission_error");
    assert!(reply.header("access-control-allow-origin").is_none());
}

#[test]
fn keys_guard_every_route_but_the_open_ones() {
    let server = Server::start(&["--api-key", "first", "--api-key", "second"]);
    for path in ["/health", "/livez", "/readyz"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    for path in ["/v1/models", "/metrics", "/v1/nothing"] {
        assert_eq!(server.get(path).status, 401, "{path}");
    }
    for headers in [[("Authorization", "Bearer second")], [("x-api-key", "first")], [("authorization", "bearer first")]]
    {
        assert_eq!(server.send("GET", "/v1/models", &headers, b"").status, 200, "{headers:?}");
    }
    for headers in [[("Authorization", "Bearer wrong")], [("Authorization", "second")], [("x-api-key", "")]] {
        let reply = server.send("POST", "/v1/messages", &headers, good("/v1/messages").to_string().as_bytes());
        assert_eq!(
            (reply.status, &reply.json()["error"]["type"]),
            (401, &json!("authentication_error")),
            "{headers:?}"
        );
    }
}

#[test]
fn bodies_have_a_limit_and_headers_too() {
    let server = Server::start(&["--max-body", "1000"]);
    let long = json!({"prompt": "x".repeat(2000)}).to_string();
    let reply = server.send("POST", "/v1/completions", &[], long.as_bytes());
    assert_eq!((reply.status, &reply.json()["error"]["type"]), (413, &json!("request_too_large")));
    // Without a length the bytes are counted as they come.
    let head =
        "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunked = format!("{head}{:x}\r\n{long}\r\n0\r\n\r\n", long.len());
    assert_eq!(parse(&server.raw(chunked.as_bytes())).status, 413);
    let headers = "x".repeat(200_000);
    let reply = server.raw(format!("GET / HTTP/1.1\r\nHost: localhost\r\nA: {headers}\r\n\r\n").as_bytes());
    assert!(reply.is_empty() || parse(&reply).status == 431, "{}", String::from_utf8_lossy(&reply));
    assert_eq!(server.get("/livez").status, 200);
}

#[test]
fn damaged_bodies_never_break_the_server() {
    let server = Server::start(&["--max-tokens", "1", "--queue", "100"]);
    for (seed, route) in ROUTES.into_iter().enumerate() {
        let body = good(route).to_string().into_bytes();
        let mut sent = vec![Vec::new(), b"{".to_vec(), b"null".to_vec(), b"\xff\xfe".to_vec(), b"[".repeat(100_000)];
        sent.extend((0..body.len()).map(|end| body[..end].to_vec()));
        let mut damage = Damage::new(seed as u64);
        for _ in 0..60 {
            sent.push(damage.text(std::str::from_utf8(&body).unwrap()));
        }
        for body in sent {
            let reply = server.send("POST", route, &[], &body);
            let text = String::from_utf8_lossy(&body);
            assert!(reply.status < 500, "{route}: {} for {text}", reply.status);
            assert!(reply.status == 200 || !reply.json()["error"]["message"].as_str().unwrap().is_empty());
        }
    }
    for seed in 0..40 {
        let bytes = server.request("POST", "/v1/completions", &[], b"{\"prompt\":\"a\",\"max_tokens\":1}");
        let bytes = Damage::new(seed).text(std::str::from_utf8(&bytes).unwrap());
        let reply = String::from_utf8_lossy(&server.raw(&bytes)).into_owned();
        assert!(!reply.starts_with("HTTP/1.1 5"), "{reply}");
    }
    assert_eq!(server.get("/health").status, 200);
    assert_eq!(server.metric("bitnet_requests_running"), 0.0);
}

#[test]
fn the_page_has_no_outside_resource_and_a_strict_policy() {
    let server = Server::start(&["--api-key", "first"]);
    let page = server.get("/");
    let policy = page.header("content-security-policy").unwrap();
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(
        policy.starts_with("default-src 'none'") && !policy.contains("unsafe") && !policy.contains('*'),
        "{policy}"
    );
    let word = policy.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap();
    assert_eq!(page.body.matches(&format!("nonce=\"{word}\"")).count(), 2, "script and style carry the word");
    for outside in ["http:", "https:", "//cdn", "@import", "url(", "innerHTML", "src="] {
        assert!(!page.body.contains(outside), "{outside}");
    }
    assert_ne!(server.get("/").header("content-security-policy").unwrap(), policy, "a new word each time");
}

#[test]
fn the_description_names_routes_that_exist() {
    let server = Server::start(&["--debug-endpoints"]);
    let description = server.get("/openapi.json").json();
    for (path, fields) in [
        (
            "/v1/chat/completions",
            &["stop", "logit_bias", "top_logprobs", "regex", "thinking", "parallel_tool_calls"][..],
        ),
        ("/v1/completions", &["stop", "logprobs", "presence_penalty", "grammar", "response_format"]),
        ("/v1/responses", &["text", "parallel_tool_calls", "temperature"]),
        ("/v1/messages", &["output_config", "stop_sequences", "thinking"]),
    ] {
        let schema = &description["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"];
        for field in fields {
            assert!(schema["properties"][field].is_object(), "{path}: {field}");
        }
    }
    for (path, operations) in description["paths"].as_object().unwrap() {
        let path = path.replace("{id}", "x");
        for (method, operation) in operations.as_object().unwrap() {
            let method = method.to_ascii_uppercase();
            let reply = server.send(&method, &path, &[], b"{}");
            let answers = reply.status == 200 || reply.status == 400 || (path.ends_with("/x") && reply.status == 404);
            assert!(answers, "{method} {path}: {reply:?}");
            assert_eq!(operation.get("requestBody").is_some(), method == "POST", "{path}");
        }
    }
}
