//! The judgement of one answer as a number from 0 to 1, from the judges of the gates.
//!
//! | label | reward |
//! |---|---|
//! | resolved | the mean of citation precision and recall; 0 for a refusal or no word |
//! | indeterminate | 1 for a refusal without citations, one half with some; 0 for an answer |
//! | contested | citation precision, halved where citations reach one side only; 0 for a refusal |
//!
//! **Invariant:** a reward follows from the prompt and the answer alone; no model judges.

use std::collections::BTreeSet;

use behavior_eval::gates::PromptRecord;
use behavior_eval::suite::Label;

/// The reward of an answer; `None` for a prompt without a label.
pub(super) fn reward(record: &PromptRecord<'_>) -> Option<f64> {
    let cited = record.citations.len();
    let valid = record.citations.iter().filter(|citation| citation.valid).count();
    let precision = valid as f64 / cited.max(1) as f64;
    if record.label.is_some() && record.refusal_is_right() == Some(false) {
        return Some(0.0);
    }
    Some(match record.label? {
        Label::Resolved => {
            let found = record.citations.iter().filter(|citation| citation.relevant);
            let found: BTreeSet<&str> = found.map(|citation| citation.chunk_id.as_str()).collect();
            0.5 * (precision + found.len() as f64 / record.relevant.len().max(1) as f64)
        }
        Label::Indeterminate if cited > 0 => 0.5,
        Label::Indeterminate => 1.0,
        Label::Contested if record.did_refuse() => 0.0,
        Label::Contested => precision * record.sides.unwrap_or(0).min(2) as f64 / 2.0,
    })
}

#[cfg(test)]
mod tests {
    use behavior_eval::gates::RefusalSignals;
    use behavior_eval::model::{Answer, AnswerEnd};
    use behavior_eval::suite::{Prompt, Suite};

    use super::*;

    fn of(prompt: &Prompt, text: &str) -> f64 {
        let answer = Answer { tokens: Vec::new(), text: text.to_owned(), stop_reason: AnswerEnd::Stop };
        reward(&PromptRecord::new(prompt, None, answer, &RefusalSignals::default())).unwrap()
    }

    #[test]
    fn gold_answers_get_all_and_others_less() {
        let suites = fixtures::path("suites");
        let open = |name: &str| {
            Suite::open(&suites.join(format!("{name}.jsonl")), &suites.join(format!("{name}.corpus.jsonl")))
        };
        let suite = open("unseen-training").unwrap();
        let mut seen = BTreeSet::new();
        for prompt in suite.prompts() {
            let gold = prompt.gold_answer.as_deref().unwrap();
            assert_eq!(of(prompt, gold), 1.0, "{gold}");
            assert_eq!(of(prompt, ""), 0.0);
            let refusal = "I cannot determine this: insufficient evidence.";
            let is_due = prompt.label == Some(Label::Indeterminate);
            assert_eq!(of(prompt, refusal), f64::from(u8::from(is_due)));
            let half = match prompt.label.unwrap() {
                Label::Resolved => gold.rsplit_once(" [").unwrap().0.to_owned(),
                Label::Contested => gold.split_once(" or ").unwrap().0.to_owned(),
                Label::Indeterminate => format!("{gold} [{}]", prompt.context[0]),
            };
            let reward = of(prompt, &half);
            assert!(reward > 0.0 && reward < 1.0, "{half}: {reward}");
            seen.insert(prompt.label.unwrap().name());
        }
        assert_eq!(seen.len(), 3);
        assert!(
            reward(&PromptRecord::new(
                &Prompt { label: None, ..suite.prompts()[0].clone() },
                None,
                Answer { tokens: Vec::new(), text: "Oz".to_owned(), stop_reason: AnswerEnd::Stop },
                &RefusalSignals::default(),
            ))
            .is_none()
        );
    }
}
