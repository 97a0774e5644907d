//! The object `response`, whole and while it grows.

use serde_json::{Value, json};

use super::items;
use super::request::Shape;
use crate::http::answer::{Ending, Finish, Score, Usage, Whole};
use crate::http::ids::Ids;

pub(super) fn whole(shape: &Shape, answer: &Whole) -> Value {
    let output = &answer.output;
    let mut list = Vec::new();
    // The last item is the one that the end of the answer cuts; calls are whole.
    let last = |is_last: bool| if is_last { status(&answer.ending) } else { "completed" };
    let has_calls = !output.calls.is_empty();
    if !output.reasoning.is_empty() {
        let status = last(output.content.is_empty() && !has_calls);
        list.push(items::reasoning(shape, &Ids::make("rs_"), &output.reasoning, status));
    }
    if !output.content.is_empty() {
        let scores = answer.text_scores.iter().flat_map(|range| &answer.scores[range.clone()]);
        let scores: Vec<Value> = scores.filter(|_| shape.has_scores).map(Score::chat).collect();
        list.push(items::message(&Ids::make("msg_"), Some((&output.content, &scores)), last(!has_calls)));
    }
    for call in &output.calls {
        let called = shape.tools.called(&call.name);
        let arguments = items::arguments(&called, call);
        list.push(items::call(&called, [&Ids::make("fc_"), &Ids::make("call_")], &arguments, "completed"));
    }
    ended(shape, list, &answer.ending)
}

/// The object before its first item.
pub(super) fn begun(shape: &Shape) -> Value {
    response(shape, "in_progress", Vec::new())
}

/// The object with all items.
pub(super) fn ended(shape: &Shape, output: Vec<Value>, ending: &Ending) -> Value {
    let mut object = response(shape, status(ending), output);
    if object["status"] == "incomplete" {
        object["incomplete_details"] = json!({ "reason": "max_output_tokens" });
    }
    object["usage"] = usage(&ending.usage);
    object
}

/// Whether an answer came to its end, in the words of the API.
pub(super) fn status(ending: &Ending) -> &'static str {
    match ending.finish {
        Finish::Stop | Finish::StopString(_) | Finish::Calls | Finish::Loop => "completed",
        Finish::Length | Finish::Context | Finish::Cancelled => "incomplete",
    }
}

/// The object of an answer that failed.
pub(super) fn failed(shape: &Shape, message: &str) -> Value {
    let mut object = response(shape, "failed", Vec::new());
    object["error"] = json!({ "code": "server_error", "message": message });
    object
}

fn response(shape: &Shape, status: &str, output: Vec<Value>) -> Value {
    let mut object = json!({
        "id": shape.id,
        "object": "response",
        "created_at": shape.created_s,
        "status": status,
        "error": null,
        "incomplete_details": null,
        "model": shape.model,
        "output": output,
        "usage": null,
        "prompt_cache_diagnostics": shape.divergence.openai(),
    });
    if let Some(object) = object.as_object_mut() {
        object.extend(shape.echoed.clone());
    }
    object
}

fn usage(usage: &Usage) -> Value {
    json!({
        "input_tokens": usage.prompt,
        "input_tokens_details": { "cached_tokens": usage.cached, "cache_write_tokens": 0 },
        "output_tokens": usage.answer,
        "output_tokens_details": { "reasoning_tokens": usage.reasoning },
        "total_tokens": usage.prompt + usage.answer,
    })
}
