//! Training on a CPU: hand-written forward and backward passes of the models that the runtime runs.
//!
//! ```text
//! windows ──► model.rs ──► layer.rs ──► parts/ ──► ops/          weights.rs: frozen ones from the file, trained ones from params.rs
//!    teacher's logits ──► loss, gradients ──► optim/ ──► params.rs ──► write.rs: the student's file, else as it was
//! ```
//!
//! `windows` says which are held out, `memory` what a run holds, `refine` has the job, `trainer` its steps, `descent` what a step does to
//! values, and `state` what survives a kill; `sequential` trains one expert after the other without any of these;
//! `docs/refinement.md` has the figures.
//!
//! **Invariant:** the numbers of a pass follow from the file and the windows, whatever the number of threads and the instruction
//! set, so a run that was killed ends with the same bytes.

mod adapter;
mod batches;
mod descent;
mod distilled;
mod drift;
mod error;
mod expert;
mod expert_reward;
mod focus;
mod history;
mod layer;
mod memory;
#[cfg(test)]
pub(crate) mod mini;
mod model;
pub mod ops;
pub mod optim;
mod origin;
mod outputs;
mod params;
mod parts;
mod preference;
mod product;
mod protection;
mod recordings;
mod refine;
mod repair;
mod router_targets;
#[cfg(test)]
pub(crate) mod samples;
mod sequential;
mod source;
mod state;
mod targets;
mod taught;
mod trainer;
mod weights;
mod windows;
mod write;

pub use adapter::{blank_adapter, blank_sidecar, groups_of};
pub use batches::Batches;
pub use descent::rate_factor;
pub use drift::{ExpertDrift, expert_drift};
pub use error::TrainError;
pub use expert::{DistilledExpert, SequentialOptions};
pub use focus::Focus;
pub use history::{History, Point};
pub use memory::TrainMemory;
pub use model::{LossOptions, LossScale, LossSums, TrainModel};
pub use params::{Group, Kind, Param, Params, PartGradient, UnknownGroup};
pub use preference::preference_reward;
pub use protection::ProtectionReport;
pub use recordings::{RecordedTargets, Recordings};
pub use refine::{OnRefineProgress, RefineProgress, RefineReport, Refiner};
pub use repair::{
    ContrastiveOptions, ContrastiveTrainer, RepairedRouter, RouterLabels, RouterMethod, RouterRepair, RoutingBatch,
    UnknownRouterMethod, repair_routers,
};
pub use router_targets::{RouteDistance, RouterTargets};
pub use sequential::{EXPERTS_JOB, SequentialExpertDistiller, SequentialProgress, SequentialReport};
pub use source::Source;
pub use targets::{SparseTargets, Targets, TeacherHidden};
pub use taught::{refuse_taught, taught_suites};
pub use trainer::{StepReport, TrainOptions, Trainer};
pub use weights::{Weights, trit};
pub use windows::held_out_windows;
pub(crate) use write::{encode, places};
