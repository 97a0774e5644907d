//! The grammar of answers that call tools: for requests that demand a call, or arguments that follow the schema.
//!
//! ```text
//!  start: call+
//!  call: <tool_call> (t0 | t1) </tool_call>
//!  t0: "get_weather" <arg_key> "city" </arg_key> <arg_value> TEXT </arg_value> ...
//! ```
//!
//! Arguments come in the order of the schema. One that may be a string is raw text, or one of the strings of its `enum`;
//! any other is JSON of its schema.

use std::fmt::Write;

use serde_json::{Value as Json, json};

use super::{Grammar, with_short_gaps};
use crate::models::tokens::CallMarkup;
use crate::text::output::{OutputFormat, may_be_string};

impl Grammar {
    /// The grammar of text with calls of the `tools` in it, one call at most or `several`; `None` as for [`Grammar::of_calls`].
    /// Arguments of the tools that are `strict` follow their schemas; any other tool takes any arguments.
    #[must_use]
    pub fn of_text_and_calls(
        format: &OutputFormat,
        tools: &[Json],
        strict: impl Fn(&str) -> bool,
        several: bool,
    ) -> Option<Grammar> {
        let more = if several { "*" } else { "?" };
        of_tools(format, tools, strict, &format!("TEXT (call TEXT){more}"))
    }

    /// The grammar of one call of the `tools`, or of `several` one after another; `None` where the model has no markup for
    /// calls, or no tool has a name. Tools have the shape of [`ToolSchemas::new`](crate::ToolSchemas::new).
    ///
    /// Of the parameters around an argument only `$defs` and `definitions` are kept:
    /// [`GrammarCompiler::compile`](super::GrammarCompiler::compile) refuses references to other places. `x-guidance` is
    /// replaced as in [`Grammar::JsonSchema`].
    #[must_use]
    pub fn of_calls(format: &OutputFormat, tools: &[Json], several: bool) -> Option<Grammar> {
        of_tools(format, tools, |_| true, if several { "call+" } else { "call" })
    }
}

/// The grammar of `answer`, whose calls are those of the tools.
fn of_tools(format: &OutputFormat, tools: &[Json], strict: impl Fn(&str) -> bool, answer: &str) -> Option<Grammar> {
    let markup = format.call_markup()?;
    let CallMarkup { whole: [start, end], .. } = markup;
    let functions = tools.iter().map(|tool| tool.get("function").unwrap_or(tool));
    let named = functions.filter_map(|function| Some((function.get("name")?.as_str()?, function.get("parameters"))));
    let mut rules = String::new();
    let mut names = Vec::new();
    for (index, (name, parameters)) in named.enumerate() {
        let parameters = parameters.filter(|_| strict(name)).unwrap_or(&Json::Null);
        tool(&mut rules, markup, index, name, parameters);
        names.push(format!("t{index}"));
    }
    if names.is_empty() {
        return None;
    }
    let names = names.join(" | ");
    Some(Grammar::Lark(format!("start: {answer}\ncall: {start} ({names}) {end}\nTEXT: /(?s:.*)/\n{rules}")))
}

/// Writes the rule of one tool. A schema without properties says nothing about the arguments, so that any may come.
fn tool(rules: &mut String, markup: CallMarkup, index: usize, name: &str, parameters: &Json) {
    let CallMarkup { key: [key, key_end], value: [value, value_end], .. } = markup;
    let _ = write!(rules, "t{index}: {}", Json::from(name));
    let Some(properties) = parameters.get("properties").and_then(Json::as_object) else {
        let _ = writeln!(rules, " ({key} /[^\\n]+/ {key_end} {value} TEXT {value_end})*");
        return;
    };
    let required = parameters.get("required").and_then(Json::as_array);
    for (property, schema) in properties {
        let is_required = required.is_some_and(|required| required.iter().any(|name| name == property));
        let text = if may_be_string(parameters, property) { strings(schema) } else { json_of(parameters, schema) };
        let optional = if is_required { "" } else { "?" };
        let property = Json::from(property.as_str());
        let _ = write!(rules, " ({key} {property} {key_end} {value} {text} {value_end}){optional}");
    }
    rules.push('\n');
}

/// The values of an argument that may be a string.
fn strings(schema: &Json) -> String {
    let listed = schema.get("enum").and_then(Json::as_array).map(Vec::as_slice);
    let listed = listed.or_else(|| schema.get("const").map(std::slice::from_ref)).unwrap_or_default();
    if listed.is_empty() || listed.iter().any(|value| value.as_str().is_none_or(str::is_empty)) {
        return "TEXT".to_owned();
    }
    let listed: Vec<String> = listed.iter().map(Json::to_string).collect();
    format!("({})", listed.join(" | "))
}

/// The values of any other argument, with the definitions that its schema may refer to.
fn json_of(parameters: &Json, schema: &Json) -> String {
    let mut schema = if schema.is_object() { schema.clone() } else { json!({}) };
    for definitions in ["$defs", "definitions"] {
        if let (Some(found), Some(schema)) = (parameters.get(definitions), schema.as_object_mut()) {
            schema.insert(definitions.to_owned(), found.clone());
        }
    }
    format!("%json {}", with_short_gaps(schema))
}
