//! Answers that have to call a tool: the grammar of the calls.

use std::fmt::Write;

use moe_runtime::Grammar;
use serde_json::{Map, Value};

use crate::http::engine::Engine;
use crate::http::failure::Failure;

/// Which calls an answer has to make.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Demand {
    #[default]
    None,
    /// At least one call of any tool.
    Any,
    /// Calls of this tool.
    Tool(String),
}

/// The grammar of an answer that follows `demand`, of one call or more; `None` where the model decides. Arguments come in
/// the order of the schema, those that are not required at most once.
pub(super) fn grammar(
    engine: &Engine,
    tools: &[Value],
    demand: &Demand,
    one_call: bool,
) -> Result<Option<Grammar>, Failure> {
    let wanted: Vec<&Value> = match demand {
        Demand::None => return Ok(None),
        Demand::Any => tools.iter().collect(),
        Demand::Tool(name) => tools.iter().filter(|tool| tool["function"]["name"] == name.as_str()).collect(),
    };
    if wanted.is_empty() {
        return Err(Failure::field("tool_choice", "`tool_choice` demands a tool that `tools` does not declare"));
    }
    if !engine.format.has_calls() {
        return Err(Failure::field("tool_choice", "this model has no markup for calls: use \"auto\" or \"none\""));
    }
    Ok(Some(Grammar::Lark(lark(&wanted, one_call))))
}

fn lark(tools: &[&Value], one_call: bool) -> String {
    let mut text = format!("start: call{}\n", if one_call { "" } else { "+" });
    let names: Vec<String> = (0..tools.len()).map(|number| format!("tool_{number}")).collect();
    text.push_str("call: <tool_call> (");
    text.push_str(&names.join(" | "));
    text.push_str(") </tool_call>\n");
    for (name, tool) in names.iter().zip(tools) {
        tool_rules(&mut text, name, &tool["function"]);
    }
    text.push_str("text: /(.|\\n)+/\n");
    text
}

/// The rules of one tool.
fn tool_rules(text: &mut String, rule: &str, function: &Value) {
    let empty = Map::new();
    let properties = function["parameters"]["properties"].as_object().unwrap_or(&empty);
    let is_required = |key: &str| {
        function["parameters"]["required"].as_array().is_some_and(|list| list.iter().any(|name| name == key))
    };
    let argument = |number: usize| format!("{rule}_{number}");
    let mut line = format!("{rule}: {}", Value::from(function["name"].as_str().unwrap_or_default()));
    for (number, key) in properties.keys().enumerate() {
        // Writing to a string succeeds.
        let _ = write!(line, " {}{}", argument(number), if is_required(key) { "" } else { "?" });
    }
    text.push_str(&line);
    text.push('\n');
    for (number, (key, schema)) in properties.iter().enumerate() {
        let (key, value) = (Value::from(key.as_str()), value_rule(schema));
        let _ = writeln!(text, "{}: <arg_key> {key} </arg_key> <arg_value> {value} </arg_value>", argument(number));
    }
}

/// The expression of an argument's value.
fn value_rule(schema: &Value) -> String {
    if let Some(words) = schema["enum"].as_array().filter(|words| !words.is_empty()) {
        let word =
            |word: &Value| Value::from(word.as_str().map_or_else(|| word.to_string(), str::to_owned)).to_string();
        return format!("({})", words.iter().map(word).collect::<Vec<_>>().join(" | "));
    }
    match schema["type"].as_str() {
        Some("boolean") => "(\"true\" | \"false\")".to_owned(),
        Some("integer") => "/-?[0-9]{1,18}/".to_owned(),
        Some("number") => "/-?[0-9]{1,18}(\\.[0-9]{1,18})?/".to_owned(),
        Some("object" | "array") => format!("%json {schema}"),
        _ => "text".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::lark;

    #[test]
    fn arguments_come_in_order_and_types_bind_values() {
        let tool = json!({"type": "function", "function": {"name": "ferry", "parameters": {"type": "object", "properties": {
            "speed": {"type": "integer"}, "to": {"type": "string", "enum": ["north", "south"]}, "note": {"type": "string"}},
            "required": ["to"]}}});
        let want = "start: call\ncall: <tool_call> (tool_0) </tool_call>\n\
                    tool_0: \"ferry\" tool_0_0? tool_0_1 tool_0_2?\n\
                    tool_0_0: <arg_key> \"speed\" </arg_key> <arg_value> /-?[0-9]{1,18}/ </arg_value>\n\
                    tool_0_1: <arg_key> \"to\" </arg_key> <arg_value> (\"north\" | \"south\") </arg_value>\n\
                    tool_0_2: <arg_key> \"note\" </arg_key> <arg_value> text </arg_value>\n\
                    text: /(.|\\n)+/\n";
        assert_eq!(lark(&[&tool], true), want);
        assert!(lark(&[&tool, &tool], false).starts_with("start: call+\ncall: <tool_call> (tool_0 | tool_1) "));
    }
}
