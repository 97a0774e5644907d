//! Filters of Jinja2 that the engine lacks, computes otherwise, or whose parameters it takes by name only.

use minijinja::value::{Kwargs, Rest, Tuple, Value, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, State, filters};

use super::arguments::is_on;
use super::methods::MAX_WIDTH;
use super::python::{charge, escape, fail, integer, items, spelled, text, weigh};
use super::wrap::Wrap;
use super::{arguments, methods, operators, percent};

/// A filter of the engine whose parameters have a place in Jinja2.
type ByName = fn(&State<'_, '_>, Value, Kwargs) -> Result<Value, Error>;

/// Adds the filters to an environment.
pub(super) fn install(environment: &mut Environment<'static>) {
    environment.add_filter("string", text);
    for name in ["length", "count"] {
        environment.add_filter(name, length);
    }
    for name in ["default", "d"] {
        environment.add_filter(name, or_default);
    }
    environment.add_filter("format", |state: &State<'_, '_>, form: &Value, args: Rest<ValueOrKwargs>| {
        let args = args.into_values();
        let form = form.as_str().ok_or_else(|| fail("format needs a text"))?;
        match args.as_slice() {
            [only] if only.is_kwargs() => percent::format(state, form, only),
            _ => percent::format(state, form, &Tuple::from(args).into()),
        }
    });
    environment.add_filter("join", join);
    environment.add_filter("replace", replace);
    environment.add_filter("wordcount", |state: &State<'_, '_>, value: &Value| -> Result<usize, Error> {
        Ok(text(state, value)?.split_whitespace().count())
    });
    environment.add_filter("trim", |state: &State<'_, '_>, args: Rest<ValueOrKwargs>| -> Result<Value, Error> {
        let args = args.into_values();
        let (value, [chars]) = arguments::of_filter(&args, ["chars"])?;
        methods::strip(&text(state, value)?, "strip", chars.as_ref()).map(Value::from)
    });
    environment.add_filter("list", |state: &State<'_, '_>, value: &Value| -> Result<Value, Error> {
        if operators::iterable(value) {
            items(state, value).map(Value::from)
        } else {
            Err(operators::not_iterable(value))
        }
    });
    for name in ["e", "escape", "forceescape"] {
        let is_forced = name == "forceescape";
        environment.add_filter(name, move |state: &State<'_, '_>, value: &Value| -> Result<Value, Error> {
            if value.is_safe() && !is_forced {
                return Ok(value.clone());
            }
            Ok(Value::from_safe_string(escape(&text(state, value)?)))
        });
    }
    environment.add_filter("urlencode", urlencode);
    environment.add_filter("pprint", pprint);
    environment.add_filter("indent", indent);
    environment.add_filter("center", center);
    environment.add_filter("truncate", truncate);
    environment.add_filter("wordwrap", wordwrap);
    environment.add_filter("int", int);
    environment.add_filter("float", float);
    let by_name: [(_, ByName, &'static [&str]); 5] = [
        ("dictsort", |_, value, options| filters::dictsort(&value, options), &["case_sensitive", "by", "reverse"]),
        ("sort", sort, &["reverse", "case_sensitive", "attribute"]),
        ("min", filters::min, &["case_sensitive", "attribute"]),
        ("max", filters::max, &["case_sensitive", "attribute"]),
        (
            "groupby",
            |_, value, options| filters::groupby(value, None, options),
            &["attribute", "default", "case_sensitive"],
        ),
    ];
    for (name, filter, parameters) in by_name {
        environment.add_filter(name, move |state: &State<'_, '_>, args: Rest<ValueOrKwargs>| {
            let args = args.into_values();
            let (value, options) = args.split_first().ok_or(minijinja::ErrorKind::MissingArgument)?;
            // A generator is walked only once.
            let value = match value.kind() {
                ValueKind::None => return Err(operators::not_iterable(value)),
                ValueKind::Iterable => items(state, value)?.into(),
                _ => value.clone(),
            };
            weigh(state, &value)?;
            filter(state, value, arguments::by_name(options, parameters)?)
        });
    }
}

/// The engine would sort values of any kinds; Python refuses those that have no order.
fn sort(state: &State<'_, '_>, value: Value, options: Kwargs) -> Result<Value, Error> {
    let path = options.peek::<Option<&str>>("attribute")?;
    if path.is_some_and(|path| path.contains(',')) {
        return filters::sort(state, value, options);
    }
    let keys: Vec<Value> = value
        .try_iter()?
        .map(|item| path.unwrap_or_default().split('.').filter(|name| !name.is_empty()).try_fold(item, follow))
        .collect::<Result<_, _>>()?;
    keys.windows(2).try_for_each(|pair| operators::ordered(&pair[0], &pair[1], "<"))?;
    filters::sort(state, value, options)
}

/// The item of that name or number.
fn follow(value: Value, name: &str) -> Result<Value, Error> {
    match name.parse::<usize>() {
        Ok(index) => value.get_item_by_index(index),
        Err(_) => value.get_attr(name),
    }
}

/// An undefined value is empty.
fn length(value: &Value) -> Result<usize, Error> {
    if value.is_undefined() {
        return Ok(0);
    }
    value.len().ok_or_else(|| fail(format!("a value of the kind {} has no length", value.kind())))
}

fn or_default(args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let args = args.into_values();
    let (value, [default, boolean]) = arguments::of_filter(&args, ["default_value", "boolean"])?;
    let is_missing = value.is_undefined() || (is_on(boolean) && !value.is_true());
    Ok(if is_missing { default.unwrap_or_else(|| "".into()) } else { value.clone() })
}

fn join(state: &State<'_, '_>, args: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let args = args.into_values();
    let (values, [separator, attribute]) = arguments::of_filter(&args, ["d", "attribute"])?;
    if !operators::iterable(values) {
        return Err(operators::not_iterable(values));
    }
    let separator = separator.map(|value| text(state, &value)).transpose()?.unwrap_or_default();
    let path = attribute.filter(|a| !a.is_none()).map(|attribute| text(state, &attribute)).transpose()?;
    let mut out = String::new();
    for (i, item) in values.try_iter()?.enumerate() {
        let item = match &path {
            Some(path) => path.split('.').try_fold(item, follow)?,
            None => item,
        };
        let item = text(state, &item)?;
        charge(state, 64 + separator.len() + item.len())?;
        out.push_str(if i > 0 { &separator } else { "" });
        out.push_str(&item);
    }
    Ok(out)
}

fn replace(state: &State<'_, '_>, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let args = args.into_values();
    let (value, [old, new, count]) = arguments::of_filter(&args, ["old", "new", "count"])?;
    let (Some(old), Some(new)) = (old, new) else { return Err(minijinja::ErrorKind::MissingArgument.into()) };
    let count = count.filter(|count| !count.is_none()).map(i64::try_from).transpose()?;
    methods::replace(state, &text(state, value)?, &text(state, &old)?, &text(state, &new)?, count)
}

fn urlencode(state: &State<'_, '_>, value: &Value) -> Result<String, Error> {
    let mut out = String::new();
    for byte in text(state, value)?.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' | b'/' => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    Ok(out)
}

/// Python's `pprint` of a value that fits a line of 80 characters, with the keys of dicts in order.
fn pprint(state: &State<'_, '_>, value: &Value) -> Result<String, Error> {
    let line = spelled(state, &in_order(state, value)?)?;
    if line.chars().count() > 80 { Err(fail("pprint of a value that needs several lines")) } else { Ok(line) }
}

fn in_order(state: &State<'_, '_>, value: &Value) -> Result<Value, Error> {
    state.consume_fuel(1)?;
    match value.kind() {
        ValueKind::Map => {
            let mut pairs = Vec::new();
            for key in value.try_iter()? {
                pairs.push((key.clone(), in_order(state, &value.get_item(&key)?)?));
            }
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
            Ok(Value::from_pairs(pairs))
        }
        ValueKind::Seq if !value.is_tuple() => value.try_iter()?.map(|item| in_order(state, &item)).collect(),
        _ => Ok(value.clone()),
    }
}

/// A width that is given, or else the usual one.
fn width(given: Option<Value>, usual: usize) -> Result<usize, Error> {
    let given = given.map(i64::try_from).transpose()?;
    let width = given.map_or(usual, |n| usize::try_from(n).unwrap_or(0));
    if width > MAX_WIDTH { Err(fail("a filter is asked for too great a width")) } else { Ok(width) }
}

fn indent(state: &State<'_, '_>, args: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let args = args.into_values();
    let (value, [by, first, blank]) = arguments::of_filter(&args, ["width", "first", "blank"])?;
    let by = match by.as_ref().and_then(Value::as_str) {
        Some(by) => by.to_owned(),
        None => " ".repeat(width(by, 4)?),
    };
    let (first, blank) = (is_on(first), is_on(blank));
    let value = value.as_str().ok_or_else(|| fail("indent needs a text"))?.to_owned() + "\n";
    let mut out = String::new();
    for (i, (line, _)) in methods::lines(&value).enumerate() {
        charge(state, 64 + by.len())?;
        out.push_str(if i > 0 { "\n" } else { "" });
        if (i == 0 && first) || (i > 0 && (blank || !line.is_empty())) {
            out.push_str(&by);
        }
        out.push_str(line);
    }
    Ok(out)
}

fn center(state: &State<'_, '_>, args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let args = args.into_values();
    let (value, [columns]) = arguments::of_filter(&args, ["width"])?;
    let columns = width(columns, 80)?;
    methods::of_text(state, &text(state, value)?, "center", &[columns.into()]).expect("the method exists")
}

fn truncate(state: &State<'_, '_>, args: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let args = args.into_values();
    let (value, [length, killwords, end, leeway]) =
        arguments::of_filter(&args, ["length", "killwords", "end", "leeway"])?;
    let value = text(state, value)?;
    let end = end.map_or(Ok("...".to_owned()), |end| text(state, &end))?;
    let length = width(length, 255)?;
    let leeway = width(leeway.filter(|leeway| !leeway.is_none()), 5)?;
    let end_chars = end.chars().count();
    if length < end_chars {
        return Err(fail("truncate needs a length that the end fits in"));
    }
    if value.chars().count() <= length + leeway {
        return Ok(value);
    }
    let kept: String = value.chars().take(length - end_chars).collect();
    let kept = if is_on(killwords) { &kept } else { kept.rsplit_once(' ').map_or(&*kept, |(kept, _)| kept) };
    Ok(format!("{kept}{end}"))
}

/// Lines of at most `width` characters, cut at white space and within words with a hyphen, as Python's `textwrap` does.
fn wordwrap(state: &State<'_, '_>, args: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let args = args.into_values();
    let (value, [columns, break_long, mark, hyphens]) =
        arguments::of_filter(&args, ["width", "break_long_words", "wrapstring", "break_on_hyphens"])?;
    let columns = width(columns, 79)?;
    if columns == 0 {
        return Err(fail("wordwrap needs a width above 0"));
    }
    let mark = mark.filter(|mark| !mark.is_none()).map_or(Ok("\n".to_owned()), |mark| text(state, &mark))?;
    let break_long = break_long.is_none_or(|on| on.is_true());
    let hyphens = hyphens.is_none_or(|on| on.is_true());
    let value = text(state, value)?;
    charge(state, value.len())?;
    let wrap = Wrap { columns, break_long, hyphens };
    let mut out = String::new();
    for (i, (line, _)) in methods::lines(&value).enumerate() {
        charge(state, 64 + mark.len())?;
        out.push_str(if i > 0 { &mark } else { "" });
        for (i, part) in wrap.parts(line).enumerate() {
            charge(state, 64 + mark.len() + part.len())?;
            out.push_str(if i > 0 { &mark } else { "" });
            out.push_str(part);
        }
    }
    Ok(out)
}

/// Python's `int(text, base)`: with white space around, single underscores between digits, and a sign.
fn read_int(text: &str, base: u32) -> Option<i128> {
    let text = text.trim();
    let (negative, digits) = match text.strip_prefix(['-', '+']) {
        Some(digits) => (text.starts_with('-'), digits),
        None => (false, text),
    };
    let prefix = match base {
        2 => "0b",
        8 => "0o",
        16 => "0x",
        3..=36 => "",
        _ => return None,
    };
    let bare = digits.get(..prefix.len()).filter(|p| !prefix.is_empty() && p.eq_ignore_ascii_case(prefix));
    let digits = digits_of(&digits[bare.map_or(0, str::len)..])?;
    let n = i128::from_str_radix(&digits, base).ok()?;
    Some(if negative { -n } else { n })
}

/// A number's text without its underscores; none where one is not between digits, or a second sign stands.
fn digits_of(text: &str) -> Option<String> {
    let wrong = text.starts_with(['_', '+', '-']) || text.ends_with('_') || text.contains("__");
    (!wrong).then(|| text.replace('_', ""))
}

fn read_float(text: &str) -> Option<f64> {
    let text = text.trim();
    let bare = text.strip_prefix(['-', '+']).unwrap_or(text);
    let sign = &text[..text.len() - bare.len()];
    format!("{sign}{}", digits_of(bare)?).parse().ok()
}

fn int(args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let args = args.into_values();
    let (value, [default, base]) = arguments::of_filter(&args, ["default", "base"])?;
    let base = base.map_or(Ok(10), u32::try_from)?;
    let found = match (value.kind(), value.as_str()) {
        (ValueKind::Undefined, _) => return Err(fail("int of an undefined value")),
        (ValueKind::Bool, _) => Some(i128::from(value.is_true())),
        (ValueKind::Number, _) if value.is_integer() => return Ok(value.clone()),
        (ValueKind::Number, _) => f64::try_from(value.clone()).ok().and_then(whole),
        (_, Some(text)) => read_int(text, base).or_else(|| read_float(text).and_then(whole)),
        _ => None,
    };
    Ok(match found {
        Some(n) => integer(n),
        None => default.unwrap_or_else(|| 0.into()),
    })
}

fn whole(number: f64) -> Option<i128> {
    number.is_finite().then_some(number as i128)
}

fn float(args: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let args = args.into_values();
    let (value, [default]) = arguments::of_filter(&args, ["default"])?;
    let found = match (value.kind(), value.as_str()) {
        (ValueKind::Undefined, _) => return Err(fail("float of an undefined value")),
        (ValueKind::Bool, _) => Some(f64::from(u8::from(value.is_true()))),
        (ValueKind::Number, _) => f64::try_from(value.clone()).ok(),
        (_, Some(text)) => read_float(text),
        _ => None,
    };
    Ok(found.map_or_else(|| default.unwrap_or_else(|| 0.0.into()), Value::from))
}
