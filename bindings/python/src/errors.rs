//! Exceptions: the sentences of the libraries, in three classes.

use pyo3::exceptions::PyException;
use pyo3::{PyErr, create_exception};

create_exception!(craftsman_ultra, CraftsmanError, PyException, "A failure, as one sentence with its remedy.");
create_exception!(
    craftsman_ultra,
    UsageError,
    CraftsmanError,
    "Arguments that cannot be used, whatever the files hold."
);
create_exception!(craftsman_ultra, ContextFullError, CraftsmanError, "Tokens that do not fit the context.");

/// The exception of a failure of moe-runtime.
pub(crate) fn failed(error: moe_runtime::Error) -> PyErr {
    match error {
        moe_runtime::Error::Session(moe_runtime::SessionError::ContextFull { .. }) => {
            ContextFullError::new_err(error.to_string())
        }
        other => sentence(other),
    }
}

/// The exception of any other failure; its message is the error's own sentence.
pub(crate) fn sentence(error: impl std::fmt::Display) -> PyErr {
    CraftsmanError::new_err(error.to_string())
}

/// The exception of an argument that cannot be used.
pub(crate) fn usage(sentence: impl Into<String>) -> PyErr {
    UsageError::new_err(sentence.into())
}

/// The state of a value behind a lock. A panic elsewhere does not spoil it: each critical section is one assignment.
pub(crate) fn locked<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The exception of a closed model, session or stream.
pub(crate) fn closed(what: &str) -> PyErr {
    usage(format!("the {what} is closed; open it again"))
}
