//! Tools that an answer may call or has to call: `tool_choice` in the words of every dialect, and the grammar of the calls.

use moe_runtime::Grammar;
use serde_json::Value;

use crate::http::answer::Form;
use crate::http::engine::Engine;
use crate::http::failure::Failure;
use crate::http::request::Fields;

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

/// The calls that `tool_choice` demands: a word, or an object whose `type` is the word.
pub(super) fn demand(fields: Fields<'_>) -> Result<Demand, Failure> {
    let Some(choice) = fields.get("tool_choice") else { return Ok(Demand::None) };
    let demand = match word(choice) {
        Some("auto" | "none") => Some(Demand::None),
        Some("required" | "any") => Some(Demand::Any),
        Some("function" | "custom" | "tool") => name_of(choice).map(|name| Demand::Tool(name.to_owned())),
        Some("allowed_tools") => match (&allowance(choice)["tools"], allowance(choice)["mode"].as_str()) {
            (Value::Array(_), Some("required")) => Some(Demand::Any),
            (Value::Array(_), None | Some("auto")) => Some(Demand::None),
            _ => None,
        },
        _ => None,
    };
    demand.ok_or_else(|| {
        let message =
            "`tool_choice` has to be auto, none, required or any, the name of a tool, or a list of allowed tools";
        Failure::field("tool_choice", message)
    })
}

/// Leaves the tools that `tool_choice` allows: none, those of its list, or all. Tools have the shape of the chat template.
pub(super) fn keep_allowed(fields: Fields<'_>, tools: &mut Vec<Value>) {
    let Some(choice) = fields.get("tool_choice") else { return };
    match word(choice) {
        Some("none") => tools.clear(),
        Some("allowed_tools") => {
            let allowed = allowance(choice)["tools"].as_array().map_or(&[][..], Vec::as_slice);
            let is_allowed = |name: &str| allowed.iter().any(|tool| name_of(tool) == Some(name));
            tools.retain(|tool| name_of(tool).is_some_and(is_allowed));
        }
        _ => {}
    }
}

fn word(choice: &Value) -> Option<&str> {
    choice.as_str().or_else(|| choice["type"].as_str())
}

/// The name of a tool, in the shape of the chat route or of the others.
fn name_of(tool: &Value) -> Option<&str> {
    tool["function"]["name"].as_str().or_else(|| tool["name"].as_str())
}

/// The object with the list of allowed tools: the chat route has it one level deeper.
fn allowance(choice: &Value) -> &Value {
    choice.get("allowed_tools").unwrap_or(choice)
}

/// The names of the tools in `list` that say `strict`: arguments of their calls have to follow their schemas.
pub(super) fn strict_names(list: &[Value]) -> Vec<String> {
    let says_so = |tool: &&Value| tool["strict"] == true || tool["function"]["strict"] == true;
    list.iter().filter(says_so).filter_map(name_of).map(str::to_owned).collect()
}

/// The form of an answer that follows `demand`, of one call or more. Where the model decides, tools that are `strict` bind their
/// calls; without any there is no form.
pub(super) fn form(
    engine: &Engine,
    (tools, strict): (&[Value], &[String]),
    demand: &Demand,
    one_call: bool,
) -> Result<Option<Form>, Failure> {
    let is_strict = |name: &str| strict.iter().any(|strict| strict == name);
    let is_wanted = |name: &str| match demand {
        Demand::Tool(wanted) => name == wanted,
        Demand::Any | Demand::None => true,
    };
    if *demand == Demand::None {
        if !tools.iter().filter_map(name_of).any(is_strict) {
            return Ok(None);
        }
        let grammar = Grammar::of_text_and_calls(&engine.format, tools, is_strict, !one_call);
        return Ok(grammar.map(|grammar| Form { field: "tools", grammar, is_whole: false }));
    }
    let wanted: Vec<Value> = tools.iter().filter(|tool| name_of(tool).is_some_and(is_wanted)).cloned().collect();
    if wanted.is_empty() {
        return Err(Failure::field("tool_choice", "`tool_choice` demands a tool that `tools` does not declare"));
    }
    match Grammar::of_calls(&engine.format, &wanted, !one_call) {
        Some(grammar) => Ok(Some(Form { field: "tools", grammar, is_whole: true })),
        None => Err(Failure::field("tool_choice", "this model has no markup for calls: use \"auto\" or \"none\"")),
    }
}

/// The form of an answer out of that of its calls and that of its content: demanded calls are the whole answer, and content with a
/// form leaves no place for calls.
pub(super) fn before(calls: Option<Form>, content: Option<Form>) -> Option<Form> {
    match calls {
        Some(calls) if calls.is_whole => Some(calls),
        calls => content.or(calls),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Demand, demand, keep_allowed};
    use crate::http::request::Fields;

    fn read(choice: &Value) -> Option<(Demand, usize)> {
        let body = json!({ "tool_choice": choice });
        let fields = Fields::new(body.as_object().unwrap());
        let tool = |name: &str| json!({"type": "function", "function": {"name": name}});
        let mut tools = vec![tool("a"), tool("b")];
        keep_allowed(fields, &mut tools);
        demand(fields).ok().map(|demand| (demand, tools.len()))
    }

    #[test]
    fn a_choice_is_read_in_the_words_of_every_dialect() {
        let named = || Demand::Tool("a".to_owned());
        let deep = |mode: &str| {
            json!({"type": "allowed_tools", "allowed_tools": {"mode": mode,
            "tools": [{"type": "function", "function": {"name": "b"}}]}})
        };
        for (choice, want) in [
            (Value::Null, (Demand::None, 2)),
            (json!("auto"), (Demand::None, 2)),
            (json!({"type": "auto"}), (Demand::None, 2)),
            (json!("none"), (Demand::None, 0)),
            (json!({"type": "none"}), (Demand::None, 0)),
            (json!("required"), (Demand::Any, 2)),
            (json!({"type": "any"}), (Demand::Any, 2)),
            (json!({"type": "function", "function": {"name": "a"}}), (named(), 2)),
            (json!({"type": "custom", "name": "a"}), (named(), 2)),
            (json!({"type": "tool", "name": "a"}), (named(), 2)),
            (deep("auto"), (Demand::None, 1)),
            (deep("required"), (Demand::Any, 1)),
            (json!({"type": "allowed_tools", "mode": "required", "tools": [{"name": "c"}]}), (Demand::Any, 0)),
        ] {
            assert_eq!(read(&choice), Some(want), "{choice}");
        }
        for wrong in [
            json!("function"),
            json!("sometimes"),
            json!(7),
            json!({"type": "tool"}),
            json!({"type": "file_search"}),
            json!({"type": "allowed_tools", "mode": "auto"}),
            deep("often"),
        ] {
            assert_eq!(read(&wrong), None, "{wrong}");
        }
    }
}
