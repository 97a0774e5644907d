//! The answer in chunks.

use std::time::Instant;

use moe_runtime::{JobStart, OutputEvent, ToolCall};
use serde_json::{Value, json};

use super::request::Shape;
use super::whole::THOUGHT;
use crate::http::answer::{Ending, Happening, Score, cache_text};
use crate::http::failure::Vendor;
use crate::http::ids::Ids;
use crate::http::stream::{Encoder, Frames};

const OBJECT: &str = "chat.completion.chunk";

pub(super) struct ChunkWriter {
    shape: Shape,
    starts: Vec<Option<(JobStart, Instant)>>,
    /// Answers whose thought is open in the content.
    thinking: Vec<bool>,
    endings: Vec<Ending>,
}

impl ChunkWriter {
    pub(super) fn new(shape: Shape) -> ChunkWriter {
        let n = shape.choices;
        ChunkWriter { shape, starts: vec![None; n], thinking: vec![false; n], endings: Vec::new() }
    }

    fn chunk(&self, choices: Value) -> Value {
        self.shape.envelope.chunk(OBJECT, choices)
    }

    fn delta(&self, choice: usize, delta: Value, out: &mut Frames) {
        self.scored_delta(choice, delta, None, out);
    }

    fn scored_delta(&self, choice: usize, delta: Value, score: Option<&Score>, out: &mut Frames) {
        let logprobs = score.map(|score| json!({ "content": [score.chat()], "refusal": null }));
        let choice = json!({ "index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": null });
        out.data(&self.chunk(json!([choice])));
    }

    /// The score of a token goes with the first text that came with it, or with empty text.
    fn output(&mut self, choice: usize, events: Vec<OutputEvent>, mut score: Option<Score>, out: &mut Frames) {
        for event in events {
            match event {
                OutputEvent::Reasoning(text) if self.shape.thoughts_in_content => {
                    let start = if self.thinking[choice] { "" } else { THOUGHT[0] };
                    self.thinking[choice] = true;
                    self.delta(choice, json!({ "content": format!("{start}{text}") }), out);
                    continue;
                }
                _ => self.end_thought(choice, out),
            }
            match event {
                OutputEvent::Reasoning(text) => self.delta(choice, json!({ "reasoning_content": text }), out),
                OutputEvent::Content(text) => {
                    self.scored_delta(choice, json!({ "content": text }), score.take().as_ref(), out);
                }
                OutputEvent::Call(call) => self.call(choice, &call, out),
            }
        }
        if let Some(score) = score {
            self.scored_delta(choice, json!({ "content": "" }), Some(&score), out);
        }
    }

    fn end_thought(&mut self, choice: usize, out: &mut Frames) {
        if std::mem::take(&mut self.thinking[choice]) {
            self.delta(choice, json!({ "content": THOUGHT[1] }), out);
        }
    }

    /// A call has its name in one chunk and its arguments in the next: some clients join the names of all chunks.
    fn call(&self, choice: usize, call: &ToolCall, out: &mut Frames) {
        let function = json!({ "name": call.name, "arguments": "" });
        let first = json!({ "index": call.index, "id": Ids::make("call_"), "type": "function", "function": function });
        self.delta(choice, json!({ "tool_calls": [first] }), out);
        let rest = json!({ "index": call.index, "function": { "arguments": call.arguments } });
        self.delta(choice, json!({ "tool_calls": [rest] }), out);
    }

    fn progress(&self, choice: usize, done: usize, out: &mut Frames) {
        let Some((start, time)) = self.starts[choice].filter(|_| self.shape.return_progress) else { return };
        let mut chunk = self.chunk(json!([]));
        chunk["prompt_progress"] = json!({
            "total": start.prompt_tokens,
            "cache": start.cached_tokens,
            "processed": done,
            "time_ms": time.elapsed().as_millis() as u64,
        });
        out.data(&chunk);
    }

    fn end(&mut self, choice: usize, ending: Ending, out: &mut Frames) {
        self.end_thought(choice, out);
        let mut last =
            json!({ "index": choice, "delta": {}, "logprobs": null, "finish_reason": ending.finish.openai() });
        if let Some(detail) = ending.finish.detail() {
            last["x_stop_detail"] = detail.into();
        }
        let mut chunk = self.chunk(json!([last]));
        chunk["timings"] = ending.timings();
        out.data(&chunk);
        self.endings.push(ending);
    }
}

impl Encoder for ChunkWriter {
    fn take(&mut self, choice: usize, happening: Happening, out: &mut Frames) {
        match happening {
            Happening::Started(start, miss) => {
                if choice == 0 {
                    let computed = start.prompt_tokens - start.cached_tokens;
                    out.comment(&format!("x-cache: {}", cache_text(start.cached_tokens, computed, miss)));
                }
                self.starts[choice] = Some((start, Instant::now()));
                self.delta(choice, json!({ "role": "assistant", "content": "" }), out);
            }
            Happening::Prompt { done } => self.progress(choice, done, out),
            Happening::PromptScore { .. } => {}
            Happening::Output(events, score) => self.output(choice, events, score, out),
            Happening::Ended(ending) => self.end(choice, ending, out),
            Happening::Failed(failure) => out.data(&json!({ "error": failure.error(Vendor::OpenAi) })),
        }
    }

    fn finish(&mut self, out: &mut Frames) {
        if let Some(chunk) = self.shape.envelope.usage_chunk(OBJECT, self.endings.iter()) {
            out.data(&chunk);
        }
        out.text("[DONE]");
    }
}
