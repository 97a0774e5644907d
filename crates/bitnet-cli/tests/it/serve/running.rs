//! Requests that run: company, cancellation, full queues, the end of the server.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::{Reply, Server, read_reply};

fn body(prompt: &str, tokens: usize) -> Value {
    json!({"prompt": prompt, "temperature": 0, "max_tokens": tokens})
}

/// Waits until a metric has a value.
pub(super) fn until(server: &Server, metric: &str, value: f64) {
    let begun = Instant::now();
    while server.metric_if_any(metric) != Some(value) {
        assert!(begun.elapsed() < Duration::from_secs(60), "{metric} stays at {:?}", server.metric_if_any(metric));
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn equal_requests_have_equal_bytes_alone_and_in_company() {
    let server = Server::start(&["--slots", "4"]);
    let text = |reply: Reply| reply.json()["choices"][0]["text"].as_str().unwrap().to_owned();
    let alone = text(server.post("/v1/completions", &body("The ferry leaves the harbor", 24)));
    let others = ["A lamp", "The market opens", "Under the bridge there is a small", "Who"];
    let texts: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|i| {
                let prompt = if i % 2 == 0 { "The ferry leaves the harbor" } else { others[i / 2] };
                let server = &server;
                scope.spawn(move || text(server.post("/v1/completions", &body(prompt, 24))))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for i in [0, 2, 4, 6] {
        assert_eq!(texts[i], alone, "request {i}");
    }
    assert_ne!(texts[1], alone);
}

#[test]
fn a_client_that_leaves_frees_its_slot() {
    let server = Server::start(&["--slots", "1", "-c", "4096"]);
    for stream in [true, false] {
        for wait_for_bytes in [true, false] {
            let mut request = without_end(&server, &[], body(&"The ferry leaves the harbor. ".repeat(40), 4000));
            request["stream"] = stream.into();
            let mut socket = begin(&server, "/v1/completions", &request);
            until(&server, "bitnet_requests_running", 1.0);
            if stream && wait_for_bytes {
                socket.read_exact(&mut [0; 600]).unwrap();
            }
            let begun = Instant::now();
            drop(socket);
            until(&server, "bitnet_requests_running", 0.0);
            assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        }
    }
    assert_eq!(server.metric("bitnet_requests_waiting"), 0.0);
    until(&server, "bitnet_answer_total{finish=\"cancelled\"}", 4.0);
}

/// Sends a request, and leaves its reply on the socket.
pub(super) fn begin(server: &Server, route: &str, body: &Value) -> TcpStream {
    let mut socket = server.connect();
    socket.write_all(&server.request("POST", route, &[], body.to_string().as_bytes())).unwrap();
    socket
}

/// The request with an answer that neither a stop token nor a loop ends.
pub(super) fn without_end(server: &Server, headers: &[(&str, &str)], mut request: Value) -> Value {
    let stops = json!({"content": "<|endoftext|><|user|><|observation|>", "parse_special": true});
    let stops = server.send("POST", "/tokenize", headers, stops.to_string().as_bytes()).json();
    let stops = stops["tokens"].as_array().unwrap().iter().map(|token| (token.to_string(), json!(-100)));
    request["logit_bias"] = Value::Object(stops.collect());
    request["temperature"] = json!(2.0);
    request
}

/// A request for a stream of so many tokens, and its socket once it is running.
pub(super) fn long_answer(server: &Server, tokens: usize) -> (Value, TcpStream) {
    let messages = [json!({"role": "user", "content": "The ferry"})];
    let request = without_end(server, &[], json!({"messages": messages, "max_tokens": tokens, "stream": true}));
    let running = begin(server, "/v1/chat/completions", &request);
    until(server, "bitnet_requests_running", 1.0);
    (request, running)
}

#[test]
fn a_full_queue_tells_when_to_come_back() {
    let server = Server::start(&["--slots", "1", "--queue", "1", "-c", "4096"]);
    let (request, running) = long_answer(&server, 4000);
    let mut waiting = begin(&server, "/v1/chat/completions", &request);
    until(&server, "bitnet_requests_waiting", 1.0);
    // The headers of the one that waits are there already, and pings follow.
    let mut head = [0; 15];
    waiting.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    let refused = server.post("/v1/chat/completions", &request);
    assert_eq!((refused.status, &refused.json()["error"]["type"]), (429, &json!("rate_limit_error")));
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds));
    drop(waiting);
    drop(running);
    until(&server, "bitnet_requests_running", 0.0);
    until(&server, "bitnet_requests_waiting", 0.0);
}

#[cfg(unix)]
#[test]
fn sigterm_finishes_what_runs_and_refuses_the_rest() {
    let mut server = Server::start(&["--slots", "1", "-c", "4096"]);
    let (request, mut running) = long_answer(&server, 2000);
    terminate(&server);
    let begun = Instant::now();
    loop {
        let reply = server.post("/v1/chat/completions", &request);
        if reply.status == 503 {
            assert_eq!(reply.json()["error"]["type"], "overloaded_error");
            assert!(reply.header("retry-after").is_some());
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{reply:?}");
    }
    assert_eq!([server.get("/readyz").status, server.get("/livez").status], [503, 200]);
    let reply = read_reply(&mut running);
    assert_eq!(reply.events().last().unwrap().1, "[DONE]", "the running one is finished");
    assert_eq!(server.wait(), Some(0));
}

#[cfg(unix)]
fn terminate(server: &Server) {
    let pid = rustix::process::Pid::from_raw(server.pid().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
}

#[cfg(unix)]
#[test]
fn the_end_of_the_server_is_told_to_those_that_wait() {
    let mut server = Server::start(&["--slots", "1", "-c", "4096", "--drain-time", "0"]);
    let chat = |stream: bool| json!({"messages": [{"role": "user", "content": "The ferry"}], "stream": stream, "max_tokens": 4000});
    let (_, mut running) = long_answer(&server, 4000);
    let waiting = [
        ("/v1/chat/completions", chat(true)),
        ("/v1/messages", chat(true)),
        ("/v1/responses", json!({"input": "x", "stream": true})),
        ("/v1/messages", chat(false)),
        ("/v1/embeddings", json!({"input": "x"})),
    ];
    let mut sockets: Vec<_> = waiting.iter().map(|(route, body)| begin(&server, route, body)).collect();
    until(&server, "bitnet_requests_waiting", 5.0);
    terminate(&server);
    let replies: Vec<Reply> = sockets.iter_mut().map(read_reply).collect();
    let errors = [("", "error"), ("error", "error"), ("response.failed", "response")];
    for (reply, (name, field)) in replies.iter().zip(errors) {
        let events: Vec<_> = reply.events().into_iter().filter(|(name, _)| name != "ping").collect();
        assert_eq!((events.len(), events[0].0.as_str()), (1, name), "{}", reply.body);
        assert!(serde_json::from_str::<Value>(&events[0].1).unwrap()[field].is_object(), "{}", reply.body);
    }
    for reply in &replies[3..] {
        assert_eq!((reply.status, &reply.json()["error"]["type"]), (503, &json!("overloaded_error")), "{reply:?}");
        assert!(reply.header("retry-after").is_some());
    }
    let cut = read_reply(&mut running).events();
    let last: Value = serde_json::from_str(&cut[cut.len() - 2].1).unwrap();
    assert_eq!(last["choices"][0]["x_stop_detail"], "cancelled", "{last}");
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn a_list_of_prompts_longer_than_the_queue_is_answered() {
    let server = Server::start(&["--slots", "2", "--queue", "1"]);
    let prompts: Vec<String> = (0..9).map(|i| format!("The ferry leaves at {i}")).collect();
    let request = json!({"prompt": prompts, "temperature": 0, "max_tokens": 5});
    let whole = server.post("/v1/completions", &request).json();
    let texts: Vec<&Value> = whole["choices"].as_array().unwrap().iter().map(|choice| &choice["text"]).collect();
    assert_eq!(texts.len(), 9, "{whole}");
    for (prompt, text) in prompts.iter().zip(texts) {
        assert_eq!(server.post("/v1/completions", &body(prompt, 5)).json()["choices"][0]["text"], *text, "{prompt}");
    }
    let mut streamed = request;
    streamed["stream"] = true.into();
    let events = server.post("/v1/completions", &streamed).events();
    let ends = events.iter().filter(|(_, data)| data.contains("\"finish_reason\":\"")).count();
    assert_eq!((ends, events.last().unwrap().1.as_str()), (9, "[DONE]"));
}

#[test]
fn a_request_that_takes_too_long_ends() {
    let server = Server::start(&["--slots", "1", "-c", "4096", "--request-time", "1"]);
    let long = "The ferry leaves the harbor. ".repeat(200);
    let embedded = server.post("/v1/embeddings", &json!({"input": vec![long; 64]}));
    assert_eq!((embedded.status, &embedded.json()["error"]["type"]), (503, &json!("overloaded_error")));
}
