//! Running a teacher over a suite and recording what it does.

use std::path::Path;

use super::layout::{first_logits, kept, most_bytes};
use super::reader::TeacherArtifact;
use super::sparse_logits::SparseLogits;
use super::spec::ArtifactSpec;
use super::writer::{ArtifactWriter, TeacherRecord};
use crate::Result;
use crate::model::{AskedPrompt, Role, Subject, Want, route_checked, run_checked};
use crate::records::RecordError;
use crate::records::bytes::round_f16;
use crate::suite::Prompt;

/// Opens the artifact of `spec` below `root`; records it, or continues its recording, when it is not there.
/// `progress` gets the prompts done and their number, once before the first one.
///
/// # Errors
/// An artifact that is there and damaged is refused, not replaced. A recording that may not fit the disk is refused
/// before the teacher runs. Else as [`record`] and [`ArtifactWriter`].
pub fn open_or_record(
    root: &Path,
    spec: &ArtifactSpec,
    teacher: &mut dyn Subject,
    prompts: &[&Prompt],
    progress: &mut dyn FnMut(usize, usize),
) -> Result<TeacherArtifact> {
    if let Some(artifact) = open_recorded(root, spec)? {
        return Ok(artifact);
    }
    let mut writer = ArtifactWriter::open(root, spec)?;
    let done = writer.done().count();
    if let Some((recorded, given)) = writer.done().zip(prompts).find(|(id, prompt)| *id != prompt.id) {
        return Err(RecordError::PromptOrder { recorded: recorded.to_owned(), given: given.id.clone() }.into());
    }
    let left = prompts.get(done..).unwrap_or_default();
    let tokens = require_space(root, spec, teacher, left)?;
    teacher.announce(tokens, &Want { logits_from: None, ..want(spec, 0) });
    progress(done, prompts.len());
    for (i, prompt) in prompts.iter().enumerate().skip(done) {
        writer.append(&record(spec, teacher, prompt)?)?;
        progress(i + 1, prompts.len());
    }
    writer.finish()
}

/// Opens the artifact of `spec` below `root`; `None` when it has not been recorded to its end.
///
/// # Errors
/// As [`TeacherArtifact::open_for`].
pub(crate) fn open_recorded(root: &Path, spec: &ArtifactSpec) -> Result<Option<TeacherArtifact>> {
    let path = spec.path(root);
    if !path.exists() {
        return Ok(None);
    }
    let artifact = TeacherArtifact::open_for(&path, spec)?;
    if path.with_added_extension("partial").exists() {
        // Stopped between putting the file in place and clearing up. A file that cannot be cleared away does no harm.
        let _ = ArtifactWriter::open(root, spec).and_then(ArtifactWriter::finish);
    }
    Ok(Some(artifact))
}

/// Checks that the disk holds what these prompts can take at most; returns their tokens.
fn require_space(
    root: &Path,
    spec: &ArtifactSpec,
    teacher: &mut dyn Subject,
    prompts: &[&Prompt],
) -> Result<Vec<Vec<u32>>> {
    let (mut need, mut all) = (0u64, Vec::new());
    for input in prompts {
        let place = AskedPrompt { role: Role::Teacher, prompt_id: &input.id };
        let tokens = teacher.encode(&input.system, &input.user).map_err(|source| place.failed(source))?;
        need = need.saturating_add(most_bytes(spec, tokens.len()));
        all.push(tokens);
    }
    gguf_bitnet::require_space(root, need)?;
    Ok(all)
}

/// The columns of a run over a prompt of `prompt` tokens and its answer.
fn want(spec: &ArtifactSpec, prompt: usize) -> Want {
    Want {
        scores: spec.columns.scores,
        router_inputs: spec.columns.router_inputs,
        final_hidden: spec.columns.final_hidden,
        logits_from: first_logits(spec, prompt),
    }
}

/// A router input as a recording holds it.
#[must_use]
pub fn rounded(input: f32) -> f32 {
    round_f16(input).to_f32()
}

/// Runs a teacher on one prompt: its greedy answer, then what it decides on prompt and answer.
///
/// # Errors
/// [`SubjectError::Failed`](crate::model::SubjectError::Failed) and [`SubjectError::Contract`](crate::model::SubjectError::Contract).
pub fn record(spec: &ArtifactSpec, teacher: &mut dyn Subject, input: &Prompt) -> Result<TeacherRecord> {
    let place = AskedPrompt { role: Role::Teacher, prompt_id: &input.id };
    let prompt = teacher.encode(&input.system, &input.user).map_err(|source| place.failed(source))?;
    let answer = teacher.generate(&prompt, spec.max_new_tokens).map_err(|source| place.failed(source))?;
    let tokens = [&prompt[..], &answer.tokens].concat();
    let want = want(spec, prompt.len());
    let mut logits = Vec::new();
    let run = run_checked(teacher, place, &tokens, &want, &mut |position, row| {
        logits.push(SparseLogits::of(row, position, kept(spec)));
        Ok(())
    })?;
    let inputs = run.router_inputs.as_ref().map(|inputs| inputs.iter().map(|&x| rounded(x)).collect());
    let local = inputs.map(|inputs: Vec<f32>| route_checked(teacher, place, &inputs, tokens.len())).transpose()?;
    Ok(TeacherRecord { prompt_id: input.id.clone(), label: input.label, prompt, answer, run, local, logits })
}
