//! Operators, tests and filters as Python computes them; module `rewrite` puts the filters in the place of the operators.
//!
//! **Invariant:** a text made by one of them has at most [`MAX_TEXT_BYTES`], a list at most [`limits`] allows.

use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind};

use super::{limits, percent, python};

/// Longest text that an operator makes, in bytes.
const MAX_TEXT_BYTES: usize = 64 << 20;

/// Adds all of it to an environment.
pub(super) fn install(environment: &mut Environment<'static>) {
    environment.add_filter("__concat", concat);
    environment.add_filter("__add", add);
    environment.add_filter("__div", |a: &Value, b: &Value| divide(a, b, "/"));
    environment.add_filter("__floordiv", |a: &Value, b: &Value| divide(a, b, "//"));
    environment.add_filter("__mod", |a: &Value, b: &Value| match a.as_str() {
        Some(form) => percent::format(form, b, false).map(Value::from),
        None => divide(a, b, "%"),
    });
    environment.add_filter("__mod_tuple", |a: &Value, b: &Value| match a.as_str() {
        Some(form) => percent::format(form, b, true).map(Value::from),
        None => Err(unsupported("%", a, b)),
    });
    environment.add_filter("__lt", |a: &Value, b: &Value| ordered(a, b, "<").map(|()| a < b));
    environment.add_filter("__le", |a: &Value, b: &Value| ordered(a, b, "<=").map(|()| a <= b));
    environment.add_filter("__gt", |a: &Value, b: &Value| ordered(a, b, ">").map(|()| a > b));
    environment.add_filter("__ge", |a: &Value, b: &Value| ordered(a, b, ">=").map(|()| a >= b));
    environment.add_filter("__in", contained);
    environment.add_filter("__not_in", |a: &Value, b: &Value| contained(a, b).map(|is| !is));
    environment.add_filter("__iter", |value: &Value| {
        iterable(value).then(|| value.clone()).ok_or_else(|| not_iterable(value))
    });
    environment.add_filter("string", |value: &Value| python::text(value));
    environment.add_filter("join", join);
    environment.add_filter("length", length);
    environment.add_filter("count", length);
    environment.add_filter(
        "replace",
        |value: &Value, old: &Value, new: &Value, count: Option<i64>| -> Result<String, Error> {
            let (text, old, new) = (python::text(value)?, python::text(old)?, python::text(new)?);
            if text.len().saturating_mul(new.len().max(1)) > MAX_TEXT_BYTES && new.len() > old.len() {
                return Err(limits::refuse("a text grows too long"));
            }
            Ok(match count.and_then(|n| usize::try_from(n).ok()) {
                Some(n) => text.replacen(&old, &new, n),
                None => text.replace(&old, &new),
            })
        },
    );
    environment
        .add_filter("wordcount", |value: &Value| python::text(value).map(|text| text.split_whitespace().count()));
    environment.add_filter("format", |form: &Value, args: Rest<Value>| match (form.as_str(), args.as_slice()) {
        (Some(form), [only]) if only.is_kwargs() => percent::format(form, only, false),
        (Some(form), _) => percent::format(form, &Value::from(args.to_vec()), true),
        (None, _) => Err(Error::new(ErrorKind::InvalidOperation, "format needs a text")),
    });
    environment.add_test("iterable", |value: &Value| iterable(value));
    environment.add_test("sequence", |value: &Value| iterable(value));
    environment.add_test("integer", |value: &Value| value.is_integer());
    environment.add_test("number", |value: &Value| matches!(value.kind(), ValueKind::Number | ValueKind::Bool));
    environment.add_test("callable", |value: &Value| value.kind() == ValueKind::Plain);
}

/// An undefined value is empty.
fn length(value: &Value) -> Result<usize, Error> {
    let none =
        || Error::new(ErrorKind::InvalidOperation, format!("a value of the kind {} has no length", value.kind()));
    if value.is_undefined() { Ok(0) } else { value.len().ok_or_else(none) }
}

fn unsupported(operator: &str, a: &Value, b: &Value) -> Error {
    let reason = format!("the operator {operator} does not take {} and {}", a.kind(), b.kind());
    Error::new(ErrorKind::InvalidOperation, reason)
}

fn not_iterable(value: &Value) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("a value of the kind {} is not iterable", value.kind()))
}

/// An undefined value is: it iterates as empty.
fn iterable(value: &Value) -> bool {
    use ValueKind::{Iterable, Map, Seq, String, Undefined};
    matches!(value.kind(), Undefined | String | Seq | Iterable | Map)
        || value.try_iter().is_ok_and(|_| !value.is_none())
}

fn is_list(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable)
}

fn concat(a: &Value, b: &Value) -> Result<String, Error> {
    joined(&python::text(a)?, &python::text(b)?)
}

fn joined(a: &str, b: &str) -> Result<String, Error> {
    if a.len() + b.len() > MAX_TEXT_BYTES {
        return Err(limits::refuse("a text grows too long"));
    }
    Ok([a, b].concat())
}

fn add(a: &Value, b: &Value) -> Result<Value, Error> {
    if let (Some(a), Some(b)) = (a.as_str(), b.as_str()) {
        return joined(a, b).map(Value::from);
    }
    if is_list(a) && is_list(b) {
        limits::check_length(a)?;
        limits::check_length(b)?;
        return Ok(a.try_iter()?.chain(b.try_iter()?).collect());
    }
    match (integer(a), integer(b), number(a), number(b)) {
        (Some(x), Some(y), ..) => x.checked_add(y).map(whole).ok_or_else(|| unsupported("+", a, b)),
        (_, _, Some(x), Some(y)) => Ok((x + y).into()),
        _ => Err(unsupported("+", a, b)),
    }
}

/// Integers and, as in Python, truth values.
fn integer(value: &Value) -> Option<i128> {
    match value.kind() {
        ValueKind::Bool => Some(i128::from(value.is_true())),
        ValueKind::Number if value.is_integer() => i128::try_from(value.clone()).ok(),
        _ => None,
    }
}

fn number(value: &Value) -> Option<f64> {
    match value.kind() {
        ValueKind::Number => f64::try_from(value.clone()).ok().or_else(|| integer(value).map(|x| x as f64)),
        _ => integer(value).map(|x| x as f64),
    }
}

fn whole(value: i128) -> Value {
    i64::try_from(value).map_or_else(|_| Value::from(value), Value::from)
}

/// Python's `/`, `//` and `%`: towards minus infinity, with the sign of the divisor; never by zero.
fn divide(a: &Value, b: &Value, operator: &str) -> Result<Value, Error> {
    let (Some(x), Some(y)) = (number(a), number(b)) else { return Err(unsupported(operator, a, b)) };
    if y == 0.0 {
        return Err(Error::new(ErrorKind::InvalidOperation, "division by zero"));
    }
    if let (Some(x), Some(y), true) = (integer(a), integer(b), operator != "/") {
        let rest = x.checked_rem(y).unwrap_or(0);
        let (down, rest) = if rest != 0 && (rest < 0) != (y < 0) { (1, rest + y) } else { (0, rest) };
        let quotient = x.checked_div(y).and_then(|q| q.checked_sub(down)).ok_or_else(|| unsupported(operator, a, b))?;
        return Ok(whole(if operator == "//" { quotient } else { rest }));
    }
    Ok(match operator {
        "/" => x / y,
        "//" => (x / y).floor(),
        _ => x - y * (x / y).floor(),
    }
    .into())
}

/// Whether Python would compare the two by order.
fn ordered(a: &Value, b: &Value, operator: &str) -> Result<(), Error> {
    let fits = (number(a).is_some() && number(b).is_some())
        || (a.as_str().is_some() && b.as_str().is_some())
        || (is_list(a) && is_list(b));
    if fits { Ok(()) } else { Err(unsupported(operator, a, b)) }
}

fn contained(value: &Value, container: &Value) -> Result<bool, Error> {
    if let Some(text) = container.as_str() {
        return value.as_str().map(|part| text.contains(part)).ok_or_else(|| unsupported("in", value, container));
    }
    match container.kind() {
        ValueKind::Undefined => Ok(false),
        ValueKind::Map => Ok(container.as_object().is_some_and(|map| map.get_value(value).is_some())),
        ValueKind::Seq | ValueKind::Iterable => {
            limits::check_length(container)?;
            Ok(container.try_iter()?.any(|item| item == *value || equal_numbers(&item, value)))
        }
        _ => Err(unsupported("in", value, container)),
    }
}

fn equal_numbers(a: &Value, b: &Value) -> bool {
    matches!((number(a), number(b)), (Some(a), Some(b)) if a == b)
}

/// `values | join(separator, attribute)`.
fn join(
    values: &Value,
    separator: Option<&Value>,
    attribute: Option<&Value>,
    options: Kwargs,
) -> Result<String, Error> {
    let mut values = values.clone();
    limits::check_length(&values)?;
    let separator = separator.cloned().or(options.get::<Option<Value>>("d")?);
    let attribute = attribute.cloned().or(options.get::<Option<Value>>("attribute")?);
    options.assert_all_used()?;
    if !iterable(&values) {
        return Err(not_iterable(&values));
    }
    if let Some(attribute) = attribute {
        let path = python::text(&attribute)?;
        let follow = |item: Value| path.split('.').try_fold(item, |item, name| item.get_attr(name));
        values = values.try_iter()?.map(follow).collect::<Result<Vec<_>, _>>()?.into();
    }
    let separator = separator.map(|s| python::text(&s)).transpose()?.unwrap_or_default();
    let mut out = String::new();
    for (i, item) in values.try_iter()?.enumerate() {
        out.push_str(if i > 0 { &separator } else { "" });
        out.push_str(&python::text(&item)?);
        if out.len() > MAX_TEXT_BYTES {
            return Err(limits::refuse("a text grows too long"));
        }
    }
    Ok(out)
}
