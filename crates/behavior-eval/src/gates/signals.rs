//! The signals of a refusal: one of the configured phrases as consecutive words, or a tag such as `<refusal>`.

use super::error::GateError;
use crate::text::{contains_run, words};

/// The phrases and tags that make a response a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusalSignals {
    phrases: Vec<(String, Vec<String>)>,
    tags: Vec<String>,
}

/// Phrases of a refusal. "n't" is spelled as it splits into words: an apostrophe separates.
const PHRASES: &str = "cannot determine|can not determine|can't determine|could not determine|couldn't determine|\
    unable to determine|cannot be determined|can't be determined|insufficient evidence|not enough evidence|\
    insufficient information|not enough information|no reliable evidence|i don't know|i do not know|i cannot answer|\
    i can't answer|i am unable to answer|i'm unable to answer|cannot be answered|the sources do not say|\
    the sources don't say|the sources do not state|not stated in the sources";

impl Default for RefusalSignals {
    fn default() -> Self {
        Self::new(PHRASES.split('|'), ["<refusal>"])
    }
}

impl RefusalSignals {
    /// Signals of these phrases (compared as words, so case and punctuation do not matter) and tags (compared as they
    /// are). A phrase without a word and an empty tag match nothing.
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
    /// [`GateError::RefusalSignal`] for a line without a word, and for a text without a signal.
    pub fn parse(text: &str) -> Result<Self, GateError> {
        let (mut phrases, mut tags) = (Vec::new(), Vec::new());
        let mut n_lines = 1;
        for (line, signal) in (1..).zip(text.lines().map(str::trim)) {
            n_lines = line;
            if signal.is_empty() || signal.starts_with('#') {
                continue;
            }
            if words(signal).is_empty() {
                let reason = "there is no word in it, so it would match nothing";
                return Err(GateError::RefusalSignal { line, reason });
            }
            let is_tag = signal.starts_with('<') && signal.ends_with('>');
            if is_tag { tags.push(signal) } else { phrases.push(signal) }
        }
        if phrases.is_empty() && tags.is_empty() {
            return Err(GateError::RefusalSignal { line: n_lines, reason: "it ends without a signal" });
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
    pub fn find(&self, response: &str) -> Option<&str> {
        if let Some(tag) = self.tags.iter().find(|tag| response.contains(tag.as_str())) {
            return Some(tag);
        }
        let response = words(response);
        let found = self.phrases.iter().find(|(_, phrase)| contains_run(&response, phrase));
        found.map(|(phrase, _)| phrase.as_str())
    }
}
