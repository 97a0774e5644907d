//! The parser of answers, fed token by token.
//!
//! **Invariant:** the text of all events, with the markup that was recognised, is the text of the answer, except white
//! space that stands alone between markup and line breaks behind a thought or a call. It does not depend on how the
//! text was cut into tokens.

use std::sync::Arc;

use super::call::{PartialCall, Progress};
use super::event::{OutputEvent, ToolCall};
use super::format::{Marker, OutputFormat, OutputStart};
use super::tools::ToolSchemas;

/// Takes an answer apart while it is written.
///
/// Everything before the first end of a thought is reasoning, if the prompt opened one. Behind it stand content and tool
/// calls; a call that is malformed or cut off is content.
///
/// ```
/// use moe_runtime::{OutputEvent, OutputFormat, OutputParser, OutputStart};
/// let format = OutputFormat::find(|text| ["<think>", "</think>"].iter().position(|t| *t == text).map(|id| id as u32));
/// let mut parser = OutputParser::new(&format, OutputStart::Reasoning);
/// let mut events = Vec::new();
/// for (token, text) in [(7, "Hm."), (1, "</think>"), (8, "Yes"), (9, ".")] {
///     parser.push(token, text, &mut events);
/// }
/// parser.finish("", &mut events);
/// assert_eq!(events, [OutputEvent::Reasoning("Hm.".to_owned()), OutputEvent::Content("Yes.".to_owned())]);
/// ```
#[derive(Clone, Debug)]
pub struct OutputParser {
    format: OutputFormat,
    /// The tools of the request; without them the markup of calls is content.
    tools: Option<Arc<ToolSchemas>>,
    state: State,
    n_calls: usize,
    n_reasoning_tokens: usize,
    /// White space behind markup, which is dropped unless content follows it.
    blank: Option<String>,
}

#[derive(Clone, Debug)]
enum State {
    Reasoning,
    Content,
    Call(PartialCall),
}

impl OutputParser {
    /// A parser at the start of an answer to a request without tools.
    #[must_use]
    pub fn new(format: &OutputFormat, start: OutputStart) -> OutputParser {
        let state = match start {
            OutputStart::Content => State::Content,
            OutputStart::Reasoning => State::Reasoning,
        };
        OutputParser { format: format.clone(), tools: None, state, n_calls: 0, n_reasoning_tokens: 0, blank: None }
    }

    /// The same parser, which looks for tool calls.
    #[must_use]
    pub fn with_tools(self, tools: Arc<ToolSchemas>) -> OutputParser {
        OutputParser { tools: Some(tools), blank: Some(String::new()), ..self }
    }

    /// Whether the answer is inside its thought.
    #[must_use]
    pub fn is_reasoning(&self) -> bool {
        matches!(self.state, State::Reasoning)
    }

    /// Number of tokens of the thought so far, without its end.
    #[must_use]
    pub fn n_reasoning_tokens(&self) -> usize {
        self.n_reasoning_tokens
    }

    /// Number of tool calls so far; above 0 the answer ended in order to call tools.
    #[must_use]
    pub fn n_calls(&self) -> usize {
        self.n_calls
    }

    /// Takes the next token and the text that is complete with it, as [`TextStream`](crate::TextStream) gives it with
    /// [`ControlTokens::Markup`](crate::ControlTokens::Markup). Events are added to `out`; text is added to its last event where that is of the same
    /// kind.
    pub fn push(&mut self, token: u32, text: &str, out: &mut Vec<OutputEvent>) {
        match self.format.marker(token) {
            None => self.text(text, out),
            Some((marker, spelling)) => {
                // A character that the marker left incomplete comes before it.
                let before = text.strip_suffix(spelling).unwrap_or(text);
                self.text(before, out);
                self.marker(marker, spelling, out);
            }
        }
        self.n_reasoning_tokens += usize::from(self.is_reasoning());
    }

    /// Ends the answer. `rest` is the text that [`TextStream::finish`](crate::TextStream::finish) gives.
    pub fn finish(&mut self, rest: &str, out: &mut Vec<OutputEvent>) {
        self.text(rest, out);
        if let State::Call(call) = std::mem::replace(&mut self.state, State::Content) {
            self.content(&call.into_text(), out);
        }
    }

    fn text(&mut self, text: &str, out: &mut Vec<OutputEvent>) {
        if text.is_empty() {
            return;
        }
        match &mut self.state {
            State::Reasoning => OutputEvent::Reasoning(text.to_owned()).append_to(out),
            State::Content => self.content(text, out),
            State::Call(call) => {
                if call.text(text) == Progress::Malformed {
                    self.give_up_call(out);
                    self.content(text, out);
                }
            }
        }
    }

    fn marker(&mut self, marker: Marker, spelling: &str, out: &mut Vec<OutputEvent>) {
        let progress = match &mut self.state {
            State::Call(call) => call.marker(marker, spelling),
            State::Reasoning if marker == Marker::ThoughtEnd => {
                self.state = State::Content;
                self.blank = Some(String::new());
                return;
            }
            State::Content if marker == Marker::CallStart && self.tools.is_some() => {
                self.state = State::Call(PartialCall::new(spelling));
                return;
            }
            State::Reasoning | State::Content => return self.text(spelling, out),
        };
        match progress {
            Progress::Open => {}
            Progress::Complete => self.complete_call(out),
            Progress::Malformed => {
                self.give_up_call(out);
                self.marker(marker, spelling, out);
            }
        }
    }

    fn complete_call(&mut self, out: &mut Vec<OutputEvent>) {
        let State::Call(call) = std::mem::replace(&mut self.state, State::Content) else { return };
        let (name, arguments) = call.into_parts();
        let arguments = self.tools.iter().map(|tools| tools.arguments(&name, &arguments)).next().unwrap_or_default();
        out.push(OutputEvent::Call(ToolCall { index: self.n_calls, name, arguments }));
        self.n_calls += 1;
        self.blank = Some(String::new());
    }

    fn give_up_call(&mut self, out: &mut Vec<OutputEvent>) {
        if let State::Call(call) = std::mem::replace(&mut self.state, State::Content) {
            self.content(&call.into_text(), out);
        }
    }

    fn content(&mut self, text: &str, out: &mut Vec<OutputEvent>) {
        let text = match self.blank.take() {
            None => text.to_owned(),
            Some(blank) if text.trim().is_empty() => {
                self.blank = Some(blank + text);
                return;
            }
            Some(blank) => (blank + text).trim_start_matches('\n').to_owned(),
        };
        OutputEvent::Content(text).append_to(out);
    }
}
