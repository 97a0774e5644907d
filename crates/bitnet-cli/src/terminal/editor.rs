//! Keys applied to a line, with the history of the lines before.

use std::io::Write;

use super::input::Input;
use super::keys::{END, Event, INTERRUPT, Key};
use super::line::Line;
use super::view::View;

/// Most lines that are remembered.
const HISTORY: usize = 200;

/// The end of a line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Text(String),
    /// Ctrl-C on an empty line; `again` when nothing came between this press and the one before.
    Interrupt {
        again: bool,
    },
    /// Ctrl-D on an empty line, or a terminal that is gone.
    End,
}

/// The lines of a chat.
#[derive(Debug, Default)]
pub(super) struct Editor {
    line: Line,
    view: View,
    history: Vec<String>,
    /// The shown entry of the history; its length stands for the new line.
    shown: usize,
    /// The new line while an older one is shown.
    draft: String,
    /// The last key was Ctrl-C on an empty line.
    armed: bool,
}

impl Editor {
    /// Takes keys until the line ends.
    pub(super) fn read(&mut self, input: &Input, prompt: &str) -> Entry {
        self.shown = self.history.len();
        if !input.draws() {
            show(prompt);
        }
        loop {
            let event = match input.waiting() {
                Some(event) => event,
                None => {
                    if input.draws() {
                        show(&self.view.draw(prompt, self.line.text(), self.line.cursor(), input.size()));
                    }
                    input.next()
                }
            };
            if event == Event::Resumed && !input.draws() {
                show(prompt);
            }
            if let Some(entry) = self.apply(event) {
                if input.draws() {
                    let end = self.line.text().len();
                    show(&self.view.draw(prompt, self.line.text(), end, input.size()));
                    self.view = View::default();
                }
                if input.draws() || !matches!(entry, Entry::Text(_)) {
                    show("\r\n");
                }
                self.line.take();
                return entry;
            }
        }
    }

    /// Keeps a line for the key Up.
    pub(super) fn remember(&mut self, line: &str) {
        if self.history.last().is_none_or(|last| last != line) {
            self.history.push(line.to_owned());
        }
        if self.history.len() > HISTORY {
            self.history.remove(0);
        }
    }

    /// The lines that are kept, oldest first.
    pub(super) fn history(&self) -> &[String] {
        &self.history
    }

    /// Applies an event; the entry when it ends the line.
    fn apply(&mut self, event: Event) -> Option<Entry> {
        let armed = match event {
            Event::Redraw => self.armed,
            _ => std::mem::take(&mut self.armed),
        };
        let is_empty = self.line.text().is_empty();
        match event {
            Event::Redraw => {}
            Event::Resumed => self.view.leave_drawing(),
            Event::Lost => {
                show("\r\n");
                crate::output::note("more came at once than a message can hold: the end was left out");
                self.view = View::default();
            }
            Event::Closed => return Some(Entry::End),
            Event::Key(Key::Enter) => return Some(Entry::Text(self.line.text().to_owned())),
            Event::Key(Key::Control(INTERRUPT)) if is_empty => {
                self.armed = true;
                return Some(Entry::Interrupt { again: armed });
            }
            Event::Key(Key::Control(INTERRUPT)) => {
                self.line.take();
                self.shown = self.history.len();
            }
            Event::Key(Key::Control(END)) if is_empty => return Some(Entry::End),
            Event::Key(Key::Up) if !self.line.up() => self.recall(self.shown.saturating_sub(1)),
            Event::Key(Key::Down) if !self.line.down() => self.recall(self.shown + 1),
            Event::Key(Key::Text(text)) => {
                if !self.line.insert(&text) {
                    return self.apply(Event::Lost);
                }
            }
            Event::Key(key) => edit(&mut self.line, &key),
        }
        None
    }

    /// Shows an entry of the history in the line.
    fn recall(&mut self, entry: usize) {
        if entry == self.shown || entry > self.history.len() {
            return;
        }
        let left = self.line.take();
        if self.shown == self.history.len() {
            self.draft = left;
        }
        self.shown = entry;
        self.line.set(self.history.get(entry).unwrap_or(&self.draft).clone());
    }
}

/// Applies a key that moves or deletes, as the shells' line editors do.
fn edit(line: &mut Line, key: &Key) {
    match key {
        Key::Left | Key::Control(2) => line.left(),
        Key::Right | Key::Control(6) => line.right(),
        Key::Home | Key::Control(1) => line.home(),
        Key::End | Key::Control(5) => line.end(),
        Key::WordLeft | Key::Alt('b') => line.word_left(),
        Key::WordRight | Key::Alt('f') => line.word_right(),
        Key::Control(0x7f | 8) => line.delete(Line::left),
        Key::Delete | Key::Control(END) => line.delete(Line::right),
        Key::Control(0x17) | Key::Alt('\u{7f}') => line.delete(Line::word_left),
        Key::Alt('d') => line.delete(Line::word_right),
        Key::Control(0x15) => line.delete(Line::home),
        Key::Control(0x0b) => line.delete(Line::end),
        Key::Alt('\r' | '\n') => {
            line.insert("\n");
        }
        _ => {}
    }
}

/// Writes to the terminal at once. A terminal that is gone is found by the reader of its keys.
fn show(orders: &str) {
    let mut err = std::io::stderr().lock();
    let _ = err.write_all(orders.as_bytes()).and_then(|()| err.flush());
}

#[cfg(test)]
mod tests {
    use super::{Editor, Entry};
    use crate::terminal::keys::{Event, Key};

    fn text(text: &str) -> Event {
        Event::Key(Key::Text(text.to_owned()))
    }

    /// Applies events, and returns the first entry.
    fn apply(editor: &mut Editor, events: impl IntoIterator<Item = Event>) -> Option<Entry> {
        let entry = events.into_iter().find_map(|event| editor.apply(event));
        editor.line.take();
        entry
    }

    #[test]
    fn ctrl_c_clears_a_line_and_asks_twice_on_an_empty_one() {
        let mut editor = Editor::default();
        let interrupt = || Event::Key(Key::Control(3));
        let enter = || Event::Key(Key::Enter);
        let cleared = apply(&mut editor, [text("typed"), interrupt(), text("next"), enter()]);
        assert_eq!(cleared, Some(Entry::Text("next".to_owned())));
        assert_eq!(apply(&mut editor, [interrupt()]), Some(Entry::Interrupt { again: false }));
        assert_eq!(apply(&mut editor, [Event::Redraw, interrupt()]), Some(Entry::Interrupt { again: true }));
        let between = apply(&mut editor, [text("x"), interrupt(), interrupt()]);
        assert_eq!(between, Some(Entry::Interrupt { again: false }));
    }

    #[test]
    fn ctrl_d_ends_an_empty_line_and_deletes_in_another() {
        let mut editor = Editor::default();
        let end = || Event::Key(Key::Control(4));
        let kept = apply(&mut editor, [text("ab"), Event::Key(Key::Home), end(), end(), end()]);
        assert_eq!(kept, Some(Entry::End), "two characters, and the third press ends");
        assert_eq!(apply(&mut editor, [Event::Closed]), Some(Entry::End));
    }

    #[test]
    fn the_history_goes_up_and_back_to_the_draft() {
        let mut editor = Editor::default();
        ["one", "two", "two"].iter().for_each(|line| editor.remember(line));
        editor.shown = editor.history.len();
        let key = |key| Event::Key(key);
        let up_twice_and_back = [text("draft"), key(Key::Up), key(Key::Up), key(Key::Up), key(Key::Down)];
        up_twice_and_back.into_iter().for_each(|event| assert_eq!(editor.apply(event), None));
        assert_eq!(editor.line.text(), "two");
        assert_eq!(editor.apply(key(Key::Down)), None);
        assert_eq!(editor.line.text(), "draft");
        assert_eq!(editor.apply(key(Key::Down)), None);
        assert_eq!(editor.line.text(), "draft");
    }

    #[test]
    fn keys_edit_as_in_a_shell() {
        let mut editor = Editor::default();
        let keys = [Key::Control(1), Key::Control(0x0b)];
        let typed = [text("gone"), Event::Key(keys[0].clone()), Event::Key(keys[1].clone()), text("a b c")];
        typed.into_iter().for_each(|event| assert_eq!(editor.apply(event), None));
        for (key, want) in [(Key::Control(0x7f), "a b "), (Key::Control(0x17), "a "), (Key::Alt('\r'), "a \n")] {
            assert_eq!(editor.apply(Event::Key(key)), None);
            assert_eq!(editor.line.text(), want);
        }
    }
}
