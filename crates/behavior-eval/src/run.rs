//! A gate run from end to end: teacher, student, verdict.
//!
//! ```text
//! record_teacher    suite, and what is left of it without a part of the evidence -> artifacts, made once and reused
//! measure_student   the student's answers; its routing on the teacher's tokens   -> a journal, one unit per prompt
//! report            artifacts + journal -> trace, GateReport
//! ```
//! The three steps need the teacher, the student, and neither: so only one model is in memory at a time, and none when the
//! artifacts are there and the journal is full.
//!
//! **Invariant:** after an interruption the same call goes on with the first prompt that is not done, and the report is
//! the same, because it is computed from the stored records alone.
//!
//! **Invariant:** memory beyond the models: the columns of one prompt, and the texts of all answers.

mod assemble;
mod error;
mod failures;
mod gate_run;
mod measure;
mod shares;
mod summary;
mod sums;
mod teacher;

pub use error::RunError;
pub use gate_run::{GateRun, GateRunConfig, OnProgress, Stage};
pub use measure::StudentSide;
pub use teacher::TeacherSide;
