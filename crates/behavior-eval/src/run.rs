//! A gate run from end to end.

mod answers;
mod assemble;
mod blame;
mod gate_run;
mod measure;

pub use gate_run::{GateRun, GateRunConfig, OnProgress, Stage, StudentSide, TeacherSide};
