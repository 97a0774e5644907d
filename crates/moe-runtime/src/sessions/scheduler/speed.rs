//! Measured times of steps, and the rows of prompts that fit beside answers by them.

use std::time::Duration;

/// The weight of the newest measurement in an average.
const NEW: f64 = 0.2;
/// Rows of prompts in a step before anything was measured.
const FIRST_ROWS: usize = 16;
/// Fewest rows of prompts in a step. With fewer, answers wait less, but a long prompt takes several times its time alone
/// (docs/serving.md has the figures).
const MIN_ROWS: usize = 4;

/// Seconds of steps, averaged.
#[derive(Debug)]
pub(super) struct StepSpeed {
    /// Seconds of a step of `i + 1` answers without rows of prompts.
    plain: Vec<Option<f64>>,
    /// Seconds that a row of a prompt adds to a step with answers.
    row: Option<f64>,
    /// The step that was begun, and its time.
    last: Option<(Duration, Rows)>,
}

/// The rows of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rows {
    pub(super) answers: usize,
    pub(super) prompts: usize,
    /// Tokens of drafts, beside the rows of answers.
    pub(super) drafts: usize,
}

impl StepSpeed {
    pub(super) fn new(slots: usize) -> StepSpeed {
        StepSpeed { plain: vec![None; slots], row: None, last: None }
    }

    /// Counts the step that was begun before, which has ended now.
    pub(super) fn ended(&mut self, now: Duration) {
        let Some((begun, rows)) = self.last.take() else { return };
        let seconds = now.saturating_sub(begun).as_secs_f64();
        match rows {
            // Drafts make a step longer that gives more tokens: it says nothing about rows of prompts.
            Rows { answers: 0, .. } | Rows { drafts: 1.., .. } => {}
            Rows { answers, prompts: 0, .. } => average(&mut self.plain[answers - 1], seconds),
            Rows { answers, prompts, .. } => {
                if let Some(plain) = self.plain_seconds(answers) {
                    average(&mut self.row, (seconds - plain).max(0.0) / prompts as f64);
                }
            }
        }
    }

    pub(super) fn begun(&mut self, rows: Rows, now: Duration) {
        self.last = Some((now, rows));
    }

    /// Rows of prompts that make a step with so many answers at most `1 / share` times as long, at most `most`.
    pub(super) fn prompt_rows(&self, answers: usize, share: f64, most: usize) -> usize {
        let rows = match (self.plain_seconds(answers), self.row) {
            (Some(plain), Some(row)) => {
                let allowed = plain * (1.0 / share - 1.0);
                // A row that was measured to take no time leaves the bound `most`.
                (allowed / row.max(1e-9)).min(most as f64) as usize
            }
            _ => FIRST_ROWS,
        };
        rows.max(MIN_ROWS).min(most.max(1))
    }

    /// The time of a step of so many answers, or of the nearest smaller or larger number that was measured.
    fn plain_seconds(&self, answers: usize) -> Option<f64> {
        let (below, above) = self.plain.split_at(answers.min(self.plain.len()));
        below.iter().rev().chain(above).find_map(|seconds| *seconds)
    }
}

fn average(mean: &mut Option<f64>, seconds: f64) {
    *mean = Some(mean.map_or(seconds, |mean| NEW.mul_add(seconds - mean, mean)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observe(speed: &mut StepSpeed, at: &mut u64, ms: u64, answers: usize, prompts: usize) {
        speed.begun(Rows { answers, prompts, drafts: 0 }, Duration::from_millis(*at));
        *at += ms;
        speed.ended(Duration::from_millis(*at));
    }

    #[test]
    fn rows_follow_the_measured_cost() {
        let (mut speed, mut at) = (StepSpeed::new(2), 0);
        assert_eq!(speed.prompt_rows(1, 0.5, 64), 16, "nothing was measured");
        // These times are sums of powers of two, so that no quotient is rounded.
        observe(&mut speed, &mut at, 500, 1, 0);
        assert_eq!(speed.prompt_rows(1, 0.5, 64), 16, "the cost of a row is not known");
        observe(&mut speed, &mut at, 625, 1, 8);
        assert_eq!(speed.prompt_rows(1, 0.5, 64), 32, "a row takes 1/64 s, and the step may take 1/2 s more");
        assert_eq!(speed.prompt_rows(1, 0.8, 64), 8, "1/8 s more");
        assert_eq!(speed.prompt_rows(1, 0.5, 20), 20);
        assert_eq!(speed.prompt_rows(2, 0.5, 64), 32, "by the nearest number of answers");
        for _ in 0..200 {
            observe(&mut speed, &mut at, 2100, 1, 8);
        }
        assert_eq!(speed.prompt_rows(1, 0.5, 64), 4, "a row takes 1/5 s now");
    }

    #[test]
    fn idle_time_prompts_alone_and_drafts_are_not_measured() {
        let mut speed = StepSpeed::new(1);
        speed.begun(Rows { prompts: 256, ..Rows::default() }, Duration::ZERO);
        speed.ended(Duration::from_secs(9));
        speed.ended(Duration::from_secs(99));
        speed.begun(Rows { answers: 1, drafts: 3, prompts: 0 }, Duration::from_secs(99));
        speed.ended(Duration::from_secs(100));
        assert_eq!((speed.plain_seconds(1), speed.row), (None, None));
    }
}
