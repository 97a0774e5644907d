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

/// Puts `messages` in place of those of the file, without the oldest ones where all are too long for [`read`]; a
/// failure is shown, and the chat goes on.
pub(super) fn write(path: &Path, messages: &[String]) {
    let lines = lines(messages, MAX_HISTORY_BYTES);
    if let Err(error) = gguf_bitnet::write_atomic(path, lines.as_bytes()) {
        output::note(format_args!("the history is not kept: {error}"));
    }
}

/// The lines of the newest messages that have at most `limit` bytes together, oldest first.
fn lines(messages: &[String], limit: u64) -> String {
    let mut room = limit;
    let fitting = messages.iter().rev().map_while(|message| {
        let line = format!("{}\n", serde_json::Value::from(message.as_str()));
        room = room.checked_sub(line.len() as u64)?;
        Some(line)
    });
    let newest_first: Vec<String> = fitting.collect();
    newest_first.into_iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::lines;

    #[test]
    fn the_oldest_messages_make_room() {
        let messages = ["one", "a \"b\"\n", "three"].map(str::to_owned);
        let (one, two, three) = ("\"one\"\n", "\"a \\\"b\\\"\\n\"\n", "\"three\"\n");
        let all = [one, two, three].concat();
        for (limit, want) in [
            (all.len(), all.clone()),
            (all.len() - 1, [two, three].concat()),
            (two.len() + three.len() - 1, three.to_owned()),
            (three.len() - 1, String::new()),
        ] {
            assert_eq!(lines(&messages, limit as u64), want, "{limit}");
        }
    }
}
