//! One row of logits turned into the few numbers that are kept of it.

use crate::Result;
use crate::fidelity::FidelityError;
use crate::model::Role;
use crate::stats::{exp, ln, log_sum_exp};

/// Whose row it is, for messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowPlace {
    pub(super) role: Role,
    pub(super) window: usize,
    /// Position of the predicted token in the window.
    pub(super) position: usize,
}

/// A distribution judged by the token that came.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Prediction {
    /// Probability of the token that came, as a natural logarithm, at most 0.
    pub(super) log_prob: f64,
    /// Whether the most likely token is the one that came.
    pub(super) correct: bool,
    /// The most likely token; the lowest id wins a tie.
    pub(super) top: usize,
}

/// The largest logit with its index.
pub(super) fn top(logits: &[f32], place: RowPlace) -> Result<(usize, f64)> {
    let mut best = (0, f32::NEG_INFINITY);
    for (token, &value) in logits.iter().enumerate() {
        if !value.is_finite() {
            let RowPlace { role, window, position } = place;
            return Err(FidelityError::NotFinite { role, window, position, token, value }.into());
        }
        if value > best.1 {
            best = (token, value);
        }
    }
    Ok((best.0, f64::from(best.1)))
}

/// The prediction that a row makes of `target`.
pub(super) fn predict(logits: &[f32], target: usize, place: RowPlace) -> Result<Prediction> {
    let (top, _) = top(logits, place)?;
    Ok(prediction(logits, target, top, log_sum_exp(logits)))
}

/// The prediction of a row whose largest logit and `ln sum exp` are known.
pub(super) fn prediction(logits: &[f32], target: usize, top: usize, total: f64) -> Prediction {
    let log_prob = (f64::from(logits[target]) - total).min(0.0);
    Prediction { log_prob, correct: top == target, top }
}

/// Both predictions and KL(teacher || student) in nats, in one pass over the two rows.
///
/// With `T = ln sum exp t` and `S` alike, `KL = sum p_i (t_i - s_i) - T + S`, where `p_i = exp(t_i - T)`. Equal rows
/// give exactly 0; rounding below 0 is cut off.
pub(super) fn compare(
    teacher: &[f32],
    student: &[f32],
    target: usize,
    places: [RowPlace; 2],
) -> Result<(Prediction, Prediction, f64)> {
    let (teacher_top, teacher_max) = top(teacher, places[0])?;
    let (student_top, student_max) = top(student, places[1])?;
    let (mut teacher_sum, mut student_sum, mut difference) = (0.0, 0.0, 0.0);
    for (&t, &s) in teacher.iter().zip(student) {
        let (t, s) = (f64::from(t) - teacher_max, f64::from(s) - student_max);
        let weight = exp(t);
        teacher_sum += weight;
        student_sum += exp(s);
        difference += weight * (t - s);
    }
    let (teacher_log, student_log) = (ln(teacher_sum), ln(student_sum));
    let divergence = (difference / teacher_sum - teacher_log + student_log).max(0.0);
    Ok((
        prediction(teacher, target, teacher_top, teacher_max + teacher_log),
        prediction(student, target, student_top, student_max + student_log),
        divergence,
    ))
}
