//! Options that come from the environment or from a file of settings.
//!
//! An option `--max-tokens` of any verb may also be given as the variable `BITNET_MAX_TOKENS`, or as a line `max-tokens = 64`
//! of the file; the command line counts before the environment, the environment before the file. Both become words
//! of the command line, so that one set of rules and one set of messages holds for all three.
//!
//! ```text
//! options.rs   the options of a verb that are not on the command line, and their words
//! file.rs      the file: where it lies, its tables, its defects
//! ```

mod error;
mod file;
mod options;

use std::ffi::OsString;

use clap::Command;

pub(crate) use error::SettingsError;

use file::File;

/// A command line with the settings that it does not overrule.
pub(crate) struct Completed {
    pub(crate) words: Vec<OsString>,
    /// A word that was added, with its origin; behind an error of the command line they say where it may come from.
    pub(crate) added: Vec<String>,
}

/// Adds settings to the command line `words`, whose first word is the name of the program.
///
/// # Errors
/// A file that cannot be read or does not fit `command`, and values that are no switch.
pub(crate) fn complete(
    command: &Command,
    words: Vec<OsString>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Completed, SettingsError> {
    let as_it_is = |words| Ok(Completed { words, added: Vec::new() });
    // The readable part of a wrong command line names the verb; the whole line is judged later.
    let Ok(matches) = command.clone().ignore_errors(true).try_get_matches_from(&words) else { return as_it_is(words) };
    let (mut verb, mut given, mut path) = (command, &matches, Vec::new());
    while let Some((name, below)) = given.subcommand() {
        let Some(next) = verb.find_subcommand(name) else { return as_it_is(words) };
        (verb, given) = (next, below);
        path.push(name.to_owned());
    }
    if path.is_empty() || verb.has_subcommands() {
        return as_it_is(words);
    }
    let file = File::find(&variable)?;
    if let Some(file) = &file {
        file.check(command)?;
    }
    let found = options::missing(verb, given, &path, &variable, file.as_ref())?;
    let mut completed = words;
    // Behind the verb, before anything that `--` turns into a positional argument.
    let behind = 1 + path.len();
    let tail = completed.split_off(behind.min(completed.len()));
    completed.extend(found.iter().flat_map(|setting| setting.words.clone()));
    completed.extend(tail);
    Ok(Completed { words: completed, added: found.iter().map(ToString::to_string).collect() })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ffi::OsString;

    use clap::{Arg, ArgAction, Command};

    use super::{SettingsError, complete};

    fn command() -> Command {
        let run = Command::new("run")
            .arg(Arg::new("model").long("model").required(true))
            .arg(Arg::new("threads").long("threads"))
            .arg(Arg::new("json").long("json").action(ArgAction::SetTrue))
            .arg(Arg::new("adapter").long("adapter").action(ArgAction::Append))
            .arg(Arg::new("cache").long("cache").num_args(0..=1).require_equals(true))
            .arg(Arg::new("file").long("file").conflicts_with("text"))
            .arg(Arg::new("text").long("text"))
            .arg(Arg::new("rest").num_args(0..));
        let fidelity = Command::new("fidelity").arg(Arg::new("windows").long("windows"));
        let eval = Command::new("eval").subcommand_required(true).subcommand(fidelity);
        Command::new("bitnet").subcommand(run).subcommand(eval)
    }

    /// The completed line of `words`, with these variables and this text of the file.
    fn completed(words: &str, variables: &[(&str, &str)], file: &str) -> Result<String, SettingsError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, file).unwrap();
        let mut all: BTreeMap<&str, OsString> =
            variables.iter().map(|(name, value)| (*name, OsString::from(value))).collect();
        all.insert("BITNET_CONFIG", path.into_os_string());
        let words = words.split_whitespace().map(OsString::from).collect();
        let completed = complete(&command(), words, |name| all.get(name).cloned())?;
        Ok(completed.words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn the_command_line_counts_before_the_environment_and_that_before_the_file() {
        let (variables, file) = ([("BITNET_THREADS", "2")], "threads = 3\n[run]\nmodel = \"m\"\n");
        assert_eq!(completed("bitnet run --threads 1", &variables, file).unwrap(), "bitnet run --model=m --threads 1");
        assert_eq!(completed("bitnet run", &variables, file).unwrap(), "bitnet run --model=m --threads=2");
        assert_eq!(completed("bitnet run", &[], file).unwrap(), "bitnet run --model=m --threads=3");
        let both = "threads = 3\n[run]\nthreads = 4\n";
        assert_eq!(completed("bitnet run", &[], both).unwrap(), "bitnet run --threads=4", "the table of the verb");
    }

    #[test]
    fn each_kind_of_option_becomes_its_words() {
        let file = "[run]\njson = true\nadapter = [\"a\", \"b\"]\ncache = true\nthreads = -1\n";
        let expected = "bitnet run --threads=-1 --json --adapter=a --adapter=b --cache";
        assert_eq!(completed("bitnet run", &[], file).unwrap(), expected);
        assert_eq!(
            completed("bitnet run", &[("BITNET_JSON", "1"), ("BITNET_CACHE", "d")], "").unwrap(),
            "bitnet run --json --cache=d"
        );
        assert_eq!(completed("bitnet run", &[("BITNET_JSON", "off")], "[run]\njson = true\n").unwrap(), "bitnet run");
        assert_eq!(
            completed("bitnet eval fidelity", &[], "[eval.fidelity]\nwindows = 4\n").unwrap(),
            "bitnet eval fidelity --windows=4"
        );
    }

    #[test]
    fn settings_stand_before_positional_words_and_yield_to_options_they_contradict() {
        assert_eq!(
            completed("bitnet run -- --x", &[("BITNET_THREADS", "2")], "").unwrap(),
            "bitnet run --threads=2 -- --x"
        );
        for file in ["[run]\nfile = \"f\"\n", "[run]\ntext = \"f\"\n"] {
            let given = if file.contains("file") { "--text t" } else { "--file t" };
            assert_eq!(completed(&format!("bitnet run {given}"), &[], file).unwrap(), format!("bitnet run {given}"));
        }
    }

    #[test]
    fn a_line_without_a_verb_stays_as_it_is() {
        for line in ["bitnet", "bitnet --help", "bitnet frobnicate", "bitnet eval", "bitnet help run"] {
            assert_eq!(completed(line, &[("BITNET_THREADS", "2")], "threads = 3\n").unwrap(), line);
        }
    }

    #[test]
    fn defects_of_the_file_are_named() {
        for (file, part) in [
            ("threads = \n", "line 1"),
            ("thread = 1\n", "no verb has the option `thread`"),
            ("[walk]\nx = 1\n", "`walk` is no verb"),
            ("[run]\nthread = 1\n", "`run` has no option `thread`"),
            ("[eval]\nwindows = 1\n", "`eval` has no option `windows`"),
            ("[run.more]\nx = 1\n", "`run more` is no verb"),
            ("[run]\njson = 3\n", "`json` is true or false"),
            ("[run]\nthreads = true\n", "`threads` needs a value"),
            ("[run]\nthreads = 2020-01-01\n", "`threads`"),
            ("[run]\nadapter = [[1]]\n", "`adapter`"),
        ] {
            let error = completed("bitnet run", &[], file).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("config.toml"), "{file}: {error}");
        }
        let error = completed("bitnet run", &[("BITNET_JSON", "maybe")], "").unwrap_err().to_string();
        assert!(error.contains("BITNET_JSON") && error.contains("true or false"), "{error}");
    }

    #[test]
    fn a_file_that_is_named_must_exist() {
        let named = |value: &'static str| move |name: &str| (name == "BITNET_CONFIG").then(|| OsString::from(value));
        let words = || vec!["bitnet".into(), "run".into()];
        assert!(complete(&command(), words(), named("/no/such/config.toml")).is_err());
        assert!(complete(&command(), words(), named("")).unwrap().added.is_empty());
    }
}
