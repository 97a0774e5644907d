//! Models as a measurement sees them: traits, shape, routing, and a scripted model for tests.

mod error;
mod language_model;
mod role;
mod routing_table;
mod scripted;
mod subject;

pub use error::SubjectError;
pub use language_model::{LanguageModel, ModelError};
pub use role::Role;
pub use routing_table::RoutingTable;
pub use scripted::ScriptedSubject;
pub use subject::{Answer, AnswerEnd, AskedPrompt, Run, Subject, SubjectInfo, Want, route_checked, run_checked};
