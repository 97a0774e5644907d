//! The part of the input that the reading thread and the chat share.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use moe_runtime::Interrupt;

use crate::terminal::keys::{Event, INTERRUPT, Key};
use crate::terminal::line::MOST_BYTES;

/// The meaning of Ctrl-C.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    /// The model is loaded: Ctrl-C ends the program.
    #[default]
    Load,
    /// A line is edited: Ctrl-C is a key.
    Prompt,
    /// An answer is computed: Ctrl-C stops it.
    Answer,
}

/// The effect of an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interrupted {
    /// The program has to end.
    Program,
    /// The answer ends soon.
    Answer,
    /// The interrupt is a key like others.
    Nothing,
}

/// Presses of Ctrl-C during one answer after which the program ends: the answer does not.
const IMPATIENT: u32 = 3;

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    events: VecDeque<Event>,
    /// Events from before a question, which wait until it is answered.
    set_aside: VecDeque<Event>,
    /// Bytes of text in `events`.
    bytes: usize,
    /// Presses of Ctrl-C during this answer.
    presses: u32,
    is_closed: bool,
}

#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    arrived: Condvar,
    interrupt: Interrupt,
}

impl Default for Shared {
    fn default() -> Shared {
        // The default interrupt is one that is never raised.
        Shared { state: Mutex::default(), arrived: Condvar::default(), interrupt: Interrupt::new() }
    }
}

/// The side of the chat.
impl Shared {
    pub(super) fn interrupt(&self) -> Interrupt {
        self.interrupt.clone()
    }

    /// A line is edited from now on.
    pub(super) fn prompt(&self) {
        self.lock().phase = Phase::Prompt;
    }

    /// An answer is computed from now on. Ctrl-C that was typed ahead concerns it.
    pub(super) fn answer(&self) {
        let mut state = self.lock();
        state.phase = Phase::Answer;
        state.presses = 0;
        self.interrupt.lower();
        if state.events.contains(&Event::Key(Key::Control(INTERRUPT))) {
            self.stop(&mut state);
        }
    }

    /// A question is asked from now on: what was typed ahead does not answer it.
    pub(super) fn question(&self) {
        let mut state = self.lock();
        state.phase = Phase::Prompt;
        state.set_aside = std::mem::take(&mut state.events);
        state.bytes = 0;
    }

    /// The question is answered: what was typed ahead of it comes next.
    pub(super) fn answered(&self) {
        let mut state = self.lock();
        let later = std::mem::take(&mut state.events);
        state.events = std::mem::take(&mut state.set_aside);
        state.events.extend(later);
        state.bytes = state.events.iter().map(Event::bytes).sum();
    }

    pub(super) fn waiting(&self) -> Option<Event> {
        self.lock().pop()
    }

    pub(super) fn next(&self) -> Event {
        let mut state = self.lock();
        loop {
            match state.pop() {
                Some(event) => return event,
                None => state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

/// The side of the reader.
impl Shared {
    /// Ctrl-C was pressed. During an answer it discards what was typed ahead.
    pub(super) fn press_interrupt(&self) -> Interrupted {
        let mut state = self.lock();
        match state.phase {
            Phase::Load => Interrupted::Program,
            Phase::Prompt => Interrupted::Nothing,
            Phase::Answer => {
                self.stop(&mut state);
                if state.presses < IMPATIENT { Interrupted::Answer } else { Interrupted::Program }
            }
        }
    }

    pub(super) fn push_keys(&self, keys: Vec<Key>) {
        let mut state = self.lock();
        if state.phase == Phase::Answer && keys.contains(&Key::Control(INTERRUPT)) {
            // The burst began while the line was edited.
            return self.stop(&mut state);
        }
        for key in keys {
            // One text may be longer than a message, which is then cut where it is inserted.
            if !state.events.is_empty() && state.bytes + key.bytes() > MOST_BYTES {
                if state.events.back() != Some(&Event::Lost) {
                    state.events.push_back(Event::Lost);
                }
                break;
            }
            state.bytes += key.bytes();
            state.events.push_back(Event::Key(key));
        }
        self.arrived.notify_one();
    }

    pub(super) fn redraw(&self) {
        let mut state = self.lock();
        if state.events.back() != Some(&Event::Redraw) {
            state.events.push_back(Event::Redraw);
        }
        self.arrived.notify_one();
    }

    /// The program was stopped and goes on. Without a prompt nothing has to be drawn again.
    pub(super) fn resume(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Prompt && state.events.back() != Some(&Event::Resumed) {
            state.events.push_back(Event::Resumed);
        }
        self.arrived.notify_one();
    }

    /// There will be no more input.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.arrived.notify_one();
    }

    fn stop(&self, state: &mut State) {
        state.events.clear();
        state.set_aside.clear();
        state.bytes = 0;
        state.presses += 1;
        self.interrupt.raise();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere does not make the state wrong: every change of it is complete.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn pop(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        self.bytes -= event.as_ref().map_or(0, Event::bytes);
        event.or_else(|| self.is_closed.then_some(Event::Closed))
    }
}

#[cfg(test)]
mod tests {
    use super::{Interrupted, Shared};
    use crate::terminal::keys::{Event, INTERRUPT, Key};

    fn text(text: &str) -> Key {
        Key::Text(text.to_owned())
    }

    #[test]
    fn ctrl_c_ends_the_program_while_it_loads_and_the_answer_after_that() {
        let shared = Shared::default();
        assert_eq!(shared.press_interrupt(), Interrupted::Program);
        shared.prompt();
        assert_eq!(shared.press_interrupt(), Interrupted::Nothing);
        assert!(!shared.interrupt().is_raised());
        shared.answer();
        shared.push_keys(vec![text("typed ahead")]);
        assert_eq!(shared.press_interrupt(), Interrupted::Answer);
        assert!(shared.interrupt().is_raised() && shared.waiting().is_none());
        // An answer that does not end is left with the program.
        assert_eq!(shared.press_interrupt(), Interrupted::Answer);
        assert_eq!(shared.press_interrupt(), Interrupted::Program);
        shared.prompt();
        shared.answer();
        assert!(!shared.interrupt().is_raised());
    }

    #[test]
    fn keys_from_before_a_question_wait_until_it_is_answered() {
        let shared = Shared::default();
        shared.answer();
        shared.push_keys(vec![text("ahead"), Key::Enter]);
        shared.question();
        assert_eq!(shared.waiting(), None);
        assert_eq!(shared.press_interrupt(), Interrupted::Nothing, "Ctrl-C is a reply");
        shared.push_keys(vec![text("y"), Key::Enter, text("later")]);
        assert_eq!(shared.waiting(), Some(Event::Key(text("y"))));
        assert_eq!(shared.waiting(), Some(Event::Key(Key::Enter)));
        shared.answer();
        shared.answered();
        for key in [text("ahead"), Key::Enter, text("later")] {
            assert_eq!(shared.waiting(), Some(Event::Key(key)));
        }
        assert_eq!((shared.waiting(), shared.lock().bytes), (None, 0));
        // Ctrl-C behind the reply discards them, as it does behind a message.
        shared.push_keys(vec![text("ahead")]);
        shared.question();
        shared.push_keys(vec![Key::Control(INTERRUPT)]);
        shared.answer();
        shared.answered();
        assert!(shared.interrupt().is_raised() && shared.waiting().is_none());
    }

    #[test]
    fn a_program_that_goes_on_draws_its_prompt_once() {
        let shared = Shared::default();
        shared.resume();
        shared.answer();
        shared.resume();
        assert_eq!(shared.waiting(), None, "no prompt was there");
        shared.prompt();
        shared.resume();
        shared.resume();
        assert_eq!((shared.waiting(), shared.waiting()), (Some(Event::Resumed), None));
    }

    #[test]
    fn ctrl_c_behind_a_message_concerns_its_answer() {
        let shared = Shared::default();
        shared.prompt();
        shared.push_keys(vec![text("ask"), Key::Enter, Key::Control(INTERRUPT)]);
        assert_eq!(shared.waiting(), Some(Event::Key(text("ask"))));
        assert_eq!(shared.waiting(), Some(Event::Key(Key::Enter)));
        shared.answer();
        assert!(shared.interrupt().is_raised() && shared.waiting().is_none());
        shared.answer();
        shared.push_keys(vec![text("late"), Key::Control(INTERRUPT)]);
        assert!(shared.interrupt().is_raised() && shared.waiting().is_none());
    }
}
