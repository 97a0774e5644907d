//! The answer in events, numbered from 0.

use moe_runtime::{OutputEvent, ToolCall};
use serde_json::{Value, json};

use super::items;
use super::object;
use super::request::Shape;
use super::tools::Called;
use crate::http::answer::{Ending, Happening, Score};
use crate::http::ids::Ids;
use crate::http::stream::{Encoder, Frames};

/// Writes the events of a response.
pub(super) struct ItemWriter {
    shape: Shape,
    sequence: u64,
    /// Items that are done.
    done: Vec<Value>,
    open: Option<Open>,
    /// Scores of tokens that come before the next piece of text.
    scores: Vec<Value>,
}

/// The item that is open: a thought or a text so far.
struct Open {
    id: String,
    text: String,
    /// The scores of the text.
    scores: Vec<Value>,
    is_thought: bool,
}

impl ItemWriter {
    pub(super) fn new(shape: Shape) -> ItemWriter {
        ItemWriter { shape, sequence: 0, done: Vec::new(), open: None, scores: Vec::new() }
    }

    fn event(&mut self, ty: &str, fields: Value, out: &mut Frames) {
        let mut event = json!({ "type": format!("response.{ty}"), "sequence_number": self.sequence });
        if let (Some(event), Value::Object(fields)) = (event.as_object_mut(), fields) {
            event.extend(fields);
        }
        self.sequence += 1;
        out.event(&event);
    }

    fn begin(&mut self, is_thought: bool, out: &mut Frames) {
        let index = self.done.len();
        let id = Ids::make(if is_thought { "rs_" } else { "msg_" });
        let item = match is_thought {
            true => items::reasoning(&self.shape, &id, "", "in_progress"),
            false => items::message(&id, None, "in_progress"),
        };
        self.event("output_item.added", json!({ "output_index": index, "item": item }), out);
        if !is_thought {
            let part = items::output_text("", &[]);
            let fields = json!({ "item_id": id, "output_index": index, "content_index": 0, "part": part });
            self.event("content_part.added", fields, out);
        }
        self.open = Some(Open { id, text: String::new(), scores: Vec::new(), is_thought });
    }

    fn text(&mut self, is_thought: bool, text: &str, out: &mut Frames) {
        if self.open.as_ref().is_some_and(|open| open.is_thought != is_thought) {
            self.close("completed", out);
        }
        if self.open.is_none() {
            self.begin(is_thought, out);
        }
        let index = self.done.len();
        let Some(open) = &mut self.open else { return };
        open.text.push_str(text);
        let mut fields = json!({ "item_id": open.id, "output_index": index, "content_index": 0, "delta": text });
        if !is_thought {
            let scores = std::mem::take(&mut self.scores);
            open.scores.extend_from_slice(&scores);
            fields["logprobs"] = scores.into();
        }
        self.event(if is_thought { "reasoning_text.delta" } else { "output_text.delta" }, fields, out);
    }

    /// Ends the open item, which is completed or cut by the end of the answer.
    fn close(&mut self, status: &str, out: &mut Frames) {
        let Some(Open { id, text, scores, is_thought }) = self.open.take() else { return };
        let place = json!({ "item_id": id, "output_index": self.done.len(), "content_index": 0 });
        let with = |name: &str, value: Value| {
            let mut fields = place.clone();
            fields[name] = value;
            fields
        };
        let item = if is_thought {
            self.event("reasoning_text.done", with("text", text.as_str().into()), out);
            items::reasoning(&self.shape, &id, &text, status)
        } else {
            let mut fields = with("text", text.as_str().into());
            fields["logprobs"] = scores.clone().into();
            self.event("output_text.done", fields, out);
            self.event("content_part.done", with("part", items::output_text(&text, &scores)), out);
            items::message(&id, Some((&text, &scores)), status)
        };
        self.item_done(item, out);
    }

    fn item_done(&mut self, item: Value, out: &mut Frames) {
        self.event("output_item.done", json!({ "output_index": self.done.len(), "item": item }), out);
        self.done.push(item);
    }

    fn call(&mut self, call: &ToolCall, out: &mut Frames) {
        self.close("completed", out);
        let called = self.shape.tools.called(&call.name);
        let (id, call_id, index) = (Ids::make("fc_"), Ids::make("call_"), self.done.len());
        let item = items::call(&called, [&id, &call_id], "", "in_progress");
        self.event("output_item.added", json!({ "output_index": index, "item": item }), out);
        let arguments = items::arguments(&called, call);
        let (delta, done, name) = match called {
            Called::Custom { .. } => ("custom_tool_call_input.delta", "custom_tool_call_input.done", "input"),
            Called::Function { .. } => ("function_call_arguments.delta", "function_call_arguments.done", "arguments"),
        };
        self.event(delta, json!({ "item_id": id, "output_index": index, "delta": arguments }), out);
        self.event(done, json!({ "item_id": id, "output_index": index, name: arguments }), out);
        self.item_done(items::call(&called, [&id, &call_id], &arguments, "completed"), out);
    }

    fn end(&mut self, ending: &Ending, out: &mut Frames) {
        let status = object::status(ending);
        self.close(status, out);
        let response = object::ended(&self.shape, std::mem::take(&mut self.done), ending);
        self.event(status, json!({ "response": response }), out);
    }
}

impl Encoder for ItemWriter {
    fn take(&mut self, _choice: usize, happening: Happening, out: &mut Frames) {
        match happening {
            Happening::Started(..) => {
                let response = object::begun(&self.shape);
                self.event("created", json!({ "response": response }), out);
                self.event("in_progress", json!({ "response": response }), out);
            }
            Happening::Prompt { .. } | Happening::PromptScore { .. } => {}
            Happening::Output(events, score) => {
                self.scores.extend(score.filter(|_| self.shape.has_scores).iter().map(Score::chat));
                for event in events {
                    match event {
                        OutputEvent::Reasoning(text) => self.text(true, &text, out),
                        OutputEvent::Content(text) => self.text(false, &text, out),
                        OutputEvent::Call(call) => {
                            // Its tokens are none of a text.
                            self.scores.clear();
                            self.call(&call, out);
                        }
                    }
                }
            }
            Happening::Ended(ending) => self.end(&ending, out),
            Happening::Failed(failure) => {
                let response = object::failed(&self.shape, &failure.message);
                self.event("failed", json!({ "response": response }), out);
            }
        }
    }

    /// The last event says that the stream is over.
    fn finish(&mut self, _out: &mut Frames) {}
}
