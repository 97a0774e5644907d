//! The answer in one piece.

use moe_runtime::ToolCall;
use serde_json::{Value, json};

use super::request::Shape;
use crate::http::answer::{Score, Whole};
use crate::http::ids::Ids;

/// Around a thought that stands in the content.
pub(super) const THOUGHT: [&str; 2] = ["<think>", "</think>"];

pub(super) fn completion(shape: &Shape, answers: &[Whole]) -> Value {
    let choices: Value = answers.iter().enumerate().map(|(index, answer)| choice(index, answer, shape)).collect();
    shape.envelope.whole("chat.completion", choices, answers)
}

fn choice(index: usize, answer: &Whole, shape: &Shape) -> Value {
    let output = &answer.output;
    let mut message = json!({ "role": "assistant", "content": output.content });
    if !output.reasoning.is_empty() && shape.thoughts_in_content {
        let [start, end] = THOUGHT;
        message["content"] = format!("{start}{}{end}{}", output.reasoning, output.content).into();
    } else if !output.reasoning.is_empty() {
        message["reasoning_content"] = output.reasoning.as_str().into();
    }
    if !output.calls.is_empty() {
        message["tool_calls"] = output.calls.iter().map(call).collect();
    }
    let finish = &answer.ending.finish;
    let scores = || answer.scores.iter().map(Score::chat).collect::<Vec<Value>>();
    let logprobs = shape.logprobs.then(|| json!({ "content": scores(), "refusal": null }));
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
