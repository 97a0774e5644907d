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
