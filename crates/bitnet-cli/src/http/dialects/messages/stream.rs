//! The answer in blocks.
//!
//! ```text
//! message_start (content_block_start content_block_delta* content_block_stop)* message_delta message_stop
//! ```

use moe_runtime::{JobStart, OutputEvent, ToolCall};
use serde_json::{Value, json};

use super::request::Shape;
use super::whole::{stop_sequence, usage_of};
use crate::http::answer::{Ending, Happening, Usage};
use crate::http::failure::Vendor;
use crate::http::ids::Ids;
use crate::http::stream::{Encoder, Frames};

/// Writes the events of a message.
pub(super) struct BlockWriter {
    shape: Shape,
    /// The block that is open.
    open: Option<Open>,
    /// Number of the next block.
    next: usize,
}

enum Open {
    /// The thought so far, for its seal.
    Thinking(String),
    Text,
}

impl BlockWriter {
    pub(super) fn new(shape: Shape) -> BlockWriter {
        BlockWriter { shape, open: None, next: 0 }
    }

    fn start(&self, start: &JobStart, out: &mut Frames) {
        let usage = Usage { prompt: start.prompt_tokens, cached: start.cached_tokens, ..Usage::default() };
        let message = json!({
            "id": self.shape.id,
            "type": "message",
            "role": "assistant",
            "model": self.shape.model,
            "content": [],
            "stop_reason": null,
            "stop_sequence": null,
            "usage": usage_of(&usage),
            "diagnostics": self.shape.divergence.anthropic(),
        });
        out.event(&json!({ "type": "message_start", "message": message }));
        out.event(&json!({ "type": "ping" }));
    }

    fn begin_block(&mut self, block: Value, out: &mut Frames) {
        out.event(&json!({ "type": "content_block_start", "index": self.next, "content_block": block }));
        self.next += 1;
    }

    fn delta(&self, delta: Value, out: &mut Frames) {
        out.event(&json!({ "type": "content_block_delta", "index": self.next - 1, "delta": delta }));
    }

    fn end_block(&mut self, out: &mut Frames) {
        let Some(open) = self.open.take() else { return };
        if let Open::Thinking(thought) = open {
            let signature = self.shape.seal.close(&thought);
            self.delta(json!({ "type": "signature_delta", "signature": signature }), out);
        }
        out.event(&json!({ "type": "content_block_stop", "index": self.next - 1 }));
    }

    fn think(&mut self, text: &str, out: &mut Frames) {
        if !matches!(self.open, Some(Open::Thinking(_))) {
            self.end_block(out);
            self.begin_block(json!({ "type": "thinking", "thinking": "", "signature": "" }), out);
            self.open = Some(Open::Thinking(String::new()));
        }
        if let Some(Open::Thinking(thought)) = &mut self.open {
            thought.push_str(text);
        }
        self.delta(json!({ "type": "thinking_delta", "thinking": text }), out);
    }

    fn text(&mut self, text: &str, out: &mut Frames) {
        if !matches!(self.open, Some(Open::Text)) {
            self.end_block(out);
            self.begin_block(json!({ "type": "text", "text": "" }), out);
            self.open = Some(Open::Text);
        }
        self.delta(json!({ "type": "text_delta", "text": text }), out);
    }

    fn call(&mut self, call: &ToolCall, out: &mut Frames) {
        self.end_block(out);
        let id = Ids::make("toolu_");
        self.begin_block(json!({ "type": "tool_use", "id": id, "name": call.name, "input": {} }), out);
        self.delta(json!({ "type": "input_json_delta", "partial_json": call.arguments }), out);
        out.event(&json!({ "type": "content_block_stop", "index": self.next - 1 }));
    }

    fn end(&mut self, ending: &Ending, out: &mut Frames) {
        self.end_block(out);
        let finish = &ending.finish;
        let delta = json!({ "stop_reason": finish.anthropic(), "stop_sequence": stop_sequence(finish) });
        out.event(&json!({ "type": "message_delta", "delta": delta, "usage": usage_of(&ending.usage) }));
    }
}

impl Encoder for BlockWriter {
    const PING: &str = "event: ping\ndata: {\"type\":\"ping\"}\n\n";

    fn take(&mut self, _choice: usize, happening: Happening, out: &mut Frames) {
        match happening {
            Happening::Started(start, _) => self.start(&start, out),
            Happening::Prompt { .. } | Happening::PromptScore { .. } => {}
            Happening::Output(events, _) => {
                for event in events {
                    match event {
                        OutputEvent::Reasoning(text) => self.think(&text, out),
                        OutputEvent::Content(text) => self.text(&text, out),
                        OutputEvent::Call(call) => self.call(&call, out),
                    }
                }
            }
            Happening::Ended(ending) => self.end(&ending, out),
            Happening::Failed(failure) => {
                out.event(&failure.body(Vendor::Anthropic, &Ids::make("req_")));
            }
        }
    }

    fn finish(&mut self, out: &mut Frames) {
        out.event(&json!({ "type": "message_stop" }));
    }
}
