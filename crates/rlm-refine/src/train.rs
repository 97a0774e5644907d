//! Training on a CPU: hand-written forward and backward passes of the models that the runtime runs.
//!
//! ```text
//! windows ──► model.rs ──► layer.rs ──► parts/ ──► ops/          weights.rs: frozen ones from the file, trained ones from params.rs
//!    teacher's logits ──► loss, gradients ──► optim/ ──► params.rs ──► write.rs: the student's file, else as it was
//! ```
//!
//! `windows` says which are held out, `refine` has the job, `trainer` its steps and `state` what survives a kill; `docs/refinement.md` has the figures.
//!
//! **Invariant:** the numbers of a pass follow from the file and the windows, whatever the number of threads and the instruction
//! set, so a run that was killed ends with the same bytes.

mod batches;
mod error;
mod history;
mod layer;
mod model;
pub mod ops;
pub mod optim;
mod params;
mod parts;
mod protection;
mod refine;
mod repair;
#[cfg(test)]
pub(crate) mod samples;
mod state;
mod trainer;
mod weights;
mod windows;
mod write;

pub use batches::Batches;
pub use error::TrainError;
pub use history::{History, Point};
pub use model::{LossOptions, LossScale, LossSums, SparseTargets, Targets, TeacherHidden, TrainModel};
pub use params::{Group, Kind, Param, Params, PartGradient, UnknownGroup};
pub use protection::ProtectionReport;
pub use refine::{OnRefineProgress, RefineProgress, RefineReport, Refiner};
pub use repair::{
    ContrastiveOptions, ContrastiveTrainer, RepairedRouter, RouterLabels, RouterMethod, RouterRepair, RoutingBatch,
    UnknownRouterMethod, repair_routers,
};
pub use trainer::{StepReport, TrainOptions, Trainer, rate_factor};
pub use weights::{Weights, trit};
pub(crate) use write::{encode, places};
