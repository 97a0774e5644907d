//! Fingerprints of runs of 64 tokens, by which two texts are compared without keeping either.
//!
//! A fingerprint is the polynomial of the run's tokens modulo `2^61 - 1` at a fixed base, so that the one of the next
//! position follows from the last in a few operations.

/// Tokens of a run.
pub const SPAN_TOKENS: usize = 64;

/// The key under which a student's metadata holds the fingerprints of its calibration.
pub const CALIBRATION_SPANS: &str = "craftsman.provenance.calibration_spans";

const PRIME: u64 = (1 << 61) - 1;
const BASE: u64 = 0x0b4d_5e1f_3a97_c265;

/// The fingerprint of the run at every position, in order; none for fewer than 64 tokens.
pub fn spans(tokens: &[u32]) -> Vec<u64> {
    // The factor of the token that leaves the run.
    let leaving = (1..SPAN_TOKENS).fold(1, |power, _| times(power, BASE));
    let mut hash = 0;
    let mut all = Vec::with_capacity(tokens.len().saturating_sub(SPAN_TOKENS - 1));
    for (i, &token) in tokens.iter().enumerate() {
        if let Some(start) = i.checked_sub(SPAN_TOKENS) {
            hash = (hash + PRIME - times(value(tokens[start]), leaving)) % PRIME;
        }
        hash = (times(hash, BASE) + value(token)) % PRIME;
        if i + 1 >= SPAN_TOKENS {
            all.push(hash);
        }
    }
    all
}

/// The fingerprints of the runs that begin at multiples of 64. Any 127 tokens in a row hold one of these runs.
pub(crate) fn aligned_spans(tokens: &[u32]) -> Vec<u64> {
    tokens.chunks_exact(SPAN_TOKENS).flat_map(spans).collect()
}

/// A token as a number other than 0, so that a run of token 0 has a fingerprint of its own.
fn value(token: u32) -> u64 {
    u64::from(token) + 1
}

fn times(a: u64, b: u64) -> u64 {
    (u128::from(a) * u128::from(b) % u128::from(PRIME)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_the_same_fingerprint_wherever_it_stands() {
        let run: Vec<u32> = (0..64).map(|i| i * i % 97).collect();
        let text: Vec<u32> = [&[5, 6, 7], &run[..], &[1, 2]].concat();
        let all = spans(&text);
        assert_eq!(all.len(), 6);
        assert_eq!(all.iter().position(|&span| span == spans(&run)[0]), Some(3));
        assert_eq!(aligned_spans(&[&run[..], &run[..], &[9; 63]].concat()), [spans(&run)[0]; 2]);
        let mut other = run.clone();
        other[40] += 1;
        assert_ne!(spans(&other), spans(&run));
        assert_ne!(spans(&[0; 64]), spans(&[1; 64]));
        assert!(spans(&run[1..]).is_empty());
    }
}
