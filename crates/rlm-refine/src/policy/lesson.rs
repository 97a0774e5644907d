//! Lessons: what runs learned about the parts of a student, in figures.

use serde::{Deserialize, Serialize};

/// A lesson about one part of a student.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyLesson {
    /// BLAKE3 of the student: behind its refinement, or as it was judged.
    pub student: String,
    /// The kind of run that learned it.
    pub learned_by: LearnedBy,
    /// The part that it is about.
    pub about: Part,
    /// The finding about it.
    pub finding: Finding,
    /// The figure that the finding rests on: before the run where there are two, else now.
    pub before: f64,
    /// The figure behind the run, where there is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub after: Option<f64>,
    /// Tokens, decisions or prompts that the figures are taken over.
    pub n: u64,
}

/// A kind of run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LearnedBy {
    /// A training of the student.
    Refinement,
    /// A run of the gates.
    Gates,
}

/// A part of a student or of a run.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// The whole run, with its settings as JSON.
    Settings(String),
    /// A layer, by its position in the model.
    Layer(usize),
    /// A routed expert of a layer.
    Expert {
        /// The position of its layer.
        layer: usize,
        /// Its number in the layer.
        expert: usize,
    },
    /// A gate, with the prompts that cost it most.
    Gate {
        /// Its name in reports.
        name: String,
        /// The ids of prompts, the worst first.
        prompts: Vec<String>,
    },
}

/// A finding, and the figure that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Finding {
    /// The fitted router replaced the old one. Agreement with the teacher's choices.
    RouterRepaired,
    /// No fitted router was better. Agreement with the teacher's choices.
    RouterStays,
    /// The expert's tokens are among those whose outputs are farthest from the teacher's. Squared error over the squared
    /// output of the teacher.
    ExpertDrifts,
    /// The layer agrees least with the teacher's choices. Agreement.
    LayerMisroutes,
    /// The gate failed. Its figure.
    GateFails,
    /// The run lowered the divergence on held-out windows. Nats per token.
    SettingsHelped,
    /// The run did not lower it.
    SettingsDidNotHelp,
}

impl Part {
    /// The name in stores and tables, without settings and prompts.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Part::Settings(_) => "settings".to_owned(),
            Part::Layer(layer) => format!("layer {layer}"),
            Part::Expert { layer, expert } => format!("layer {layer}, expert {expert}"),
            Part::Gate { name, .. } => format!("gate {name}"),
        }
    }
}

impl Finding {
    /// The finding in words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Finding::RouterRepaired => "router repaired",
            Finding::RouterStays => "router stays",
            Finding::ExpertDrifts => "outputs drift",
            Finding::LayerMisroutes => "routes differ most",
            Finding::GateFails => "gate fails",
            Finding::SettingsHelped => "run helped",
            Finding::SettingsDidNotHelp => "run did not help",
        }
    }

    /// The meaning of the figures of the finding.
    #[must_use]
    pub fn unit(self) -> &'static str {
        match self {
            Finding::RouterRepaired | Finding::RouterStays | Finding::LayerMisroutes => "agreement",
            Finding::ExpertDrifts => "relative error",
            Finding::GateFails => "figure of the gate",
            Finding::SettingsHelped | Finding::SettingsDidNotHelp => "held-out KL",
        }
    }
}

impl KeyLesson {
    /// The subject under which a store keeps it.
    pub(crate) fn subject(&self) -> String {
        format!("lesson/{}/{}", self.finding.words(), self.about.name())
    }
}
