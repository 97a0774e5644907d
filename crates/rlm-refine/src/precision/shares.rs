//! Squared lengths of differences over those of the vectors they belong to.

pub(super) fn length2(row: &[f32]) -> f64 {
    row.iter().map(|&v| f64::from(v) * f64::from(v)).sum()
}

/// The squared length of each row.
pub(super) fn lengths2(rows: &[f32], hidden: usize) -> Vec<f64> {
    rows.chunks_exact(hidden).map(length2).collect()
}

/// The mean of `parts / wholes`; a whole of 0 counts as 0.
pub(super) fn mean_share(parts: impl Iterator<Item = f64>, wholes: &[f64]) -> f64 {
    let shares = parts.zip(wholes).map(|(part, &whole)| if whole > 0.0 { part / whole } else { 0.0 });
    shares.sum::<f64>() / wholes.len().max(1) as f64
}

pub(super) fn subtract(a: &mut [f32], b: &[f32]) {
    a.iter_mut().zip(b).for_each(|(a, b)| *a -= b);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_the_mean_over_tokens() {
        let difference = lengths2(&[3.0, 4.0, 0.0, 2.0, 9.0, 9.0], 2);
        assert_eq!(mean_share(difference.into_iter(), &[50.0, 8.0, 0.0]), (0.5 + 0.5) / 3.0);
    }
}
