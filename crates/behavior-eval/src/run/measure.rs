//! The second step: the student's answers, and what it decides on the teacher's tokens.

use serde_json::{Value, json};

use super::error::RunError;
use super::gate_run::{GateRun, OnProgress, Stage};
use super::teacher::TeacherSide;
use crate::model::{AskedPrompt, Role, Subject, SubjectInfo, Want, route_checked, run_checked};
use crate::records::artifact::{SparseLogits, TeacherArtifact};
use crate::records::{StudentJournal, StudentRecord};
use crate::suite::Prompt;
use crate::{Error, Result};

/// The measurements of a student.
#[derive(Debug)]
pub struct StudentSide {
    pub(super) base: StudentJournal,
    pub(super) perturbed: Option<StudentJournal>,
    pub(super) info: SubjectInfo,
}

impl StudentSide {
    /// Which model it is.
    pub fn info(&self) -> &SubjectInfo {
        &self.info
    }

    /// Prompts that an earlier run had done.
    pub fn resumed(&self) -> u64 {
        self.base.resumed() + self.perturbed.as_ref().map_or(0, StudentJournal::resumed)
    }

    /// Seconds of computing, those of earlier runs included.
    pub fn seconds(&self) -> f64 {
        self.base.seconds() + self.perturbed.as_ref().map_or(0.0, StudentJournal::seconds)
    }

    /// Throws the journals away: the report is written.
    ///
    /// # Errors
    /// [`Error::Store`] when they cannot be removed.
    pub fn discard(self) -> Result<()> {
        self.base.discard()?;
        self.perturbed.map_or(Ok(()), StudentJournal::discard)
    }
}

impl GateRun<'_> {
    /// Measures the student on the prompts that no earlier, interrupted call has measured. `clock` gives seconds from any start.
    ///
    /// # Errors
    /// [`RunError::Incomparable`] for a student of another architecture or tokenizer, [`SubjectError::Failed`](crate::model::SubjectError::Failed),
    /// [`SubjectError::Contract`](crate::model::SubjectError::Contract), [`Error::Store`].
    pub fn measure_student(
        &self,
        teacher: &TeacherSide,
        student: &mut dyn Subject,
        clock: &mut dyn FnMut() -> f64,
        progress: OnProgress<'_>,
    ) -> Result<StudentSide> {
        let info = student.info().clone();
        check_comparable(&teacher.info, &info)?;
        let mut pass = |artifact: &TeacherArtifact, prompts: &[&Prompt], stage| {
            let manifest = self.journal_manifest(artifact, &info, prompts);
            let mut journal = StudentJournal::open(self.root, &manifest)?;
            journal.check_order(prompts.iter().map(|prompt| prompt.id.as_str()))?;
            progress(stage, journal.len(), prompts.len());
            for (i, prompt) in prompts.iter().enumerate().skip(journal.len()) {
                let start = clock();
                let record = measure(artifact, student, prompt, self.config.max_new_tokens)?;
                journal.append(&record, (clock() - start).max(0.0))?;
                progress(stage, i + 1, prompts.len());
            }
            Ok::<_, Error>(journal)
        };
        let base = pass(&teacher.base, &self.chosen_prompts(), Stage::Student)?;
        let perturbed = match (&self.perturbed, &teacher.perturbed) {
            (Some(less), Some(artifact)) => Some(pass(artifact, &less.touched_prompts(), Stage::StudentPerturbed)?),
            _ => None,
        };
        Ok(StudentSide { base, perturbed, info })
    }

    /// The manifest of a journal: the inputs of its units.
    pub(super) fn journal_manifest(
        &self,
        artifact: &TeacherArtifact,
        student: &SubjectInfo,
        prompts: &[&Prompt],
    ) -> Value {
        let mut ids = blake3::Hasher::new();
        for prompt in prompts {
            ids.update(&(prompt.id.len() as u64).to_le_bytes());
            ids.update(prompt.id.as_bytes());
        }
        json!({
            "journal": 1,
            "teacher": artifact.spec().manifest(),
            "student": student.id,
            "compute": self.config.compute,
            "prompts": ids.finalize().to_string(),
        })
    }
}

/// Both models must see the same tokens and have the same layers.
pub(super) fn check_comparable(teacher: &SubjectInfo, student: &SubjectInfo) -> Result<(), RunError> {
    let facts = |info: &SubjectInfo| {
        [
            ("layers with a router", format!("{:?}", info.moe_layers)),
            ("number of experts", info.n_experts.to_string()),
            ("number of experts per token", info.top_k.to_string()),
            ("vocabulary", info.vocab_size.to_string()),
            ("hidden width", info.hidden.to_string()),
        ]
    };
    match facts(teacher).into_iter().zip(facts(student)).find(|(t, s)| t != s) {
        None => Ok(()),
        Some(((what, teacher), (_, student))) => Err(RunError::Incomparable { what, teacher, student }),
    }
}

/// Measures the student on one prompt of the teacher's recording.
fn measure(
    artifact: &TeacherArtifact,
    student: &mut dyn Subject,
    prompt: &Prompt,
    max_new_tokens: usize,
) -> Result<StudentRecord> {
    let place = AskedPrompt { role: Role::Student, prompt_id: &prompt.id };
    let index = artifact.place_of(prompt)?;
    let tokens = artifact.tokens(index)?;
    let own = student.encode(&prompt.system, &prompt.user).map_err(|source| place.failed(source))?;
    if tokens.get(..artifact.prompts()[index].prompt_tokens) != Some(&own[..]) {
        return Err(RunError::OtherTokens { prompt_id: prompt.id.clone() }.into());
    }
    let answer = student.generate(&own, max_new_tokens).map_err(|source| place.failed(source))?;
    let (hidden, logits) = (artifact.final_hidden(index)?, artifact.sparse_logits(index)?);
    let rows = logits.as_deref().unwrap_or_default();
    let first = rows.first().and_then(|row| usize::try_from(row.position).ok());
    let want = Want { final_hidden: hidden.is_some(), logits_from: first, ..Want::default() };
    let mut divergence = Vec::with_capacity(rows.len());
    let run = run_checked(student, place, &tokens, &want, &mut |position, row| {
        let stored = first.and_then(|first| rows.get(position.checked_sub(first)?));
        divergence.extend(stored.map(|teacher| diverge(teacher, row)));
        Ok(())
    })?;
    let local = match artifact.router_inputs(index)? {
        Some(inputs) => Some(route_checked(student, place, &inputs, tokens.len())?),
        None => None,
    };
    let width = student.info().hidden.max(1);
    let coherence = hidden.zip(run.final_hidden).map(|(teacher, student)| {
        teacher.chunks_exact(width).zip(student.chunks_exact(width)).map(|(t, s)| cosine(t, s)).collect()
    });
    Ok(StudentRecord {
        prompt_id: prompt.id.clone(),
        answer,
        routing: run.routing,
        local,
        coherence,
        divergence: logits.is_some().then_some(divergence),
    })
}

/// Cosine of two vectors; 0 when one of them is zero.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let (mut dot, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (&x, &y) in a.iter().zip(b) {
        let (x, y) = (f64::from(x), f64::from(y));
        dot += x * y;
        aa += x * x;
        bb += y * y;
    }
    let scale = (aa * bb).sqrt();
    if scale > 0.0 { (dot / scale).clamp(-1.0, 1.0) } else { 0.0 }
}

/// KL(teacher || student) in nats with the tokens that were not kept as one outcome, which never raises it; and whether
/// the likeliest tokens are the same.
fn diverge(teacher: &SparseLogits, student: &[f32]) -> (f64, bool) {
    let mut top = 0;
    for (token, &z) in student.iter().enumerate() {
        if z > student[top] {
            top = token;
        }
    }
    let same = teacher.kept.first().is_some_and(|&(token, _)| usize::try_from(token) == Ok(top));
    (teacher.divergence(student).0, same)
}

#[cfg(test)]
mod tests {
    use super::{cosine, diverge};
    use crate::records::artifact::SparseLogits;

    #[test]
    fn cosines_by_hand() {
        assert_eq!(cosine(&[3.0, 4.0], &[6.0, 8.0]), 1.0);
        assert_eq!(cosine(&[1.0, 0.0], &[0.0, 2.0]), 0.0);
        assert_eq!(cosine(&[1.0, 0.0], &[-5.0, 0.0]), -1.0);
        assert_eq!(cosine(&[0.0, 0.0], &[1.0, 0.0]), 0.0);
    }

    /// Teacher 1/2, 1/4 and a rest of 1/4; student 1/4 each over four tokens.
    #[test]
    fn divergences_by_hand() {
        let kept = vec![(2, 0.5f32.ln()), (0, 0.25f32.ln())];
        let teacher = SparseLogits { position: 0, tail: 0.25, kept };
        let (kl, same) = diverge(&teacher, &[1.0; 4]);
        // 1/2 ln 2 + 1/4 ln 1 + 1/4 ln((1/4) / (1/2))
        assert!((kl - 0.25 * std::f64::consts::LN_2).abs() < 1e-6, "{kl}");
        assert!(!same, "the lowest id wins a tie");
        let (kl, same) = diverge(&teacher, &[1.0 + 0.25f32.ln(), -1e4, 1.0 + 0.5f32.ln(), 1.0 + 0.25f32.ln()]);
        assert!(kl < 1e-6 && same, "{kl}");
    }
}
