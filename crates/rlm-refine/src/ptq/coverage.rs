//! The choice of windows so that every expert of the teacher sees enough tokens.
//!
//! The teacher routes the tokens of twice as many windows as are wanted, layer by layer. Three quarters of the wanted tokens
//! are windows at even distances; each further window is the one that gives experts with too few tokens the most, and windows
//! at even distances again once none lacks any.

use moe_runtime::ModelFiles;
use moe_runtime::forward::DecoderLayer;
use ternary_core::ActMode;
use tl_kernels::Pool;

use super::layer::{attend, feed};
use super::routes::route;
use super::streams::Streams;
use crate::error::Result;

/// The tokens that each expert of each layer sees in each window, `[windows][layers * experts]`.
pub(super) fn expert_tokens(files: &ModelFiles, pool: &Pool, windows: &[Vec<u32>]) -> Result<Vec<Vec<u32>>> {
    let config = &files.config;
    let experts = config.moe.as_ref().map_or(0, |moe| moe.router.n_experts);
    let mut counts = vec![vec![0; config.n_layers * experts]; windows.len()];
    let lengths: Vec<usize> = windows.iter().map(Vec::len).collect();
    let mut stream = Streams::embed(files, windows, gguf_bitnet::TensorType::F32)?.teacher;
    for index in 0..config.n_layers {
        let layer = DecoderLayer::load(&files.catalog, config, index, ActMode::F32)?;
        attend(pool, &layer, &lengths, &mut stream)?;
        let (top_k, routes) = route(pool, &layer, &stream, config.hidden);
        let mut chosen = routes.into_iter();
        for (counts, length) in counts.iter_mut().zip(&lengths) {
            for (expert, _) in chosen.by_ref().take(length * top_k) {
                counts[index * experts + expert as usize] += 1;
            }
        }
        feed(pool, &layer, config.hidden, None, &mut stream)?;
    }
    Ok(counts)
}

/// The numbers of windows with at most `max_tokens` in all, ascending, so that experts see `enough` tokens where they can.
/// Experts that see no token in any window are left out.
pub(super) fn choose(lengths: &[usize], counts: &[Vec<u32>], enough: u32, max_tokens: usize) -> Vec<usize> {
    let total: usize = lengths.iter().sum();
    let mut chosen = spread(lengths, max_tokens.min(total) / 4 * 3);
    let mut seen = vec![0u32; counts.first().map_or(0, Vec::len)];
    let mut tokens = 0;
    for &window in &chosen {
        tokens += lengths[window];
        seen.iter_mut().zip(&counts[window]).for_each(|(seen, count)| *seen += count);
    }
    let mut rest: Vec<usize> = (0..lengths.len()).filter(|window| !chosen.contains(window)).collect();
    loop {
        rest.retain(|&window| tokens + lengths[window] <= max_tokens);
        let gain = |window: usize| -> u64 {
            let lacking = seen.iter().zip(&counts[window]);
            lacking.map(|(&seen, &count)| u64::from(count.min(enough.saturating_sub(seen)))).sum()
        };
        // The first of the best, so that equal gains are decided by the order of the text.
        let best = rest.iter().copied().max_by_key(|&window| (gain(window), std::cmp::Reverse(window)));
        let Some(window) = best.filter(|&window| gain(window) > 0) else { break };
        tokens += lengths[window];
        seen.iter_mut().zip(&counts[window]).for_each(|(seen, count)| *seen += count);
        chosen.push(window);
        rest.retain(|&other| other != window);
    }
    let left: Vec<usize> = rest.iter().map(|&window| lengths[window]).collect();
    chosen.extend(spread(&left, max_tokens.saturating_sub(tokens)).into_iter().map(|i| rest[i]));
    chosen.sort_unstable();
    chosen
}

/// Windows at even distances with at most `max_tokens` in all.
pub(super) fn spread(lengths: &[usize], max_tokens: usize) -> Vec<usize> {
    let total: usize = lengths.iter().sum();
    let (mut used, mut seen) = (0usize, 0u128);
    let mut kept = Vec::new();
    for (window, length) in lengths.iter().enumerate() {
        // The share of the text up to here that is due.
        seen += *length as u128;
        let due = (seen * max_tokens as u128 / total.max(1) as u128) as usize;
        if used + length <= due {
            used += length;
            kept.push(window);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_lie_at_even_distances() {
        assert_eq!(spread(&[4; 10], 40), (0..10).collect::<Vec<_>>());
        assert_eq!(spread(&[4; 10], 20), [1, 3, 5, 7, 9]);
        assert!(spread(&[4; 10], 3).is_empty());
    }

    #[test]
    fn windows_that_a_starved_expert_sees_are_taken_first() {
        // Expert 1 is seen in window 6 alone, and expert 2 nowhere.
        let counts: Vec<Vec<u32>> = (0..8).map(|w| vec![4, if w == 6 { 4 } else { 0 }, 0]).collect();
        let lengths = [4; 8];
        assert_eq!(spread(&lengths, 16), [1, 3, 5, 7], "even distances miss it");
        let chosen = choose(&lengths, &counts, 4, 16);
        assert!(chosen.contains(&6) && chosen.len() == 4 && chosen.is_sorted(), "{chosen:?}");
        let chosen = choose(&lengths, &counts, 0, 16);
        assert_eq!(chosen.len(), 4, "no expert lacks tokens, and the budget is used");
        assert_eq!(choose(&lengths, &counts, 100, 1000).len(), 8);
    }
}
