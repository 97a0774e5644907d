//! The file of settings: TOML, options at its top for all verbs that have them, and one table per verb.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Command;
use gguf_bitnet::{read_text, read_text_if_any};
use toml::{Table, Value};

use super::error::SettingsError;

/// Most bytes of the file.
const MAX_BYTES: u64 = 1 << 20;

pub(super) struct File {
    path: PathBuf,
    table: Table,
}

impl File {
    /// Reads the file that `BITNET_CONFIG` names (none, when that is empty), else `bitnet/config.toml` below the user's folder
    /// of settings, where it exists.
    pub(super) fn find(variable: &impl Fn(&str) -> Option<OsString>) -> Result<Option<File>, SettingsError> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let (path, text) = match variable("BITNET_CONFIG") {
            Some(path) if path.is_empty() => return Ok(None),
            Some(path) => {
                let path = PathBuf::from(path);
                let text = read_text(&path, MAX_BYTES).map_err(SettingsError::Read)?;
                (path, text)
            }
            None => {
                let home = || Some(set("HOME").or_else(|| set("USERPROFILE"))?.join(".config"));
                let Some(folder) = set("XDG_CONFIG_HOME").or_else(home) else { return Ok(None) };
                let path = folder.join("bitnet/config.toml");
                let Some(text) = read_text_if_any(&path, MAX_BYTES).map_err(SettingsError::Read)? else {
                    return Ok(None);
                };
                (path, text)
            }
        };
        match text.parse::<Table>() {
            Ok(table) => Ok(Some(File { path, table })),
            Err(error) => {
                let before = error.span().map_or("", |span| text.get(..span.start).unwrap_or(""));
                let (line, message) = (1 + before.matches('\n').count(), error.message().replace('\n', ", "));
                Err(SettingsError::Syntax { path, line, message })
            }
        }
    }

    /// Checks that every name is an option or a verb of `command`, so that no line is without effect by mistake.
    pub(super) fn check(&self, command: &Command) -> Result<(), SettingsError> {
        for (name, value) in &self.table {
            match value {
                Value::Table(table) => self.check_verb(command, name, name, table)?,
                _ if any_has(command, name) => {}
                _ => return Err(self.defect(format!("no verb has the option `{name}`: see `bitnet VERB --help`"))),
            }
        }
        Ok(())
    }

    /// As [`File::check`], for the table of the verb `name` of `command`; `path` is the verb as users type it.
    fn check_verb(&self, command: &Command, name: &str, path: &str, table: &Table) -> Result<(), SettingsError> {
        let Some(verb) = command.find_subcommand(name) else {
            return Err(self.defect(format!("`{path}` is no verb: `bitnet help` lists them")));
        };
        for (name, value) in table {
            match value {
                Value::Table(table) => self.check_verb(verb, name, &format!("{path} {name}"), table)?,
                _ if has(verb, name) => {}
                _ => {
                    let defect = format!("`{path}` has no option `{name}`: `bitnet {path} --help` lists them");
                    return Err(self.defect(defect));
                }
            }
        }
        Ok(())
    }

    /// The value of the option `name` for the verb `path`: that of its table, else that of the top.
    pub(super) fn value(&self, path: &[String], name: &str) -> Option<&Value> {
        let mut table = Some(&self.table);
        for verb in path {
            table = table.and_then(|table| table.get(verb)?.as_table());
        }
        let own = table.and_then(|table| table.get(name));
        own.or_else(|| self.table.get(name)).filter(|value| !value.is_table())
    }

    pub(super) fn name(&self) -> String {
        self.path.display().to_string()
    }

    pub(super) fn defect(&self, defect: String) -> SettingsError {
        SettingsError::Content { path: self.path.clone(), defect }
    }
}

fn has(verb: &Command, name: &str) -> bool {
    verb.get_arguments().any(|arg| arg.get_long() == Some(name))
}

/// Whether a verb below `command` has the option.
fn any_has(command: &Command, name: &str) -> bool {
    command.get_subcommands().any(|verb| has(verb, name) || any_has(verb, name))
}
