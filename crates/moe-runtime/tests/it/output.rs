//! The parser of answers against a parser of whole answers, for random cuts, and on answers that are broken.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../../fuzz/answers.rs"]
mod answers;

use std::sync::Arc;

use moe_runtime::{
    AnswerReader, ChatPrompt, Output, OutputEvent, OutputFormat, OutputParser, OutputStart, SplitMix64, StopStrings,
    Tokenizer, ToolCall, ToolSchemas,
};
use proptest::prelude::*;
use serde_json::json;

use answers::{MARKERS, Token, marker, parse, word};

/// Ids of the markers.
const THINK_END: u32 = 1;
const CALL: u32 = 2;
const CALL_END: u32 = 3;
const KEY: u32 = 4;
const KEY_END: u32 = 5;
const VALUE: u32 = 6;
const VALUE_END: u32 = 7;

/// The tokens of a text: markers where it spells them, a token for each other character.
fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let found = (0..).zip(MARKERS).find(|(_, text)| rest.starts_with(text));
        tokens.push(found.map_or_else(|| word(&character.to_string()), |(id, _)| marker(id)));
        rest = &rest[found.map_or(character.len_utf8(), |(_, text)| text.len())..];
    }
    tokens
}

fn read(text: &str, start: OutputStart) -> Output {
    let weather = json!({"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}}});
    let tools = Arc::new(ToolSchemas::new(&[weather]));
    let tokens = tokens(text);
    parse(tokens.iter().map(|(id, text)| (*id, text.as_str())), start, Some(&tools))
}

fn call(index: usize, name: &str, arguments: &str) -> ToolCall {
    ToolCall { index, name: name.to_owned(), arguments: arguments.to_owned() }
}

fn output(reasoning: &str, content: &str, calls: &[ToolCall]) -> Output {
    Output { reasoning: reasoning.to_owned(), content: content.to_owned(), calls: calls.to_vec() }
}

#[test]
fn thought_content_and_calls_are_told_apart() {
    let text = "It rains?\n</think>\nLet me look.\n<tool_call>get_weather\n<arg_key>city</arg_key><arg_value> 8001 </arg_value>\n\
                <arg_key>days</arg_key>\n<arg_value>2</arg_value></tool_call>\n<tool_call>now</tool_call>\n";
    let calls = [call(0, "get_weather", r#"{"city":" 8001 ","days":2}"#), call(1, "now", "{}")];
    assert_eq!(read(text, OutputStart::Reasoning), output("It rains?\n", "Let me look.\n", &calls));
}

#[test]
fn only_a_prompt_that_opens_a_thought_makes_one() {
    let text = "a</think>b</think>c<think>";
    assert_eq!(read(text, OutputStart::Reasoning), output("a", "b</think>c<think>", &[]));
    assert_eq!(read(text, OutputStart::Content), output("", text, &[]));
    assert_eq!(read("a<tool_call>f</tool_call>", OutputStart::Reasoning), output("a<tool_call>f</tool_call>", "", &[]));
    assert_eq!(answers::format().start_of(&ChatPrompt::of_markup("<|assistant|><think>")), OutputStart::Reasoning);
    assert_eq!(answers::format().start_of(&ChatPrompt::of_markup("<|assistant|></think>")), OutputStart::Content);
    assert_eq!(OutputFormat::default().start_of(&ChatPrompt::of_markup("<think>")), OutputStart::Content);
}

#[test]
fn malformed_and_unfinished_calls_are_content() {
    let long = format!("<tool_call>{}</tool_call>", "n".repeat(257));
    for text in [
        "<tool_call>",
        "<tool_call></tool_call>",
        "<tool_call>a\nb</tool_call>",
        "<tool_call>f<arg_key>k",
        "<tool_call>f<arg_key></arg_key><arg_value>1</arg_value></tool_call>",
        "<tool_call>f<arg_key>k</arg_key>x<arg_value>1</arg_value></tool_call>",
        "<tool_call>f<arg_key>k</arg_key></tool_call>",
        "<tool_call>f<arg_key>k</arg_key><arg_value>1</tool_call>",
        "<tool_call>f<arg_value>1</arg_value></tool_call>",
        "</tool_call>x<arg_key>",
        &long,
    ] {
        assert_eq!(read(text, OutputStart::Content), output("", text, &[]), "{text}");
    }
    let next = read("<tool_call>f<arg_key>k<tool_call>g</tool_call>.", OutputStart::Content);
    assert_eq!(next, output("", "<tool_call>f<arg_key>k.", &[call(0, "g", "{}")]));
}

#[test]
fn values_are_raw_text_and_unknown_tools_are_called() {
    let text = "<tool_call>write<arg_key>text</arg_key><arg_value><tool_call>\"&lt;<think></arg_value></tool_call>";
    let calls = [call(0, "write", r#"{"text":"<tool_call>\"&lt;<think>"}"#)];
    assert_eq!(read(text, OutputStart::Content), output("", "", &calls));
}

#[test]
fn words_that_spell_markup_and_markup_without_tools_are_text() {
    let spelled = "</think><tool_call>f</tool_call>";
    let letters: Vec<String> = spelled.chars().map(String::from).collect();
    let letters = || letters.iter().map(|letter| (99, letter.as_str()));
    let tools = Arc::new(ToolSchemas::default());
    assert_eq!(parse(letters(), OutputStart::Reasoning, Some(&tools)), output(spelled, "", &[]));
    assert_eq!(parse(letters(), OutputStart::Content, Some(&tools)), output("", spelled, &[]));
    let markers = tokens(spelled);
    let got = parse(markers.iter().map(|(id, text)| (*id, text.as_str())), OutputStart::Reasoning, None);
    assert_eq!(got, output("", "<tool_call>f</tool_call>", &[]));
}

#[test]
fn hidden_markers_and_broken_characters_before_them_are_understood() {
    let pieces = [(9, "a"), (THINK_END, ""), (9, "b"), (CALL, "\u{fffd}<tool_call>"), (9, "f"), (CALL_END, "")];
    let tools = Arc::new(ToolSchemas::default());
    let got = parse(pieces, OutputStart::Reasoning, Some(&tools));
    assert_eq!(got, output("a", "b\u{fffd}", &[call(0, "f", "{}")]));
    let unfinished = parse(pieces.into_iter().take(5), OutputStart::Reasoning, Some(&tools));
    assert_eq!(unfinished, output("a", "b\u{fffd}<tool_call>f", &[]));
}

#[test]
fn events_come_as_soon_as_they_are_certain() {
    let mut parser =
        OutputParser::new(&answers::format(), OutputStart::Reasoning).with_tools(Arc::new(ToolSchemas::default()));
    let mut push = |id: u32, text: &str| {
        let mut events = Vec::new();
        parser.push(id, text, &mut events);
        (events, parser.is_reasoning(), parser.n_reasoning_tokens(), parser.n_calls())
    };
    let text = |text: &str| OutputEvent::Content(text.to_owned());
    assert_eq!(push(9, "Hm"), (vec![OutputEvent::Reasoning("Hm".to_owned())], true, 1, 0));
    assert_eq!(push(THINK_END, "</think>"), (vec![], false, 1, 0));
    assert_eq!(push(9, "\n\n"), (vec![], false, 1, 0), "perhaps a call follows");
    assert_eq!(push(9, " So"), (vec![text(" So")], false, 1, 0));
    assert_eq!(push(9, " \n"), (vec![text(" \n")], false, 1, 0));
    assert_eq!(push(CALL, "<tool_call>"), (vec![], false, 1, 0));
    assert_eq!(push(9, "f"), (vec![], false, 1, 0));
    assert_eq!(push(CALL_END, "</tool_call>"), (vec![OutputEvent::Call(call(0, "f", "{}"))], false, 1, 1));
}

#[test]
fn a_stop_string_ends_the_content_alone_and_reaches_across_no_call() {
    let tokenizer = Tokenizer::bytes();
    let format = OutputFormat::find(|text| (300..).zip(MARKERS).find(|(_, marker)| *marker == text).map(|(id, _)| id));
    let tools = Arc::new(ToolSchemas::default());
    let parser = OutputParser::new(&format, OutputStart::Reasoning).with_tools(tools);
    let stops = StopStrings::new(vec!["END".to_owned()]).unwrap();
    let mut reader = AnswerReader::new(parser, stops);
    let bytes = |text: &str| text.bytes().map(u32::from).collect::<Vec<_>>();
    let call = [vec![300 + CALL], bytes("f"), vec![300 + CALL_END]].concat();
    let answer = [bytes("END?"), vec![300 + THINK_END], bytes("a<EN"), call, bytes("DEND and more")].concat();
    let (mut events, mut taken) = (Vec::new(), 0);
    let stopped = answer.iter().find_map(|&token| {
        taken += 1;
        reader.push(&tokenizer, token, &mut events).break_value()
    });
    assert_eq!((stopped, taken, reader.stopped_by()), (Some(0), answer.len() - " and more".len(), Some(0)));
    assert!(reader.push(&tokenizer, u32::from(b'x'), &mut events).is_break(), "nothing follows it");
    assert_eq!(reader.finish(&mut events), Some(0));
    let mut output = Output::default();
    output.extend(events);
    assert_eq!(output, self::output("END?", "a<END", &[self::call(0, "f", "{}")]));
}

/// The answer by definition, from all of its tokens.
fn whole(tokens: &[Token], start: OutputStart) -> Output {
    let mut output = Output::default();
    let mut at = 0;
    let mut is_behind_markup = true;
    if start == OutputStart::Reasoning {
        at = tokens.iter().position(|t| t.0 == THINK_END).map_or(tokens.len(), |end| end + 1);
        output.reasoning = spelled(&tokens[..at]).trim_end_matches("</think>").to_owned();
    }
    let mut content = String::new();
    while at < tokens.len() {
        if tokens[at].0 != CALL {
            content.push_str(&tokens[at].1);
            at += 1;
            continue;
        }
        match whole_call(tokens, at) {
            Ok((end, mut call)) => {
                take_content(&mut content, is_behind_markup, &mut output);
                is_behind_markup = true;
                call.index = output.calls.len();
                output.calls.push(call);
                at = end;
            }
            Err(end) => {
                content.push_str(&spelled(&tokens[at..end]));
                at = end;
            }
        }
    }
    take_content(&mut content, is_behind_markup, &mut output);
    output
}

fn take_content(content: &mut String, is_behind_markup: bool, output: &mut Output) {
    let text = std::mem::take(content);
    match (is_behind_markup, text.trim().is_empty()) {
        (true, true) => {}
        (true, false) => output.content.push_str(text.trim_start_matches('\n')),
        (false, _) => output.content.push_str(&text),
    }
}

fn spelled(tokens: &[Token]) -> String {
    tokens.iter().map(|t| t.1.as_str()).collect()
}

/// The call that begins at token `start` with the place behind it, or the place at which it turns out to be none.
fn whole_call(tokens: &[Token], start: usize) -> Result<(usize, ToolCall), usize> {
    let is_marker = |t: &Token| (t.0 as usize) < MARKERS.len();
    let words_to = |from: usize| from + tokens[from..].iter().take_while(|t| !is_marker(t)).count();
    let at = |place: usize| tokens.get(place).map(|t| t.0);
    let name_end = words_to(start + 1);
    let name = spelled(&tokens[start + 1..name_end]).trim().to_owned();
    if name.is_empty() || name.contains('\n') || !matches!(at(name_end), Some(KEY | CALL_END)) {
        return Err(name_end);
    }
    let mut arguments = serde_json::Map::new();
    let mut place = name_end;
    while at(place) == Some(KEY) {
        let key_end = words_to(place + 1);
        let key = spelled(&tokens[place + 1..key_end]).trim().to_owned();
        if key.is_empty() || key.contains('\n') || at(key_end) != Some(KEY_END) {
            return Err(key_end);
        }
        place = words_blank(tokens, key_end + 1);
        if at(place) != Some(VALUE) {
            return Err(place);
        }
        let length = tokens[place + 1..].iter().position(|t| t.0 == VALUE_END);
        let value_end = place + 1 + length.ok_or(tokens.len())?;
        let value = spelled(&tokens[place + 1..value_end]);
        arguments.shift_remove(&key);
        arguments.insert(key, serde_json::from_str(&value).unwrap_or(value.into()));
        place = words_blank(tokens, value_end + 1);
    }
    match at(place) {
        Some(CALL_END) => Ok((place + 1, call(0, &name, &json!(arguments).to_string()))),
        _ => Err(place),
    }
}

/// The first place from `from` on that is not a blank word.
fn words_blank(tokens: &[Token], from: usize) -> usize {
    let is_blank = |t: &&Token| t.1.trim().is_empty();
    from + tokens[from.min(tokens.len())..].iter().take_while(is_blank).count()
}

/// Tokens in which calls are likely.
fn likely() -> impl Strategy<Value = Vec<Token>> {
    let letter = || prop::sample::select(vec!["a", "1", " ", "\n", "é", "[", "k"]).prop_map(word);
    let good = (letter(), letter(), letter()).prop_map(|(name, key, value)| {
        vec![
            marker(CALL),
            name,
            marker(KEY),
            key,
            marker(KEY_END),
            marker(VALUE),
            value,
            marker(VALUE_END),
            marker(CALL_END),
        ]
    });
    let piece = prop_oneof![
        4 => letter().prop_map(|t| vec![t]),
        3 => (0..8u32).prop_map(|id| vec![marker(id)]),
        2 => good,
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

/// Neighbouring words joined where `joins` says so.
fn joined(tokens: &[Token], joins: &[bool]) -> Vec<Token> {
    let mut out: Vec<Token> = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        match out.last_mut() {
            Some(last) if last.0 == token.0 && token.0 as usize == MARKERS.len() && joins[index % joins.len()] => {
                last.1.push_str(&token.1);
            }
            _ => out.push(token.clone()),
        }
    }
    out
}

proptest! {
    #[test]
    fn a_streamed_answer_equals_the_whole_one_for_any_cut(
        tokens in likely(),
        joins in prop::collection::vec(any::<bool>(), 1..16),
        reasons in any::<bool>(),
    ) {
        let start = if reasons { OutputStart::Reasoning } else { OutputStart::Content };
        let tools = Arc::new(ToolSchemas::default());
        let streamed = |tokens: &[Token]| parse(tokens.iter().map(|(id, text)| (*id, text.as_str())), start, Some(&tools));
        let want = whole(&tokens, start);
        prop_assert_eq!(&streamed(&tokens), &want);
        prop_assert_eq!(&streamed(&joined(&tokens, &joins)), &want);
    }
}

#[test]
fn ten_thousand_random_byte_strings_are_answers() {
    let mut rng = SplitMix64::new(17);
    for _ in 0..10_000 {
        let length = rng.next_u64() % 64;
        let bytes: Vec<u8> = (0..length).map(|_| (rng.next_u64() % 256) as u8).collect();
        answers::answer(&bytes);
    }
}
