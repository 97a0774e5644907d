//! Limits on the work of a single instruction of a template.
//!
//! The engine counts instructions, but one instruction can ask for a string of a billion spaces or walk a list that was
//! multiplied by a billion without ever lying in memory. The filters that widen, cut and walk are wrapped here: their
//! arguments are looked at first.
//!
//! **Invariant:** a refused argument is an error of the template; the wrapped filter does not run.

use minijinja::value::{Rest, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State, filters};

/// Largest width, count or precision that a filter is asked for.
const MAX_NUMBER: i64 = 1 << 16;
/// Most elements of a sequence that one filter walks.
const MAX_ELEMENTS: usize = 1 << 20;
/// Most digits of a width or precision in a format text.
const MAX_FORMAT_DIGITS: usize = 4;

/// Wraps the filters of an environment.
pub(super) fn install(environment: &mut Environment<'static>) {
    let counters = [
        ("batch", Value::from_function(filters::batch)),
        ("indent", Value::from_function(filters::indent)),
        ("slice", Value::from_function(filters::slice)),
    ];
    let walkers = [
        ("last", Value::from_function(filters::last)),
        ("list", Value::from_function(filters::list)),
        ("map", Value::from_function(filters::map)),
        ("max", Value::from_function(filters::max)),
        ("min", Value::from_function(filters::min)),
        ("reject", Value::from_function(filters::reject)),
        ("rejectattr", Value::from_function(filters::rejectattr)),
        ("reverse", Value::from_function(filters::reverse)),
        ("select", Value::from_function(filters::select)),
        ("selectattr", Value::from_function(filters::selectattr)),
        ("sort", Value::from_function(filters::sort)),
        ("sum", Value::from_function(filters::sum)),
        ("unique", Value::from_function(filters::unique)),
    ];
    let both = |value: &Value| check_number(value).and_then(|()| check_length(value));
    let counters = counters.map(|(name, filter)| (name, filter, both as fn(&Value) -> Result<(), Error>));
    let walkers = walkers.map(|(name, filter)| (name, filter, check_length as fn(&Value) -> Result<(), Error>));
    for (name, filter, check) in counters.into_iter().chain(walkers) {
        environment.add_filter(name, move |state: &State<'_, '_>, args: Rest<Value>| {
            args.iter().try_for_each(check)?;
            filter.call(state, &args)
        });
    }
}

/// Refuses formatting with a width or precision that no prompt needs, stated in the text or as an argument.
pub(super) fn check_format(args: &[Value]) -> Result<(), Error> {
    let Some((text, rest)) = args.split_first() else { return Ok(()) };
    let text = text.as_str().unwrap_or_default();
    if text.split(|c: char| !c.is_ascii_digit()).any(|digits| digits.len() > MAX_FORMAT_DIGITS) {
        return Err(refuse("a format asks for too great a width"));
    }
    // A star or a nested field takes its width from the arguments; a plain number may be of any size.
    let by_argument = text.contains('*') || text.split('{').skip(1).any(|field| !field.contains('}'));
    if by_argument { rest.iter().try_for_each(check_number) } else { Ok(()) }
}

/// Refuses a sequence that is too long to be walked in one instruction.
pub(super) fn check_length(value: &Value) -> Result<(), Error> {
    let is_sequence = matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable);
    match value.len() {
        Some(n) if is_sequence && n > MAX_ELEMENTS => Err(refuse("a filter is given too long a sequence")),
        _ => Ok(()),
    }
}

/// Refuses a number that is too large, also among named arguments.
fn check_number(value: &Value) -> Result<(), Error> {
    match value.kind() {
        ValueKind::Number if value.is_integer() => match value.as_i64() {
            Some(number) if (-MAX_NUMBER..=MAX_NUMBER).contains(&number) => Ok(()),
            _ => Err(refuse("a filter is given too great a number")),
        },
        ValueKind::Map if value.is_kwargs() => {
            value.try_iter()?.try_for_each(|key| check_number(&value.get_item(&key)?))
        }
        _ => Ok(()),
    }
}

/// The error that ends the rendering.
pub(super) fn refuse(what: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, what)
}
