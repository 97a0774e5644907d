//! From the items of an input to the messages of the chat template.

use serde_json::{Value, json};

use super::super::turns::Turns;
use super::tools::{FREE_INPUT, joined};
use crate::http::failure::Failure;
use crate::http::request::Fields;
use crate::http::seal::Seal;

/// The instructions and the input.
pub(super) fn history(fields: Fields<'_>, seal: &Seal) -> Result<Vec<Value>, Failure> {
    let mut turns = Turns::default();
    if let Some(instructions) = fields.text("instructions")?.filter(|text| !text.is_empty()) {
        turns.say("system", instructions.to_owned());
    }
    match fields.get("input") {
        Some(Value::String(text)) => turns.say("user", text.clone()),
        Some(Value::Array(items)) if !items.is_empty() => {
            for (index, item) in items.iter().enumerate() {
                let place = format!("input[{index}]");
                self::item(&mut turns, Fields::at(item, &place)?, seal)?;
            }
        }
        _ => return Err(Failure::field("input", "`input` has to be a text or a list with at least one item")),
    }
    Ok(turns.finish())
}

fn item(turns: &mut Turns, fields: Fields<'_>, seal: &Seal) -> Result<(), Failure> {
    let text = |name: &str| fields.text(name).map(Option::unwrap_or_default);
    match fields.text("type")?.unwrap_or("message") {
        "message" => message(turns, fields)?,
        "reasoning" => {
            if let Some(thought) = thought(fields, seal)? {
                turns.think(&thought);
            }
        }
        "function_call" => {
            let name = joined(fields.text("namespace")?, text("name")?);
            turns.call(text("call_id")?, &name, text("arguments")?);
        }
        "custom_tool_call" => {
            let arguments = json!({ FREE_INPUT: text("input")? }).to_string();
            turns.call(text("call_id")?, text("name")?, &arguments);
        }
        "function_call_output" | "custom_tool_call_output" => {
            let output = match fields.get("output") {
                None => String::new(),
                Some(output) => texts(output, &fields.name("output"))?,
            };
            turns.result(text("call_id")?, output);
        }
        // Calls of tools that run on the vendor's servers, references and compactions say nothing to this model.
        _ => {}
    }
    Ok(())
}

fn message(turns: &mut Turns, fields: Fields<'_>) -> Result<(), Failure> {
    let name = fields.name("role");
    let text = match fields.get("content") {
        None => String::new(),
        Some(content) => texts(content, &fields.name("content"))?,
    };
    match fields.text("role")? {
        Some("assistant") => turns.answer(&text),
        Some(role @ ("user" | "system")) => turns.say(role, text),
        Some("developer") => turns.say("system", text),
        Some(_) => {
            let message = format!("`{name}` has to be user, assistant, system or developer");
            return Err(Failure::field(name, message));
        }
        None => return Err(Failure::field(&*name, format!("`{name}` is missing"))),
    }
    Ok(())
}

/// A text, or the texts of a list of parts, one after another.
fn texts(content: &Value, place: &str) -> Result<String, Failure> {
    let parts = match content {
        Value::String(text) => return Ok(text.clone()),
        Value::Array(parts) => parts,
        _ => return Err(Failure::field(place, format!("`{place}` has to be a text or a list of parts"))),
    };
    let mut all = String::new();
    for (number, part) in parts.iter().enumerate() {
        let text = part.get("text").or_else(|| part.get("refusal")).and_then(Value::as_str);
        match (part.get("type").and_then(Value::as_str), text) {
            (
                Some("input_text" | "output_text" | "text" | "refusal" | "reasoning_text" | "summary_text"),
                Some(text),
            ) => {
                all.push_str(text);
            }
            _ => {
                let place = format!("{place}[{number}]");
                return Err(Failure::field(
                    &*place,
                    format!("`{place}` has to be a part of text: this model reads text only"),
                ));
            }
        }
    }
    Ok(all)
}

/// The text of a thought: plain, or sealed by this server.
fn thought(fields: Fields<'_>, seal: &Seal) -> Result<Option<String>, Failure> {
    if let Some(content) = fields.get("content") {
        let text = texts(content, &fields.name("content"))?;
        if !text.is_empty() {
            return Ok(Some(text));
        }
    }
    Ok(fields.text("encrypted_content")?.and_then(|sealed| seal.open(sealed)))
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
    fn a_tool_loop_keeps_its_thoughts_and_its_order() {
        let sealed = Seal::new(&[0; 32]).close("sealed");
        let body = json!({"instructions": "Be brief.", "input": [
            {"role": "developer", "content": [{"type": "input_text", "text": "dev"}]},
            {"type": "message", "role": "user", "content": "go"},
            {"type": "reasoning", "summary": [], "encrypted_content": sealed},
            {"type": "function_call", "call_id": "1", "namespace": "files", "name": "read", "arguments": "{broken"},
            {"type": "custom_tool_call", "call_id": "2", "name": "patch", "input": "x"},
            {"type": "function_call_output", "call_id": "1", "output": [{"type": "input_text", "text": "A"}]},
            {"type": "custom_tool_call_output", "call_id": "2", "output": "B"},
            {"type": "web_search_call", "id": "ws"},
            {"type": "item_reference", "id": "x"},
            {"type": "compaction", "encrypted_content": "x"},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "done"}]},
        ]});
        let call = |id: &str, name: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
        let want = json!([
            {"role": "system", "content": "Be brief."},
            {"role": "system", "content": "dev"},
            {"role": "user", "content": "go"},
            {"role": "assistant", "content": "", "reasoning_content": "sealed",
             "tool_calls": [call("1", "files__read", "{broken"), call("2", "patch", "{\"input\":\"x\"}")]},
            {"role": "tool", "tool_call_id": "1", "content": "A"},
            {"role": "tool", "tool_call_id": "2", "content": "B"},
            {"role": "assistant", "content": "done"},
        ]);
        assert_eq!(read(&body).unwrap(), want);
        assert_eq!(read(&json!({"input": "hi"})).unwrap(), json!([{"role": "user", "content": "hi"}]));
    }

    #[test]
    fn images_and_wrong_shapes_are_refused_by_place() {
        for (item, place) in [
            (json!({"role": "user", "content": [{"type": "input_image"}]}), "input[0].content[0]"),
            (json!({"role": "robot", "content": "x"}), "input[0].role"),
            (json!("text"), "input[0]"),
        ] {
            let message = read(&json!({ "input": [item] })).unwrap_err();
            assert!(message.contains(place), "{message}");
        }
        assert!(read(&json!({"input": []})).unwrap_err().contains("`input`"));
    }
}
