//! The likeliest tokens of a row of logits, and what they say about a divergence.
//!
//! Full logits of a vocabulary of 154,880 are 620 kB per position; the best 256 with their probabilities are 2 kB. The
//! divergence from a student is then known between two bounds:
//!
//! - *lower*: the rest as one lump, `P ln(P / Q)` with the masses P, Q of the rest in teacher and student (merging
//!   outcomes never raises a divergence);
//! - *upper*: no token of the rest is likelier than the least likely one kept, nor than P, so the rest adds at most
//!   `P ln(min(p_last, P) / q_min)` with the student's least likely token of the rest.

use crate::stats::{exp, ln};

/// Bounds of KL(teacher || student) from what is kept of the teacher (tokens and `ln p`, the likeliest first, and the
/// mass of the rest) and the student's whole row with its `ln sum exp`; `sorted` is scratch. `None` when a token is kept
/// twice.
pub(crate) fn divergence(
    kept: &[(u32, f32)],
    tail: f64,
    student: &[f32],
    total: f64,
    sorted: &mut Vec<u32>,
) -> Option<(f64, f64)> {
    let log_q = |token: usize| f64::from(student[token]) - total;
    let mut head = 0.0;
    for &(token, log_p) in kept {
        let log_p = f64::from(log_p);
        head += exp(log_p) * (log_p - log_q(token as usize));
    }
    sorted.clear();
    sorted.extend(kept.iter().map(|&(token, _)| token));
    sorted.sort_unstable();
    if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
        return None;
    }
    let last = kept.last().map(|&(_, log_p)| f64::from(log_p));
    let (Some(last), true) = (last, tail > 0.0 && sorted.len() < student.len()) else {
        return Some((head.max(0.0), head.max(0.0)));
    };
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
    let log_tail = ln(tail);
    let lower = head + tail * (log_tail - log_mass);
    let upper = head + tail * (log_tail.min(last) - (smallest - total));
    Some((lower.max(0.0), upper.max(lower).max(0.0)))
}

/// The `count` likeliest tokens of finite logits with `ln p`, the likeliest first (of equals the lower id), and the mass
/// of the rest. `total` is `ln sum exp`.
pub(crate) fn likeliest(logits: &[f32], total: f64, count: usize) -> (Vec<(u32, f32)>, f64) {
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
    use super::{divergence, likeliest};
    use crate::fidelity::log_sum_exp;

    /// 300 numbers from 0 to about 7.
    fn noisy(seed: u32, position: u32) -> Vec<f32> {
        let mix = |i: u32| (i.wrapping_mul(2_654_435_761) ^ seed ^ (position * 131)).wrapping_mul(40_503);
        (0..300).map(|i| f32::from((mix(i) >> 16) as u16) / 9000.0).collect()
    }

    fn total(row: &[f32]) -> f64 {
        log_sum_exp(row, f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max)))
    }

    #[test]
    fn both_bounds_enclose_the_true_divergence_and_close_in_on_it() {
        let mut gap = f64::INFINITY;
        for kept in [1, 16, 128, 300] {
            let mut doubt = 0.0;
            for position in 0..50 {
                let (teacher, student) = (noisy(1, position), noisy(0x5bd1_e995, position));
                let bounds = |kept| {
                    let (kept, tail) = likeliest(&teacher, total(&teacher), kept);
                    divergence(&kept, tail, &student, total(&student), &mut Vec::new()).unwrap()
                };
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
