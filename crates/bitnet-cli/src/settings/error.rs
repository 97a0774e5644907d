//! Defects of settings, each a sentence with the place and the remedy.

use std::path::PathBuf;

#[derive(Debug)]
pub(crate) enum SettingsError {
    /// The file cannot be read; the sentence of the reader.
    Read(gguf_bitnet::Error),
    /// The file is no TOML.
    Syntax { path: PathBuf, line: usize, message: String },
    /// A name or a value of the file fits no option.
    Content { path: PathBuf, defect: String },
    /// A variable of a switch that is neither on nor off.
    Switch { variable: String },
    /// A variable that is no text.
    NotText { variable: String },
}

impl std::fmt::Display for SettingsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Read(error) => write!(f, "{error} (BITNET_CONFIG names the file of settings)"),
            Self::Syntax { path, line, message } => write!(
                f,
                "{}: line {line}: {}: write settings as `max-tokens = 64`, texts in quotes",
                path.display(),
                message.trim()
            ),
            Self::Content { path, defect } => write!(f, "{}: {defect}", path.display()),
            Self::Switch { variable } => write!(f, "{variable}: a switch is true or false"),
            Self::NotText { variable } => write!(f, "{variable}: its value is no UTF-8 text"),
        }
    }
}

impl std::error::Error for SettingsError {}
