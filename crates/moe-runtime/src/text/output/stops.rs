//! Texts that end an answer, found across the borders of tokens.
//!
//! Text that could still become a stop string is held back: the longest end of the answer that is the beginning of one.
//! Of several stop strings the one counts that is complete first, and of those that end at the same place the longest.
//!
//! **Invariant:** the result does not depend on how the text was cut into pieces.

use crate::error::{Error, Result};
use crate::text::error::TextError;

/// Texts that end an answer.
///
/// ```
/// use moe_runtime::StopStrings;
/// let mut stops = StopStrings::new(vec!["\nUser:".to_owned()])?;
/// let mut text = String::new();
/// assert_eq!(stops.push("Fine.\nUs", &mut text), None);
/// assert_eq!(text, "Fine.", "the rest may become the stop string");
/// assert_eq!(stops.push("er: next", &mut text), Some(0));
/// assert_eq!(text, "Fine.");
/// # Ok::<(), moe_runtime::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct StopStrings {
    stops: Vec<String>,
    /// The end of the text so far that is the beginning of a stop string.
    held: String,
}

impl StopStrings {
    /// Most stop strings of an answer.
    pub const MAX: usize = 16;
    /// Longest stop string, in bytes.
    pub const MAX_BYTES: usize = 1024;

    /// Stop strings of an answer; empty ones have no effect.
    ///
    /// # Errors
    /// [`TextError::StopStrings`] for more than [`StopStrings::MAX`], or one longer than [`StopStrings::MAX_BYTES`].
    pub fn new(stops: Vec<String>) -> Result<StopStrings> {
        let longest = stops.iter().map(String::len).max().unwrap_or(0);
        if stops.len() > Self::MAX || longest > Self::MAX_BYTES {
            return Err(Error::Text(TextError::StopStrings { count: stops.len(), longest }));
        }
        Ok(StopStrings { stops, held: String::new() })
    }

    /// Takes more text and adds to `out` what comes before a stop string for sure. Returns the index of the stop string
    /// when one is complete; the text behind it is dropped.
    pub fn push(&mut self, text: &str, out: &mut String) -> Option<usize> {
        self.held.push_str(text);
        if let Some((start, index)) = self.find() {
            out.push_str(&self.held[..start]);
            self.held.clear();
            return Some(index);
        }
        let free = self.held.len() - self.possible_beginning();
        out.extend(self.held.drain(..free));
        None
    }

    /// The text that was held back, at the end of an answer.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Start and index of the stop string that is complete first in the held text.
    fn find(&self) -> Option<(usize, usize)> {
        let stops = self.stops.iter().enumerate().filter(|(_, stop)| !stop.is_empty());
        let found = stops.filter_map(|(index, stop)| {
            let start = self.held.find(stop.as_str())?;
            Some((start + stop.len(), start, index))
        });
        found.min().map(|(_, start, index)| (start, index))
    }

    /// Length of the longest end of the held text that a stop string begins with.
    fn possible_beginning(&self) -> usize {
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let from = self.held.len().saturating_sub(longest.saturating_sub(1));
        let ends = self.held.char_indices().map(|(start, _)| start).skip_while(|&start| start < from);
        let mut ends = ends.map(|start| &self.held[start..]);
        ends.find(|end| self.stops.iter().any(|stop| stop.starts_with(end))).map_or(0, str::len)
    }
}

#[cfg(test)]
mod tests {
    use super::StopStrings;
    use proptest::prelude::*;

    /// Text before the stop string that is complete first, and its index, from the whole text.
    fn by_definition(stops: &[String], text: &str) -> (String, Option<usize>) {
        for end in 1..=text.len() {
            let ending = |(index, stop): (usize, &String)| {
                (!stop.is_empty() && text[..end].ends_with(stop.as_str())).then_some((stop.len(), index))
            };
            let hits = stops.iter().enumerate().filter_map(ending);
            if let Some((len, index)) = hits.min_by_key(|&(len, index)| (std::cmp::Reverse(len), index)) {
                return (text[..end - len].to_owned(), Some(index));
            }
        }
        (text.to_owned(), None)
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition_for_any_cut(
            stops in prop::collection::vec("[ab\n]{0,4}", 0..4),
            pieces in prop::collection::vec("[ab\n]{0,3}", 0..12),
        ) {
            let mut stream = StopStrings::new(stops.clone()).unwrap();
            let mut text = String::new();
            let hit = pieces.iter().find_map(|piece| stream.push(piece, &mut text));
            text.push_str(&stream.finish());
            prop_assert_eq!((text, hit), by_definition(&stops, &pieces.concat()));
        }
    }

    #[test]
    fn only_a_possible_beginning_is_held_back() {
        let mut stops = StopStrings::new(vec!["\u{e9}nd!".to_owned(), String::new()]).unwrap();
        let mut text = String::new();
        assert_eq!(stops.push("the \u{e9}n", &mut text), None);
        assert_eq!(text, "the ");
        assert_eq!(stops.push("e \u{e9}", &mut text), None);
        assert_eq!(text, "the \u{e9}ne ");
        assert_eq!(stops.finish(), "\u{e9}");
    }

    #[test]
    fn too_many_and_too_long_ones_are_refused() {
        assert!(StopStrings::new(vec!["x".repeat(1024); 16]).is_ok());
        assert!(StopStrings::new(vec!["x".repeat(1025)]).unwrap_err().to_string().contains("1025 bytes"));
        assert!(StopStrings::new(vec![String::new(); 17]).unwrap_err().to_string().contains("17"));
    }
}
