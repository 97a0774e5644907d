//! The native part of the Python package: models, sequences, embedders and jobs behind plain values.
//!
//! ```text
//! craftsman_ultra/*.py ──► _native: model, session, stream, embedder, jobs ──► worker ──► the library crates
//! ```
//!
//! The typed classes that users see are written in Python, in the folder `python` beside this one.
//!
//! **Invariant:** nothing that takes long runs on the thread of Python. The thread waits without the interpreter's lock and
//! looks for signals every 20 ms, so that other threads run and Ctrl-C arrives.

mod ask;
mod embedder;
mod errors;
mod gates;
mod loaded;
mod model;
mod options;
mod quantize;
mod sampler;
mod seat;
mod session;
mod stream;
mod tokenizer;
mod verify;
mod worker;

use pyo3::prelude::*;

/// The classes and functions of `craftsman_ultra._native`.
#[pymodule]
mod _native {
    #[pymodule_export]
    use crate::embedder::NativeEmbedder;
    #[pymodule_export]
    use crate::errors::{ContextFullError, CraftsmanError, UsageError};
    #[pymodule_export]
    use crate::gates::eval_gates;
    #[pymodule_export]
    use crate::model::NativeModel;
    #[pymodule_export]
    use crate::quantize::quantize;
    #[pymodule_export]
    use crate::sampler::NativeSampler;
    #[pymodule_export]
    use crate::session::NativeSession;
    #[pymodule_export]
    use crate::stream::NativeStream;
    #[pymodule_export]
    use crate::tokenizer::NativeTokenizer;
    #[pymodule_export]
    use crate::verify::verify;
}
