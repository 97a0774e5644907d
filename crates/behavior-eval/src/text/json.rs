//! JSON from outside, read once and without a choice: an object that gives a field twice is refused.
//!
//! Parsers differ in which of two equal keys they believe, so a line with both says one thing to us and another to
//! someone else. Depth is bounded by the parser (128).
//!
//! **Invariant:** all JSON of suites, corpora, traces and the two parts of an artifact passes [`parse`].

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::{Map, Value};

use super::lines::LineFault;

/// The value of a text of one line.
pub(crate) fn parse(text: &str) -> Result<Value, LineFault> {
    let repeated = RefCell::new(None);
    let mut parser = serde_json::Deserializer::from_str(text);
    let value = Reader { repeated: &repeated }.deserialize(&mut parser);
    let ended = value.is_ok();
    let value = value.and_then(|value| parser.end().map(|()| value));
    value.map_err(|error| {
        if let Some(field) = repeated.take() {
            return LineFault::field(field, "it stands in the line twice");
        }
        if error.classify() == Category::Eof {
            return LineFault::CutOff;
        }
        // The parser counts lines within the text; only its column means something here.
        let (said, column) = (error.to_string(), error.column());
        let reason = format!("{} at column {column}", said.split(" at line ").next().unwrap_or_default());
        match field_before(text, column).filter(|_| !ended) {
            Some(field) => LineFault::field(field, reason),
            None => LineFault::NotJson { reason },
        }
    })
}

/// The name in front of the value in which a parser stopped: the last `"name":` before `column` (from 1).
fn field_before(line: &str, column: usize) -> Option<&str> {
    let seen = line.get(..column.min(line.len()))?;
    let name = &seen[..seen.rfind("\":")?];
    Some(&name[name.rfind('"')? + 1..]).filter(|name| !name.is_empty() && name.len() <= 64)
}

/// Reads any value; notes the path of the first field that is given twice.
#[derive(Clone, Copy)]
struct Reader<'a> {
    repeated: &'a RefCell<Option<String>>,
}

impl Reader<'_> {
    /// On the way out of a nested value that holds a repeated field: puts the name of the value before it.
    fn within(self, name: impl fmt::Display) {
        if let Some(field) = &mut *self.repeated.borrow_mut() {
            *field = format!("{name}.{field}");
        }
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// Methods of a [`Visitor`] that turn a scalar into a [`Value`].
macro_rules! scalars {
    ($($visit:ident: $scalar:ty),*) => {
        $(fn $visit<E>(self, scalar: $scalar) -> Result<Value, E> {
            Ok(scalar.into())
        })*
    };
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    scalars!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self).inspect_err(|_| self.within(list.len()))? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(self).inspect_err(|_| self.within(&key))?;
            if object.contains_key(&key) {
                self.repeated.replace(Some(key));
                return Err(A::Error::custom("a field stands in it twice"));
            }
            object.insert(key, value);
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use super::{LineFault, parse};
    use serde_json::Value;

    #[test]
    fn what_is_sound_is_read_as_ever() {
        let text = r#" {"a": [1, -2, 3.5, 1e300, 18446744073709551615, "x\u00e9\n", null, true, {}], "b": {"a": 1}} "#;
        assert_eq!(parse(text).unwrap(), serde_json::from_str::<Value>(text).unwrap());
        let keys: Vec<String> = parse(r#"{"z": 1, "a": 2}"#).unwrap().as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys, ["z", "a"], "the order stays");
    }

    #[test]
    fn text_behind_a_value_is_blamed_on_no_field() {
        assert!(matches!(parse(r#"{"a": 1} x"#), Err(LineFault::NotJson { .. })));
        assert!(matches!(parse(r#"{"a": x}"#), Err(LineFault::Field { .. })));
    }

    #[test]
    fn a_field_given_twice_is_named_with_its_path() {
        for (text, path) in [
            (r#"{"a": 1, "a": 1}"#, "a"),
            (r#"{"a": 1, "\u0061": 2}"#, "a"),
            (r#"{"x": {"b": 1, "c": 2, "b": 3}}"#, "x.b"),
            (r#"{"x": [{}, {"y": {"c": 2, "c": 3}}], "x": 1}"#, "x.1.y.c"),
        ] {
            assert_eq!(parse(text), Err(LineFault::field(path, "it stands in the line twice")), "{text}");
        }
        assert!(parse(r#"{"a": {"a": 1}, "b": {"a": 1}}"#).is_ok(), "each object has names of its own");
    }

    #[test]
    fn texts_that_are_no_json() {
        for text in [r#"{"a": [1"#, "nul", ""] {
            assert_eq!(parse(text), Err(LineFault::CutOff), "{text}");
        }
        for (text, part) in [
            ("{} {}", "no JSON object: trailing characters at column 4"),
            (r#"{"a": 1e999}"#, "field `a`: number out of range"),
            (&"[".repeat(100_000), "recursion limit"),
            ("nil", "expected"),
        ] {
            let fault = parse(text).unwrap_err().to_string();
            assert!(fault.contains(part), "{fault}");
        }
    }
}
