//! Labels made from the evidence of a prompt, and what becomes of them when evidence is taken away.

mod error;
mod evidence;
mod graph;
mod lexicon;
mod perturbation;
mod rules;
mod statement;

pub use error::LabelError;
pub use evidence::{Answer, Cluster, Evidence, answers};
pub use graph::{Cut, EvidenceGraph};
pub use lexicon::{PartOfSpeech, part_of_speech, stem};
pub use perturbation::{FigureMove, Perturbation, Perturbed, Removal, Stability, perturb};
pub use rules::{
    LabelCounts, LabelFigures, LabelMove, LabelReport, LabelThresholds, PromptLabel, SensitivityRow, label, labels,
};
