//! From a name on the command line to a loaded model; texts from files.

mod defect;
mod drafts;
mod embedder;
mod engine;
mod files;
mod model;
mod state;
mod storage;
mod text;
mod trials;

pub(crate) use defect::first_defect;
pub(crate) use drafts::Drafts;
#[cfg(feature = "serve")]
pub(crate) use embedder::encoder;
pub(crate) use embedder::{HASH, embedder};
pub(crate) use engine::Engine;
pub(crate) use files::{locate, note_guesses, open};
pub(crate) use model::{
    keep_trials, load, load_without_warnings, measured, note_zeros, options, refuse_zeros, self_test_warning,
};
pub(crate) use state::state;
pub(crate) use text::{message, read_at_most, read_message, read_text, read_texts};
