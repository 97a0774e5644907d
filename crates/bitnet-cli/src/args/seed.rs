//! `--seed`: a number, or `-1` for a seed that is drawn and printed.

use std::hash::{BuildHasher, RandomState};

use crate::output;

/// The seed of a random choice.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Seed {
    Fixed(u64),
    /// Another one at each start.
    Drawn,
}

/// Parses a whole number, or `-1` for a seed that is drawn.
pub(crate) fn seed(text: &str) -> Result<Seed, String> {
    match text {
        "-1" => Ok(Seed::Drawn),
        text => {
            text.parse().map(Seed::Fixed).map_err(|_| "write a whole number of at least 0, or -1 to draw one".into())
        }
    }
}

impl Seed {
    /// The number. One that was drawn is printed, so that the run can be repeated.
    pub(crate) fn number(self) -> u64 {
        match self {
            Seed::Fixed(number) => number,
            Seed::Drawn => {
                // The standard library draws the keys of its hash maps from the system's random numbers. 53 bits, so that
                // the number survives in every program that reads it.
                let number = RandomState::new().hash_one(0) >> 11;
                output::note(format_args!("note: drawn --seed {number}"));
                number
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_numbers_or_drawn() {
        assert!(matches!(seed("0"), Ok(Seed::Fixed(0))));
        assert!(matches!(seed("18446744073709551615"), Ok(Seed::Fixed(u64::MAX))));
        assert!(matches!(seed("-1"), Ok(Seed::Drawn)));
        for wrong in ["-2", "", "x", "1.5"] {
            assert!(seed(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Seed::Fixed(7).number(), 7);
        assert_ne!(Seed::Drawn.number(), Seed::Drawn.number());
    }
}
