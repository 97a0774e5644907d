//! Operators and tests as Python computes them, where the engine does otherwise; module `rewrite` puts the filters in the
//! place of the operators.

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State};

use super::percent;
use super::python::{charge, escape, integer, items, text, weigh};
use super::sequences::{is_generator, view_name};

/// Adds all of it to an environment.
pub(super) fn install(environment: &mut Environment<'static>) {
    environment.add_filter("__concat", concat);
    environment.add_filter("__add", add);
    environment.add_filter("__mod", modulo);
    for (filter, tests, compare) in [
        ("__eq", &["eq", "equalto", "=="][..], (|a, b| a == b) as fn(&Value, &Value) -> bool),
        ("__ne", &["ne", "!="], |a, b| a != b),
    ] {
        let compared = move |state: &State<'_, '_>, a: &Value, b: &Value| -> Result<bool, Error> {
            weigh(state, a).and_then(|()| weigh(state, b)).map(|()| compare(a, b))
        };
        environment.add_filter(filter, compared);
        tests.iter().for_each(|name| environment.add_test(*name, compared));
    }
    for (filter, tests, compare) in [
        ("__lt", ["lt", "lessthan", "<"], (|a, b| a < b) as fn(&Value, &Value) -> bool),
        ("__le", ["le", "<=", "<="], |a, b| a <= b),
        ("__gt", ["gt", "greaterthan", ">"], |a, b| a > b),
        ("__ge", ["ge", ">=", ">="], |a, b| a >= b),
    ] {
        let compared = move |state: &State<'_, '_>, a: &Value, b: &Value| -> Result<bool, Error> {
            ordered(a, b, tests[2])?;
            weigh(state, a).and_then(|()| weigh(state, b)).map(|()| compare(a, b))
        };
        environment.add_filter(filter, compared);
        tests.iter().for_each(|name| environment.add_test(*name, compared));
    }
    environment
        .add_filter("__weigh", |state: &State<'_, '_>, value: &Value| weigh(state, value).map(|()| value.clone()));
    environment.add_filter("__in", contained);
    environment
        .add_filter("__not_in", |state: &State<'_, '_>, a: &Value, b: &Value| contained(state, a, b).map(|is| !is));
    environment.add_test("in", contained);
    environment.add_filter("__iter", |state: &State<'_, '_>, value: &Value| match value {
        value if !iterable(value) => Err(not_iterable(value)),
        // A loop knows its length, which the engine does not find for these.
        value if is_generator(value) || value.as_str().is_some() => items(state, value).map(Value::from),
        value => Ok(value.clone()),
    });
    environment.add_test("iterable", iterable);
    environment.add_test("sequence", |value: &Value| iterable(value) && !is_generator(value));
    environment.add_test("callable", |value: &Value| value.kind() == ValueKind::Plain);
}

fn unsupported(operator: &str, a: &Value, b: &Value) -> Error {
    let reason = format!("the operator {operator} does not take {} and {}", a.kind(), b.kind());
    Error::new(ErrorKind::InvalidOperation, reason)
}

pub(super) fn not_iterable(value: &Value) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("a value of the kind {} is not iterable", value.kind()))
}

/// An undefined value is: it iterates as empty.
pub(super) fn iterable(value: &Value) -> bool {
    !value.is_none() && value.try_iter().is_ok()
}

fn concat(state: &State<'_, '_>, a: &Value, b: &Value) -> Result<String, Error> {
    Ok([text(state, a)?, text(state, b)?].concat())
}

/// A text that is safe for HTML escapes the text that it is added to, as `markupsafe` does: templates that use `safe` get
/// escaped prompts from Jinja2, too.
fn add(state: &mut State<'_, '_>, a: &Value, b: &Value) -> Result<Value, Error> {
    match (a.as_str(), b.as_str()) {
        (Some(x), Some(y)) if a.is_safe() == b.is_safe() => {
            let sum = [x, y].concat();
            Ok(if a.is_safe() { Value::from_safe_string(sum) } else { sum.into() })
        }
        (Some(x), Some(y)) => {
            let sum = if a.is_safe() { [x, &escape(y)].concat() } else { [&escape(x), y].concat() };
            Ok(Value::from_safe_string(sum))
        }
        _ if a.is_undefined() || b.is_undefined() || a.as_str().is_some() || !is_operand(a) || !is_operand(b) => {
            Err(unsupported("+", a, b))
        }
        // The engine's own operator, which is no part of its interface.
        _ => {
            let start: Kwargs = [("start", a.clone())].into_iter().collect();
            state.apply_filter("sum", &[vec![b.clone()].into(), start.into()])
        }
    }
}

fn is_operand(value: &Value) -> bool {
    !is_generator(value) && view_name(value).is_none()
}

/// Formats a text, or divides: the engine's own `%` takes no text.
fn modulo(state: &State<'_, '_>, a: &Value, b: &Value) -> Result<Value, Error> {
    match a.as_str() {
        Some(form) => percent::format(state, form, b).map(Value::from),
        None => remainder(a, b).ok_or_else(|| unsupported("%", a, b)),
    }
}

/// The rest of a division, with the sign of the divisor; none for a division by zero.
fn remainder(a: &Value, b: &Value) -> Option<Value> {
    let whole = |value: &Value| match value.kind() {
        ValueKind::Bool => Some(i128::from(value.is_true())),
        _ if value.is_integer() => i128::try_from(value.clone()).ok(),
        _ => None,
    };
    let number = |value: &Value| whole(value).map(|n| n as f64).or_else(|| f64::try_from(value.clone()).ok());
    if let (Some(a), Some(b)) = (whole(a), whole(b)) {
        let rest = if b == 0 { return None } else { a.wrapping_rem(b) };
        let rest = if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest };
        return Some(integer(rest));
    }
    let (a, b) = (number(a)?, number(b)?);
    let rest = a % b;
    let rest = if rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest };
    (b != 0.0).then(|| rest.into())
}

/// Whether Python would compare the two by order.
pub(super) fn ordered(a: &Value, b: &Value, operator: &str) -> Result<(), Error> {
    let is_number = |value: &Value| matches!(value.kind(), ValueKind::Number | ValueKind::Bool);
    let is_list = |value: &Value| matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable);
    let fits = (is_number(a) && is_number(b))
        || (a.as_str().is_some() && b.as_str().is_some())
        || (is_list(a) && is_list(b) && a.is_tuple() == b.is_tuple());
    if fits { Ok(()) } else { Err(unsupported(operator, a, b)) }
}

fn contained(state: &State<'_, '_>, value: &Value, container: &Value) -> Result<bool, Error> {
    weigh(state, value)?;
    if let Some(text) = container.as_str() {
        charge(state, text.len())?;
        return value.as_str().map(|part| text.contains(part)).ok_or_else(|| unsupported("in", value, container));
    }
    match container.kind() {
        ValueKind::Undefined => Ok(false),
        ValueKind::Map => Ok(container.as_object().is_some_and(|map| map.get_value(value).is_some())),
        ValueKind::Seq | ValueKind::Iterable => {
            for item in container.try_iter()? {
                state.consume_fuel(1)?;
                weigh(state, &item)?;
                if item == *value {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        _ => Err(unsupported("in", value, container)),
    }
}
