//! The server about itself: counts, slots, settings, and the names of fields without effect.

use std::io::Read;

use serde_json::{Value, json};

use super::client::Server;
use super::running::{begin, long_answer, until};

fn requests(route: &str, status: u16, finish: &str) -> String {
    format!("bitnet_request_total{{route=\"{route}\",status=\"{status}\",finish=\"{finish}\"}}")
}

#[test]
fn a_request_is_counted_with_the_end_of_its_answer() {
    let server = Server::start(&["--slots", "1", "-c", "4096", "--metrics-vllm"]);
    assert_eq!(server.metric("vllm:kv_cache_usage_perc"), 0.0);
    let body = json!({"prompt": "The ferry leaves the harbor", "temperature": 0, "max_tokens": 4});
    let text = server.post("/v1/completions", &body).json()["choices"][0]["text"].as_str().unwrap().to_owned();
    let mut stopped = body.clone();
    stopped["stop"] = text[1..].into();
    stopped["stream"] = true.into();
    server.post("/v1/completions", &stopped);
    server.post("/v1/completions", &json!({"prompt": 7}));
    for (status, finish) in [(200, "length"), (200, "stop_string"), (400, "none")] {
        until(&server, &requests("/v1/completions", status, finish), 1.0);
    }

    // One answer is left while it runs, and one before it has a slot.
    let (request, mut running) = long_answer(&server, 4000);
    running.read_exact(&mut [0; 2000]).unwrap();
    let used = server.metric("vllm:kv_cache_usage_perc");
    assert!(used > 0.0 && used <= 1.0, "{used}");
    let waiting = begin(&server, "/v1/chat/completions", &request);
    until(&server, "bitnet_requests_waiting", 1.0);
    drop(waiting);
    until(&server, "bitnet_cancelled_total{phase=\"queue\"}", 1.0);
    drop(running);
    until(&server, "bitnet_cancelled_total{phase=\"decode\"}", 1.0);
    until(&server, &requests("/v1/chat/completions", 200, "cancelled"), 2.0);
    until(&server, "vllm:kv_cache_usage_perc", 0.0);

    // The state behind the first answer is told before the second one begins.
    let long = json!({"prompt": "The ferry leaves the harbor. ".repeat(30), "max_tokens": 1});
    (0..2).for_each(|_| assert_eq!(server.post("/v1/completions", &long).status, 200));
    for tier in ["slot", "ram"] {
        assert!(server.metric(&format!("bitnet_kv_blocks{{tier=\"{tier}\"}}")) >= 2.0, "{tier}");
    }
    let [rss, peak] = ["bitnet_rss_bytes", "bitnet_peak_rss_bytes"].map(|name| server.metric(name));
    assert!(rss > 1e6 && rss <= peak, "{rss} of {peak}");
    let [steps, experts] = ["count", "sum"].map(|part| server.metric(&format!("bitnet_experts_distinct_{part}")));
    let chosen = experts / steps;
    assert!(chosen >= 2.0 && chosen.is_finite(), "each row reads several experts: {experts} in {steps} steps");
}

#[test]
fn slots_and_settings_are_told_where_that_is_asked_for() {
    let closed = Server::start(&[]);
    assert_eq!([closed.get("/slots").status, closed.get("/props").status], [404, 404]);
    drop(closed);
    let server = Server::start(&["--debug-endpoints", "--slots", "2", "-c", "4096", "--temp", "0.5"]);
    let slots = server.get("/slots").json();
    assert_eq!(slots.as_array().unwrap().len(), 2, "{slots}");
    assert!(slots[0]["is_processing"] == false && slots[1]["id"] == 1 && slots[0]["n_ctx"] == 4096, "{slots}");
    let (_, running) = long_answer(&server, 4000);
    let busy =
        || server.get("/slots").json().as_array().unwrap().iter().any(|slot| slot["n_decoded"].as_u64() > Some(0));
    while !busy() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let text = server.get("/slots").body;
    assert!(text.contains("\"is_processing\":true") && !text.contains("ferry"), "{text}");
    drop(running);
    let props = server.get("/props").json();
    let params = &props["default_generation_settings"]["params"];
    assert_eq!((&props["total_slots"], &params["temperature"]), (&json!(2), &json!(0.5)), "{props}");
    assert!(props["chat_template"].as_str().unwrap().contains("messages"));
}

#[test]
fn fields_without_effect_are_named_once_and_their_text_never() {
    let server = Server::start(&[]);
    let secret = "private words";
    let ask = |more: Value| {
        let mut body = json!({"messages": [{"role": "user", "content": secret}], "max_tokens": 1, "seed": 1});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(server.post("/v1/chat/completions", &body).status, 200);
    };
    ask(json!({"verbosity": secret, "service_tier": null, "a text of a user": 1}));
    ask(json!({"verbosity": secret, "store": true}));
    let said = server.said("store");
    let named: Vec<&String> = said.iter().filter(|line| line.contains("without effect")).collect();
    assert_eq!(named.len(), 2, "{said:?}");
    assert!(named[0].ends_with("/v1/chat/completions: fields without effect: verbosity"), "{named:?}");
    assert!(named[1].ends_with(": store"), "{named:?}");
    assert!(said.iter().all(|line| !line.contains("private") && !line.contains("a text")), "{said:?}");
}
