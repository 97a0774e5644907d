//! Which windows are held out, and which ones routers are fitted on.
//!
//! **Invariant:** the choice follows from the number and the lengths of the windows alone.

/// One of so many windows is held out, up to [`MAX_HELD_OUT`] of them.
const HELD_OUT_SHARE: usize = 24;
const MAX_HELD_OUT: usize = 16;

/// Most tokens that routers are fitted on.
pub(super) const REPAIR_TOKENS: usize = 32 << 10;

/// Least number of windows of which one is held out.
pub(super) const LEAST_WINDOWS: usize = HELD_OUT_SHARE / 2 + 1;

/// The windows of a run that are held out of its training.
#[must_use]
pub fn held_out_windows(windows: &[Vec<u32>]) -> Vec<Vec<u32>> {
    let [_, held_out] = split(windows);
    held_out
}

/// The windows that are trained on, and those that are held out.
pub(super) fn split(windows: &[Vec<u32>]) -> [Vec<Vec<u32>>; 2] {
    let (mut held_out, mut trained) = (Vec::new(), Vec::new());
    let every = HELD_OUT_SHARE.max(windows.len() / MAX_HELD_OUT);
    for (i, window) in windows.iter().cloned().enumerate() {
        if i % every == every / 2 { held_out.push(window) } else { trained.push(window) }
    }
    held_out.truncate(MAX_HELD_OUT);
    [trained, held_out]
}

/// Windows at even distances, of at most [`REPAIR_TOKENS`] tokens together. Their number is that of the first windows within the
/// limit.
pub(super) fn fit_windows(windows: &[Vec<u32>]) -> Vec<Vec<u32>> {
    let n = within_limit(windows.iter()).count();
    within_limit((0..n).map(|i| &windows[i * windows.len() / n])).cloned().collect()
}

fn within_limit<'a>(windows: impl Iterator<Item = &'a Vec<u32>>) -> impl Iterator<Item = &'a Vec<u32>> {
    let mut tokens = 0;
    windows.take_while(move |window| {
        tokens += window.len();
        tokens <= REPAIR_TOKENS
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routers_are_fitted_on_windows_from_everywhere_within_the_limit() {
        let numbered = |lens: &[usize]| -> Vec<Vec<u32>> {
            lens.iter().zip(0..).map(|(&len, number)| vec![number; len]).collect()
        };
        let fit = fit_windows(&numbered(&[REPAIR_TOKENS / 4; 16]));
        assert_eq!(fit.iter().map(|window| window[0]).collect::<Vec<_>>(), [0, 4, 8, 12]);
        // The first windows are short: as many of all of them would be too many tokens.
        let mut lens = [REPAIR_TOKENS / 4; 16];
        lens[..4].fill(REPAIR_TOKENS / 8);
        let tokens = fit_windows(&numbered(&lens)).iter().map(Vec::len).sum::<usize>();
        assert!(tokens <= REPAIR_TOKENS && tokens > REPAIR_TOKENS / 2, "{tokens}");
        assert!(fit_windows(&[]).is_empty());
    }
}
