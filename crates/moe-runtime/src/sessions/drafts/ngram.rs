//! Drafts from the sequence itself: the tokens that followed the last place with the same ending.
//!
//! ```text
//! sequence   a b c d e f ... x b c d        the longest ending that stands earlier: b c d
//!              |---|             |---|      draft: e f ...
//! ```
//!
//! Places are found as LZ77 compressors find them: a table of hashes of [`KEY`] tokens has the newest place of each, and a
//! chain leads from a place to the one before it with the same hash. Of the places that are looked at, the one with the
//! longest common ending wins, the newest of equal ones.
//!
//! Source: Saxena, "Prompt lookup decoding" (2023); Ziv, Lempel, "A universal algorithm for sequential data compression"
//! (1977).

use super::drafter::{Confidence, Drafter, Guesses};

/// Fewest tokens of a common ending.
const KEY: usize = 3;
/// Bits of the table's index.
const TABLE_BITS: u32 = 14;
/// Most places that are looked at for a draft.
const MAX_PLACES: usize = 64;
/// Longest common ending that is counted, in tokens.
const MAX_ENDING: usize = 32;
/// Shortest endings of each [`Confidence`] above 0.
const LEVELS: [usize; Confidence::MAX] = [5, 8, 16];

/// Looks the end of a sequence up in its earlier part. It needs no weights and takes four bytes per token.
///
/// ```
/// use moe_runtime::{Drafter, NgramDrafter};
/// let (mut drafter, mut draft) = (NgramDrafter::new(), Vec::new());
/// drafter.draft(&[1, 2, 3, 4, 5, 9, 1, 2, 3], 2, &mut draft);
/// assert_eq!(draft, [4, 5]);
/// ```
#[derive(Clone, Debug)]
pub struct NgramDrafter {
    /// For each hash, one more than the newest place with it; 0 for none.
    newest: Vec<u32>,
    /// For each place, one more than the place before it with the same hash; 0 for none.
    before: Vec<u32>,
}

impl Default for NgramDrafter {
    fn default() -> NgramDrafter {
        NgramDrafter { newest: vec![0; 1 << TABLE_BITS], before: Vec::new() }
    }
}

impl NgramDrafter {
    /// A drafter that knows no tokens.
    #[must_use]
    pub fn new() -> NgramDrafter {
        NgramDrafter::default()
    }

    /// Enters the places of `sequence` that are not in the table, except the last one, which is the ending itself.
    fn enter(&mut self, sequence: &[u32]) {
        while self.before.len() + KEY < sequence.len() {
            let place = self.before.len();
            let newest = &mut self.newest[hash(&sequence[place..place + KEY])];
            self.before.push(*newest);
            *newest = u32::try_from(place + 1).unwrap_or(0);
        }
    }

    /// The place behind the best common ending, and the tokens of that ending.
    fn best(&self, sequence: &[u32]) -> Option<(usize, usize)> {
        let ending = sequence.get(sequence.len().checked_sub(KEY)?..)?;
        let mut next = self.newest[hash(ending)];
        let mut best: Option<(usize, usize)> = None;
        for _ in 0..MAX_PLACES {
            let Some(place) = (next as usize).checked_sub(1) else { break };
            let (end, most) = (place + KEY, best.map_or(KEY - 1, |(_, length)| length));
            let pairs = sequence[..end].iter().rev().zip(sequence.iter().rev());
            let length = pairs.take(MAX_ENDING).take_while(|(a, b)| a == b).count();
            if length > most {
                best = Some((end, length));
            }
            next = self.before[place];
        }
        best
    }
}

impl Drafter for NgramDrafter {
    fn begin(&mut self) {
        self.newest.fill(0);
        self.before.clear();
    }

    fn draft(&mut self, sequence: &[u32], most: usize, draft: &mut Vec<u32>) -> Guesses {
        self.enter(sequence);
        let Some((end, length)) = self.best(sequence) else { return Guesses::default() };
        // Behind the end of the sequence the draft goes on with itself: a text in a circle stays in it.
        for place in end..end + most {
            let token = sequence.get(place).or_else(|| draft.get(place - sequence.len()));
            draft.extend(token.copied());
        }
        let confidence = Confidence::new(LEVELS.iter().filter(|&&level| length >= level).count());
        Guesses { confidence, computed: draft.len() }
    }
}

/// Index into the table for [`KEY`] tokens.
fn hash(tokens: &[u32]) -> usize {
    let mixed = tokens.iter().fold(0u32, |hash, &token| (hash ^ token).wrapping_mul(0x9e37_79b1).rotate_left(13));
    (mixed.wrapping_mul(0x9e37_79b1) >> (32 - TABLE_BITS)) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Confidence, Drafter, KEY, MAX_ENDING, NgramDrafter};

    fn draft(drafter: &mut NgramDrafter, sequence: &[u32], most: usize) -> (Vec<u32>, usize) {
        let mut draft = Vec::new();
        let guesses = drafter.draft(sequence, most, &mut draft);
        (draft, guesses.confidence.level())
    }

    #[test]
    fn the_longest_ending_wins_and_the_newest_of_equal_ones() {
        let mut drafter = NgramDrafter::new();
        // 1 2 3 stands twice; 8 1 2 3 once, and earlier.
        let sequence = [8, 1, 2, 3, 20, 21, 7, 1, 2, 3, 30, 31, 8, 1, 2, 3];
        assert_eq!(draft(&mut drafter, &sequence, 2), (vec![20, 21], 0));
        drafter.begin();
        let sequence = [9, 1, 2, 3, 20, 21, 7, 1, 2, 3, 30, 31, 8, 1, 2, 3];
        assert_eq!(draft(&mut drafter, &sequence, 2), (vec![30, 31], 0));
    }

    #[test]
    fn nothing_is_drafted_without_an_earlier_place() {
        let mut drafter = NgramDrafter::new();
        for sequence in [&[][..], &[1], &[1, 2, 3], &[1, 2, 3, 4, 2, 3]] {
            assert_eq!(draft(&mut drafter, sequence, 4), (vec![], 0));
            drafter.begin();
        }
        let sequence = [1, 2, 3, 4, 1, 2, 3];
        assert_eq!(draft(&mut drafter, &sequence, 9).0, [4, 1, 2, 3, 4, 1, 2, 3, 4], "a circle goes on");
        drafter.begin();
        assert!(draft(&mut drafter, &sequence[3..], 9).0.is_empty(), "the sequence before is forgotten");
    }

    #[test]
    fn long_endings_are_trusted_more() {
        let levels = [4, 5, 8, 40].map(|length| {
            let ending: Vec<u32> = (100..100 + length).collect();
            let sequence = [&[7], &ending[..], &[1], &ending[..]].concat();
            draft(&mut NgramDrafter::new(), &sequence, 1).1
        });
        assert_eq!(levels, [0, 1, 2, Confidence::MAX]);
    }

    /// The newest place with the longest common ending, by looking at every place.
    fn by_definition(sequence: &[u32], most: usize) -> Vec<u32> {
        let mut best = (KEY - 1, sequence.len());
        for end in KEY..sequence.len() {
            let pairs = sequence[..end].iter().rev().zip(sequence.iter().rev());
            let length = pairs.take(MAX_ENDING).take_while(|(a, b)| a == b).count();
            if length >= best.0.max(KEY) {
                best = (length, end);
            }
        }
        let mut whole = sequence.to_vec();
        for i in 0..most {
            match whole.get(best.1 + i).copied() {
                Some(token) if best.0 >= KEY => whole.push(token),
                _ => break,
            }
        }
        whole.split_off(sequence.len())
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(text in prop::collection::vec(0u32..3, 0..60), most in 0usize..6) {
            let mut drafter = NgramDrafter::new();
            for end in 0..=text.len() {
                prop_assert_eq!(draft(&mut drafter, &text[..end], most).0, by_definition(&text[..end], most));
            }
        }
    }
}
