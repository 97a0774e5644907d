//! The keys of a terminal on systems without Unix terminals: lines, which the system's console lets the user edit.
//!
//! Ctrl-C has the system's meaning there: it ends the program.

use std::io::BufRead;

use anyhow::Result;
use moe_runtime::Interrupt;

use super::keys::{Burst, Decoder, Event, Key};
use super::line::MOST_BYTES;
use super::view::Size;

/// Lines of standard input.
#[derive(Debug)]
pub(super) struct Input {
    interrupt: Interrupt,
    events: std::cell::RefCell<std::collections::VecDeque<Event>>,
}

impl Input {
    pub(super) fn open() -> Result<Input> {
        Ok(Input { interrupt: Interrupt::new(), events: std::cell::RefCell::default() })
    }

    pub(super) fn interrupt(&self) -> Interrupt {
        self.interrupt.clone()
    }

    pub(super) fn prompt(&self) {}

    pub(super) fn answer(&self) {}

    /// The lines that the console holds back cannot be told from those that reply.
    pub(super) fn question(&self) {}

    pub(super) fn answered(&self) {}

    /// Whether the editor draws the line; the system's console shows it itself.
    pub(super) fn draws(&self) -> bool {
        false
    }

    pub(super) fn size(&self) -> Size {
        Size { columns: 80, rows: 24 }
    }

    pub(super) fn waiting(&self) -> Option<Event> {
        self.events.borrow_mut().pop_front()
    }

    /// Waits for a line; its end is a key of its own.
    pub(super) fn next(&self) -> Event {
        if let Some(event) = self.waiting() {
            return event;
        }
        let mut line = Vec::new();
        let mut input = std::io::stdin().lock();
        let most = MOST_BYTES as u64;
        match std::io::Read::take(&mut input, most).read_until(b'\n', &mut line) {
            Ok(read) if read > 0 => {}
            _ => return Event::Closed,
        }
        let mut burst = Burst::default();
        Decoder::default().push(&line, &mut burst);
        let mut events = self.events.borrow_mut();
        events.extend(burst.take().into_iter().map(Event::Key));
        events.pop_front().unwrap_or(Event::Key(Key::Text(String::new())))
    }
}
