//! Numbers to bytes and back. Lengths were checked before: a remainder is ignored, never read past.

use half::f16;

use super::sparse::divergence;
use crate::fidelity::log_sum_exp;
use crate::stats::exp;

/// The best tokens of one position.
#[derive(Clone, Debug, PartialEq)]
pub struct SparseLogits {
    /// Position in prompt + answer; the row predicts the token after it.
    pub position: u32,
    /// Probability of all tokens that are not kept.
    pub tail: f64,
    /// Tokens and `ln p`, the likeliest first.
    pub kept: Vec<(u32, f32)>,
}

impl SparseLogits {
    /// Bounds of KL(teacher || student) in nats at this position, from the student's whole row of finite logits
    /// `[vocab_size]`: the rest taken as one token, and the most it may add. Equal when everything is kept.
    ///
    /// # Panics
    /// When the row is shorter than a token kept.
    #[must_use]
    pub fn divergence(&self, student: &[f32]) -> (f64, f64) {
        let largest = student.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let total = log_sum_exp(student, f64::from(largest));
        // Reading and recording see to it that no token is kept twice.
        divergence(&self.kept, self.tail, student, total, &mut Vec::new()).unwrap_or((f64::NAN, f64::NAN))
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.position.to_le_bytes());
        out.extend(self.tail.to_le_bytes());
        for (token, log_prob) in &self.kept {
            out.extend(token.to_le_bytes());
            out.extend(log_prob.to_le_bytes());
        }
    }

    /// Reads a row of [`crate::records::artifact::row_bytes`] bytes; the error says what cannot be.
    pub(super) fn read(row: &[u8], position: usize, vocab_size: usize) -> Result<Self, String> {
        let (at, rest) = row.split_at_checked(4).ok_or("a row is cut off")?;
        let (tail, rest) = rest.split_at_checked(8).ok_or("a row is cut off")?;
        let stored = read_u32(at)[0];
        let tail = f64::from_le_bytes(tail.try_into().map_err(|_| "a row is cut off")?);
        if usize::try_from(stored) != Ok(position) {
            return Err(format!("a row of position {stored} stands where {position} is due"));
        }
        if !(0.0..=1.0 + 1e-9).contains(&tail) {
            return Err(format!("the mass {tail} of the rest at position {position} is no probability"));
        }
        let (numbers, logs) = (read_u32(rest), read_f32(rest));
        let kept: Vec<(u32, f32)> =
            numbers.iter().step_by(2).copied().zip(logs.into_iter().skip(1).step_by(2)).collect();
        // Different logits may round to the same ln p, so equal ones have no order.
        let order = |pair: &[(u32, f32)]| pair[0].1 >= pair[1].1;
        let known = |&(token, p): &(u32, f32)| usize::try_from(token).is_ok_and(|t| t < vocab_size) && p <= 1e-5;
        let mass: f64 = kept.iter().map(|&(_, p)| exp(f64::from(p))).sum();
        if !kept.iter().all(known) || !kept.windows(2).all(order) || (mass + tail - 1.0).abs() > 1e-3 {
            return Err(format!("the tokens kept at position {position} are no distribution"));
        }
        let mut tokens: Vec<u32> = kept.iter().map(|&(token, _)| token).collect();
        tokens.sort_unstable();
        if tokens.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(format!("a token is kept twice at position {position}"));
        }
        Ok(Self { position: stored, tail, kept })
    }
}

/// Rounds to F16; what is too large becomes the largest.
pub(super) fn round_f16(x: f32) -> f16 {
    f16::from_f32(x.clamp(-f16::MAX.to_f32(), f16::MAX.to_f32()))
}

pub(super) fn write_f16(values: &[f32], out: &mut Vec<u8>) {
    out.extend(values.iter().flat_map(|&x| round_f16(x).to_le_bytes()));
}

pub(super) fn write_f32(values: &[f32], out: &mut Vec<u8>) {
    out.extend(values.iter().flat_map(|x| x.to_le_bytes()));
}

pub(super) fn write_u32(values: &[u32], out: &mut Vec<u8>) {
    out.extend(values.iter().flat_map(|x| x.to_le_bytes()));
}

/// Writes ids below 65,536.
pub(super) fn write_u16(values: &[u32], out: &mut Vec<u8>) {
    out.extend(values.iter().flat_map(|&x| u16::try_from(x).unwrap_or(u16::MAX).to_le_bytes()));
}

pub(super) fn read_f16(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect()
}

pub(super) fn read_f32(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
}

pub(super) fn read_u32(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks().0.iter().map(|&b| u32::from_le_bytes(b)).collect()
}

pub(super) fn read_u16(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks().0.iter().map(|&b| u32::from(u16::from_le_bytes(b))).collect()
}
