//! From the tokens of an answer to its parts, up to a stop string.
//!
//! Stop strings end the content: text of a thought and of calls is not compared with them.

use std::ops::ControlFlow;

use super::event::OutputEvent;
use super::format::{OutputFormat, OutputStart};
use super::parser::OutputParser;
use super::stops::StopStrings;
use crate::text::tokenizer::{ControlTokens, TextStream, Tokenizer};

/// Decodes and parses an answer token by token.
///
/// ```
/// use moe_runtime::{AnswerReader, OutputEvent, OutputFormat, OutputParser, OutputStart, StopStrings, Tokenizer};
/// let tokenizer = Tokenizer::bytes();
/// let parser = OutputParser::new(&OutputFormat::of_model(&tokenizer), OutputStart::Content);
/// let mut reader = AnswerReader::new(parser, StopStrings::new(vec!["END".to_owned()])?);
/// let mut events = Vec::new();
/// let ended = tokenizer.encode("Yes. END of it", false)?.into_iter().find_map(|token| {
///     reader.push(&tokenizer, token, &mut events).break_value()
/// });
/// reader.finish(&mut events);
/// assert_eq!((ended, events), (Some(0), vec![OutputEvent::Content("Yes. ".to_owned())]));
/// # Ok::<(), moe_runtime::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct AnswerReader {
    text: TextStream,
    parser: OutputParser,
    stops: StopStrings,
    /// The stop string that ended the content.
    stopped_by: Option<usize>,
    /// Buffer for the events before stop strings are looked for.
    parsed: Vec<OutputEvent>,
}

impl AnswerReader {
    /// A reader at the start of an answer.
    #[must_use]
    pub fn new(parser: OutputParser, stops: StopStrings) -> AnswerReader {
        let text = TextStream::new(ControlTokens::Markup);
        AnswerReader { text, parser, stops, stopped_by: None, parsed: Vec::new() }
    }

    /// A reader of a text that is continued: all of it is content, and control tokens are left out.
    #[must_use]
    pub fn plain(stops: StopStrings) -> AnswerReader {
        let parser = OutputParser::new(&OutputFormat::default(), OutputStart::Content);
        AnswerReader { text: TextStream::new(ControlTokens::Hide), ..AnswerReader::new(parser, stops) }
    }

    /// The parser, for the state of the answer.
    #[must_use]
    pub fn parser(&self) -> &OutputParser {
        &self.parser
    }

    /// Index of the stop string that ended the answer.
    #[must_use]
    pub fn stopped_by(&self) -> Option<usize> {
        self.stopped_by
    }

    /// Takes the next token and adds to `out` what is certain with it. Breaks with the index of a stop string that is
    /// complete; nothing follows it.
    pub fn push(&mut self, tokenizer: &Tokenizer, token: u32, out: &mut Vec<OutputEvent>) -> ControlFlow<usize> {
        if self.stopped_by.is_none() {
            let text = self.text.push(tokenizer, token);
            self.parser.push(token, &text, &mut self.parsed);
            self.pass_on(out);
        }
        self.stopped_by.map_or(ControlFlow::Continue(()), ControlFlow::Break)
    }

    /// Ends the answer: what was held back is added to `out`. An unfinished call is content, which may hold a stop string
    /// as well. Returns the index of the stop string that ended the answer, if one did.
    pub fn finish(&mut self, out: &mut Vec<OutputEvent>) -> Option<usize> {
        if self.stopped_by.is_none() {
            let rest = self.text.finish();
            self.parser.finish(&rest, &mut self.parsed);
            self.pass_on(out);
            OutputEvent::Content(self.stops.finish()).append_to(out);
        }
        self.stopped_by
    }

    /// Moves the parsed events to `out` up to a stop string.
    fn pass_on(&mut self, out: &mut Vec<OutputEvent>) {
        for event in self.parsed.drain(..) {
            if self.stopped_by.is_some() {
                break;
            }
            match event {
                OutputEvent::Content(text) => {
                    let mut certain = String::new();
                    self.stopped_by = self.stops.push(&text, &mut certain);
                    OutputEvent::Content(certain).append_to(out);
                }
                // A stop string does not reach across a call.
                OutputEvent::Call(_) => {
                    OutputEvent::Content(self.stops.finish()).append_to(out);
                    event.append_to(out);
                }
                OutputEvent::Reasoning(_) => event.append_to(out),
            }
        }
    }
}
