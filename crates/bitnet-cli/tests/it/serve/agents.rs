//! Requests in the shapes that agents send, two turns each: a question, and the result of a tool behind it.
//!
//! `fixtures/requests/` has the shapes in words of our own; `cargo xtask prove clients` runs the agents themselves.

use std::io::Write;

use serde_json::Value;

use super::client::{Reply, Server, read_reply};
use super::thinker::thinker;

/// An agent and its requests.
struct Agent {
    requests: Value,
}

impl Agent {
    fn named(name: &str) -> Agent {
        let text = std::fs::read_to_string(fixtures::path(format!("requests/{name}.json"))).unwrap();
        Agent { requests: serde_json::from_str(&text).unwrap() }
    }

    fn path(&self) -> &str {
        self.requests["path"].as_str().unwrap()
    }

    fn headers(&self) -> Vec<(&str, &str)> {
        let headers = self.requests["headers"].as_object().unwrap();
        headers.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap())).collect()
    }

    fn turn(&self, number: usize) -> &Value {
        &self.requests["turns"][number]
    }

    fn ask(&self, server: &Server, number: usize) -> Vec<Value> {
        let body = self.turn(number).to_string();
        stream(&server.send("POST", self.path(), &self.headers(), body.as_bytes()))
    }
}

/// A server of two answers at a time, which end soon because this model ends none itself.
fn server() -> Server {
    Server::start_model(thinker(), &["--slots", "2", "--max-tokens", "8", "-c", "2048"])
}

/// The events of a stream, none of which is an error.
fn stream(reply: &Reply) -> Vec<Value> {
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("text/event-stream")), "{reply:?}");
    let events = reply.events().into_iter().filter(|(_, data)| data != "[DONE]");
    let events: Vec<Value> = events.map(|(_, data)| serde_json::from_str(&data).unwrap()).collect();
    assert!(events.iter().all(|event| event.get("error").is_none_or(Value::is_null)), "{reply:?}");
    events
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no number: {value}"))
}

/// Checks that the second turn computes no more of the first than its last block: the whole of it stands at the beginning of the
/// second prompt, whatever form its messages have there.
fn continues(prompts: [u64; 2], cached: u64) {
    assert!(prompts[0] > 128 && prompts[1] > prompts[0], "{prompts:?}");
    assert!(cached + 64 >= prompts[0], "{cached} of {prompts:?} tokens were kept");
}

#[test]
fn codex_sends_namespaces_tools_of_its_vendor_and_items_back() {
    let (server, agent) = (server(), Agent::named("codex"));
    let usage = [0, 1].map(|turn| {
        let events = agent.ask(&server, turn);
        assert_eq!(events[0]["type"], "response.created");
        let end = events.last().unwrap();
        assert_eq!(end["type"], "response.incomplete", "{end}");
        // A search of the vendor is left out of the tools, and the answer still names it.
        assert_eq!(end["response"]["tools"].as_array().unwrap().len(), 3, "{end}");
        end["response"]["usage"].clone()
    });
    continues(
        [0, 1].map(|i| number(&usage[i]["input_tokens"])),
        number(&usage[1]["input_tokens_details"]["cached_tokens"]),
    );
}

#[test]
fn claude_code_sends_a_system_message_between_the_others() {
    let (server, agent) = (server(), Agent::named("claude-code"));
    let usage = [0, 1].map(|turn| {
        let events = agent.ask(&server, turn);
        assert_eq!(events[0]["type"], "message_start");
        assert_eq!(events.last().unwrap()["type"], "message_stop");
        events[0]["message"]["usage"].clone()
    });
    let cached = number(&usage[1]["cache_read_input_tokens"]);
    let prompts = [number(&usage[0]["input_tokens"]), number(&usage[1]["input_tokens"]) + cached];
    // The second turn has the system message as text instead of blocks, and another number in its billing header.
    continues(prompts, cached);
}

#[test]
fn opencode_asks_for_a_title_beside_its_turn() {
    let (server, agent) = (server(), Agent::named("opencode"));
    let title = agent.requests["title"].to_string();
    let mut beside = server.connect();
    beside.write_all(&server.request("POST", agent.path(), &agent.headers(), title.as_bytes())).unwrap();
    let first = agent.ask(&server, 0);
    let title = stream(&read_reply(&mut beside));
    let second = agent.ask(&server, 1);
    let usage = [&first, &second, &title].map(|chunks| {
        let end = &chunks[chunks.len() - 2]["choices"][0];
        assert_eq!((&end["delta"], &end["finish_reason"]), (&serde_json::json!({}), &"length".into()), "{end}");
        chunks.last().unwrap()["usage"].clone()
    });
    continues(
        [0, 1].map(|i| number(&usage[i]["prompt_tokens"])),
        number(&usage[1]["prompt_tokens_details"]["cached_tokens"]),
    );
}
