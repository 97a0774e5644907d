//! The options of a verb that are not on the command line, as words.

use std::ffi::OsString;
use std::fmt;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use toml::Value;

use super::error::SettingsError;
use super::file::File;

/// Options whose variable means something else: `BITNET_LOG` filters the events of the libraries.
const NO_VARIABLE: [&str; 1] = ["log"];

/// An option with its value, and its origin.
pub(super) struct Setting {
    pub(super) words: Vec<OsString>,
    /// The name of a variable or a file.
    origin: String,
    option: String,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--{} comes from {}", self.option, self.origin)
    }
}

/// The options of `verb` that `given` lacks and does not contradict, and that a variable or the file sets.
pub(super) fn missing(
    verb: &Command,
    given: &ArgMatches,
    path: &[String],
    variable: &impl Fn(&str) -> Option<OsString>,
    file: Option<&File>,
) -> Result<Vec<Setting>, SettingsError> {
    let is_given = |arg: &Arg| given.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine);
    let given: Vec<&Arg> = verb.get_arguments().filter(|arg| is_given(arg)).collect();
    let contradicts =
        |a: &Arg, b: &Arg| verb.get_arg_conflicts_with(a).iter().any(|other| other.get_id() == b.get_id());
    let mut found = Vec::new();
    for arg in verb.get_arguments() {
        let Some(option) = arg.get_long().filter(|long| !["help", "version"].contains(long)) else { continue };
        if given
            .iter()
            .any(|other| other.get_id() == arg.get_id() || contradicts(arg, other) || contradicts(other, arg))
        {
            continue;
        }
        let name = format!("BITNET_{}", option.replace('-', "_").to_uppercase());
        let set = variable(&name).filter(|value| !value.is_empty() && !NO_VARIABLE.contains(&option));
        let (words, origin) = match (set, file.and_then(|file| Some((file, file.value(path, option)?)))) {
            (Some(value), _) => (of_variable(arg, option, &name, value)?, name),
            (None, Some((file, value))) => (of_value(arg, option, file, value)?, file.name()),
            (None, None) => continue,
        };
        found.push(Setting { words, origin, option: option.to_owned() });
    }
    Ok(found)
}

fn is_switch(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::SetTrue)
}

fn of_variable(arg: &Arg, option: &str, name: &str, value: OsString) -> Result<Vec<OsString>, SettingsError> {
    let Ok(value) = value.into_string() else { return Err(SettingsError::NotText { variable: name.to_owned() }) };
    if !is_switch(arg) {
        return Ok(vec![format!("--{option}={value}").into()]);
    }
    match value.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(vec![format!("--{option}").into()]),
        "0" | "false" | "no" | "off" => Ok(Vec::new()),
        _ => Err(SettingsError::Switch { variable: name.to_owned() }),
    }
}

fn of_value(arg: &Arg, option: &str, file: &File, value: &Value) -> Result<Vec<OsString>, SettingsError> {
    let takes_no_value = arg.get_num_args().is_some_and(|range| range.min_values() == 0);
    match value {
        Value::Boolean(is_on) if is_switch(arg) || takes_no_value => {
            Ok(is_on.then(|| format!("--{option}").into()).into_iter().collect())
        }
        _ if is_switch(arg) => Err(file.defect(format!("`{option}` is true or false"))),
        Value::Array(values) => values.iter().map(|value| word(option, file, value)).collect(),
        value => Ok(vec![word(option, file, value)?]),
    }
}

fn word(option: &str, file: &File, value: &Value) -> Result<OsString, SettingsError> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Boolean(_) => return Err(file.defect(format!("`{option}` needs a value, not true or false"))),
        _ => return Err(file.defect(format!("`{option}` is a text, a number, or a list of them"))),
    };
    Ok(format!("--{option}={text}").into())
}
