//! The content of an answer, out of a whole one and out of the events of a stream, as a client of each dialect reads it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// The content of one answer of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct View {
    reasoning: String,
    content: String,
    /// The tools that are called, each with its arguments.
    calls: Vec<(String, Value)>,
    /// The scores of the tokens, where the request asked for them.
    scores: Vec<Value>,
    /// The reason for the end, and all that is told with it.
    end: Vec<Value>,
}

/// The answers of a request by their number, and its usage.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Views {
    answers: BTreeMap<u64, View>,
    usage: Value,
}

/// The data of the events of a stream.
///
/// # Panics
/// For a stream that has other lines, or an event of an error.
fn data(stream: &str) -> Vec<Value> {
    let mut all = Vec::new();
    for frame in stream.split_terminator("\n\n").filter(|frame| !frame.starts_with(':')) {
        let (name, data) = match frame.split_once('\n') {
            Some((name, data)) => (name.strip_prefix("event: "), data),
            None => (None, frame),
        };
        let text = data.strip_prefix("data: ").unwrap_or_else(|| panic!("{frame:?} has no data"));
        if text == "[DONE]" {
            continue;
        }
        let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert!(value.get("error").is_none_or(Value::is_null) && value["type"] != "error", "{value}");
        assert!(name.is_none_or(|name| value["type"] == name), "{frame}");
        all.push(value);
    }
    all
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The value that a text of JSON has; the text itself where it is none.
fn parsed(arguments: &str) -> Value {
    serde_json::from_str(arguments).unwrap_or_else(|_| arguments.into())
}

pub(super) fn whole_chat(answer: &Value) -> Views {
    let mut views = Views { usage: answer["usage"].clone(), ..Views::default() };
    for choice in list(&answer["choices"]) {
        let message = &choice["message"];
        let call = |call: &Value| {
            let function = &call["function"];
            (text(&function["name"]).to_owned(), parsed(text(&function["arguments"])))
        };
        let view = View {
            reasoning: text(&message["reasoning_content"]).to_owned(),
            content: text(&message["content"]).to_owned(),
            calls: list(&message["tool_calls"]).iter().map(call).collect(),
            scores: list(&choice["logprobs"]["content"]).to_vec(),
            end: vec![choice["finish_reason"].clone(), choice["x_stop_detail"].clone()],
        };
        views.answers.insert(choice["index"].as_u64().expect("a number"), view);
    }
    views
}

pub(super) fn streamed_chat(stream: &str) -> Views {
    let mut views = Views::default();
    // Arguments come in pieces of text.
    let mut arguments: BTreeMap<(u64, u64), String> = BTreeMap::new();
    for chunk in data(stream) {
        if !chunk["usage"].is_null() {
            views.usage = chunk["usage"].clone();
        }
        for choice in list(&chunk["choices"]) {
            let index = choice["index"].as_u64().expect("a number");
            let (view, delta) = (views.answers.entry(index).or_default(), &choice["delta"]);
            view.reasoning += text(&delta["reasoning_content"]);
            view.content += text(&delta["content"]);
            view.scores.extend_from_slice(list(&choice["logprobs"]["content"]));
            for call in list(&delta["tool_calls"]) {
                let number = call["index"].as_u64().expect("a number");
                if call.get("id").is_some() {
                    assert_eq!(number, view.calls.len() as u64, "calls come in their order");
                    view.calls.push((text(&call["function"]["name"]).to_owned(), Value::Null));
                }
                *arguments.entry((index, number)).or_default() += text(&call["function"]["arguments"]);
            }
            if !choice["finish_reason"].is_null() {
                view.end = vec![choice["finish_reason"].clone(), choice["x_stop_detail"].clone()];
            }
        }
    }
    for ((index, number), text) in arguments {
        let view = views.answers.get_mut(&index).expect("a choice with calls");
        view.calls[usize::try_from(number).expect("a small number")].1 = parsed(&text);
    }
    views
}

/// The four lists of scores of a completion as rows.
fn rows(scores: &Value) -> Vec<Value> {
    let lists = ["tokens", "token_logprobs", "top_logprobs", "text_offset"].map(|name| list(&scores[name]));
    assert!(lists.iter().all(|list| list.len() == lists[0].len()), "{scores}");
    (0..lists[0].len()).map(|row| lists.iter().map(|list| list[row].clone()).collect()).collect()
}

fn completion(chunk: &Value, views: &mut Views) {
    if !chunk["usage"].is_null() {
        views.usage = chunk["usage"].clone();
    }
    for choice in list(&chunk["choices"]) {
        let view = views.answers.entry(choice["index"].as_u64().expect("a number")).or_default();
        view.content += text(&choice["text"]);
        view.scores.extend(rows(&choice["logprobs"]));
        if !choice["finish_reason"].is_null() {
            view.end = vec![choice["finish_reason"].clone(), choice["x_stop_detail"].clone()];
        }
    }
}

pub(super) fn whole_completion(answer: &Value) -> Views {
    let mut views = Views::default();
    completion(answer, &mut views);
    views
}

pub(super) fn streamed_completion(stream: &str) -> Views {
    let mut views = Views::default();
    data(stream).iter().for_each(|chunk| completion(chunk, &mut views));
    views
}

fn one(view: View, usage: &Value) -> Views {
    Views { answers: BTreeMap::from([(0, view)]), usage: usage.clone() }
}

pub(super) fn whole_message(answer: &Value) -> Views {
    let mut view =
        View { end: vec![answer["stop_reason"].clone(), answer["stop_sequence"].clone()], ..View::default() };
    for block in list(&answer["content"]) {
        match text(&block["type"]) {
            "thinking" => view.reasoning += text(&block["thinking"]),
            "text" => view.content += text(&block["text"]),
            "tool_use" => view.calls.push((text(&block["name"]).to_owned(), block["input"].clone())),
            other => panic!("a block of type {other}"),
        }
    }
    one(view, &answer["usage"])
}

pub(super) fn streamed_message(stream: &str) -> Views {
    let (mut view, mut usage, mut input) = (View::default(), Value::Null, None);
    // The block that is open, and the number of the next one.
    let (mut open, mut next) = (None, 0);
    for event in data(stream) {
        let index = event["index"].as_u64();
        match text(&event["type"]) {
            "content_block_start" => {
                assert_eq!((open, index), (None, Some(next)), "{event}");
                (open, next) = (index, next + 1);
                let block = &event["content_block"];
                if block["type"] == "tool_use" {
                    view.calls.push((text(&block["name"]).to_owned(), json!({})));
                    input = Some(String::new());
                }
            }
            "content_block_delta" => {
                assert_eq!((open, open.is_some()), (index, true), "{event}");
                let delta = &event["delta"];
                view.reasoning += text(&delta["thinking"]);
                view.content += text(&delta["text"]);
                if let Some(input) = &mut input {
                    *input += text(&delta["partial_json"]);
                }
            }
            "content_block_stop" => {
                assert_eq!((open.take(), index.is_some()), (index, true), "{event}");
                if let (Some(input), Some(call)) = (input.take(), view.calls.last_mut()) {
                    call.1 = parsed(&input);
                }
            }
            "message_delta" => {
                view.end = vec![event["delta"]["stop_reason"].clone(), event["delta"]["stop_sequence"].clone()];
                usage = event["usage"].clone();
            }
            "message_start" | "message_stop" | "ping" => {}
            other => panic!("an event of type {other}"),
        }
    }
    assert_eq!(open, None, "a block that is never closed");
    one(view, &usage)
}

pub(super) fn whole_response(answer: &Value) -> Views {
    let mut view =
        View { end: vec![answer["status"].clone(), answer["incomplete_details"].clone()], ..View::default() };
    for item in list(&answer["output"]) {
        let texts = list(&item["content"]).iter().map(|part| text(&part["text"]));
        match text(&item["type"]) {
            "reasoning" => view.reasoning.extend(texts),
            "message" => {
                view.content.extend(texts);
                let scores = list(&item["content"]).iter().flat_map(|part| list(&part["logprobs"]));
                view.scores.extend(scores.cloned());
            }
            "function_call" => view.calls.push((text(&item["name"]).to_owned(), parsed(text(&item["arguments"])))),
            "custom_tool_call" => view.calls.push((text(&item["name"]).to_owned(), item["input"].clone())),
            other => panic!("an item of type {other}"),
        }
    }
    // The tokens of a call belong to no text.
    let has_markup = |text: &str| text.contains("<tool_call>");
    let is_told = view.scores.iter().any(|score| has_markup(text(&score["token"])));
    assert!(!is_told || has_markup(&view.content), "{answer}");
    one(view, &answer["usage"])
}

pub(super) fn streamed_response(stream: &str) -> Views {
    let (mut pieces, mut last) = (View::default(), Value::Null);
    for (number, event) in data(stream).into_iter().enumerate() {
        assert_eq!(event["sequence_number"].as_u64(), Some(number as u64), "{event}");
        match text(&event["type"]) {
            "response.reasoning_text.delta" => pieces.reasoning += text(&event["delta"]),
            "response.output_text.delta" => {
                pieces.content += text(&event["delta"]);
                pieces.scores.extend_from_slice(list(&event["logprobs"]));
            }
            "response.output_item.added" if text(&event["item"]["type"]).ends_with("_call") => {
                pieces.calls.push((text(&event["item"]["name"]).to_owned(), Value::Null));
            }
            "response.function_call_arguments.delta" => {
                pieces.calls.last_mut().expect("a call has begun").1 = parsed(text(&event["delta"]));
            }
            "response.custom_tool_call_input.delta" => {
                pieces.calls.last_mut().expect("a call has begun").1 = event["delta"].clone();
            }
            "response.completed" | "response.incomplete" => last = event["response"].clone(),
            _ => {}
        }
    }
    let views = whole_response(&last);
    // The pieces are those of the object at the end.
    let whole = &views.answers[&0];
    let parts = |view: &View| (view.reasoning.clone(), view.content.clone(), view.calls.clone(), view.scores.clone());
    assert_eq!(parts(&pieces), parts(whole));
    views
}
