//! The refusal gate: whether a model refuses exactly where the evidence allows no answer.
//!
//! The positive class is "a refusal is due", which is the label indeterminate. A response refuses when it holds one of
//! the configured phrases as consecutive words, or a `<refusal>` tag. A response without a word neither answers nor
//! refuses. Contested prompts are reported and never gated, prompts without a label only listed.

use serde::Serialize;

use super::record::{Answered, GateConfig, check_balance};
use crate::stats::Figure;
use crate::suite::Label;
use crate::text::{contains_run, words};
use crate::{Error, Result};

/// What makes a response a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusalSignals {
    phrases: Vec<(String, Vec<String>)>,
    tags: Vec<String>,
}

/// Phrases of a refusal. "n't" is spelled as it splits into words: an apostrophe separates.
const PHRASES: [&str; 24] = [
    "cannot determine",
    "can not determine",
    "can't determine",
    "could not determine",
    "couldn't determine",
    "unable to determine",
    "cannot be determined",
    "can't be determined",
    "insufficient evidence",
    "not enough evidence",
    "insufficient information",
    "not enough information",
    "no reliable evidence",
    "i don't know",
    "i do not know",
    "i cannot answer",
    "i can't answer",
    "i am unable to answer",
    "i'm unable to answer",
    "cannot be answered",
    "the sources do not say",
    "the sources don't say",
    "the sources do not state",
    "not stated in the sources",
];

impl Default for RefusalSignals {
    fn default() -> Self {
        Self::new(PHRASES, ["<refusal>"])
    }
}

impl RefusalSignals {
    /// Signals of these phrases (compared as words, so case and punctuation do not matter) and tags (compared as they
    /// are). A phrase without a word and an empty tag match nothing.
    #[must_use]
    pub fn new<'a>(phrases: impl IntoIterator<Item = &'a str>, tags: impl IntoIterator<Item = &'a str>) -> Self {
        let phrases = phrases.into_iter().map(|phrase| (phrase.to_owned(), words(phrase)));
        let tags = tags.into_iter().filter(|tag| !tag.is_empty()).map(str::to_owned);
        Self { phrases: phrases.collect(), tags: tags.collect() }
    }

    /// Reads signals from a text, one per line: a phrase, or a tag between angle brackets. Blank lines and lines that
    /// begin with `#` do not count.
    ///
    /// ```
    /// use behavior_eval::gates::RefusalSignals;
    /// let signals = RefusalSignals::parse("# our policy\nout of scope\n<declined>\n")?;
    /// assert_eq!(signals.find("That is out of scope."), Some("out of scope"));
    /// assert_eq!(signals.find("I cannot determine this."), None);
    /// # Ok::<(), behavior_eval::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::RefusalSignal`] for a line without a word, and for a text without a signal.
    pub fn parse(text: &str) -> Result<Self> {
        let (mut phrases, mut tags) = (Vec::new(), Vec::new());
        let mut n_lines = 1;
        for (line, signal) in (1..).zip(text.lines().map(str::trim)) {
            n_lines = line;
            if signal.is_empty() || signal.starts_with('#') {
                continue;
            }
            if words(signal).is_empty() {
                let reason = "there is no word in it, so it would match nothing";
                return Err(Error::RefusalSignal { line, reason });
            }
            let is_tag = signal.starts_with('<') && signal.ends_with('>');
            if is_tag { tags.push(signal) } else { phrases.push(signal) }
        }
        if phrases.is_empty() && tags.is_empty() {
            return Err(Error::RefusalSignal { line: n_lines, reason: "it ends without a signal" });
        }
        Ok(Self::new(phrases, tags))
    }

    /// All signals, tags first.
    pub fn all(&self) -> impl Iterator<Item = &str> {
        self.tags.iter().map(String::as_str).chain(self.phrases.iter().map(|(phrase, _)| phrase.as_str()))
    }

    /// The first signal that the response holds.
    ///
    /// ```
    /// use behavior_eval::gates::RefusalSignals;
    /// let signals = RefusalSignals::default();
    /// assert_eq!(signals.find("I CANNOT determine this."), Some("cannot determine"));
    /// assert_eq!(signals.find("It is Ozo. [doc-2]"), None);
    /// ```
    #[must_use]
    pub fn find(&self, response: &str) -> Option<&str> {
        if let Some(tag) = self.tags.iter().find(|tag| response.contains(tag.as_str())) {
            return Some(tag);
        }
        let response = words(response);
        let found = self.phrases.iter().find(|(_, phrase)| contains_run(&response, phrase));
        found.map(|(phrase, _)| phrase.as_str())
    }
}

/// What one response did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PromptRefusal {
    /// The prompt.
    pub prompt_id: String,
    /// What its evidence allows.
    pub label: Option<Label>,
    /// Whether a refusal is due; not decided for contested and unlabelled prompts.
    pub should_refuse: Option<bool>,
    /// Whether the response refuses.
    pub did_refuse: bool,
    /// Whether the response says anything at all.
    pub is_empty: bool,
    /// Whether it did what is due; not decided where nothing is.
    pub correct: Option<bool>,
    /// The signal that made it a refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
}

/// Resolved and indeterminate prompts by what was due and what was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RefusalCounts {
    /// Indeterminate and refused.
    pub refused_rightly: u64,
    /// Indeterminate and not refused.
    pub refusal_missing: u64,
    /// Resolved and refused.
    pub refused_wrongly: u64,
    /// Resolved and answered.
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
    /// What the figures were counted from.
    pub counts: RefusalCounts,
}

/// What the refusal gate found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RefusalReport {
    /// Over all prompts.
    #[serde(flatten)]
    pub figures: RefusalFigures,
    /// Every prompt, in the order of the suite.
    pub prompts: Vec<PromptRefusal>,
}

/// What one response did.
#[must_use]
pub fn judge_refusal(answered: &Answered<'_>, signals: &RefusalSignals) -> PromptRefusal {
    let signal = signals.find(answered.response).map(str::to_owned);
    let did_refuse = signal.is_some();
    let is_empty = !did_refuse && words(answered.response).is_empty();
    let should_refuse = match answered.label {
        Some(Label::Resolved) => Some(false),
        Some(Label::Indeterminate) => Some(true),
        Some(Label::Contested) | None => None,
    };
    let correct = should_refuse.map(|due| due == did_refuse && !is_empty);
    let prompt_id = answered.prompt.id.clone();
    PromptRefusal { prompt_id, label: answered.label, should_refuse, did_refuse, is_empty, correct, signal }
}

/// Runs the gate over all responses.
///
/// # Errors
/// [`Error::OneSided`] without resolved or without indeterminate prompts,
/// [`Error::TooFewPrompts`] below the configured number of either.
pub fn refusals(answered: &[Answered<'_>], signals: &RefusalSignals, config: &GateConfig) -> Result<RefusalReport> {
    check_balance(answered.iter().map(|one| one.label), config)?;
    let prompts: Vec<PromptRefusal> = answered.iter().map(|one| judge_refusal(one, signals)).collect();
    let gated: Vec<RefusalCounts> = prompts.iter().filter_map(counts_of).collect();
    let counts = gated.iter().fold(RefusalCounts::default(), RefusalCounts::plus);
    let drawn = |of: fn(RefusalCounts) -> f64| {
        Figure::drawn(gated.len(), of(counts), config.bootstrap, |draw| {
            of(draw.iter().map(|&i| &gated[i]).fold(RefusalCounts::default(), RefusalCounts::plus))
        })
    };
    let mut f1 = drawn(RefusalCounts::f1);
    f1.numerator = Some(2 * counts.refused_rightly);
    f1.denominator = Some(2 * counts.refused_rightly + counts.refusal_missing + counts.refused_wrongly);
    let due = counts.refused_rightly + counts.refusal_missing;
    let answerable = counts.refused_wrongly + counts.answered_rightly + counts.answer_missing;
    let contested: Vec<bool> =
        prompts.iter().filter(|p| p.label == Some(Label::Contested)).map(|p| p.did_refuse).collect();
    let contested_refused = (!contested.is_empty())
        .then(|| Figure::share(contested.iter().filter(|&&refused| refused).count() as u64, contested.len() as u64));
    let figures = RefusalFigures {
        f1,
        macro_f1: drawn(RefusalCounts::macro_f1),
        precision: Figure::share(counts.refused_rightly, counts.refused_rightly + counts.refused_wrongly),
        must_refuse: Figure::share(counts.refused_rightly, due),
        must_answer: Figure::share(counts.answered_rightly, answerable),
        over_refusal: Figure::share(counts.refused_wrongly, answerable),
        contested_refused,
        counts,
    };
    Ok(RefusalReport { figures, prompts })
}

/// The cell of the table that a gated prompt falls into.
fn counts_of(prompt: &PromptRefusal) -> Option<RefusalCounts> {
    let mut counts = RefusalCounts::default();
    match (prompt.should_refuse?, prompt.did_refuse, prompt.is_empty) {
        (true, true, _) => counts.refused_rightly = 1,
        (true, false, is_empty) => {
            counts.refusal_missing = 1;
            counts.empty_where_refusal_due = u64::from(is_empty);
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

    /// F1 of refusing.
    fn f1(self) -> f64 {
        f1(self.refused_rightly, self.refusal_missing + self.refused_wrongly)
    }

    /// Mean of F1 of refusing and F1 of answering. An indeterminate prompt that drew an answer is a wrong answer; one
    /// that drew nothing is not.
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
