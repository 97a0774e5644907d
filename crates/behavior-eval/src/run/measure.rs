//! One prompt of the student: its own answer, and what it decides on the teacher's tokens.

use crate::model::{Place, Role, Subject, Want, route_checked, run_checked};
use crate::records::StudentRecord;
use crate::records::artifact::{SparseLogits, TeacherArtifact};
use crate::suite::Prompt;
use crate::{Error, Result};

/// Measures the student on one prompt of the teacher's recording.
pub(super) fn student(
    artifact: &TeacherArtifact,
    student: &mut dyn Subject,
    prompt: &Prompt,
    max_new_tokens: usize,
) -> Result<StudentRecord> {
    let place = Place { role: Role::Student, prompt_id: &prompt.id };
    let unknown = || Error::UnknownPrompt { prompt_id: prompt.id.clone() };
    let index = artifact.find(&prompt.id).ok_or_else(unknown)?;
    let tokens = artifact.tokens(index)?;
    let own = student.encode(&prompt.system, &prompt.user).map_err(|source| place.failed(source))?;
    if tokens.get(..artifact.prompts()[index].prompt_tokens) != Some(&own[..]) {
        return Err(Error::OtherTokens { prompt_id: prompt.id.clone() });
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
