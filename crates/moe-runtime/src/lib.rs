//! Loads a mixture-of-experts language model and runs it on a CPU: text in, text or a vector out.
//!
//! ```
//! use std::ops::ControlFlow;
//! use std::path::Path;
//!
//! use moe_runtime::{
//!     ChatTemplate, Conversation, ConversationOptions, CraftsmanBackend, GenerateOptions, InferenceBackend, LoadOptions,
//!     ModelFiles, Prompt, Result, Sampler, SamplerConfig,
//! };
//!
//! fn chat(path: &Path) -> Result<()> {
//!     let sampler = Sampler::new(ModelFiles::open(path)?.sampling()?)?;
//!     let mut backend = CraftsmanBackend::load(path, 512, &LoadOptions::default())?;
//!
//!     // A vector for a text, and the continuation of a text.
//!     let vector = backend.embed("the length of a vector")?;
//!     let options = GenerateOptions { max_tokens: 8, ..GenerateOptions::default() };
//!     let mut greedy = Sampler::new(SamplerConfig::greedy())?;
//!     let mut print = |piece: &str| {
//!         print!("{piece}");
//!         ControlFlow::Continue(())
//!     };
//!     backend.generate(Prompt::Raw("A vector is"), &mut greedy, &options, &mut print)?;
//!
//!     // A conversation, with the model's own chat template.
//!     let template = ChatTemplate::of_model(backend.tokenizer())?.expect("the model has a chat template");
//!     let options = ConversationOptions { generate: options, ..ConversationOptions::default() };
//!     let mut conversation = Conversation::new(backend, template, sampler, options);
//!     let answer = conversation.say("Why is the sky blue?", &mut print)?;
//!     println!("\n{} tokens, {} numbers", answer.generation.tokens.len(), vector.len());
//!     Ok(())
//! }
//! # chat(&fixtures::path("craftsman-mini")).unwrap();
//! ```
//!
//! The items at the root are for programs that use a model: open it ([`ModelFiles`]), load it ([`CraftsmanModel`],
//! [`LoadOptions`]), answer with it ([`InferenceBackend`], [`Conversation`], or [`Session`] for single steps over tokens,
//! and [`Step`] for steps of many sequences, or [`Scheduler`] for many prompts at the same time).
//! The public modules are for programs that look inside: [`models`] has the facts of the architectures, [`forward`] the
//! layers of a forward pass and the taps that observe them, [`storage`] the choices of where weights lie in memory,
//! [`adapters`] the additions to weights, [`batch`] the answers to files of prompts.
//!
//! | room | contents |
//! |---|---|
//! | `models` | the configuration of a model, and the tensors that its file must hold |
//! | `load` | from a path to weights in memory, and the memory they take |
//! | `forward` | the forward pass: model.rs, then layer.rs, then the parts of a layer |
//! | `storage` | where weights lie in memory: mapped file, packed tiles, experts larger than memory |
//! | `text` | text to tokens and back: tokenizer, chat template, parser of answers |
//! | `prompt_cache` | the computed beginnings of prompts, in memory and on disk |
//! | `adapters` | low-rank additions to the matrices of a loaded model, swapped while it runs |
//! | `batch` | lines of JSON with prompts to lines of JSON with answers, through the scheduler |
//! | `sessions` | sequences over a model: step, session, sampler, answers, conversations, backends, and the scheduler of many |
//!
//! **Invariant:** the numbers of a token do not depend on how the prompt was cut into batches, nor on other sequences in its
//! batch, nor on the thread count.

pub mod adapters;
pub mod batch;
mod error;
pub mod forward;
mod guess;
mod load;
pub mod models;
mod prompt_cache;
mod rng;
mod sessions;
pub mod storage;
mod text;

pub use error::{Error, Result};
pub use forward::model::CraftsmanModel;
pub use guess::Guess;
pub use load::error::LoadError;
pub use load::files::ModelFiles;
pub use load::loader::LoadOptions;
pub use load::memory_plan::{LoadedBytes, MemoryPlan};
pub use load::placement::{Placement, TileFile};
pub use load::step_costs::StepCosts;
pub use prompt_cache::{BlockName, CachedPrefix, DiskOptions, PromptCache, PromptCacheOptions, PromptKey};
pub use rng::SplitMix64;
pub use sessions::backend::{InferenceBackend, OnText, Prompt};
pub use sessions::conversation::{Answer, Conversation, ConversationOptions, Fit};
pub use sessions::craftsman_backend::{CraftsmanBackend, OnToken};
pub use sessions::drafts::drafter::{Confidence, Drafter, Guesses};
pub use sessions::drafts::mtp::MtpDrafter;
pub use sessions::drafts::ngram::NgramDrafter;
pub use sessions::drafts::speculation::{DraftStatistics, Speculation};
pub use sessions::error::SessionError;
pub use sessions::generate::{GenerateOptions, Generation, Statistics, StopReason};
#[cfg(feature = "grammar")]
pub use sessions::grammar::{Grammar, GrammarCompiler, GrammarConstraint};
pub use sessions::interrupt::Interrupt;
pub use sessions::loops::{LoopConfig, LoopDetector, TokenLoop};
pub use sessions::parts::{OnPart, PartOptions, PartedAnswer};
pub use sessions::sampler::{Logprobs, Sampler, SamplerChoice, SamplerConfig, TokenConstraint, TokenLogprob};
pub use sessions::scheduler::{
    AnswerOptions, Job, JobEvent, JobQueue, JobStart, OnJobEvent, Priority, QueueLimits, QueueStatus, Refusal,
    Scheduler, SchedulerOptions, SlotStatus, StepReport, Work,
};
pub use sessions::scripted_backend::ScriptedBackend;
pub use sessions::session::{LogitsSink, Session};
pub use sessions::step::{Logits, Step, StepSegment};
pub use text::chat::{ChatRequest, ChatTemplate};
pub use text::error::{TextError, VocabularyDefect};
pub use text::output::{
    AnswerReader, Output, OutputEvent, OutputFormat, OutputParser, OutputStart, StopStrings, ToolCall, ToolSchemas,
};
pub use text::prompt::ChatPrompt;
pub use text::tokenizer::{ControlTokens, SpecialIds, TextStream, Tokenizer};

/// The examples of the README, as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
