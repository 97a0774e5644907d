//! What a measurement needs of a model.

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
