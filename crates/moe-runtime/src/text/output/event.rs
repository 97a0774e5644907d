//! The parts of an answer, as they arrive and collected.

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputEvent {
    /// More text of the thought; never empty.
    Reasoning(String),
    /// More text of the answer; never empty.
    Content(String),
    /// A whole tool call. It is not streamed in pieces, because a call that is cut off becomes content.
    Call(ToolCall),
}

impl OutputEvent {
    /// Adds the event to `out`, its text to the last event there where that is of the same kind.
    pub(super) fn append_to(self, out: &mut Vec<OutputEvent>) {
        match (self, out.last_mut()) {
            (OutputEvent::Reasoning(text) | OutputEvent::Content(text), _) if text.is_empty() => {}
            (OutputEvent::Reasoning(text), Some(OutputEvent::Reasoning(last)))
            | (OutputEvent::Content(text), Some(OutputEvent::Content(last))) => last.push_str(&text),
            (event, _) => out.push(event),
        }
    }
}

/// A tool that the model calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCall {
    /// Number of the call within its answer, from 0.
    pub index: usize,
    /// Name of the tool, which the request need not have declared.
    pub name: String,
    /// The arguments: the text of a JSON object, `{}` where there are none.
    pub arguments: String,
}

/// The collected events of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// The thought; empty without one.
    pub reasoning: String,
    /// The answer; empty when it ended within the thought, or consists of calls.
    pub content: String,
    /// The tool calls, in their order.
    pub calls: Vec<ToolCall>,
}

impl Extend<OutputEvent> for Output {
    fn extend<T: IntoIterator<Item = OutputEvent>>(&mut self, events: T) {
        for event in events {
            match event {
                OutputEvent::Reasoning(text) => self.reasoning.push_str(&text),
                OutputEvent::Content(text) => self.content.push_str(&text),
                OutputEvent::Call(call) => self.calls.push(call),
            }
        }
    }
}
