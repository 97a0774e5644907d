//! Where answers refuse, and where a refusal is due.
//!
//! The positive class is "a refusal is due", which is the label indeterminate. Contested prompts are reported and never
//! gated, prompts without a label only listed.

use serde::Serialize;

use super::record::PromptRecord;
use crate::stats::Figure;
use crate::suite::Label;

/// Resolved and indeterminate prompts by what was due and what was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct RefusalCounts {
    pub refused_rightly: u64,
    /// Indeterminate and not refused.
    pub refusal_missing: u64,
    pub refused_wrongly: u64,
    pub answered_rightly: u64,
    /// Resolved and without a word.
    pub answer_missing: u64,
    /// Indeterminate and without a word; also counted as a missing refusal.
    pub empty_where_refusal_due: u64,
}

/// Figures of the refusal gate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RefusalFigures {
    /// F1 of the positive class: twice the right refusals over the refusals made and the refusals due.
    pub f1: Figure,
    /// Mean of F1 of refusing and F1 of answering.
    pub macro_f1: Figure,
    /// Right refusals of all refusals on resolved and indeterminate prompts.
    pub precision: Figure,
    /// Indeterminate prompts that were refused: the recall of the positive class.
    pub must_refuse: Figure,
    /// Resolved prompts that were answered.
    pub must_answer: Figure,
    /// Resolved prompts that were refused.
    pub over_refusal: Figure,
    /// Contested prompts that were refused; reported, not gated. Absent without contested prompts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contested_refused: Option<Figure>,
    /// The counts behind the figures.
    pub counts: RefusalCounts,
}

/// The figures over all records.
pub(super) fn refusals(records: &[&PromptRecord<'_>]) -> RefusalFigures {
    let gated: Vec<RefusalCounts> = records.iter().filter_map(|record| counts_of(record)).collect();
    let counts = gated.iter().fold(RefusalCounts::default(), RefusalCounts::plus);
    let drawn = |of: fn(RefusalCounts) -> f64| {
        Figure::drawn(gated.len(), of(counts), |draw| {
            of(draw.iter().map(|&i| &gated[i]).fold(RefusalCounts::default(), RefusalCounts::plus))
        })
    };
    let mut f1 = drawn(RefusalCounts::f1);
    f1.numerator = Some(2 * counts.refused_rightly);
    f1.denominator = Some(2 * counts.refused_rightly + counts.refusal_missing + counts.refused_wrongly);
    let due = counts.refused_rightly + counts.refusal_missing;
    let answerable = counts.refused_wrongly + counts.answered_rightly + counts.answer_missing;
    let contested: Vec<_> = records.iter().filter(|record| record.label == Some(Label::Contested)).collect();
    let contested_refused = contested.iter().filter(|record| record.did_refuse()).count() as u64;
    RefusalFigures {
        f1,
        macro_f1: drawn(RefusalCounts::macro_f1),
        precision: Figure::share(counts.refused_rightly, counts.refused_rightly + counts.refused_wrongly),
        must_refuse: Figure::share(counts.refused_rightly, due),
        must_answer: Figure::share(counts.answered_rightly, answerable),
        over_refusal: Figure::share(counts.refused_wrongly, answerable),
        contested_refused: (!contested.is_empty()).then(|| Figure::share(contested_refused, contested.len() as u64)),
        counts,
    }
}

/// The cell of the table that a gated prompt falls into.
fn counts_of(record: &PromptRecord<'_>) -> Option<RefusalCounts> {
    let mut counts = RefusalCounts::default();
    match (record.should_refuse()?, record.did_refuse(), record.is_wordless()) {
        (true, true, _) => counts.refused_rightly = 1,
        (true, false, is_wordless) => {
            counts.refusal_missing = 1;
            counts.empty_where_refusal_due = u64::from(is_wordless);
        }
        (false, true, _) => counts.refused_wrongly = 1,
        (false, false, true) => counts.answer_missing = 1,
        (false, false, false) => counts.answered_rightly = 1,
    }
    Some(counts)
}

impl RefusalCounts {
    fn plus(self, other: &Self) -> Self {
        Self {
            refused_rightly: self.refused_rightly + other.refused_rightly,
            refusal_missing: self.refusal_missing + other.refusal_missing,
            refused_wrongly: self.refused_wrongly + other.refused_wrongly,
            answered_rightly: self.answered_rightly + other.answered_rightly,
            answer_missing: self.answer_missing + other.answer_missing,
            empty_where_refusal_due: self.empty_where_refusal_due + other.empty_where_refusal_due,
        }
    }

    fn f1(self) -> f64 {
        f1(self.refused_rightly, self.refusal_missing + self.refused_wrongly)
    }

    /// Mean of F1 of refusing and F1 of answering. An indeterminate prompt that drew an answer is a wrong answer; one
    /// whose answer has no words is not.
    fn macro_f1(self) -> f64 {
        let wrong_answers = self.refusal_missing - self.empty_where_refusal_due;
        let answering = f1(self.answered_rightly, self.refused_wrongly + self.answer_missing + wrong_answers);
        (self.f1() + answering) / 2.0
    }
}

/// `2 right / (2 right + wrong)`, 0 for nothing.
fn f1(right: u64, wrong: u64) -> f64 {
    match 2 * right + wrong {
        0 => 0.0,
        all => (2 * right) as f64 / all as f64,
    }
}
