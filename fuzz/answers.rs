//! Answers of a model out of arbitrary bytes, shared by the fuzz target and by the test of moe-runtime.
//!
//! **Invariant**: no bytes make these functions panic.

use std::sync::Arc;

use moe_runtime::{Output, OutputFormat, OutputParser, OutputStart, ToolSchemas};

/// The markers by id; every higher id is an ordinary token.
pub(crate) const MARKERS: [&str; 8] =
    ["<think>", "</think>", "<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"];

/// A token and its text.
pub(crate) type Token = (u32, String);

/// The format of the markers above.
pub(crate) fn format() -> OutputFormat {
    OutputFormat::find(|text| (0_u32..).zip(MARKERS).find(|(_, marker)| *marker == text).map(|(id, _)| id))
}

/// The token of a marker.
pub(crate) fn marker(id: u32) -> Token {
    (id, MARKERS[id as usize].to_owned())
}

/// A token that is no marker.
pub(crate) fn word(text: &str) -> Token {
    (MARKERS.len() as u32, text.to_owned())
}

/// Bytes as tokens: the low five bits of a byte below 8 are a marker, above it the high bits count the bytes of a word.
pub(crate) fn tokens(data: &[u8]) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = data;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first & 31 < 8 {
            tokens.push(marker(u32::from(first & 31)));
        } else {
            let (text, after) = rest.split_at(rest.len().min(usize::from(first >> 5) + 1));
            tokens.push(word(&String::from_utf8_lossy(text)));
            rest = after;
        }
    }
    tokens
}

/// The answer that tokens spell.
pub(crate) fn parse<'a>(
    tokens: impl IntoIterator<Item = (u32, &'a str)>,
    start: OutputStart,
    tools: Option<&Arc<ToolSchemas>>,
) -> Output {
    let mut parser = OutputParser::new(&format(), start);
    if let Some(tools) = tools {
        parser = parser.with_tools(Arc::clone(tools));
    }
    let (mut output, mut events) = (Output::default(), Vec::new());
    for (token, text) in tokens {
        parser.push(token, text, &mut events);
        output.extend(events.drain(..));
    }
    parser.finish("", &mut events);
    output.extend(events);
    output
}

/// Parses bytes as an answer: cut into characters it is the same, and the arguments of its calls are JSON objects.
pub(crate) fn answer(data: &[u8]) {
    let tokens = tokens(data);
    let tools = Arc::new(ToolSchemas::default());
    for start in [OutputStart::Content, OutputStart::Reasoning] {
        for tools in [None, Some(&tools)] {
            let whole = parse(tokens.iter().map(|(id, text)| (*id, text.as_str())), start, tools);
            let cut = parse(tokens.iter().flat_map(|(id, text)| characters(*id, text)), start, tools);
            assert_eq!(whole, cut);
            for call in &whole.calls {
                let arguments: serde_json::Value = serde_json::from_str(&call.arguments).expect("arguments are JSON");
                assert!(arguments.is_object(), "{arguments}");
            }
        }
    }
}

/// A token as one token for each character; a marker as it is.
fn characters(id: u32, text: &str) -> Vec<(u32, &str)> {
    if (id as usize) < MARKERS.len() {
        return vec![(id, text)];
    }
    text.split_inclusive(|_| true).map(|character| (id, character)).collect()
}
