//! Pairs of opposite English words, by stem.

use std::collections::HashMap;
use std::sync::LazyLock;

use behavior_eval::labels::stem;

/// Each line holds words that mean one thing, `/`, and words that mean its opposite.
const PAIRS: &str = "open opens opened opening/close closes closed closing shut shuts
cure cures cured heal heals healed/cause causes caused worsen worsens worsened
rise rises rose risen increase increases increased grow grows grew gain gained climb climbed/fall falls fell fallen decrease decreases decreased drop dropped decline declined shrink shrank lose lost
allow allows allowed permit permits permitted legal lawful/forbid forbids forbidden prohibit prohibits prohibited ban bans banned illegal unlawful
safe harmless/unsafe dangerous harmful hazardous toxic
hot warm/cold cool
high higher highest/low lower lowest
large larger largest big bigger/small smaller smallest
long longer longest/short shorter shortest
early earlier/late later
before/after
more/less fewer
win wins won/lose loses lost
alive living/dead extinct
present available/absent unavailable missing
begin begins began start starts started/end ends ended stop stops stopped
north northern/south southern
east eastern/west western
left/right
public/private
friend ally/enemy rival
buy buys bought/sell sells sold
build built construct constructed/demolish demolished destroy destroyed
dry arid/wet humid rainy
fresh/salt salty
strong stronger/weak weaker
fast faster quick/slow slower
rich/poor
young younger new newer/old older
active/inactive dormant
guilty/innocent
soluble/insoluble
edible/inedible poisonous
include includes included/exclude excludes excluded
support supports supported/oppose opposes opposed
protect protects protected/threaten threatens threatened
full/empty";

/// For each stem, the lines that have it and the side of the line on which it stands.
static SIDES: LazyLock<HashMap<&str, Vec<(usize, bool)>>> = LazyLock::new(|| {
    let mut sides: HashMap<&str, Vec<(usize, bool)>> = HashMap::new();
    for (n, line) in PAIRS.lines().enumerate() {
        let Some((one, other)) = line.split_once('/') else { continue };
        for (is_second, side) in [(false, one), (true, other)] {
            for word in side.split_ascii_whitespace() {
                sides.entry(stem(word)).or_default().push((n, is_second));
            }
        }
    }
    sides
});

/// Whether a stem is that of a word with an opposite.
pub(super) fn has_opposites(stem: &str) -> bool {
    SIDES.contains_key(stem)
}

/// Whether two stems are those of opposites.
pub(super) fn are_opposite(a: &str, b: &str) -> bool {
    let (Some(a), Some(b)) = (SIDES.get(a), SIDES.get(b)) else { return false };
    a.iter().any(|(line, side)| b.contains(&(*line, !side)))
}

#[cfg(test)]
mod tests {
    use behavior_eval::labels::{PartOfSpeech, part_of_speech, stem};

    use super::super::statement::DENIALS;
    use super::{PAIRS, are_opposite};

    #[test]
    fn opposites_in_both_directions() {
        let are = |a, b| are_opposite(stem(a), stem(b));
        for (a, b) in [("open", "closed"), ("forbidden", "allows"), ("rose", "fell"), ("harmless", "toxic")] {
            assert!(are(a, b) && are(b, a), "{a} {b}");
        }
        assert!(!are("open", "opened") && !are("river", "bridge") && !are("open", "open"));
    }

    /// A denying word never reaches the comparison of opposites, so its line here would be dead.
    #[test]
    fn no_word_is_an_opposite_and_a_denial() {
        for word in PAIRS.split(['/', '\n', ' ']) {
            assert_eq!(part_of_speech(word), PartOfSpeech::Content, "{word}");
            assert!(DENIALS.split_ascii_whitespace().all(|denial| denial != word), "{word}");
        }
    }
}
