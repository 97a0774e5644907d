//! The terminal of a chat, from before the model is loaded until the chat ends.

use std::fmt::Display;

use anyhow::Result;
use moe_runtime::Interrupt;

use super::editor::Editor;
pub(crate) use super::editor::Entry;
use super::input::Input;

/// A terminal that messages are read from. While it exists the terminal has other modes; dropping it restores them and
/// discards what was typed ahead, so that none of it reaches the shell.
#[derive(Debug)]
pub(crate) struct Console {
    input: Input,
    editor: Editor,
}

impl Console {
    /// Takes over the terminal at standard input. Until the first [`Console::ask`], Ctrl-C ends the program.
    ///
    /// # Errors
    /// When the system refuses a signal handler or a thread.
    pub(crate) fn open() -> Result<Console> {
        Ok(Console { input: Input::open()?, editor: Editor::default() })
    }

    /// Raised by Ctrl-C between two calls of [`Console::ask`].
    pub(crate) fn interrupt(&self) -> Interrupt {
        self.input.interrupt()
    }

    /// Reads an entry behind `prompt`. Later keys wait for the next call. Behind a text Ctrl-C does not: it raises
    /// [`Console::interrupt`] and discards the keys that wait.
    pub(crate) fn ask(&mut self, prompt: &str) -> Entry {
        self.input.prompt();
        let entry = self.editor.read(&self.input, prompt);
        if let Entry::Text(_) = entry {
            self.input.answer();
        }
        entry
    }

    /// Shows `question` and reads its reply behind `prompt`. Keys from before wait for the next call of [`Console::ask`];
    /// Ctrl-C from before is the reply.
    pub(crate) fn confirm(&mut self, question: impl Display, prompt: &str) -> Entry {
        self.input.question();
        crate::output::note(question);
        let entry = match self.interrupt().is_raised() {
            true => Entry::Interrupt { again: false },
            false => self.ask(prompt),
        };
        self.input.answered();
        entry
    }

    /// The messages that the key Up finds, oldest first.
    pub(crate) fn history(&self) -> &[String] {
        self.editor.history()
    }

    /// Keeps a message for the key Up.
    pub(crate) fn remember(&mut self, message: &str) {
        self.editor.remember(message);
    }
}
