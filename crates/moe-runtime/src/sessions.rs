//! Sequences over a model: a step of several, a session of one, the choice of tokens, and whole answers.

pub(crate) mod backend;
pub(crate) mod conversation;
pub(crate) mod craftsman_backend;
pub(crate) mod drafts;
pub(crate) mod error;
pub(crate) mod generate;
#[cfg(feature = "grammar")]
pub(crate) mod grammar;
pub(crate) mod interrupt;
pub(crate) mod loops;
pub(crate) mod parts;
pub(crate) mod sampler;
pub(crate) mod saved;
pub(crate) mod scheduler;
pub(crate) mod scripted_backend;
pub(crate) mod session;
pub(crate) mod step;
