//! The messages of earlier chats: a file with a JSON string on each line, oldest first.

use std::path::Path;

use anyhow::{Result, anyhow};

use crate::output;

/// Most bytes of the file.
const MAX_HISTORY_BYTES: u64 = 16 << 20;

/// Reads the messages of a file; none where there is no file.
///
/// # Errors
/// A file that cannot be read, is too large, or holds another line than a JSON string.
pub(super) fn read(path: &Path) -> Result<Vec<String>> {
    let text = gguf_bitnet::read_text_if_any(path, MAX_HISTORY_BYTES)?.unwrap_or_default();
    let numbered = text.lines().enumerate();
    let message = |(index, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| {
            anyhow!("line {} of {} is no message of a chat: {error}; name another file", index + 1, path.display())
        })
    };
    numbered.map(message).collect()
}

/// Puts `messages` in place of those of the file; a failure is shown, and the chat goes on.
pub(super) fn write(path: &Path, messages: &[String]) {
    let lines: String =
        messages.iter().map(|message| format!("{}\n", serde_json::Value::from(message.as_str()))).collect();
    if let Err(error) = gguf_bitnet::write_atomic(path, lines.as_bytes()) {
        output::note(format_args!("the history is not kept: {error}"));
    }
}
