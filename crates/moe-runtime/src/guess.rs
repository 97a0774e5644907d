//! Facts that a model's files do not state, and the values taken in their place.

use std::cell::RefCell;
use std::fmt;

use serde::Serialize;

/// A fact that changes the results of a model and that its files do not state. The reader that takes a value for it records
/// it here, so that programs can tell their user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Guess {
    /// The key that is missing, or the part that has no key.
    pub key: String,
    /// The value taken in its place.
    pub value: String,
    /// The rule or the fact that leads to this value, as the end of a sentence.
    pub reason: String,
}

impl Guess {
    /// Whether it matters only to conversations, not to text that is continued.
    #[must_use]
    pub fn is_about_chat(&self) -> bool {
        self.key.ends_with("chat_template")
    }

    pub(crate) fn new(key: impl Into<String>, value: impl ToString, reason: impl Into<String>) -> Guess {
        Guess { key: key.into(), value: value.to_string(), reason: reason.into() }
    }
}

impl fmt::Display for Guess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Guess { key, value, reason } = self;
        write!(f, "`{key}` is missing and taken as {value}: {reason}")
    }
}

/// The guesses of one reader, in the order in which it made them.
#[derive(Debug, Default)]
pub(crate) struct Guesses(RefCell<Vec<Guess>>);

impl Guesses {
    /// Records that `key` is missing, and gives the value that is taken in its place.
    pub(crate) fn take<T: ToString>(&self, key: impl Into<String>, value: T, reason: impl Into<String>) -> T {
        self.0.borrow_mut().push(Guess::new(key, value.to_string(), reason));
        value
    }

    pub(crate) fn list(&self) -> Vec<Guess> {
        self.0.borrow().clone()
    }
}
