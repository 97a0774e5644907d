//! The parts of Python that templates use: the spelling of values, `tojson`, `raise_exception`.

use std::fmt::Write as _;

use minijinja::value::{Rest, Value, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, Output, State};
use serde_json::Value as Json;

use super::{arguments, sequences};

/// Deepest nesting of a value that is printed or turned into JSON; parsers give no deeper ones.
const MAX_DEPTH: usize = 128;

/// The error of `raise_exception(message)`, kept apart from errors of the template engine.
#[derive(Debug)]
pub(super) struct Raised(pub(super) String);

impl std::fmt::Display for Raised {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

/// Adds all of it to an environment.
pub(super) fn install(environment: &mut Environment<'static>) {
    environment.set_formatter(print);
    environment.add_filter("tojson", tojson);
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, "the template refuses").with_source(Raised(message)))
    });
}

/// The error of a template that asks for something that it may not have.
pub(super) fn fail(reason: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason)
}

/// Takes the work on a text of that many bytes off the budget of the rendering.
pub(super) fn charge(state: &State<'_, '_>, bytes: usize) -> Result<(), Error> {
    state.consume_fuel(bytes as u64 / 64)
}

/// Takes a walk along a value and all values in it off the budget of the rendering.
pub(super) fn weigh(state: &State<'_, '_>, value: &Value) -> Result<(), Error> {
    weigh_at(state, value, 0)
}

fn weigh_at(state: &State<'_, '_>, value: &Value, depth: usize) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(fail("a value nests too deeply"));
    }
    match value.kind() {
        ValueKind::String => charge(state, value.as_str().map_or(0, str::len)),
        ValueKind::Seq | ValueKind::Iterable if !sequences::is_generator(value) => {
            value.try_iter()?.try_for_each(|item| {
                state.consume_fuel(1)?;
                weigh_at(state, &item, depth + 1)
            })
        }
        ValueKind::Map => value.try_iter()?.try_for_each(|key| {
            state.consume_fuel(1)?;
            weigh_at(state, &value.get_item(&key)?, depth + 1)
        }),
        _ => Ok(()),
    }
}

/// The items of a value, whose number is taken off the budget of the rendering.
pub(super) fn items(state: &State<'_, '_>, value: &Value) -> Result<Vec<Value>, Error> {
    paid(state, value.try_iter()?)
}

/// All items, each of which is taken off the budget of the rendering before the next one is made.
pub(super) fn paid<T>(state: &State<'_, '_>, items: impl Iterator<Item = T>) -> Result<Vec<T>, Error> {
    items.map(|item| state.consume_fuel(1).map(|()| item)).collect()
}

/// An integer in the engine's usual size, where it has that.
pub(super) fn integer(n: i128) -> Value {
    i64::try_from(n).map_or_else(|_| Value::from(n), Value::from)
}

/// Python's `str` of a value; an undefined one is empty.
pub(super) fn text(state: &State<'_, '_>, value: &Value) -> Result<String, Error> {
    if let Some(text) = value.as_str() {
        return Ok(text.to_owned());
    }
    if value.is_undefined() { Ok(String::new()) } else { spelled(state, value) }
}

/// Python's `repr` of a value.
pub(super) fn spelled(state: &State<'_, '_>, value: &Value) -> Result<String, Error> {
    let mut out = String::new();
    repr(state, value, &mut out, 0)?;
    Ok(out)
}

/// Prints a value as Python's `str` does.
fn print(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    match value.as_str() {
        Some(plain) => out.write_str(plain),
        None => out.write_str(&text(state, value)?),
    }
    .map_err(Error::from)
}

fn repr(state: &State<'_, '_>, value: &Value, out: &mut String, depth: usize) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(fail("a printed value nests too deeply"));
    }
    state.consume_fuel(1)?;
    match value.kind() {
        ValueKind::Undefined => out.push_str("Undefined"),
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number if !value.is_integer() => match f64::try_from(value.clone()) {
            Ok(number) => out.push_str(&float(number)),
            Err(_) => out.push_str(&value.to_string()),
        },
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            charge(state, text.len())?;
            quote(text, out);
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let view = sequences::view_name(value);
            let [open, close] = match view {
                None if value.is_tuple() => ["(", ")"],
                None => ["[", "]"],
                Some(_) => ["([", "])"],
            };
            out.push_str(view.unwrap_or_default());
            out.push_str(open);
            for (i, item) in value.try_iter()?.enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                repr(state, &item, out, depth + 1)?;
            }
            if value.is_tuple() && value.len() == Some(1) {
                out.push(',');
            }
            out.push_str(close);
        }
        ValueKind::Map => {
            out.push('{');
            for (i, key) in value.try_iter()?.enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                repr(state, &key, out, depth + 1)?;
                out.push_str(": ");
                repr(state, &value.get_item(&key)?, out, depth + 1)?;
            }
            out.push('}');
        }
        _ => out.push_str(&value.to_string()),
    }
    Ok(())
}

/// A text for HTML, as Python's `markupsafe` escapes it.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\'' => out.push_str("&#39;"),
            '"' => out.push_str("&#34;"),
            c => out.push(c),
        }
    }
    out
}

/// A Python string literal: single quotes unless only those occur inside.
fn quote(text: &str, out: &mut String) {
    let mark = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(mark);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == mark => out.extend(['\\', c]),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push(mark);
}

/// Python's `repr` of a float: the shortest digits that read back, an exponent below 1e-4 and from 1e16 on.
fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>() {
        Ok(e) if number != 0.0 && !(-4..16).contains(&e) => {
            format!("{digits}e{}{:02}", if e < 0 { '-' } else { '+' }, e.abs())
        }
        _ => format!("{number:?}"),
    }
}

/// `value | tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False)`, in this order as in `transformers`.
fn tojson(state: &State<'_, '_>, args: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let args = args.into_values();
    let (value, [ascii, indent, separators, sort_keys]) =
        arguments::of_filter(&args, ["ensure_ascii", "indent", "separators", "sort_keys"])?;
    let indent = indent.filter(|width| !width.is_none()).map(|width| match width.as_str() {
        Some(text) => text.to_owned(),
        None => " ".repeat(width.as_usize().unwrap_or(0).min(16)),
    });
    let [item, key] = match separators.filter(|pair| !pair.is_none()) {
        Some(pair) => {
            let part = |index| pair.get_item_by_index(index).and_then(|part| text(state, &part));
            [part(0)?, part(1)?]
        }
        None => [if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()],
    };
    let style = Style { ascii: arguments::is_on(ascii), indent, item, key };
    let mut json = from_value(state, value, &style, 0)?;
    if arguments::is_on(sort_keys) {
        json.sort_all_objects();
    }
    let mut out = String::new();
    write_json(&json, &style, 0, &mut out);
    Ok(out)
}

/// A template's value as JSON. The work is paid for here, before the JSON is written.
fn from_value(state: &State<'_, '_>, value: &Value, style: &Style, depth: usize) -> Result<Json, Error> {
    if depth > MAX_DEPTH {
        return Err(fail("a value nests too deeply for tojson"));
    }
    state.consume_fuel(1)?;
    charge(state, style.bytes_around(depth))?;
    match value.kind() {
        ValueKind::Undefined => Err(Error::new(ErrorKind::UndefinedError, "tojson of an undefined value")),
        ValueKind::None => Ok(Json::Null),
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            charge(state, style.text_bytes(text))?;
            Ok(text.into())
        }
        _ if sequences::is_generator(value) || sequences::view_name(value).is_some() => {
            Err(fail("tojson takes no generator and no view of a dict; use `list` first"))
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let items = value.try_iter()?.map(|item| from_value(state, &item, style, depth + 1));
            items.collect::<Result<Vec<_>, _>>().map(Json::Array)
        }
        ValueKind::Map => {
            let pair = |key: Value| {
                let name = match key.as_str() {
                    Some(text) => {
                        charge(state, style.text_bytes(text))?;
                        text.to_owned()
                    }
                    None if matches!(key.kind(), ValueKind::None | ValueKind::Bool | ValueKind::Number) => {
                        write_plain(&from_value(state, &key, style, depth + 1)?)
                    }
                    None => return Err(fail("tojson of a dict with a key that is a list")),
                };
                Ok((name, from_value(state, &value.get_item(&key)?, style, depth + 1)?))
            };
            value.try_iter()?.map(pair).collect::<Result<_, Error>>().map(Json::Object)
        }
        _ => serde_json::to_value(value)
            .map_err(|e| Error::new(ErrorKind::BadSerialization, "tojson of a value JSON cannot hold").with_source(e)),
    }
}

/// How JSON is laid out.
struct Style {
    ascii: bool,
    /// One level of indentation; `None` writes all on one line.
    indent: Option<String>,
    /// The text between two items.
    item: String,
    /// Between a key and its value.
    key: String,
}

impl Style {
    /// The most bytes that are written around a value at this depth: separators, and the lines of its begin and its end.
    fn bytes_around(&self, depth: usize) -> usize {
        let lines = self.indent.as_ref().map_or(0, |indent| 2 * (1 + indent.len() * depth));
        self.item.len() + self.key.len() + lines
    }

    /// The most bytes that a text becomes: an escape has six bytes.
    fn text_bytes(&self, text: &str) -> usize {
        let is_escaped = |byte: &u8| *byte < b' ' || matches!(byte, b'"' | b'\\') || (self.ascii && *byte > b'~');
        text.len() + 5 * text.bytes().filter(is_escaped).count()
    }

    /// Begins a line at this depth.
    fn begin_line(&self, depth: usize, out: &mut String) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(indent.as_str(), depth));
        }
    }
}

/// JSON on one line as Python's `json.dumps(value, ensure_ascii=False)` writes it.
pub(super) fn write_plain(value: &Json) -> String {
    let style = Style { ascii: false, indent: None, item: ", ".to_owned(), key: ": ".to_owned() };
    let mut out = String::new();
    write_json(value, &style, 0, &mut out);
    out
}

fn write_json(value: &Json, style: &Style, depth: usize, out: &mut String) {
    let (open, close, n) = match value {
        Json::Array(items) => ('[', ']', items.len()),
        Json::Object(map) => ('{', '}', map.len()),
        scalar => return write_scalar(scalar, style, out),
    };
    out.push(open);
    let keys = value.as_object().into_iter().flat_map(|map| map.keys().map(Some)).chain(std::iter::repeat(None));
    let items =
        value.as_object().into_iter().flat_map(|map| map.values()).chain(value.as_array().into_iter().flatten());
    for (i, (key, item)) in keys.zip(items).enumerate() {
        out.push_str(if i > 0 { &style.item } else { "" });
        style.begin_line(depth + 1, out);
        if let Some(key) = key {
            json_string(key, style.ascii, out);
            out.push_str(&style.key);
        }
        write_json(item, style, depth + 1, out);
    }
    if n > 0 {
        style.begin_line(depth, out);
    }
    out.push(close);
}

/// Writes a value that is neither a list nor an object.
fn write_scalar(value: &Json, style: &Style, out: &mut String) {
    match value {
        Json::Bool(truth) => out.push_str(if *truth { "true" } else { "false" }),
        Json::Number(number) => match number.as_f64() {
            Some(x) if number.is_f64() => out.push_str(&float(x)),
            _ => out.push_str(&number.to_string()),
        },
        Json::String(text) => json_string(text, style.ascii, out),
        _ => out.push_str("null"),
    }
}

fn json_string(text: &str, ascii: bool, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || (ascii && !(' '..='~').contains(&c)) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::{Style, float, write_json};
    use serde_json::{Value as Json, json};

    fn json(value: &Json, ascii: bool, indent: Option<&str>) -> String {
        let item = if indent.is_some() { "," } else { ", " };
        let style = Style { ascii, indent: indent.map(str::to_owned), item: item.to_owned(), key: ": ".to_owned() };
        let mut out = String::new();
        write_json(value, &style, 0, &mut out);
        out
    }

    /// Right-hand sides printed by Python 3.
    #[test]
    fn floats_read_like_python() {
        for (number, want) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (2.0, "2.0"),
            (0.1, "0.1"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-1.25e-7, "-1.25e-07"),
        ] {
            assert_eq!(float(number), want);
        }
    }

    #[test]
    fn json_reads_like_python() {
        let value = json!({"z": [1, 2.0, null, true, {}, []], "a": "<é🚀>&'\"\\\n\u{1}\u{7f}"});
        assert_eq!(
            json(&value, false, None),
            "{\"z\": [1, 2.0, null, true, {}, []], \"a\": \"<é🚀>&'\\\"\\\\\\n\\u0001\u{7f}\"}"
        );
        assert_eq!(
            json(&value, true, None),
            "{\"z\": [1, 2.0, null, true, {}, []], \"a\": \"<\\u00e9\\ud83d\\ude80>&'\\\"\\\\\\n\\u0001\\u007f\"}"
        );
        assert_eq!(json(&json!({"a": [1, {}]}), false, Some("  ")), "{\n  \"a\": [\n    1,\n    {}\n  ]\n}");
    }
}
