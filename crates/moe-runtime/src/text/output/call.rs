//! A tool call that is being written.
//!
//! ```text
//!  name ─<arg_key>─► key ─</arg_key>─► white space ─<arg_value>─► value ─</arg_value>─► white space ─<arg_key>─► key ...
//!    └──</tool_call>──────────────────────────────────────────────────────────────────────┘ ends the call
//! ```
//!
//! A value is raw text up to `</arg_value>`: other markup in it is part of the value.

use super::format::Marker;

/// Longest name of a tool, in bytes.
const MAX_NAME_BYTES: usize = 256;

/// The part of a call that is being written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
    #[default]
    Name,
    Key,
    BeforeValue,
    Value,
    AfterValue,
}

/// Whether a call can go on after a piece of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Open,
    Complete,
    /// This is no call. The piece was not taken.
    Malformed,
}

/// A call up to the last token that was taken.
#[derive(Clone, Debug, Default)]
pub(super) struct PartialCall {
    part: Part,
    name: String,
    arguments: Vec<(String, String)>,
    /// The key of the value that is being written.
    key: String,
    value: String,
    /// All text of the call, to be content if it turns out to be none.
    raw: String,
}

impl PartialCall {
    /// A call whose start `spelling` was written.
    pub(super) fn new(spelling: &str) -> PartialCall {
        PartialCall { raw: spelling.to_owned(), ..PartialCall::default() }
    }

    /// Name and arguments of a complete call.
    pub(super) fn into_parts(self) -> (String, Vec<(String, String)>) {
        (self.name, self.arguments)
    }

    /// The text as it was written.
    pub(super) fn into_text(self) -> String {
        self.raw
    }

    /// Takes text between markers: a piece of a name, of a key or of a value, or white space around them.
    pub(super) fn text(&mut self, text: &str) -> Progress {
        match self.part {
            Part::Name if self.name.len() + text.len() > MAX_NAME_BYTES => return Progress::Malformed,
            Part::Name => self.name.push_str(text),
            Part::Key => self.key.push_str(text),
            Part::Value => self.value.push_str(text),
            Part::BeforeValue | Part::AfterValue if text.trim().is_empty() => {}
            Part::BeforeValue | Part::AfterValue => return Progress::Malformed,
        }
        self.raw.push_str(text);
        Progress::Open
    }

    /// Takes a marker, with its text.
    pub(super) fn marker(&mut self, marker: Marker, spelling: &str) -> Progress {
        match (self.part, marker) {
            (Part::Name, Marker::KeyStart | Marker::CallEnd) => {
                if !trim_name(&mut self.name) {
                    return Progress::Malformed;
                }
                self.part = Part::Key;
            }
            (Part::Key, Marker::KeyEnd) => {
                if !trim_name(&mut self.key) {
                    return Progress::Malformed;
                }
                self.part = Part::BeforeValue;
            }
            (Part::BeforeValue, Marker::ValueStart) => self.part = Part::Value,
            (Part::Value, Marker::ValueEnd) => {
                self.arguments.push((std::mem::take(&mut self.key), std::mem::take(&mut self.value)));
                self.part = Part::AfterValue;
            }
            (Part::Value, _) => self.value.push_str(spelling),
            (Part::AfterValue, Marker::KeyStart) => self.part = Part::Key,
            (Part::AfterValue, Marker::CallEnd) => {}
            _ => return Progress::Malformed,
        }
        self.raw.push_str(spelling);
        match (self.part, marker) {
            (Part::Key | Part::AfterValue, Marker::CallEnd) => Progress::Complete,
            _ => Progress::Open,
        }
    }
}

/// Removes white space around a name; whether it is one: not empty, and on one line.
fn trim_name(name: &mut String) -> bool {
    *name = name.trim().to_owned();
    !name.is_empty() && !name.contains(char::is_control)
}
