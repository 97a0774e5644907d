//! The source that a student learns from: the computations of a teacher on texts, or its recordings.

use std::path::Path;

use moe_runtime::ModelFiles;
use tl_kernels::Pool;

use super::error::TrainError;
use super::expert_reward::Rewarded;
use super::model::TrainModel;
use super::recordings::Recordings;
use super::router_targets::RouterTargets;
use super::targets::Targets;
use crate::error::Result;
use crate::pair::ensure_pair;
use crate::ptq::Calibration;

/// The source that a student learns from.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// A teacher's checkpoint, which predicts the windows of texts.
    Texts {
        /// The checkpoint of the teacher.
        teacher: &'a ModelFiles,
        /// The windows of the texts.
        calibration: &'a Calibration,
    },
    /// The recorded answers of a teacher, whose checkpoint is not needed.
    Recordings(&'a Recordings),
}

impl<'a> Source<'a> {
    pub(super) fn windows(&self) -> &'a [Vec<u32>] {
        match self {
            Source::Texts { calibration, .. } => calibration.windows(),
            Source::Recordings(recordings) => recordings.windows(),
        }
    }

    /// The fingerprints of what is learned, for the metadata of the student.
    pub(super) fn spans(&self) -> Vec<u64> {
        match self {
            Source::Texts { calibration, .. } => calibration.spans.clone(),
            Source::Recordings(recordings) => recordings.spans(),
        }
    }

    /// BLAKE3 of the windows, or of the artifact's inputs.
    pub(super) fn blake3(&self) -> &'a str {
        match self {
            Source::Texts { calibration, .. } => &calibration.blake3,
            Source::Recordings(recordings) => &recordings.key,
        }
    }

    /// BLAKE3 of the suite whose answers are learned.
    pub(super) fn suite(&self) -> Option<&'a str> {
        match self {
            Source::Texts { .. } => None,
            Source::Recordings(recordings) => Some(&recordings.suite),
        }
    }

    /// The teacher's checkpoint, for `what`, which reads its weights.
    pub(super) fn checkpoint(&self, what: &'static str) -> Result<&'a ModelFiles, TrainError> {
        match self {
            Source::Texts { teacher, .. } => Ok(teacher),
            Source::Recordings(_) => Err(TrainError::NoCheckpoint { what }),
        }
    }

    /// Whether a file belongs to the teacher's checkpoint.
    pub(super) fn holds(&self, path: &Path) -> bool {
        matches!(self, Source::Texts { teacher, .. } if teacher.holds(path))
    }

    /// BLAKE3 of `student` and of the teacher; `progress` gets the bytes of both that are read, and in all.
    pub(super) fn identities(&self, student: &ModelFiles, progress: &mut dyn FnMut(u64, u64)) -> Result<[String; 2]> {
        let mut read = 0;
        let student = student.identity(&mut |done, total| {
            read = done;
            progress(done, total);
        })?;
        let teacher = match self {
            Source::Texts { teacher, .. } => {
                teacher.identity(&mut |done, total| progress(read + done, read + total))?
            }
            Source::Recordings(recordings) => recordings.teacher().to_owned(),
        };
        Ok([student, teacher])
    }
}

/// The predictions that a student is trained towards.
#[derive(Debug)]
pub(super) struct Teacher<'a> {
    taught_by: TaughtBy<'a>,
    /// How strongly rewards change the loss.
    reward_scale: f32,
    /// How often the divergence of the routes counts.
    router_loss: f32,
}

#[derive(Debug)]
enum TaughtBy<'a> {
    Checkpoint(TrainModel<'a>),
    Recordings(&'a Recordings),
}

impl<'a> Teacher<'a> {
    /// The teacher of `student`.
    ///
    /// # Errors
    /// A teacher that the student was not made of, weights that cannot be read.
    pub(super) fn new(source: &Source<'a>, student: &ModelFiles, reward_scale: f32, pool: &'a Pool) -> Result<Self> {
        let taught_by = match source {
            Source::Texts { teacher, .. } => {
                ensure_pair(teacher, student)?;
                TaughtBy::Checkpoint(TrainModel::new(teacher, &[], pool)?)
            }
            Source::Recordings(recordings) => {
                recordings.ensure_teaches(student)?;
                TaughtBy::Recordings(recordings)
            }
        };
        Ok(Self { taught_by, reward_scale, router_loss: 0.0 })
    }

    /// The same teacher, whose routes count too.
    pub(super) fn with_router_loss(self, router_loss: f32) -> Self {
        Self { router_loss, ..self }
    }

    /// The predictions for windows, with the losses as they are: no position counts more than another one.
    pub(super) fn targets(&self, windows: &[Vec<u32>]) -> Result<Box<dyn Targets + '_>> {
        match &self.taught_by {
            TaughtBy::Checkpoint(model) => Ok(Box::new(model.targets(windows)?)),
            TaughtBy::Recordings(recordings) => Ok(Box::new(recordings.targets(windows, 0.0))),
        }
    }

    /// The predictions for windows, for a step of `student`: the loss of a position follows its reward.
    pub(super) fn rewarded<'t>(
        &'t self,
        student: &TrainModel<'t>,
        windows: &[Vec<u32>],
    ) -> Result<Box<dyn Targets + 't>> {
        match &self.taught_by {
            TaughtBy::Checkpoint(model) if self.reward_scale > 0.0 => {
                Ok(Box::new(Rewarded::new([student, model], windows, self.reward_scale)?))
            }
            TaughtBy::Checkpoint(model) if self.router_loss > 0.0 => {
                Ok(Box::new(RouterTargets::new(model, windows, self.router_loss)?))
            }
            TaughtBy::Checkpoint(_) => self.targets(windows),
            TaughtBy::Recordings(recordings) => Ok(Box::new(recordings.targets(windows, self.reward_scale))),
        }
    }

    /// Positions of windows that have a prediction.
    pub(super) fn positions(&self, windows: &[Vec<u32>]) -> usize {
        match &self.taught_by {
            TaughtBy::Checkpoint(_) => windows.iter().map(Vec::len).sum(),
            TaughtBy::Recordings(recordings) => recordings.positions(windows),
        }
    }

    /// Whether pages of a checkpoint are given back once they are decoded.
    pub(super) fn drop_pages(&mut self, drops: bool) {
        if let TaughtBy::Checkpoint(model) = &mut self.taught_by {
            model.weights.drops_pages = drops;
        }
    }

    /// The model itself, where its weights are there.
    pub(super) fn checkpoint(&self) -> Result<&TrainModel<'a>, TrainError> {
        match &self.taught_by {
            TaughtBy::Checkpoint(model) => Ok(model),
            TaughtBy::Recordings(_) => Err(TrainError::NoCheckpoint { what: "a repair of routers" }),
        }
    }
}
