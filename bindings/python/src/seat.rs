//! The right to use the backend of a session.
//!
//! ```text
//! Free(backend) ──take──► Taken(interrupt) ──end of the work──► Free(backend)
//! ```
//!
//! **Invariant:** one call at a time has the backend. Another call gets an exception, or waits where the first was asked to
//! end already.

use std::sync::{Arc, Condvar, Mutex};

use moe_runtime::{CraftsmanBackend, Interrupt};
use pyo3::prelude::*;

use crate::errors::{closed, locked, usage};
use crate::worker::TICK;

enum State {
    Free(Box<CraftsmanBackend>),
    Taken(Interrupt),
    Closed,
}

/// The place where a backend waits for its next use.
pub(crate) struct Seat {
    state: Mutex<State>,
    changed: Condvar,
}

/// A backend in use; it goes back to its seat when this value is dropped.
pub(crate) struct Taken {
    pub(crate) backend: Option<Box<CraftsmanBackend>>,
    seat: Arc<Seat>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut state = locked(&self.seat.state);
        *state = match (std::mem::replace(&mut *state, State::Closed), self.backend.take()) {
            // A backend that panicked may hold half of a token.
            (State::Taken(_), Some(backend)) if !std::thread::panicking() => State::Free(backend),
            _ => State::Closed,
        };
        self.seat.changed.notify_all();
    }
}

impl Seat {
    /// A seat with a backend that is free.
    pub(crate) fn new(backend: CraftsmanBackend) -> Seat {
        Seat { state: Mutex::new(State::Free(Box::new(backend))), changed: Condvar::new() }
    }

    /// Takes the backend for work that `interrupt` ends.
    pub(crate) fn take(self: &Arc<Seat>, py: Python<'_>, interrupt: &Interrupt) -> PyResult<Taken> {
        loop {
            let mut state = locked(&self.state);
            match std::mem::replace(&mut *state, State::Closed) {
                State::Free(backend) => {
                    *state = State::Taken(interrupt.clone());
                    return Ok(Taken { backend: Some(backend), seat: self.clone() });
                }
                State::Closed => return Err(closed("session")),
                State::Taken(other) => {
                    let is_ending = other.is_raised();
                    *state = State::Taken(other);
                    drop(state);
                    if !is_ending {
                        return Err(usage("the session is answering; read its stream to the end, or close it"));
                    }
                    py.detach(|| drop(self.changed.wait_timeout(locked(&self.state), TICK)));
                    py.check_signals()?;
                }
            }
        }
    }

    /// Looks at the backend.
    pub(crate) fn look<T>(&self, at: impl FnOnce(&mut CraftsmanBackend) -> T) -> PyResult<T> {
        match &mut *locked(&self.state) {
            State::Free(backend) => Ok(at(backend)),
            State::Closed => Err(closed("session")),
            State::Taken(_) => Err(usage("the session is answering; read its stream to the end, or close it")),
        }
    }

    /// Refuses a closed session; an answer may run.
    pub(crate) fn check_open(&self) -> PyResult<()> {
        if matches!(*locked(&self.state), State::Closed) { Err(closed("session")) } else { Ok(()) }
    }

    /// Ends what runs, and drops the backend as soon as it is free.
    pub(crate) fn close(&self) {
        let state = std::mem::replace(&mut *locked(&self.state), State::Closed);
        if let State::Taken(interrupt) = &state {
            interrupt.raise();
        }
    }
}
