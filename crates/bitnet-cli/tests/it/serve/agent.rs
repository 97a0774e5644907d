//! The conversation of an agent: every turn sends all turns before it, and only the new ones are computed.

use serde_json::{Value, json};

use super::client::Server;

const TURNS: usize = 20;
const SYSTEM: &str = "You keep the log of a harbor.";

/// The request of an agent with this system prompt and these messages, behind the answer `previous`.
fn request(system: &str, messages: &[Value], previous: Option<&str>) -> Value {
    json!({
        "system": system,
        "messages": messages,
        "max_tokens": 8,
        "temperature": 0,
        "diagnostics": {"previous_message_id": previous},
    })
}

/// Tokens of a prompt that were sent and that were computed.
fn tokens(answer: &Value) -> (u64, u64) {
    let usage = |name: &str| answer["usage"][name].as_u64().unwrap();
    (usage("input_tokens") + usage("cache_read_input_tokens"), usage("input_tokens"))
}

#[test]
fn twenty_turns_compute_what_is_new_and_a_restart_computes_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let more = ["-c", "4096", "--prompt-cache", dir.path().to_str().unwrap()];
    let server = Server::start(&more);
    let (mut messages, mut previous) = (Vec::new(), None::<String>);
    let (mut sent, mut computed, mut last) = (0, 0, 0);
    for turn in 0..TURNS {
        messages
            .push(json!({"role": "user", "content": format!("Ship {turn} leaves the harbor with the tide. Log it.")}));
        let answer = server.post("/v1/messages", &request(SYSTEM, &messages, previous.as_deref())).json();
        assert!(answer["diagnostics"].is_null(), "turn {turn}: {answer}");
        let (prompt, new) = tokens(&answer);
        // A block that is not full is computed again.
        assert!(turn == 0 || prompt - new + 64 >= last, "turn {turn}: {new} of {prompt} tokens, behind {last}");
        (sent, computed, last) = (sent + prompt, computed + new, prompt);
        let text = answer["content"][0]["text"].as_str().unwrap_or("done").to_owned();
        messages.push(json!({"role": "assistant", "content": text}));
        previous = answer["id"].as_str().map(str::to_owned);
    }
    assert!(computed * 3 < sent, "{computed} of {sent} tokens were computed");

    // The first part that changed is named, with the tokens behind it.
    messages.push(json!({"role": "user", "content": "Which ship was first?"}));
    let ask = |server: &Server, system: &str| {
        server.post("/v1/messages", &request(system, &messages, previous.as_deref())).json()
    };
    let reason = ask(&server, "You keep the log of a lake.")["diagnostics"]["cache_miss_reason"].clone();
    assert_eq!(reason["type"], "system_changed", "{reason}");
    let missed = reason["cache_missed_input_tokens"].as_u64().unwrap();
    assert!(missed > last / 2 && missed <= last, "{missed} of {last}");

    drop(server);
    let server = Server::start(&more);
    let answer = ask(&server, SYSTEM);
    assert_eq!(answer["diagnostics"]["cache_miss_reason"]["type"], "previous_message_not_found");
    let (prompt, new) = tokens(&answer);
    assert!(prompt - new + 128 >= last, "after the restart {new} of {prompt} tokens were computed");
}

#[test]
fn responses_and_chats_tell_what_was_cached() {
    let server = Server::start(&["-c", "4096"]);
    let long = "The ferry leaves the harbor with the tide. ".repeat(30);
    let ask = |input: &str, compared: Option<&Value>| {
        let options = json!({"comparison_response_id": compared});
        let body = json!({"input": input, "max_output_tokens": 4, "temperature": 0, "prompt_cache_options": options});
        server.post("/v1/responses", &body).json()
    };
    let first = ask(&long, None);
    assert!(first["prompt_cache_diagnostics"].is_null(), "{first}");
    let second = ask(&long, Some(&first["id"]));
    assert_eq!(second["prompt_cache_diagnostics"], json!({"type": "cache_hit"}));
    let other = ask(&format!("Not {long}"), Some(&first["id"]));
    assert_eq!(other["prompt_cache_diagnostics"]["reason"], "input_changed", "{other}");
    let lost = ask(&long, Some(&json!("resp_of_another_server")));
    assert_eq!(lost["prompt_cache_diagnostics"]["type"], "comparison_response_not_found");

    let chat = json!({"messages": [{"role": "user", "content": long}], "max_tokens": 2, "temperature": 0});
    let reply = server.post("/v1/chat/completions", &chat);
    let usage = &reply.json()["usage"];
    let (prompt, hit) = (&usage["prompt_tokens"], &usage["prompt_tokens_details"]["cached_tokens"]);
    let miss = prompt.as_u64().unwrap() - hit.as_u64().unwrap();
    assert_eq!(reply.header("x-cache"), Some(format!("hit={hit} miss={miss} reason=new").as_str()));
}

#[test]
fn a_miss_has_a_reason_in_whole_answers_in_streams_and_in_the_counts() {
    // The memory holds 10 blocks of this model, one prompt takes about 8, and there is one slot.
    let server = Server::start(&["-c", "4096", "--slots", "1", "--prompt-cache-ram", "2MB"]);
    let long = |name: &str| format!("The ship {name} leaves the harbor with the tide. ").repeat(40);
    let ask = |system: &str, text: &str, stream: bool| {
        let messages = json!([{"role": "system", "content": system}, {"role": "user", "content": text}]);
        let body = json!({"messages": messages, "max_tokens": 1, "temperature": 0, "stream": stream,
                          "prompt_cache_key": "log"});
        let reply = server.post("/v1/chat/completions", &body);
        let comment = reply.body.lines().next().unwrap().strip_prefix(": x-cache: ").map(str::to_owned);
        let told = if stream { comment } else { reply.header("x-cache").map(str::to_owned) };
        let told = told.unwrap_or_else(|| panic!("{reply:?}"));
        let (hit, rest) = told.strip_prefix("hit=").unwrap().split_once(" miss=").unwrap();
        let (miss, reason) = rest.split_once(" reason=").unwrap();
        (hit.parse::<u64>().unwrap(), miss.parse::<u64>().unwrap(), reason.to_owned())
    };
    let mut counts = std::collections::BTreeMap::new();
    for (system, name, stream, want) in [
        ("Log it.", "Anna", false, "new"),
        ("Log it.", "Anna", true, "new"),
        ("Do not log it.", "Anna", true, "system_changed"),
        ("Do not log it.", "Berta", false, "messages_changed"),
        ("Log it.", "Anna", false, "evicted"),
    ] {
        let (hit, miss, reason) = ask(system, &long(name), stream);
        assert_eq!(reason, want, "{system} {name}: hit {hit}, miss {miss}");
        assert_eq!(hit > 0 && miss < 64, (stream, want) == (true, "new"), "{hit} {miss}");
        *counts.entry(want).or_insert(0.0) += 1.0;
    }
    for (reason, n) in counts {
        super::running::until(&server, &format!("bitnet_cache_miss_total{{reason=\"{reason}\"}}"), n);
    }
    // Scores of a prompt are computed, whatever is kept.
    server.post("/v1/completions", &json!({"prompt": long("Anna"), "max_tokens": 0, "echo": true, "logprobs": 1}));
    super::running::until(&server, "bitnet_cache_miss_total{reason=\"scored\"}", 1.0);
}
