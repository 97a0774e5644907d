//! The comparison of a draft with the tokens that the sampler chooses.

use crate::error::Result;
use crate::sessions::sampler::Sampler;

/// Chooses the token behind each row of `logits` `[1 + draft, vocab]` and gives it to `take` with its row, as long as the tokens
/// are those of the draft and `take` gives no reason for an end.
///
/// Returns the rows whose tokens are part of the sequence now (the first one, and one for each accepted token of the draft),
/// and the reason for an end.
///
/// # Errors
/// Beside the rows: logits that no token can be chosen from. The row of these logits counts, the ones behind it do not.
pub(crate) fn verify<E>(
    logits: &[f32],
    draft: &[u32],
    sampler: &mut Sampler,
    take: &mut dyn FnMut(u32, &[f32]) -> Option<E>,
) -> (usize, Result<Option<E>>) {
    let vocab = (logits.len() / (draft.len() + 1)).max(1);
    let mut rows = 0;
    for logits in logits.chunks_exact(vocab) {
        rows += 1;
        let token = match sampler.sample(logits) {
            Ok(token) => token,
            Err(error) => return (rows, Err(error)),
        };
        let over = take(token, logits);
        if over.is_some() || draft.get(rows - 1) != Some(&token) {
            return (rows, Ok(over));
        }
    }
    (rows, Ok(None))
}

#[cfg(test)]
mod tests {
    use super::verify;
    use crate::sessions::sampler::{Sampler, SamplerConfig};

    /// Speculative sampling with a draft of one token, 60,000 times: the first token has the distribution of the model,
    /// whether the draft was accepted or not, and the token behind an accepted draft has that of its own row.
    #[test]
    fn accepted_and_rejected_drafts_leave_the_distribution() {
        const N: u32 = 60_000;
        let rows = [[0.5f32, 0.2, 0.2, 0.1], [0.1, 0.1, 0.4, 0.4]];
        let logits: Vec<f32> = rows.as_flattened().iter().map(|p| p.ln()).collect();
        // No filter drops a token.
        let config = SamplerConfig { top_p: 1.0, min_p: 0.0, seed: 3, ..SamplerConfig::default() };
        for draft in 0..4u32 {
            let mut sampler = Sampler::new(config).unwrap();
            let (mut first, mut second, mut accepted) = ([0u32; 4], [0u32; 4], 0u32);
            for _ in 0..N {
                let mut tokens = Vec::new();
                let mut take = |token: u32, row: &[f32]| {
                    assert_eq!(row[0], rows[tokens.len()][0].ln(), "the row that the token was chosen from");
                    tokens.push(token);
                    None::<()>
                };
                let (rows, over) = verify(&logits, &[draft], &mut sampler, &mut take);
                assert_eq!((rows, over.unwrap()), (tokens.len(), None));
                first[tokens[0] as usize] += 1;
                if let Some(&token) = tokens.get(1) {
                    assert_eq!(tokens[0], draft);
                    accepted += 1;
                    second[token as usize] += 1;
                }
            }
            let p = rows[0][draft as usize];
            assert!((accepted as f32 / N as f32 - p).abs() < 0.01, "accepted with the model's probability");
            for id in 0..4 {
                let share = first[id] as f32 / N as f32;
                assert!((share - rows[0][id]).abs() < 0.01, "draft {draft}, token {id}: {share}");
                let share = second[id] as f32 / accepted as f32;
                assert!((share - rows[1][id]).abs() < 0.02, "behind {draft}, token {id}: {share}");
                if id != draft as usize {
                    // The distribution without the draft, scaled to 1.
                    let share = first[id] as f32 / (N - accepted) as f32;
                    assert!((share - rows[0][id] / (1.0 - p)).abs() < 0.02, "not {draft} but {id}: {share}");
                }
            }
        }
    }

    #[test]
    fn the_end_of_an_answer_and_unusable_logits_end_the_draft() {
        let mut greedy = Sampler::new(SamplerConfig::greedy()).unwrap();
        let mut logits = [0.0, 1.0].repeat(4);
        let mut left = 2;
        let mut take = |_, _: &[f32]| {
            left -= 1;
            (left == 0).then_some("over")
        };
        let (rows, over) = verify(&logits, &[1, 1, 1], &mut greedy, &mut take);
        assert_eq!((rows, over.unwrap()), (2, Some("over")));
        logits[5] = f32::NAN;
        let (rows, over) = verify(&logits, &[1, 1, 1], &mut greedy, &mut |_, _| None::<()>);
        assert!(rows == 3 && over.is_err());
    }
}
