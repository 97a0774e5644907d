//! From the text of an argument to its JSON value, as the tool's schema asks.
//!
//! A value stays text if the schema may be a string; otherwise it is JSON if it parses, else text. The template writes the
//! text `2` and the number 2 alike, so only the schema tells them apart.
//!
//! Schemas are input of strangers: looking at one visits at most [`MAX_VISITS`] places, so references in a circle and
//! branches of branches end.

use std::collections::{HashMap, HashSet};

use serde_json::Value as Json;

/// Places of a schema that one look visits.
const MAX_VISITS: u32 = 256;

/// The tools that a request declares, for the types of arguments.
///
/// ```
/// use moe_runtime::ToolSchemas;
/// let tool = serde_json::json!({"type": "function", "function": {"name": "f", "parameters": {
///     "type": "object", "properties": {"zip": {"type": "string"}, "days": {"type": "integer"}}}}});
/// let tools = ToolSchemas::new(&[tool]);
/// let arguments = [("zip".to_owned(), "123".to_owned()), ("days".to_owned(), "3".to_owned())];
/// assert_eq!(tools.arguments("f", &arguments), r#"{"zip":"123","days":3}"#);
/// ```
#[derive(Clone, Debug, Default)]
pub struct ToolSchemas {
    /// The schema of each tool's parameters.
    parameters: HashMap<String, Json>,
}

impl ToolSchemas {
    /// The schemas of tools in the shapes of OpenAI's APIs: `name` and `parameters`, within `function` or without it.
    #[must_use]
    pub fn new(tools: &[Json]) -> ToolSchemas {
        let schema = |tool: &Json| {
            let function = tool.get("function").unwrap_or(tool);
            let name = function.get("name")?.as_str()?.to_owned();
            Some((name, function.get("parameters").cloned().unwrap_or_default()))
        };
        ToolSchemas { parameters: tools.iter().filter_map(schema).collect() }
    }

    /// The arguments of a call to `tool` as the text of a JSON object. Of two arguments with one key the later one counts.
    #[must_use]
    pub fn arguments(&self, tool: &str, arguments: &[(String, String)]) -> String {
        let schema = self.parameters.get(tool);
        let mut later = HashSet::new();
        let mut counted: Vec<_> = arguments.iter().rev().filter(|(key, _)| later.insert(key.as_str())).collect();
        counted.reverse();
        let mut json = String::from("{");
        for (key, value) in counted {
            if json.len() > 1 {
                json.push(',');
            }
            json.push_str(&Json::from(key.as_str()).to_string());
            json.push(':');
            let is_json =
                !schema.is_some_and(|schema| may_be_string(schema, key)) && serde_json::from_str::<Json>(value).is_ok();
            // The text itself is kept, because a parsed number may lose digits.
            match is_json {
                true => json.push_str(value.trim()),
                false => json.push_str(&Json::from(value.as_str()).to_string()),
            }
        }
        json.push('}');
        json
    }
}

/// Whether a schema allows strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strings {
    Allowed,
    Excluded,
    Unstated,
}

/// Whether the argument `key` of a tool with this schema may be a string.
pub(crate) fn may_be_string(parameters: &Json, key: &str) -> bool {
    let mut look = Look { root: parameters, visits: 0 };
    look.property(parameters, key).is_some_and(|schema| look.strings(schema) == Strings::Allowed)
}

struct Look<'a> {
    /// The schema that references start from.
    root: &'a Json,
    visits: u32,
}

impl<'a> Look<'a> {
    /// The schema of the property `key`.
    fn property(&mut self, schema: &'a Json, key: &str) -> Option<&'a Json> {
        self.visits += 1;
        if self.visits > MAX_VISITS {
            return None;
        }
        let own = schema.get("properties").and_then(|properties| properties.get(key));
        let referenced = || self.referenced(schema).and_then(|target| self.property(target, key));
        own.or_else(referenced).or_else(|| schema.get("additionalProperties"))
    }

    /// The target of a reference within the schema.
    fn referenced(&self, schema: &Json) -> Option<&'a Json> {
        self.root.pointer(schema.get("$ref")?.as_str()?.strip_prefix('#')?)
    }

    /// Whether a schema allows strings: all its keywords hold together.
    fn strings(&mut self, schema: &'a Json) -> Strings {
        self.visits += 1;
        if self.visits > MAX_VISITS {
            return Strings::Unstated;
        }
        let mut said = vec![named_types(schema), listed_values(schema)];
        if let Some(target) = self.referenced(schema) {
            said.push(self.strings(target));
        }
        for keyword in ["anyOf", "oneOf"] {
            if let Some(branches) = schema.get(keyword).and_then(Json::as_array) {
                let branches: Vec<Strings> = branches.iter().map(|branch| self.strings(branch)).collect();
                said.push(any(branches));
            }
        }
        for branch in schema.get("allOf").and_then(Json::as_array).into_iter().flatten() {
            let branch = self.strings(branch);
            said.push(branch);
        }
        if said.contains(&Strings::Excluded) {
            Strings::Excluded
        } else if said.contains(&Strings::Allowed) {
            Strings::Allowed
        } else {
            Strings::Unstated
        }
    }
}

/// The alternatives together: a string is allowed where one of them allows it.
fn any(branches: Vec<Strings>) -> Strings {
    if branches.contains(&Strings::Allowed) {
        Strings::Allowed
    } else if branches.is_empty() || branches.contains(&Strings::Unstated) {
        Strings::Unstated
    } else {
        Strings::Excluded
    }
}

fn named_types(schema: &Json) -> Strings {
    match schema.get("type") {
        Some(Json::String(name)) => string_or_not(name == "string"),
        Some(Json::Array(names)) => string_or_not(names.iter().any(|name| name == "string")),
        _ => Strings::Unstated,
    }
}

fn listed_values(schema: &Json) -> Strings {
    match (schema.get("const"), schema.get("enum").and_then(Json::as_array)) {
        (Some(value), _) => string_or_not(value.is_string()),
        (None, Some(values)) => string_or_not(values.iter().any(Json::is_string)),
        (None, None) => Strings::Unstated,
    }
}

fn string_or_not(is_string: bool) -> Strings {
    if is_string { Strings::Allowed } else { Strings::Excluded }
}

#[cfg(test)]
mod tests {
    use super::{MAX_VISITS, ToolSchemas};
    use serde_json::{Value as Json, json};

    /// The value that the text `2` becomes under a schema for the argument, with definitions beside it.
    fn two(schema: Json) -> String {
        let parameters = json!({"type": "object", "properties": {"k": schema}, "$defs": {
            "text": {"type": "string"}, "loop": {"$ref": "#/$defs/loop"},
            "wide": {"anyOf": vec![json!({"$ref": "#/$defs/wide"}); 40]}, "a/b": {"enum": ["x"]}}});
        let tools = ToolSchemas::new(&[json!({"function": {"name": "f", "parameters": parameters}})]);
        tools.arguments("f", &[("k".to_owned(), "2".to_owned())])
    }

    #[test]
    fn a_value_is_text_exactly_if_the_schema_may_be_a_string() {
        let text = [
            json!({"type": "string"}),
            json!({"type": ["null", "string"]}),
            json!({"const": "x"}),
            json!({"enum": [1, "x"]}),
            json!({"anyOf": [{"type": "integer"}, {"type": "string"}]}),
            json!({"oneOf": [{"type": "integer"}, {"$ref": "#/$defs/text"}]}),
            json!({"allOf": [{"$ref": "#/$defs/text"}, {"description": "d"}]}),
            json!({"$ref": "#/$defs/a~1b"}),
        ];
        for schema in text {
            assert_eq!(two(schema.clone()), r#"{"k":"2"}"#, "{schema}");
        }
        let number = [
            json!({"type": "integer"}),
            json!({"type": ["null", "number"]}),
            json!({"const": 2}),
            json!({"enum": [1, 2]}),
            json!({"anyOf": [{"type": "integer"}, {"type": "null"}]}),
            json!({"allOf": [{"type": "integer"}, {"type": ["integer", "string"]}]}),
            json!({"description": "says nothing"}),
            json!({}),
            json!(true),
            json!({"$ref": "#/$defs/missing"}),
            json!({"$ref": "https://example.org/schema"}),
            json!({"$ref": "#/$defs/loop"}),
            json!({"$ref": "#/$defs/wide"}),
        ];
        for schema in number {
            assert_eq!(two(schema.clone()), r#"{"k":2}"#, "{schema}");
        }
    }

    #[test]
    fn a_deep_schema_ends() {
        let deep = (0..MAX_VISITS * 2).fold(json!({"type": "string"}), |inner, _| json!({"anyOf": [inner]}));
        assert_eq!(two(deep), r#"{"k":2}"#);
    }

    #[test]
    fn values_keep_their_text_and_broken_json_becomes_a_string() {
        let tools =
            ToolSchemas::new(&[json!({"name": "f", "parameters": {"additionalProperties": {"type": "string"}}})]);
        let arguments = |tool: &str, pairs: &[(&str, &str)]| {
            let pairs: Vec<_> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            tools.arguments(tool, &pairs)
        };
        assert_eq!(arguments("f", &[("a", "1")]), r#"{"a":"1"}"#, "additional properties have a schema too");
        assert_eq!(arguments("g", &[]), "{}");
        assert_eq!(arguments("g", &[("a", " 12345678901234567890.10 ")]), r#"{"a":12345678901234567890.10}"#);
        assert_eq!(arguments("g", &[("a", "{\"b\":"), ("c", "True")]), r#"{"a":"{\"b\":","c":"True"}"#);
        assert_eq!(arguments("g", &[("a", "1"), ("b", "[2]"), ("a", "\n3")]), r#"{"b":[2],"a":3}"#);
        let deep = "[".repeat(100_000);
        assert_eq!(arguments("g", &[("a", &deep)]), format!(r#"{{"a":"{deep}"}}"#));
    }
}
