//! Methods of Python's values that the engine's own compatibility layer lacks or does otherwise.

use minijinja::value::{Tuple, Value, ValueKind, from_args};
use minijinja::{Error, State};

use super::python::{charge, fail, items, paid, weigh};
use super::{arguments, generators};

/// Largest width of a line, a column or a padded text.
pub(super) const MAX_WIDTH: usize = 1 << 16;
/// Most digits of a width or precision in a format text.
const MAX_FORMAT_DIGITS: usize = 4;

/// Calls a method of a value.
pub(super) fn call(state: &mut State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let found = match (value.as_str(), value.kind()) {
        (Some(text), _) => of_text(state, text, name, args),
        (None, ValueKind::Seq | ValueKind::Iterable) => of_list(state, value, name, args),
        (None, ValueKind::Map) if args.is_empty() && name != "copy" => generators::view(state, value, name),
        (None, ValueKind::Map) if name == "copy" => Some(from_args::<()>(args).map(|()| value.clone())),
        (None, ValueKind::Number) => of_number(value, name),
        _ => None,
    };
    match found {
        Some(result) => result,
        None => minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args),
    }
}

/// The result of a method of a text, `None` for one that is not here.
pub(super) fn of_text(state: &State<'_, '_>, text: &str, name: &str, args: &[Value]) -> Option<Result<Value, Error>> {
    // One pass over the text; the methods of more work take more.
    if let Err(error) = charge(state, text.len()) {
        return Some(Err(error));
    }
    let result = match name {
        "strip" | "lstrip" | "rstrip" => {
            from_args::<(Option<&Value>,)>(args).and_then(|(chars,)| strip(text, name, chars)).map(Value::from)
        }
        "startswith" | "endswith" => starts_or_ends(text, args, name == "startswith"),
        "split" | "rsplit" => split(state, text, args, name == "rsplit"),
        "splitlines" => splitlines(state, text, args),
        "partition" | "rpartition" => partition(text, args, name == "rpartition"),
        "removeprefix" => one(args).map(|prefix| text.strip_prefix(&*prefix).unwrap_or(text).into()),
        "removesuffix" => one(args).map(|suffix| text.strip_suffix(&*suffix).unwrap_or(text).into()),
        "find" | "index" | "rfind" | "rindex" => find(text, args, name),
        "count" => one(args).map(|part| text.matches(&*part).count().into()),
        "replace" => arguments::named(args, ["old", "new", "count"]).and_then(|[old, new, count]| {
            let part = |value: &Option<Value>| value.as_ref().and_then(Value::as_str).map(str::to_owned);
            let (Some(old), Some(new)) = (part(&old), part(&new)) else { return Err(fail("replace needs two texts")) };
            replace(state, text, &old, &new, count.map(i64::try_from).transpose()?)
        }),
        "center" | "ljust" | "rjust" | "zfill" => pad(state, text, args, name),
        "format" => match check_format(state, text, args) {
            Ok(()) => return None,
            Err(error) => Err(error),
        },
        "title" => Ok(title(text).into()),
        "capitalize" => Ok(capitalized(text).into()),
        "swapcase" => Ok(text.chars().map(swapped).collect::<String>().into()),
        "casefold" => Ok(text.to_lowercase().replace('ß', "ss").into()),
        "expandtabs" => expandtabs(state, text, args),
        "isnumeric" => Ok(all(text, char::is_numeric)),
        "isdigit" => Ok(all(text, |c| is_decimal(c) || is_circled_or_raised(c))),
        "isdecimal" => Ok(all(text, is_decimal)),
        "istitle" => Ok((title(text) == text && text.chars().any(char::is_alphabetic)).into()),
        "isprintable" => Ok((!text.chars().any(|c| c.is_control() || (c.is_whitespace() && c != ' '))).into()),
        "isalnum" => Ok(all(text, char::is_alphanumeric)),
        "isalpha" => Ok(all(text, char::is_alphabetic)),
        "isspace" => Ok(all(text, char::is_whitespace)),
        "isidentifier" => {
            let is_word = !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || c == '_');
            Ok((is_word && !text.starts_with(char::is_numeric)).into())
        }
        "islower" => Ok((text.chars().any(char::is_lowercase) && !text.chars().any(char::is_uppercase)).into()),
        "isupper" => Ok((text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase)).into()),
        "join" => join(state, text, args),
        _ => return None,
    };
    Some(result)
}

fn of_list(state: &State<'_, '_>, list: &Value, name: &str, args: &[Value]) -> Option<Result<Value, Error>> {
    let items = || weigh(state, list).and_then(|()| items(state, list));
    match name {
        "copy" => Some(items().map(Value::from)),
        "count" => Some(items().and_then(|items| {
            let (what,): (&Value,) = from_args(args)?;
            Ok(items.iter().filter(|item| *item == what).count().into())
        })),
        "index" => Some(items().and_then(|items| {
            let (what,): (&Value,) = from_args(args)?;
            let at = items.iter().position(|item| item == what);
            at.map(Value::from).ok_or_else(|| fail("the item to find is not there"))
        })),
        _ => None,
    }
}

fn of_number(number: &Value, name: &str) -> Option<Result<Value, Error>> {
    match name {
        "is_integer" => {
            let whole = number.is_integer() || f64::try_from(number.clone()).is_ok_and(|n| n.fract() == 0.0);
            Some(Ok(whole.into()))
        }
        "bit_length" if number.is_integer() => {
            let n = i128::try_from(number.clone()).ok()?.unsigned_abs();
            Some(Ok((u128::BITS - n.leading_zeros()).into()))
        }
        _ => None,
    }
}

/// Refuses formatting with a width or precision that no prompt needs, stated in the text or as an argument, and takes the
/// most that the text can become off the budget.
fn check_format(state: &State<'_, '_>, text: &str, args: &[Value]) -> Result<(), Error> {
    let numbers = || text.split(|c: char| !c.is_ascii_digit());
    let is_wide = numbers().any(|digits| digits.len() > MAX_FORMAT_DIGITS);
    // A nested field takes its width from the arguments; a plain number may be of any size.
    let by_argument = text.split('{').skip(1).any(|field| !field.contains('}'));
    let limit = MAX_WIDTH as i64;
    let is_great = |value: &Value| value.is_integer() && value.as_i64().is_none_or(|n| !(-limit..=limit).contains(&n));
    if is_wide || (by_argument && args.iter().any(is_great)) {
        return Err(fail("a format asks for too great a width"));
    }
    let widths: usize = numbers().filter_map(|digits| digits.parse::<usize>().ok()).sum();
    charge(state, widths)?;
    // Each field may be any argument.
    let fields = text.matches('{').count();
    let nested = if by_argument { fields * MAX_WIDTH } else { 0 };
    charge(state, nested)?;
    let longest = args.iter().map(|value| value.as_str().map_or(0, str::len)).max().unwrap_or(0);
    charge(state, fields.saturating_mul(longest))?;
    for value in args.iter().filter(|value| value.as_str().is_none()) {
        (0..fields.min(1 << 20)).try_for_each(|_| weigh(state, value))?;
    }
    Ok(())
}

/// Without these characters at the ends; without Python's white space, which includes the four separators U+001C to
/// U+001F, where none are given.
pub(super) fn strip<'a>(text: &'a str, name: &str, chars: Option<&Value>) -> Result<&'a str, Error> {
    let chars = match chars.filter(|chars| !chars.is_none()) {
        Some(chars) => Some(chars.as_str().ok_or_else(|| fail("strip needs a text"))?),
        None => None,
    };
    let goes = |c: char| match chars {
        Some(chars) => chars.contains(c),
        None => c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c),
    };
    Ok(match name {
        "strip" => text.trim_matches(goes),
        "lstrip" => text.trim_start_matches(goes),
        _ => text.trim_end_matches(goes),
    })
}

fn starts_or_ends(text: &str, args: &[Value], at_start: bool) -> Result<Value, Error> {
    let (part, start, end): (&Value, Option<i64>, Option<i64>) = from_args(args)?;
    let chars: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
    let n = chars.len() as i64 - 1;
    let place = |at: i64| if at < 0 { (at + n).max(0) } else { at };
    let (start, end) = (place(start.unwrap_or(0)), place(end.unwrap_or(n)).min(n));
    let inside = (start <= end).then(|| &text[chars[start as usize]..chars[end as usize]]);
    let is = |part: &Value| {
        let part = part.as_str().ok_or_else(|| fail("startswith and endswith need texts"))?;
        Ok(inside.is_some_and(|text| if at_start { text.starts_with(part) } else { text.ends_with(part) }))
    };
    if !part.is_tuple() {
        return is(part).map(Value::from);
    }
    let found: Result<Vec<bool>, Error> = part.try_iter()?.map(|part| is(&part)).collect();
    Ok(found?.contains(&true).into())
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

/// A digit of any script, and no fraction, raised or circled number.
fn is_decimal(c: char) -> bool {
    let other = matches!(c, '¼'..='¾' | '\u{2150}'..='\u{2189}' | '\u{2460}'..='\u{24ff}' | '\u{2776}'..='\u{3fff}');
    c.is_numeric() && !other && !is_circled_or_raised(c)
}

/// The numbers that are digits to Python and no decimals: raised and lowered ones, and circled ones from 1 to 9.
fn is_circled_or_raised(c: char) -> bool {
    matches!(c, '²' | '³' | '¹' | '\u{2070}'..='\u{2089}' | '\u{2460}'..='\u{2468}')
}

/// As Python: a letter after anything but a letter is upper case, all others are lower case.
fn title(text: &str) -> String {
    let mut after_letter = false;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if after_letter {
            out.extend(c.to_lowercase())
        } else {
            out.extend(c.to_uppercase())
        }
        after_letter = c.is_alphabetic();
    }
    out
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next();
    first.into_iter().flat_map(char::to_uppercase).chain(chars.as_str().to_lowercase().chars()).collect()
}

fn expandtabs(state: &State<'_, '_>, text: &str, args: &[Value]) -> Result<Value, Error> {
    let (size,): (Option<i64>,) = from_args(args)?;
    let size = size.map_or(8, |n| usize::try_from(n).unwrap_or(0)).min(MAX_WIDTH);
    let (mut out, mut column) = (String::new(), 0);
    for c in text.chars() {
        match c {
            '\t' if size > 0 => {
                let n = size - column % size;
                charge(state, n)?;
                out.extend(std::iter::repeat_n(' ', n));
                column += n;
            }
            '\t' => {}
            '\n' | '\r' => (out.push(c), column = 0).0,
            _ => (out.push(c), column += 1).0,
        }
    }
    Ok(out.into())
}

/// `text` with `new` in the place of `old`, at most `count` times unless that is negative.
pub(super) fn replace(
    state: &State<'_, '_>,
    text: &str,
    old: &str,
    new: &str,
    count: Option<i64>,
) -> Result<Value, Error> {
    let most = count.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
    let found = text.matches(old).take(most).count();
    charge(state, text.len().saturating_add(found.saturating_mul(new.len())))?;
    Ok(text.replacen(old, new, most).into())
}

fn split(state: &State<'_, '_>, text: &str, args: &[Value], from_right: bool) -> Result<Value, Error> {
    let [separator, limit] = arguments::named(args, ["sep", "maxsplit"])?;
    let separator = separator.filter(|value| !value.is_none());
    let limit = limit.map(i64::try_from).transpose()?.and_then(|n| usize::try_from(n).ok());
    let separator = match &separator {
        Some(value) => {
            Some(value.as_str().filter(|s| !s.is_empty()).ok_or_else(|| fail("split needs a text that is not empty"))?)
        }
        None => None,
    };
    let parts: Box<dyn Iterator<Item = &str>> = match (separator, limit, from_right) {
        (Some(s), None, _) => Box::new(text.split(s)),
        (Some(s), Some(n), false) => Box::new(text.splitn(n.saturating_add(1), s)),
        (Some(s), Some(n), true) => Box::new(text.rsplitn(n.saturating_add(1), s)),
        (None, None, _) => Box::new(text.split_whitespace()),
        (None, Some(n), false) => Box::new(words(text, n)),
        (None, Some(n), true) => Box::new(words_from_right(text, n)),
    };
    let mut parts: Vec<Value> = paid(state, parts.map(Value::from))?;
    if limit.is_some() && from_right {
        parts.reverse();
    }
    Ok(parts.into())
}

/// The first `n` words and the rest.
fn words(text: &str, n: usize) -> impl Iterator<Item = &str> {
    let (mut rest, mut left) = (text.trim_start(), n);
    std::iter::from_fn(move || {
        let end = match left {
            0 => rest.len(),
            _ => rest.find(char::is_whitespace).unwrap_or(rest.len()),
        };
        let word = &rest[..end];
        (rest, left) = (rest[end..].trim_start(), left.saturating_sub(1));
        (!word.is_empty()).then_some(word)
    })
}

/// The last `n` words, the last one first, and the text before them.
fn words_from_right(text: &str, n: usize) -> impl Iterator<Item = &str> {
    let (mut rest, mut left) = (text.trim_end(), n);
    std::iter::from_fn(move || {
        let word = match left {
            0 => rest,
            _ => rest.rsplit(char::is_whitespace).next().unwrap_or(rest),
        };
        (rest, left) = (rest[..rest.len() - word.len()].trim_end(), left.saturating_sub(1));
        (!word.is_empty()).then_some(word)
    })
}

fn splitlines(state: &State<'_, '_>, text: &str, args: &[Value]) -> Result<Value, Error> {
    let [keep] = arguments::named(args, ["keepends"])?;
    let keep = arguments::is_on(keep);
    paid(state, lines(text).map(|(line, end)| Value::from(if keep { end } else { line }))).map(Value::from)
}

/// Python's lines of a text, each without and with its end.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let ends = |c: char| {
        matches!(c, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}')
    };
    let mut rest = text;
    std::iter::from_fn(move || {
        let end = rest.find(ends).unwrap_or(rest.len());
        let mark = match rest[end..].chars().next() {
            Some('\r') if rest[end..].starts_with("\r\n") => 2,
            Some(c) => c.len_utf8(),
            None => 0,
        };
        let (line, behind) = rest.split_at(end + mark);
        rest = behind;
        (!line.is_empty()).then_some((&line[..end], line))
    })
}

fn partition(text: &str, args: &[Value], from_right: bool) -> Result<Value, Error> {
    let mark = one(args)?;
    if mark.is_empty() {
        return Err(fail("partition needs a text that is not empty"));
    }
    let found = if from_right { text.rsplit_once(&*mark) } else { text.split_once(&*mark) };
    let parts = match (found, from_right) {
        (Some((before, after)), _) => [before, mark.as_str(), after],
        (None, false) => [text, "", ""],
        (None, true) => ["", "", text],
    };
    Ok(Value::from(Tuple::from(parts.map(Value::from))))
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

fn pad(state: &State<'_, '_>, text: &str, args: &[Value], name: &str) -> Result<Value, Error> {
    let (width, fill): (i64, Option<&str>) = from_args(args)?;
    let width = usize::try_from(width).unwrap_or(0);
    if width > MAX_WIDTH {
        return Err(fail("a text is padded to too great a width"));
    }
    let missing = width.saturating_sub(text.chars().count());
    let fill = fill.unwrap_or(" ");
    if fill.chars().count() != 1 {
        return Err(fail("a text is padded with one character"));
    }
    charge(state, missing * fill.len())?;
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

fn join(state: &State<'_, '_>, separator: &str, args: &[Value]) -> Result<Value, Error> {
    let (values,): (Value,) = from_args(args)?;
    let mut out = String::new();
    for (i, value) in values.try_iter()?.enumerate() {
        let text = value.as_str().ok_or_else(|| fail("join of a value that is no text"))?;
        charge(state, 64 + separator.len() + text.len())?;
        out.push_str(if i > 0 { separator } else { "" });
        out.push_str(text);
    }
    Ok(out.into())
}
