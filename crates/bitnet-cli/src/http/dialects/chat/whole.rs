//! The answer in one piece.

use moe_runtime::ToolCall;
use serde_json::{Value, json};

use super::request::Shape;
use crate::http::answer::{Score, Whole, total_usage};
use crate::http::ids::Ids;

pub(super) fn completion(shape: &Shape, answers: &[Whole]) -> Value {
    let choices: Vec<Value> =
        answers.iter().enumerate().map(|(index, answer)| choice(index, answer, shape.logprobs)).collect();
    let usage = total_usage(answers.iter().map(|answer| &answer.ending), shape.choices);
    let mut object = json!({
        "id": shape.id,
        "object": "chat.completion",
        "created": shape.created_s,
        "model": shape.model,
        "system_fingerprint": shape.fingerprint,
        "choices": choices,
        "usage": usage.openai(),
    });
    if let [answer] = answers {
        object["timings"] = answer.ending.timings();
    }
    object
}

fn choice(index: usize, answer: &Whole, with_scores: bool) -> Value {
    let output = &answer.output;
    let mut message = json!({ "role": "assistant", "content": output.content });
    if !output.reasoning.is_empty() {
        message["reasoning_content"] = output.reasoning.as_str().into();
    }
    if !output.calls.is_empty() {
        message["tool_calls"] = output.calls.iter().map(call).collect();
    }
    let finish = &answer.ending.finish;
    let scores = || answer.scores.iter().map(Score::chat).collect::<Vec<Value>>();
    let logprobs = with_scores.then(|| json!({ "content": scores(), "refusal": null }));
    let mut choice = json!({
        "index": index,
        "message": message,
        "logprobs": logprobs,
        "finish_reason": finish.openai(),
    });
    if let Some(detail) = finish.detail() {
        choice["x_stop_detail"] = detail.into();
    }
    choice
}

fn call(call: &ToolCall) -> Value {
    json!({
        "id": Ids::make("call_"),
        "type": "function",
        "function": { "name": call.name, "arguments": call.arguments },
    })
}
