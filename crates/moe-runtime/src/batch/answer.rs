//! The answer to one line while it is computed, and its line of JSON.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use serde_json::{Value, json};

use crate::sessions::generate::StopReason;
use crate::sessions::scheduler::JobEvent;
use crate::text::output::{AnswerReader, Output, ToolCall};
use crate::text::tokenizer::Tokenizer;

/// The place of a line in its group, and its answer or the reason why there is none.
pub(super) type Reply = (usize, Result<Finished, String>);

/// An answer with its counts and the reason for its end.
#[derive(Debug)]
pub(super) struct Finished {
    output: Output,
    reason: StopReason,
    /// Whether one of the line's own stop strings ended it.
    stopped: bool,
    prompt_tokens: usize,
    answer_tokens: usize,
    reasoning_tokens: usize,
    /// Whether the line had messages.
    is_chat: bool,
}

/// Takes the events of a job and sends the answer, or the reason why there is none, when the job is over.
pub(super) struct Collector {
    pub(super) tokenizer: Arc<Tokenizer>,
    pub(super) reader: AnswerReader,
    /// Place of the line in its group, beside the answer.
    pub(super) place: usize,
    pub(super) to: Sender<Reply>,
    pub(super) prompt_tokens: usize,
    pub(super) is_chat: bool,
    pub(super) answer_tokens: usize,
    pub(super) output: Output,
}

impl Collector {
    pub(super) fn take(&mut self, event: JobEvent<'_>) -> ControlFlow<()> {
        match event {
            JobEvent::Token { token, .. } => {
                self.answer_tokens += 1;
                let mut events = Vec::new();
                let stopped = self.reader.push(&self.tokenizer, token, &mut events).is_break();
                self.output.extend(events);
                if stopped {
                    return ControlFlow::Break(());
                }
            }
            JobEvent::Ended(reason) => {
                let mut events = Vec::new();
                let stopped = self.reader.finish(&mut events).is_some();
                self.output.extend(events);
                let output = std::mem::take(&mut self.output);
                self.send(Ok(Finished {
                    output,
                    reason,
                    stopped,
                    prompt_tokens: self.prompt_tokens,
                    answer_tokens: self.answer_tokens,
                    reasoning_tokens: self.reader.parser().n_reasoning_tokens(),
                    is_chat: self.is_chat,
                }));
            }
            JobEvent::Failed(error) => self.send(Err(error.to_string())),
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn send(&self, answer: Result<Finished, String>) {
        // The receiver lives until all jobs of the group are over.
        let _ = self.to.send((self.place, answer));
    }
}

impl Finished {
    /// The line of this answer, without times and without the number of cached tokens, which depend on the run.
    pub(super) fn line(&self, id: Option<&Value>) -> Value {
        let Output { reasoning, content, calls } = &self.output;
        let mut line = json!({ "id": id });
        if self.is_chat {
            let mut message = json!({ "role": "assistant", "content": content });
            if !reasoning.is_empty() {
                message["reasoning_content"] = reasoning.as_str().into();
            }
            if !calls.is_empty() {
                message["tool_calls"] = calls.iter().map(call).collect();
            }
            line["message"] = message;
        } else {
            line["text"] = content.as_str().into();
        }
        line["finish_reason"] = match self.reason {
            _ if self.stopped => "stop",
            StopReason::StopToken(_) if !calls.is_empty() => "tool_calls",
            reason => reason.name(),
        }
        .into();
        line["usage"] = json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.answer_tokens,
            "reasoning_tokens": self.reasoning_tokens,
            "total_tokens": self.prompt_tokens + self.answer_tokens,
        });
        line
    }
}

fn call(call: &ToolCall) -> Value {
    json!({ "type": "function", "function": { "name": call.name, "arguments": call.arguments } })
}
