//! Conversations with a person at a terminal: what the keys mean, the line that is edited, and how it is drawn.
//!
//! ```text
//! terminal ──bytes──► input (a thread) ──keys──► editor ──► line ──► view ──► terminal
//!                       │ Ctrl-C during an answer
//!                       └──► Interrupt ──► the session stops
//! ```
//!
//! | file | contents |
//! |---|---|
//! | `keys` | from bytes to keys; texts that arrive at once are one text |
//! | `line` | the edited text and its cursor |
//! | `view` | rows of the terminal |
//! | `editor` | keys applied to the line, with a history |
//! | `input` | the modes of the terminal, the thread that reads it, signals (Unix); `input_lines` elsewhere |
//! | `console` | the whole: asks for messages, hears Ctrl-C during answers |
//!
//! Imports go one way: `console` -> `editor` -> `view` -> `line`; `editor` -> `input` -> `keys`.

mod console;
mod editor;
#[cfg(unix)]
mod input;
#[cfg(not(unix))]
#[path = "terminal/input_lines.rs"]
mod input;
mod keys;
mod line;
mod view;

pub(crate) use console::{Console, Entry};
