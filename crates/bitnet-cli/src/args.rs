//! The options that several verbs share, and the parsers of values.
//!
//! A parser refuses a wrong value while the command line is read, so that the program ends with exit code 2 and a sentence
//! that names the option.

mod engine;
mod experts;
mod layout;
mod model;
mod number;
mod precision;
mod recipe;
mod sampling;
mod size;
mod threads;

pub(crate) use engine::EngineArgs;
pub(crate) use model::ModelArg;
pub(crate) use number::{fraction, whole};
pub(crate) use precision::{Act, Kv};
pub(crate) use recipe::RecipeArgs;
pub(crate) use sampling::SamplingArgs;
pub(crate) use size::size;
pub(crate) use threads::Threads;
