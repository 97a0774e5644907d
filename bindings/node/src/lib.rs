//! The native part of the Node package: models and sequences behind plain values.
//!
//! ```text
//! lib/*.ts ──► model, sequence ──► a thread per answer ──► moe-runtime
//! ```
//!
//! The typed classes that users see are written in TypeScript, in the folder `lib` beside this one.
//!
//! **Invariant:** nothing that takes long runs on the thread of the event loop. Loading and embedding run on threads of
//! libuv, an answer on a thread of its own, which hands its parts to the loop and never waits for it.

mod loaded;
mod model;
mod options;
mod sequence;
