//! The tools of a request as functions, and the way back from a call to the client's kind of tool.

use serde_json::{Value, json};

use crate::http::failure::Failure;
use crate::http::request::Fields;

/// Between the name of a namespace and the name of its function.
const JOINT: &str = "__";
/// The argument of a tool that takes free text.
pub(super) const FREE_INPUT: &str = "input";

/// Tools that the model may call.
#[derive(Clone, Debug, Default)]
pub(super) struct Tools {
    /// In the shape of the chat template.
    pub(super) functions: Vec<Value>,
    /// Names of the namespaces.
    namespaces: Vec<String>,
    /// Names of the tools that take free text.
    custom: Vec<String>,
    /// Names of the functions whose calls have to follow their schemas.
    pub(super) strict: Vec<String>,
}

/// The kind of tool that a call is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Called {
    Function { name: String, namespace: Option<String> },
    Custom { name: String },
}

impl Tools {
    /// Reads the list. Tools that need servers of others are left out: the model cannot call them.
    pub(super) fn read(list: &[Value]) -> Result<Tools, Failure> {
        let mut tools = Tools::default();
        for (index, tool) in list.iter().enumerate() {
            let place = format!("tools[{index}]");
            let fields = Fields::at(tool, &place)?;
            match fields.text("type")? {
                Some("function") => tools.add_function(fields, "")?,
                Some("namespace") => tools.namespace(fields)?,
                Some("custom") => tools.add_custom(fields)?,
                _ => {}
            }
        }
        Ok(tools)
    }

    fn namespace(&mut self, fields: Fields<'_>) -> Result<(), Failure> {
        let name = name_of(fields)?;
        for (index, tool) in fields.list("tools")?.unwrap_or_default().iter().enumerate() {
            let place = format!("{}[{index}]", fields.name("tools"));
            let inner = Fields::at(tool, &place)?;
            if inner.text("type")?.is_none_or(|ty| ty == "function") {
                self.add_function(inner, &format!("{name}{JOINT}"))?;
            }
        }
        self.namespaces.push(name.to_owned());
        Ok(())
    }

    fn add_function(&mut self, fields: Fields<'_>, prefix: &str) -> Result<(), Failure> {
        let name = format!("{prefix}{}", name_of(fields)?);
        let parameters = fields.object("parameters")?.map_or_else(|| json!({ "type": "object" }), |o| o.clone().into());
        self.functions.push(declared(&name, fields.text("description")?, parameters));
        if fields.get("strict") == Some(&Value::Bool(true)) {
            self.strict.push(name);
        }
        Ok(())
    }

    fn add_custom(&mut self, fields: Fields<'_>) -> Result<(), Failure> {
        let name = name_of(fields)?;
        let properties = json!({ FREE_INPUT: { "type": "string" } });
        let parameters = json!({ "type": "object", "properties": properties, "required": [FREE_INPUT] });
        self.functions.push(declared(name, fields.text("description")?, parameters));
        self.custom.push(name.to_owned());
        Ok(())
    }

    /// The kind of tool behind the name that the model called.
    pub(super) fn called(&self, name: &str) -> Called {
        if self.custom.iter().any(|custom| custom == name) {
            return Called::Custom { name: name.to_owned() };
        }
        let inner = |space: &str| name.strip_prefix(space)?.strip_prefix(JOINT).map(str::to_owned);
        let spaces = self.namespaces.iter().filter_map(|space| Some((space, inner(space)?)));
        match spaces.max_by_key(|(space, _)| space.len()) {
            Some((space, name)) => Called::Function { name, namespace: Some(space.clone()) },
            None => Called::Function { name: name.to_owned(), namespace: None },
        }
    }
}

/// The name under which the model knows a function of a namespace.
pub(super) fn joined(namespace: Option<&str>, name: &str) -> String {
    namespace.map_or_else(|| name.to_owned(), |namespace| format!("{namespace}{JOINT}{name}"))
}

fn declared(name: &str, description: Option<&str>, parameters: Value) -> Value {
    let mut function = json!({ "name": name });
    if let Some(description) = description {
        function["description"] = description.into();
    }
    function["parameters"] = parameters;
    json!({ "type": "function", "function": function })
}

fn name_of<'a>(fields: Fields<'a>) -> Result<&'a str, Failure> {
    let missing = || {
        let name = fields.name("name");
        Failure::field(&*name, format!("`{name}` is missing"))
    };
    fields.text("name")?.ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Called, Tools, joined};

    #[test]
    fn namespaces_are_flattened_and_found_again() {
        let list = json!([
            {"type": "function", "name": "f", "parameters": {"type": "object"}},
            {"type": "web_search"},
            {"type": "namespace", "name": "files", "tools": [{"type": "function", "name": "read"}]},
            {"type": "custom", "name": "patch", "description": "d"},
        ]);
        let tools = Tools::read(list.as_array().unwrap()).unwrap();
        let names: Vec<_> = tools.functions.iter().map(|tool| tool["function"]["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["f", "files__read", "patch"]);
        assert_eq!(tools.functions[2]["function"]["parameters"]["properties"]["input"]["type"], "string");
        assert_eq!(joined(Some("files"), "read"), "files__read");
        let function = |name: &str, space: Option<&str>| Called::Function {
            name: name.to_owned(),
            namespace: space.map(str::to_owned),
        };
        assert_eq!(tools.called("f"), function("f", None));
        assert_eq!(tools.called("files__read"), function("read", Some("files")));
        assert_eq!(tools.called("unknown__x"), function("unknown__x", None));
        assert_eq!(tools.called("patch"), Called::Custom { name: "patch".to_owned() });
        assert!(Tools::read(&[json!({"type": "function"})]).unwrap_err().message.contains("tools[0].name"));
    }
}
