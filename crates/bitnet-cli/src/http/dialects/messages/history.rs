//! From Anthropic's messages to those of the chat template.

use serde_json::Value;

use super::super::turns::Turns;
use crate::http::failure::Failure;
use crate::http::request::Fields;
use crate::http::seal::Seal;

/// Beginning of a block that Claude Code changes with every request in some versions. It says nothing to the model, and as the
/// beginning of the prompt it would keep every cached prompt from being found.
const BILLING: &str = "x-anthropic-billing-header:";

/// The system prompt and the messages.
pub(super) fn history(fields: Fields<'_>, seal: &Seal) -> Result<Vec<Value>, Failure> {
    let mut turns = Turns::default();
    if let Some(system) = fields.get("system") {
        let text = texts(system, "system", "\n")?;
        if !text.is_empty() {
            turns.say("system", text);
        }
    }
    let messages = fields.list("messages")?.filter(|messages| !messages.is_empty());
    let Some(messages) = messages else {
        return Err(Failure::field("messages", "`messages` has to be a list with at least one message"));
    };
    for (index, message) in messages.iter().enumerate() {
        let place = format!("messages[{index}]");
        let fields = Fields::at(message, &place)?;
        let content = fields.get("content");
        match (fields.text("role")?, content) {
            (Some("user"), Some(content)) => user(&mut turns, content, &fields.name("content"))?,
            (Some("assistant"), Some(content)) => assistant(&mut turns, content, &fields.name("content"), seal)?,
            (Some("system"), Some(content)) => turns.say("system", texts(content, &fields.name("content"), "\n")?),
            (Some(_), Some(_)) => {
                let message = format!("`{place}.role` has to be user, assistant or system");
                return Err(Failure::field(fields.name("role"), message));
            }
            (None, _) => return Err(Failure::field(fields.name("role"), format!("`{place}.role` is missing"))),
            (_, None) => return Err(Failure::field(fields.name("content"), format!("`{place}.content` is missing"))),
        }
    }
    Ok(turns.finish())
}

/// A text, or the texts of a list of blocks, joined by `joint`.
fn texts(content: &Value, place: &str, joint: &str) -> Result<String, Failure> {
    let mut all = Vec::new();
    for (number, block) in blocks(content, place)?.iter().enumerate() {
        match block {
            Block::Text(text) if text.starts_with(BILLING) => {}
            Block::Text(text) => all.push(*text),
            Block::Other(..) => {
                let place = format!("{place}[{number}]");
                return Err(Failure::field(&*place, format!("`{place}` has to be a block of text")));
            }
        }
    }
    Ok(all.join(joint))
}

/// A block of content: text, or another type with its fields.
enum Block<'a> {
    Text(&'a str),
    Other(&'a str, &'a Value),
}

fn blocks<'a>(content: &'a Value, place: &str) -> Result<Vec<Block<'a>>, Failure> {
    let wrong = |place: &str| Failure::field(place, format!("`{place}` has to be a text or a list of blocks"));
    let list = match content {
        Value::String(text) => return Ok(vec![Block::Text(text)]),
        Value::Array(list) => list,
        _ => return Err(wrong(place)),
    };
    let one = |(number, block): (usize, &'a Value)| match (block.get("type").and_then(Value::as_str), block.get("text"))
    {
        (Some("text"), Some(Value::String(text))) => Ok(Block::Text(text)),
        (Some("image" | "document" | "file"), _) => {
            let place = format!("{place}[{number}]");
            Err(Failure::field(&*place, format!("`{place}` is no text: this model reads text only")))
        }
        (Some(ty), _) if ty != "text" => Ok(Block::Other(ty, block)),
        _ => Err(wrong(&format!("{place}[{number}]"))),
    };
    list.iter().enumerate().map(one).collect()
}

/// Text of the user and results of tools, in their order.
fn user(turns: &mut Turns, content: &Value, place: &str) -> Result<(), Failure> {
    let mut text = String::new();
    let say = |turns: &mut Turns, text: &mut String| {
        if !text.is_empty() {
            turns.say("user", std::mem::take(text));
        }
    };
    let all = blocks(content, place)?;
    let is_text = all.iter().all(|block| matches!(block, Block::Text(_)));
    for (number, block) in all.into_iter().enumerate() {
        match block {
            Block::Text(more) => text.push_str(more),
            Block::Other("tool_result", block) => {
                say(turns, &mut text);
                let place = format!("{place}[{number}].content");
                let result = match block.get("content") {
                    None | Some(Value::Null) => String::new(),
                    Some(content) => texts(content, &place, "")?,
                };
                turns.result(block.get("tool_use_id").and_then(Value::as_str).unwrap_or_default(), result);
            }
            // Blocks of tools that run on the vendor's servers say nothing to this model.
            Block::Other(..) => {}
        }
    }
    match is_text {
        // A message without a word stays a message.
        true => turns.say("user", text),
        false => say(turns, &mut text),
    }
    Ok(())
}

/// Thoughts, text and calls of an earlier answer.
fn assistant(turns: &mut Turns, content: &Value, place: &str, seal: &Seal) -> Result<(), Failure> {
    for block in blocks(content, place)? {
        match block {
            Block::Text(text) => turns.answer(text),
            Block::Other("thinking", block) => {
                let text = |name: &str| block.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
                let sealed = || text("signature").and_then(|signature| seal.open(signature));
                if let Some(thought) = text("thinking").map(str::to_owned).or_else(sealed) {
                    turns.think(&thought);
                }
            }
            Block::Other("tool_use", block) => {
                let text = |name: &str| block.get(name).and_then(Value::as_str).unwrap_or_default();
                let arguments = match block.get("input") {
                    None | Some(Value::Null) => "{}".to_owned(),
                    Some(Value::String(raw)) => raw.clone(),
                    Some(input) => input.to_string(),
                };
                turns.call(text("id"), text("name"), &arguments);
            }
            Block::Other(..) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::history;
    use crate::http::request::Fields;
    use crate::http::seal::Seal;

    fn read(body: &Value) -> Result<Value, String> {
        let fields = Fields::new(body.as_object().unwrap());
        history(fields, &Seal::new(&[0; 32])).map(Value::from).map_err(|failure| failure.message)
    }

    #[test]
    fn blocks_and_plain_text_are_the_same_messages() {
        let plain = json!({"system": "Be brief.", "messages": [{"role": "user", "content": "hi"}]});
        let blocks = json!({"system": [{"type": "text", "text": "x-anthropic-billing-header: cch=1"},
                                       {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
                            "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]});
        assert_eq!(read(&plain).unwrap(), read(&blocks).unwrap());
        for empty in [json!(""), json!([]), json!([{"type": "text", "text": ""}])] {
            let body = json!({"messages": [{"role": "user", "content": empty}]});
            assert_eq!(read(&body).unwrap(), json!([{"role": "user", "content": ""}]), "{body}");
        }
    }

    #[test]
    fn a_tool_loop_keeps_its_thoughts_and_its_order() {
        let signature = Seal::new(&[0; 32]).close("sealed");
        let body = json!({"messages": [
            {"role": "user", "content": "go"},
            {"role": "system", "content": "in between"},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "", "signature": signature},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "t1", "name": "read", "input": {"path": "a"}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "A"}]},
                {"type": "text", "text": "and?"}]},
        ]});
        let want = json!([
            {"role": "user", "content": "go"},
            {"role": "system", "content": "in between"},
            {"role": "assistant", "content": "I look.", "reasoning_content": "sealed", "tool_calls": [
                {"id": "t1", "type": "function", "function": {"name": "read", "arguments": "{\"path\":\"a\"}"}}]},
            {"role": "tool", "tool_call_id": "t1", "content": "A"},
            {"role": "user", "content": "and?"},
        ]);
        assert_eq!(read(&body).unwrap(), want);
    }

    #[test]
    fn images_and_wrong_shapes_are_refused_by_place() {
        for (content, place) in [
            (json!([{"type": "image", "source": {}}]), "messages[0].content[0]"),
            (json!(3), "messages[0].content"),
            (json!([{"text": "x"}]), "messages[0].content[0]"),
            (json!([{"type": "tool_result", "content": [{"type": "image"}]}]), "messages[0].content[0].content[0]"),
        ] {
            let message = read(&json!({"messages": [{"role": "user", "content": content}]})).unwrap_err();
            assert!(message.contains(place), "{message}");
        }
    }
}
