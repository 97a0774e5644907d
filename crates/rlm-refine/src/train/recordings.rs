//! The recordings of a teacher on a suite as something to learn from.
//!
//! ```text
//! tokens of prompt and answer        ──► a window
//! the likeliest tokens of a position ──► the target of that position; positions without them have no divergence
//! label and answer                   ──► the reward of the window
//! ```
//! **Invariant:** a student learns only from recordings of the model that it was made of.

use std::collections::{HashMap, HashSet};

use behavior_eval::gates::RefusalSignals;
use behavior_eval::model::SubjectInfo;
use behavior_eval::records::artifact::TeacherArtifact;
use moe_runtime::ModelFiles;
use tl_kernels::math;

use super::error::TrainError;
use super::ops::loss::Target;
use super::preference::{loss_factor, preference_reward};
use super::targets::Targets;
use crate::error::{Error, Result};
use crate::ptq::aligned_spans;

/// The keys under which a student names the model that it was made of; the later one counts.
const TEACHER_KEYS: [&str; 2] = ["craftsman.provenance.teacher_blake3", "craftsman.provenance.source_blake3"];

/// The recorded answers of a teacher, in memory.
#[derive(Debug)]
pub struct Recordings {
    /// The key of the artifact: BLAKE3 over model, suite and settings.
    pub key: String,
    /// BLAKE3 of the suite that the teacher answered.
    pub suite: String,
    teacher: SubjectInfo,
    windows: Vec<Vec<u32>>,
    recorded: Vec<Recorded>,
    /// From the tokens of a window to its number.
    numbers: HashMap<Vec<u32>, usize>,
}

/// The predictions for one window.
#[derive(Debug)]
struct Recorded {
    /// The position of the first row.
    first: usize,
    /// Per position from `first` on, the likeliest tokens and their probabilities.
    rows: Vec<(Vec<u32>, Vec<f32>)>,
    reward: f32,
}

impl Recordings {
    /// Reads the answers, the predictions and the labels of an artifact; 8 bytes per token that a row keeps stay in memory.
    ///
    /// # Errors
    /// [`TrainError::NoLogits`] for an artifact without predictions, and one that is damaged.
    pub fn read(artifact: &TeacherArtifact, signals: &RefusalSignals) -> Result<Self> {
        let spec = artifact.spec();
        let (mut windows, mut recorded, mut numbers) = (Vec::new(), Vec::new(), HashMap::new());
        for (place, prompt) in artifact.prompts().iter().enumerate() {
            let rows = artifact.sparse_logits(place)?;
            let rows = rows.ok_or_else(|| TrainError::NoLogits { path: artifact.path().display().to_string() })?;
            let first = rows.first().map_or(0, |row| row.position as usize);
            let rows = rows.into_iter().map(|row| {
                row.kept.into_iter().map(|(token, log)| (token, math::exp_f64(f64::from(log)) as f32)).unzip()
            });
            let reward = preference_reward(prompt.label, &artifact.answer(place)?.text, signals);
            let tokens = artifact.tokens(place)?;
            // Prompts of the same tokens have the same answer of a greedy teacher.
            numbers.entry(tokens.clone()).or_insert(windows.len());
            windows.push(tokens);
            recorded.push(Recorded { first, rows: rows.collect(), reward });
        }
        Ok(Self { key: spec.key(), suite: spec.suite.clone(), teacher: spec.model.clone(), windows, recorded, numbers })
    }

    /// Prompt and answer of each prompt, in the order of the suite.
    #[must_use]
    pub fn windows(&self) -> &[Vec<u32>] {
        &self.windows
    }

    /// BLAKE3 of the teacher.
    #[must_use]
    pub fn teacher(&self) -> &str {
        &self.teacher.id
    }

    /// The rewards of the answers, in the order of the suite.
    pub fn rewards(&self) -> impl Iterator<Item = f32> + '_ {
        self.recorded.iter().map(|recorded| recorded.reward)
    }

    /// The fingerprints of the windows' runs of 64 tokens.
    pub(super) fn spans(&self) -> Vec<u64> {
        let mut seen = HashSet::new();
        let all = self.windows.iter().flat_map(|window| aligned_spans(window));
        all.filter(|span| seen.insert(*span)).collect()
    }

    /// Refuses a student that was made of another model.
    ///
    /// # Errors
    /// [`TrainError::OtherTeacher`] and [`Error::NotAPair`] with the first difference.
    pub(super) fn ensure_teaches(&self, student: &ModelFiles) -> Result<()> {
        let metadata = student.gguf().map(|file| file.metadata());
        let named = TEACHER_KEYS.iter().find_map(|key| metadata?.str(key).ok().flatten());
        if named != Some(&*self.teacher.id) {
            let made_of = named.map_or_else(|| "no model that it names".to_owned(), str::to_owned);
            return Err(TrainError::OtherTeacher { recorded: self.teacher.id.clone(), made_of }.into());
        }
        let config = &student.config;
        let router = config.moe.as_ref().map(|moe| &moe.router);
        let facts = [
            ("width", self.teacher.hidden, config.hidden),
            ("vocabulary", self.teacher.vocab_size, config.vocab),
            ("number of experts", self.teacher.n_experts, router.map_or(0, |router| router.n_experts)),
            ("number of experts per token", self.teacher.top_k, router.map_or(0, |router| router.top_k)),
        ];
        match facts.iter().find(|(_, recorded, own)| recorded != own) {
            None => Ok(()),
            Some((what, recorded, own)) => Err(Error::NotAPair {
                what: (*what).to_owned(),
                teacher: recorded.to_string(),
                student: own.to_string(),
            }),
        }
    }

    fn of(&self, window: &[u32]) -> Option<&Recorded> {
        self.recorded.get(*self.numbers.get(window)?)
    }

    /// Positions of these windows that have a prediction.
    pub(super) fn positions(&self, windows: &[Vec<u32>]) -> usize {
        windows.iter().filter_map(|window| self.of(window)).map(|recorded| recorded.rows.len()).sum()
    }

    /// The predictions for windows of the artifact; `reward_scale` says how strongly rewards change the loss.
    #[must_use]
    pub fn targets(&self, windows: &[Vec<u32>], reward_scale: f32) -> RecordedTargets<'_> {
        let (mut rows, mut factors) = (Vec::new(), Vec::new());
        for window in windows {
            let recorded = self.of(window);
            rows.extend((0..window.len()).map(|position| {
                let recorded = recorded?;
                recorded.rows.get(position.checked_sub(recorded.first)?)
            }));
            let factor = loss_factor(reward_scale, recorded.map_or(0.0, |recorded| recorded.reward));
            factors.resize(rows.len(), factor);
        }
        RecordedTargets { rows, factors }
    }
}

/// Recorded predictions of some windows.
#[derive(Debug)]
pub struct RecordedTargets<'a> {
    /// Per position, where there is a prediction.
    rows: Vec<Option<&'a (Vec<u32>, Vec<f32>)>>,
    factors: Vec<f32>,
}

impl Targets for RecordedTargets<'_> {
    fn targets(&mut self, first: usize, n: usize, take: &mut dyn FnMut(usize, Target<'_>)) -> Result<()> {
        for (position, row) in (first..).zip(&self.rows[first..first + n]) {
            if let Some((tokens, probabilities)) = row {
                take(position, Target::Sparse { tokens, probabilities });
            }
        }
        Ok(())
    }

    fn factor(&self, position: usize) -> f32 {
        self.factors[position]
    }
}
