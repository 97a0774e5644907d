//! The reward of a recorded answer: whether it does what the label of its prompt asks for.
//!
//! ```text
//! label            right answer                               reward
//! indeterminate    a refusal                                  1, else -1
//! resolved         no refusal, at least one citation          1, else -1
//! contested        no refusal, at least two citations         1, else -1
//! none                                                        0
//! ```
//! The loss of an answer is multiplied by `1 + scale * reward`, so that with a scale of 1 an answer against its label teaches
//! nothing. Citations are only counted: an artifact holds no chunks that they could be compared with.

use behavior_eval::gates::RefusalSignals;
use behavior_eval::suite::{Label, Prompt};
use behavior_eval::text::sentences;

/// The reward of an answer to a prompt with this label, from -1 to 1.
#[must_use]
pub fn preference_reward(label: Option<Label>, answer: &str, signals: &RefusalSignals) -> f32 {
    let refuses = signals.find(answer).is_some();
    let citations: usize = sentences(answer, &Prompt::default()).iter().map(|sentence| sentence.citations.len()).sum();
    let is_right = match label {
        None => return 0.0,
        Some(Label::Indeterminate) => refuses,
        Some(Label::Resolved) => !refuses && citations > 0,
        Some(Label::Contested) => !refuses && citations > 1,
    };
    if is_right { 1.0 } else { -1.0 }
}

/// The factor of the loss of an answer with this reward.
pub(super) fn loss_factor(scale: f32, reward: f32) -> f32 {
    1.0 + scale * reward
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_decides_which_answer_is_rewarded() {
        let signals = RefusalSignals::default();
        let answers = ["It is Ozo. [doc-2] [doc-8]", "It is Ozo. [doc-2]", "It is Ozo.", "I cannot determine this."];
        let rewards = |label| answers.map(|answer| preference_reward(label, answer, &signals));
        assert_eq!(rewards(Some(Label::Resolved)), [1.0, 1.0, -1.0, -1.0]);
        assert_eq!(rewards(Some(Label::Contested)), [1.0, -1.0, -1.0, -1.0]);
        assert_eq!(rewards(Some(Label::Indeterminate)), [-1.0, -1.0, -1.0, 1.0]);
        assert_eq!(rewards(None), [0.0; 4]);
        assert_eq!([loss_factor(1.0, -1.0), loss_factor(0.1, 1.0), loss_factor(0.5, 0.0)], [0.0, 1.1, 1.0]);
    }
}
