//! All choices of one type per class, best first.

use std::cmp::Reverse;

use super::table::ClassCandidates;

/// One candidate for each class.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Choice {
    /// The position of each class's candidate.
    pub(crate) picks: Vec<usize>,
    /// The sum of their errors.
    pub(crate) error: f64,
    /// The sum of their bytes.
    pub(crate) bytes: u64,
}

/// Every choice, in ascending error. Among equal errors the largest comes first: TQ2_0 holds the same trits as TQ1_0 and is
/// multiplied with faster.
pub(super) fn ranked(classes: &[ClassCandidates]) -> Vec<Choice> {
    let mut choices = vec![Choice::default()];
    for class in classes {
        let extended = choices.iter().flat_map(|choice| {
            class.candidates.iter().enumerate().map(|(pick, candidate)| Choice {
                picks: choice.picks.iter().copied().chain([pick]).collect(),
                error: choice.error + candidate.error,
                bytes: choice.bytes.saturating_add(candidate.bytes),
            })
        });
        choices = extended.collect();
    }
    choices.sort_by(|a, b| {
        a.error.total_cmp(&b.error).then_with(|| (Reverse(a.bytes), &a.picks).cmp(&(Reverse(b.bytes), &b.picks)))
    });
    choices
}

#[cfg(test)]
mod tests {
    use gguf_bitnet::{TensorClass, TensorType};

    use super::*;
    use crate::precision::Candidate;

    fn classes(rows: &[&[(u64, f64)]]) -> Vec<ClassCandidates> {
        let candidate = |&(bytes, error): &(u64, f64)| Candidate { ty: TensorType::Q8_0, bytes, error, chosen: false };
        let class = |rows: &&[(u64, f64)]| ClassCandidates {
            class: TensorClass::Head,
            candidates: rows.iter().map(candidate).collect(),
        };
        rows.iter().map(class).collect()
    }

    /// By recursion over the classes, with what is left of the budget.
    fn least(rows: &[&[(u64, f64)]], budget: u64) -> Option<f64> {
        let Some((first, rest)) = rows.split_first() else { return Some(0.0) };
        let with = |&(bytes, error): &(u64, f64)| Some(error + least(rest, budget.checked_sub(bytes)?)?);
        first.iter().filter_map(with).min_by(f64::total_cmp)
    }

    #[test]
    fn the_first_choice_within_a_budget_is_the_best_one() {
        let rows: [&[(u64, f64)]; 4] = [
            &[(10, 64.0), (12, 64.0), (31, 2.0), (40, 0.5)],
            &[(3, 8.0), (4, 8.0), (12, 1.0), (16, 0.25)],
            &[(7, 4.0), (9, 0.125)],
            &[(5, 16.0), (6, 16.0), (20, 0.0625)],
        ];
        let ranked = ranked(&classes(&rows));
        assert_eq!(ranked.len(), 4 * 4 * 2 * 3);
        for budget in 20..=100 {
            let found = ranked.iter().find(|choice| choice.bytes <= budget);
            assert_eq!(found.map(|choice| choice.error), least(&rows, budget), "{budget}");
        }
    }

    #[test]
    fn among_equal_errors_the_largest_choice_comes_first() {
        let rows: [&[(u64, f64)]; 2] = [&[(5, 1.0), (6, 1.0)], &[(20, 2.0), (30, 2.0)]];
        let bytes: Vec<u64> = ranked(&classes(&rows)).iter().map(|choice| choice.bytes).collect();
        assert_eq!(bytes, [36, 35, 26, 25]);
    }
}
