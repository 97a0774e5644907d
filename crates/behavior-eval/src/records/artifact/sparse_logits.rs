//! The likeliest tokens of a row of logits, and what they say about a divergence.
//!
//! Full logits of a vocabulary of 154,880 are 620 kB per position; the best 256 with their probabilities are 2 kB. The
//! divergence from a student is then known between two bounds:
//!
//! - *lower*: the rest as one lump, `P ln(P / Q)` with the masses P, Q of the rest in teacher and student (merging
//!   outcomes never raises a divergence);
//! - *upper*: no token of the rest is likelier than the least likely one kept, nor than P, so the rest adds at most
//!   `P ln(min(p_last, P) / q_min)` with the student's least likely token of the rest.

use crate::records::bytes::{read_f32, read_u32};
use crate::stats::{exp, ln, log_sum_exp};

/// The best tokens of one position.
#[derive(Clone, Debug, PartialEq)]
pub struct SparseLogits {
    /// Position in prompt + answer; the row predicts the token after it.
    pub position: u32,
    /// Probability of all tokens that are not kept.
    pub tail: f64,
    /// Tokens and `ln p`, the likeliest first; of equals the lower id.
    pub kept: Vec<(u32, f32)>,
}

impl SparseLogits {
    /// Keeps the `count` likeliest tokens of a row of finite logits.
    pub(super) fn of(row: &[f32], position: usize, count: usize) -> Self {
        let (kept, tail) = likeliest(row, log_sum_exp(row), count);
        Self { position: u32::try_from(position).unwrap_or(u32::MAX), tail, kept }
    }

    /// Bounds of KL(teacher || student) in nats at this position, from the student's whole row of finite logits
    /// `[vocab_size]`: the rest taken as one token, and the most it may add. Equal when everything is kept.
    ///
    /// # Panics
    /// When the row is shorter than a token kept.
    pub fn divergence(&self, student: &[f32]) -> (f64, f64) {
        let total = log_sum_exp(student);
        let head = self.kept.iter().map(|&(token, log_p)| {
            let (log_p, log_q) = (f64::from(log_p), f64::from(student[token as usize]) - total);
            exp(log_p) * (log_p - log_q)
        });
        let head: f64 = head.sum();
        let last = self.kept.last().map(|&(_, log_p)| f64::from(log_p));
        let (Some(last), true) = (last, self.tail > 0.0 && self.kept.len() < student.len()) else {
            return (head.max(0.0), head.max(0.0));
        };
        let mut sorted: Vec<u32> = self.kept.iter().map(|&(token, _)| token).collect();
        sorted.sort_unstable();
        // The rest of the student, in ascending order: its mass relative to its largest, and its smallest.
        let rest = || {
            let mut skip = sorted.iter().peekable();
            student.iter().enumerate().filter_map(move |(token, &z)| {
                if skip.next_if(|&&kept| kept as usize == token).is_some() { None } else { Some(f64::from(z)) }
            })
        };
        let largest = rest().fold(f64::NEG_INFINITY, f64::max);
        let smallest = rest().fold(f64::INFINITY, f64::min);
        let log_mass = largest - total + ln(rest().map(|z| exp(z - largest)).sum());
        let log_tail = ln(self.tail);
        let lower = head + self.tail * (log_tail - log_mass);
        let upper = head + self.tail * (log_tail.min(last) - (smallest - total));
        (lower.max(0.0), upper.max(lower).max(0.0))
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

/// The `count` likeliest tokens of finite logits with `ln p`, the likeliest first (of equals the lower id), and the mass
/// of the rest. `total` is `ln sum exp`.
fn likeliest(logits: &[f32], total: f64, count: usize) -> (Vec<(u32, f32)>, f64) {
    let mut order: Vec<(u32, f32)> = (0u32..).zip(logits.iter().copied()).collect();
    let likelier = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    let rest = if count < order.len() {
        order.select_nth_unstable_by(count, likelier);
        let mut rest = order.split_off(count);
        rest.sort_unstable_by_key(|&(token, _)| token);
        rest
    } else {
        Vec::new()
    };
    order.sort_unstable_by(likelier);
    let tail = rest.iter().map(|&(_, z)| exp(f64::from(z) - total)).sum();
    let kept = order.into_iter().map(|(token, z)| (token, (f64::from(z) - total) as f32)).collect();
    (kept, tail)
}

#[cfg(test)]
mod tests {
    use super::SparseLogits;

    /// 300 numbers from 0 to about 7.
    fn noisy(seed: u32, position: u32) -> Vec<f32> {
        let mix = |i: u32| (i.wrapping_mul(2_654_435_761) ^ seed ^ (position * 131)).wrapping_mul(40_503);
        (0..300).map(|i| f32::from((mix(i) >> 16) as u16) / 9000.0).collect()
    }

    #[test]
    fn both_bounds_enclose_the_true_divergence_and_close_in_on_it() {
        let mut gap = f64::INFINITY;
        for kept in [1, 16, 128, 300] {
            let mut doubt = 0.0;
            for position in 0..50 {
                let (teacher, student) = (noisy(1, position), noisy(0x5bd1_e995, position));
                let bounds = |kept| SparseLogits::of(&teacher, 0, kept).divergence(&student);
                let ((low, high), (exact, same)) = (bounds(kept), bounds(300));
                assert!(exact == same && exact > 0.0, "all tokens are kept: {exact} {same}");
                assert!(low <= exact + 1e-6 && exact <= high + 1e-6, "{kept}: {low} {exact} {high}");
                doubt += high - low;
            }
            assert!(doubt < gap, "{kept}: more tokens leave less doubt");
            gap = doubt;
        }
    }
}
