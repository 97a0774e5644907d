//! Words that build sentences rather than say something, and the stems of those that do.
//!
//! A closed list of English: articles must not decide which question a text bears on, and the reporter of a fact is no part
//! of the fact. Texts in other languages keep all their words, which makes them bear on fewer questions, never on more.

/// The role of a word in a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartOfSpeech {
    /// Says something about the world.
    Content,
    /// Articles, prepositions, pronouns, auxiliaries, question words.
    Function,
    /// Joins a thing to what is said of it.
    Link,
    /// Says that something is said.
    Reporting,
    /// Turns a statement into its opposite.
    Negation,
}

const FUNCTION: &str = "a an the this that these those it its itself he she they them his her their there here who whom \
    whose what which where when why how of in on at to for from with within without into onto upon through over under \
    between among and or but nor so if then than while do does did has have had will would shall should can could may \
    might must about also too just still today now s me us we you your our i my tell name please give many much one";

const LINK: &str = "is are was were be been being am becomes became become remains remained remain means meant equals \
    by as called named titled serves served serve";

const REPORTING: &str = "record records recorded say says said saying state states stated stating report reports \
    reported reportedly claim claims claimed note notes noted known believe believes believed believing source sources \
    according widely generally commonly officially agree agrees agreed hold holds held write writes wrote written \
    describe describes described list lists listed mention mentions mentioned confirm confirms confirmed show shows \
    shown tells told fact clear certain";

const NEGATION: &str = "not never no neither isn wasn aren weren doesn didn don cannot";

/// Words that end an answer which has begun: what follows is about something else.
const STOPS: &str = "which who where when while since because although though whereas but after before until according";

/// The role of a word in lower case.
pub fn part_of_speech(word: &str) -> PartOfSpeech {
    let is_in = |list: &str| list.split_ascii_whitespace().any(|listed| listed == word);
    match () {
        () if is_in(LINK) => PartOfSpeech::Link,
        () if is_in(FUNCTION) || word == "t" => PartOfSpeech::Function,
        () if is_in(REPORTING) => PartOfSpeech::Reporting,
        () if is_in(NEGATION) => PartOfSpeech::Negation,
        () => PartOfSpeech::Content,
    }
}

/// Whether a word ends an answer that has begun.
pub(super) fn is_stop(word: &str) -> bool {
    STOPS.split_ascii_whitespace().any(|listed| listed == word)
}

/// Whether a word opens a noun phrase: an article or a preposition.
pub(super) fn opens_noun_phrase(word: &str) -> bool {
    matches!(
        word,
        "a" | "an" | "the" | "of" | "in" | "on" | "at" | "to" | "for" | "from" | "with" | "within" | "through" | "by"
    )
}

/// The word without the endings that turn a verb into its agent or its past, and without the plural: `founder`,
/// `founded` and `founders` have one stem. Short words stay as they are.
pub fn stem(word: &str) -> &str {
    let singular = match word.strip_suffix('s') {
        Some(rest) if rest.len() >= 4 && !rest.ends_with('s') => rest,
        _ => word,
    };
    for ending in ["ing", "ed", "er", "or"] {
        if let Some(rest) = singular.strip_suffix(ending)
            && rest.len() >= 4
        {
            return rest;
        }
    }
    match singular.strip_suffix('e') {
        Some(rest) if rest.len() >= 4 => rest,
        _ => singular,
    }
}

#[cfg(test)]
mod tests {
    use super::{PartOfSpeech, part_of_speech, stem};

    #[test]
    fn one_stem_for_one_family() {
        for family in [
            &["found", "founds", "founded", "founder", "founders", "founding"][..],
            &["export", "exports", "exported", "exporter"],
            &["govern", "governor", "governs", "governed"],
            &["celebrate", "celebrates", "celebrated"],
            &["guard", "guarded", "guards"],
            &["river", "rivers"],
            &["glass"],
            &["x"],
        ] {
            for word in family {
                assert_eq!(stem(word), stem(family[0]), "{word}");
            }
        }
        assert_ne!(stem("river"), stem("rivet"));
    }

    #[test]
    fn parts_of_speech() {
        assert_eq!(part_of_speech("the"), PartOfSpeech::Function);
        assert_eq!(part_of_speech("was"), PartOfSpeech::Link);
        assert_eq!(part_of_speech("records"), PartOfSpeech::Reporting);
        assert_eq!(part_of_speech("never"), PartOfSpeech::Negation);
        assert_eq!(part_of_speech("sabopol"), PartOfSpeech::Content);
    }
}
