//! The filters that give generators, the views of dicts, `cycler` and `joiner`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use minijinja::value::{Object, Rest, Tuple, Value, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, filters};

use super::arguments;
use super::python::{fail, items, text, weigh};
use super::sequences::{Generator, View, is_generator};

/// Filters of the engine that Jinja2 has not, or has under no such name.
const UNKNOWN: [&str; 5] = ["bool", "chain", "lines", "split", "zip"];
/// Tests of the engine that Jinja2 has not.
const UNKNOWN_TESTS: [&str; 4] = ["endingwith", "int", "safe", "startingwith"];

/// Brings arguments into the form that a filter of the engine takes.
type Prepare = fn(Vec<Value>) -> Result<Vec<Value>, Error>;

/// Adds all of it to an environment, and removes what Jinja2 has not.
pub(super) fn install(environment: &mut Environment<'static>) {
    UNKNOWN.iter().for_each(|name| environment.remove_filter(name));
    UNKNOWN_TESTS.iter().for_each(|name| environment.remove_test(name));
    // Filters of the engine that give a generator in Jinja2, with the parameters that the engine takes by one of place and
    // name only.
    let usual: Prepare = Ok;
    let batch: Prepare = |args| by_place(&args, ["linecount", "fill_with"]);
    let slice: Prepare = |args| by_place(&args, ["slices", "fill_with"]);
    let unique: Prepare = |args| by_name(&args, &["case_sensitive", "attribute"]);
    for (name, filter, prepare) in [
        ("batch", Value::from_function(filters::batch), batch),
        ("items", Value::from_function(filters::items), usual),
        ("map", Value::from_function(filters::map), usual),
        ("reject", Value::from_function(filters::reject), usual),
        ("rejectattr", Value::from_function(filters::rejectattr), usual),
        ("reverse", Value::from_function(filters::reverse), usual),
        ("select", Value::from_function(filters::select), usual),
        ("selectattr", Value::from_function(filters::selectattr), usual),
        ("slice", Value::from_function(filters::slice), slice),
        ("unique", Value::from_function(filters::unique), unique),
    ] {
        environment.add_filter(name, move |state: &mut State<'_, '_>, args: Rest<ValueOrKwargs>| {
            let mut args = args.into_values();
            if let Some(value) = args.first_mut() {
                if is_generator(value) {
                    *value = items(state, value)?.into();
                }
                weigh(state, value)?;
            }
            let made = filter.call(state, &prepare(args)?)?;
            if made.kind() == ValueKind::String {
                return Ok(made);
            }
            Ok(Value::from_object(Generator(Mutex::new(items(state, &made)?.into_iter()))))
        });
    }
    environment.add_function("cycler", |items: Rest<Value>| match items.is_empty() {
        true => Err(fail("cycler needs at least one item")),
        false => Ok(Value::from_object(Cycler { items: items.to_vec(), at: AtomicUsize::new(0) })),
    });
    environment.add_function("joiner", |separator: Option<Value>| {
        Value::from_object(Joiner { separator: separator.unwrap_or_else(|| ", ".into()), calls: AtomicUsize::new(0) })
    });
    environment.add_function("lipsum", || Err::<Value, _>(fail("lipsum would write a random text")));
}

fn by_place<const N: usize>(args: &[Value], names: [&str; N]) -> Result<Vec<Value>, Error> {
    let (value, given) = arguments::of_filter(args, names)?;
    Ok(std::iter::once(value.clone()).chain(given.into_iter().map_while(|given| given)).collect())
}

fn by_name(args: &[Value], names: &[&'static str]) -> Result<Vec<Value>, Error> {
    let (value, args) = args.split_first().ok_or(ErrorKind::MissingArgument)?;
    Ok(vec![value.clone(), arguments::by_name(args, names)?.into()])
}

/// `dict.keys()`, `dict.values()` or `dict.items()`; none for another method.
pub(super) fn view(state: &State<'_, '_>, dict: &Value, method: &str) -> Option<Result<Value, Error>> {
    let name = match method {
        "keys" => "dict_keys",
        "values" => "dict_values",
        "items" => "dict_items",
        _ => return None,
    };
    let item = |key: Value| -> Result<Value, Error> {
        match method {
            "keys" => Ok(key),
            "values" => dict.get_item(&key),
            _ => Ok(Tuple::from([key.clone(), dict.get_item(&key)?]).into()),
        }
    };
    let items = items(state, dict).and_then(|keys| keys.into_iter().map(item).collect::<Result<_, _>>());
    Some(items.map(|items| Value::from_object(View { name, items })))
}

/// `cycler('a', 'b')`: its items in turn.
#[derive(Debug)]
struct Cycler {
    items: Vec<Value>,
    at: AtomicUsize,
}

impl Object for Cycler {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        (key.as_str() == Some("current")).then(|| self.items[self.at.load(Ordering::Relaxed)].clone())
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, _: &[Value]) -> Result<Value, Error> {
        let at = self.at.load(Ordering::Relaxed);
        match method {
            "next" => self.at.store((at + 1) % self.items.len(), Ordering::Relaxed),
            "reset" => self.at.store(0, Ordering::Relaxed),
            _ => return Err(Error::from(ErrorKind::UnknownMethod)),
        }
        Ok(if method == "next" { self.items[at].clone() } else { Value::from(()) })
    }
}

/// `joiner(', ')`: empty at the first call, then the separator.
#[derive(Debug)]
struct Joiner {
    separator: Value,
    calls: AtomicUsize,
}

impl Object for Joiner {
    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, _: &[Value]) -> Result<Value, Error> {
        let is_first = self.calls.fetch_add(1, Ordering::Relaxed) == 0;
        Ok(if is_first { "".into() } else { text(state, &self.separator)?.into() })
    }
}
