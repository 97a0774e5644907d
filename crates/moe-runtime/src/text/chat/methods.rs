//! Methods of Python's strings that the engine's own compatibility layer lacks or does otherwise.

use minijinja::value::{Kwargs, Value, from_args};
use minijinja::{Error, ErrorKind};

use super::limits;

/// Largest width a text is padded to.
const MAX_WIDTH: usize = 1 << 16;

/// The result of a method, `None` for one that is not here.
pub(super) fn of_text(text: &str, name: &str, args: &[Value]) -> Option<Result<Value, Error>> {
    let result = match name {
        "split" | "rsplit" => split(text, args, name == "rsplit"),
        "splitlines" => splitlines(text, args),
        "partition" | "rpartition" => partition(text, args, name == "rpartition"),
        "removeprefix" => one(args).map(|prefix| text.strip_prefix(&*prefix).unwrap_or(text).into()),
        "removesuffix" => one(args).map(|suffix| text.strip_suffix(&*suffix).unwrap_or(text).into()),
        "find" | "index" | "rfind" | "rindex" => find(text, args, name),
        "center" | "ljust" | "rjust" | "zfill" => pad(text, args, name),
        "swapcase" => Ok(text.chars().map(swapped).collect::<String>().into()),
        "casefold" => Ok(text.to_lowercase().replace('ß', "ss").into()),
        "isdigit" | "isnumeric" | "isdecimal" => Ok(all(text, char::is_numeric)),
        "isalnum" => Ok(all(text, char::is_alphanumeric)),
        "isalpha" => Ok(all(text, char::is_alphabetic)),
        "isspace" => Ok(all(text, char::is_whitespace)),
        "islower" => Ok((text.chars().any(char::is_lowercase) && !text.chars().any(char::is_uppercase)).into()),
        "isupper" => Ok((text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase)).into()),
        "join" => join(text, args),
        _ => return None,
    };
    Some(result)
}

fn fail(reason: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason)
}

fn one(args: &[Value]) -> Result<String, Error> {
    from_args::<(&str,)>(args).map(|(text,)| text.to_owned())
}

fn all(text: &str, is: impl Fn(char) -> bool) -> Value {
    (!text.is_empty() && text.chars().all(is)).into()
}

fn swapped(c: char) -> String {
    if c.is_uppercase() { c.to_lowercase().collect() } else { c.to_uppercase().collect() }
}

fn split(text: &str, args: &[Value], from_right: bool) -> Result<Value, Error> {
    let (separator, limit, options): (Option<Value>, Option<i64>, Kwargs) = from_args(args)?;
    let separator = separator.or(options.get::<Option<Value>>("sep")?).filter(|value| !value.is_none());
    let limit = limit.or(options.get::<Option<i64>>("maxsplit")?).and_then(|n| usize::try_from(n).ok());
    options.assert_all_used()?;
    let separator = match &separator {
        Some(value) => {
            Some(value.as_str().filter(|s| !s.is_empty()).ok_or_else(|| fail("split needs a text that is not empty"))?)
        }
        None => None,
    };
    let parts: Vec<&str> = match (separator, limit, from_right) {
        (Some(s), None, _) => text.split(s).collect(),
        (Some(s), Some(n), false) => text.splitn(n.saturating_add(1), s).collect(),
        (Some(s), Some(n), true) => reversed(text.rsplitn(n.saturating_add(1), s)),
        (None, None, _) => text.split_whitespace().collect(),
        (None, Some(n), false) => words(text, n),
        (None, Some(n), true) => words_from_right(text, n),
    };
    Ok(parts.into_iter().map(Value::from).collect())
}

fn reversed<'a>(parts: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut parts: Vec<&str> = parts.collect();
    parts.reverse();
    parts
}

/// The first `n` words and the rest.
fn words(text: &str, n: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text.trim_start();
    while parts.len() < n && !rest.is_empty() {
        let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
        parts.push(&rest[..end]);
        rest = rest[end..].trim_start();
    }
    parts.extend((!rest.is_empty()).then_some(rest));
    parts
}

/// The text before the last `n` words, then each of these words.
fn words_from_right(text: &str, n: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text.trim_end();
    while parts.len() < n && !rest.is_empty() {
        let word = rest.rsplit(char::is_whitespace).next().unwrap_or(rest);
        parts.push(word);
        rest = rest[..rest.len() - word.len()].trim_end();
    }
    parts.extend((!rest.is_empty()).then_some(rest));
    parts.reverse();
    parts
}

fn splitlines(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (keep, options): (Option<bool>, Kwargs) = from_args(args)?;
    let keep = keep.or(options.get::<Option<bool>>("keepends")?).unwrap_or(false);
    let ends = |c: char| {
        matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}')
    };
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(ends).unwrap_or(rest.len());
        let mark = match rest[end..].chars().next() {
            Some('\r') if rest[end..].starts_with("\r\n") => 2,
            Some(c) => c.len_utf8(),
            None => 0,
        };
        lines.push(Value::from(&rest[..if keep { end + mark } else { end }]));
        rest = &rest[end + mark..];
    }
    Ok(lines.into())
}

fn partition(text: &str, args: &[Value], from_right: bool) -> Result<Value, Error> {
    let mark = one(args)?;
    if mark.is_empty() {
        return Err(fail("partition needs a text that is not empty"));
    }
    let found = if from_right { text.rsplit_once(&*mark) } else { text.split_once(&*mark) };
    Ok(match (found, from_right) {
        (Some((before, after)), _) => vec![before, mark.as_str(), after],
        (None, false) => vec![text, "", ""],
        (None, true) => vec!["", "", text],
    }
    .into_iter()
    .map(Value::from)
    .collect())
}

/// Where a text occurs, counted in characters as in Python.
fn find(text: &str, args: &[Value], name: &str) -> Result<Value, Error> {
    let (what, start): (&str, Option<i64>) = from_args(args)?;
    let n = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
    let start = start.map_or(0, |at| if at < 0 { (at + n).max(0) } else { at });
    let skipped = usize::try_from(start).unwrap_or(0);
    let Some(from) = text.char_indices().map(|(at, _)| at).chain([text.len()]).nth(skipped) else {
        return Ok((-1).into());
    };
    let found = if name.starts_with('r') { text[from..].rfind(what) } else { text[from..].find(what) };
    match found {
        Some(at) => Ok(text[..from + at].chars().count().into()),
        None if name.ends_with("index") => Err(fail("the text to find is not there")),
        None => Ok((-1).into()),
    }
}

fn pad(text: &str, args: &[Value], name: &str) -> Result<Value, Error> {
    let (width, fill): (i64, Option<&str>) = from_args(args)?;
    let width = usize::try_from(width).unwrap_or(0);
    if width > MAX_WIDTH {
        return Err(limits::refuse("a text is padded to too great a width"));
    }
    let missing = width.saturating_sub(text.chars().count());
    let fill = fill.unwrap_or(" ");
    Ok(match name {
        "ljust" => format!("{text}{}", fill.repeat(missing)),
        "rjust" => format!("{}{text}", fill.repeat(missing)),
        "zfill" => {
            let sign = usize::from(text.starts_with(['-', '+']));
            format!("{}{}{}", &text[..sign], "0".repeat(missing), &text[sign..])
        }
        _ => {
            let left = missing / 2 + (missing & width & 1);
            format!("{}{text}{}", fill.repeat(left), fill.repeat(missing - left))
        }
    }
    .into())
}

fn join(separator: &str, args: &[Value]) -> Result<Value, Error> {
    let (values,): (Value,) = from_args(args)?;
    limits::check_length(&values)?;
    let mut out = String::new();
    for (i, value) in values.try_iter()?.enumerate() {
        out.push_str(if i > 0 { separator } else { "" });
        out.push_str(value.as_str().ok_or_else(|| fail("join of a value that is no text"))?);
        if out.len() > 64 << 20 {
            return Err(limits::refuse("a text grows too long"));
        }
    }
    Ok(out.into())
}
