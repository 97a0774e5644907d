//! The options that several verbs share, and the parsers of values.
//!
//! A parser refuses a wrong value while the command line is read, so that the program ends with exit code 2 and a sentence
//! that names the option.

mod adapters;
mod allow_zero;
mod calibration;
mod drafts;
mod embedder;
mod engine;
mod experts;
mod ffn_act;
mod layout;
mod model;
mod number;
mod path;
mod precision;
mod prompt_cache;
mod protection;
mod recipe;
mod recursion;
mod rewards;
mod rounds;
mod sampling;
mod seed;
mod shard;
mod size;
mod threads;
pub(crate) mod training;

pub(crate) use adapters::{AdapterArgs, adapted_identity, sum_of_adapters};
pub(crate) use allow_zero::AllowZero;
pub(crate) use calibration::{CalibrationArgs, TextArgs};
pub(crate) use drafts::DraftArgs;
pub(crate) use embedder::{EmbedderArgs, PrecisionArg, embedder};
pub(crate) use engine::EngineArgs;
pub(crate) use ffn_act::FfnAct;
pub(crate) use model::ModelArg;
pub(crate) use number::{fraction, positive, share, tokens, whole};
pub(crate) use path::{MODEL_OUT, STORE, SUITE_FILE, path_not_stream};
pub(crate) use precision::{Act, Kv, name, precision};
pub(crate) use prompt_cache::PromptCacheArgs;
pub(crate) use recipe::RecipeArgs;
pub(crate) use recursion::Recursion;
pub(crate) use sampling::SamplingArgs;
pub(crate) use seed::{Seed, seed};
pub(crate) use shard::ShardArgs;
pub(crate) use size::size;
pub(crate) use threads::Threads;
pub(crate) use training::TrainingArgs;
