//! The answers of a model, taken apart: its thought, its answer, and its tool calls.
//!
//! ```text
//!  tokens ──TextStream──► token, text ──OutputParser──► Reasoning, Content, Call ──StopStrings──► the same, perhaps shorter
//!  └───────────────────────────────────────────── AnswerReader ──────────────────────────────────────────────┘
//! ```
//!
//! The shape of an answer is that of GLM's template; a model whose vocabulary lacks this markup writes content alone:
//!
//! ```text
//!  thought</think>content<tool_call>name<arg_key>key</arg_key><arg_value>value</arg_value></tool_call><tool_call>...
//! ```
//!
//! Markup is recognised by token id: text that spells it in ordinary tokens stays text.

mod call;
mod event;
mod format;
mod parser;
mod reader;
mod stops;
mod tools;

pub use event::{Output, OutputEvent, ToolCall};
pub use format::{OutputFormat, OutputStart};
pub use parser::OutputParser;
pub use reader::AnswerReader;
pub use stops::StopStrings;
pub use tools::ToolSchemas;
#[cfg(feature = "grammar")]
pub(crate) use tools::may_be_string;
