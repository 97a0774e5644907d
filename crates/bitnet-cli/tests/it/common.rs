//! Runs the built binary.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::Value;

/// The output and the exit code of a command.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// Standard output of a command that succeeded.
    pub(crate) fn done(self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self.stdout
    }

    /// Standard output of a command that succeeded, as JSON.
    pub(crate) fn json(self) -> Value {
        let text = self.done();
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }

    /// The one sentence of a command that ended with 1 and printed no result.
    pub(crate) fn refusal(self) -> String {
        assert_eq!(self.code, Some(1), "{self:?}");
        assert_eq!(self.stdout, "", "a refusal has no result");
        let mut errors = self.stderr.lines().filter(|line| line.starts_with("error: "));
        let sentence = errors.next().unwrap_or_else(|| panic!("no sentence in {}", self.stderr)).to_owned();
        assert!(self.stderr.trim_end().ends_with(&sentence), "one sentence, and the last: {}", self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        sentence
    }

    /// The message about a wrong command line.
    pub(crate) fn usage(self) -> String {
        assert_eq!((self.code, &*self.stdout), (Some(2), ""), "{self:?}");
        self.stderr
    }
}

/// Runs `bitnet` with these arguments and an empty standard input.
pub(crate) fn bitnet<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Ended {
    bitnet_reading("", args)
}

/// As [`bitnet`], with `input` as standard input.
pub(crate) fn bitnet_reading<S: AsRef<OsStr>>(input: impl Into<Vec<u8>>, args: impl IntoIterator<Item = S>) -> Ended {
    let output = command().args(args).write_stdin(input).output().unwrap();
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The environment variables that the binary reads, but for `TERM`: those with fixed names, and the twins of options that are
/// set here.
pub(crate) fn variables() -> Vec<OsString> {
    const FIXED: [&str; 8] = [
        "HF_HOME",
        "HF_HUB_CACHE",
        "HUGGINGFACE_HUB_CACHE",
        "XDG_CACHE_HOME",
        "XDG_CONFIG_HOME",
        "TL_ISA",
        "HOME",
        "USERPROFILE",
    ];
    let is_twin = |name: &OsString| name.to_str().is_some_and(|name| name.starts_with("BITNET_"));
    let twins = std::env::vars_os().map(|(name, _)| name).filter(is_twin);
    FIXED.into_iter().map(OsString::from).chain(twins).collect()
}

/// The binary without its [`variables`].
pub(crate) fn command() -> assert_cmd::Command {
    let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_bitnet"));
    for name in variables() {
        command.env_remove(name);
    }
    command
}

/// A fixture as an argument.
pub(crate) fn fixture(name: &str) -> String {
    fixtures::path(name).to_str().unwrap().to_owned()
}

pub(crate) fn teacher() -> String {
    fixture("craftsman-mini")
}

/// A ternary student of the teacher, made once per run of the tests.
pub(crate) fn student() -> &'static str {
    static STUDENT: OnceLock<String> = OnceLock::new();
    STUDENT.get_or_init(|| {
        let name = format!("{}-student.gguf", env!("CARGO_CRATE_NAME"));
        let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        let out = out.to_str().unwrap().to_owned();
        bitnet(["quantize", "-m", &teacher(), "-o", &out, "--force"]).done();
        out
    })
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Everything in a directory, by name.
pub(crate) fn listing(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
