//! `i/n`: which units of a job a process does.

use std::fmt;
use std::str::FromStr;

/// Most shards of a job.
const MAX: usize = 1_000_000;

/// Share `number` of `of` equal shares of a job, counted from 1: the units `number - 1`, `number - 1 + of` and so on.
///
/// ```
/// use gguf_bitnet::Shard;
/// let shard: Shard = "2/3".parse().unwrap();
/// assert_eq!(shard.units(8).collect::<Vec<_>>(), [1, 4, 7]);
/// assert!("0/3".parse::<Shard>().is_err() && "4/3".parse::<Shard>().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shard {
    number: usize,
    of: usize,
}

impl Shard {
    /// The only share of a job that is not cut.
    pub const WHOLE: Shard = Shard { number: 1, of: 1 };

    /// Number of this share, from 1.
    #[must_use]
    pub fn number(self) -> usize {
        self.number
    }

    /// Into how many shares the job is cut.
    #[must_use]
    pub fn of(self) -> usize {
        self.of
    }

    /// The units of this share among `units` units, ascending.
    pub fn units(self, units: usize) -> impl Iterator<Item = usize> + Clone {
        (self.number - 1..units).step_by(self.of)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Shard, String> {
        let whole = |text: &str| text.parse().ok().filter(|n| (1..=MAX).contains(n));
        let shard =
            text.split_once('/').and_then(|(number, of)| Some(Shard { number: whole(number)?, of: whole(of)? }));
        shard
            .filter(|shard| shard.number <= shard.of)
            .ok_or_else(|| "write I/N with I from 1 to N, for example 2/5".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::Shard;

    #[test]
    fn shares_cover_every_unit_once() {
        for (n, units) in [(1, 7), (2, 7), (5, 7), (7, 7), (9, 7), (3, 0)] {
            let mut all: Vec<usize> =
                (1..=n).flat_map(|i| format!("{i}/{n}").parse::<Shard>().unwrap().units(units)).collect();
            all.sort_unstable();
            assert_eq!(all, (0..units).collect::<Vec<_>>(), "{n} shares of {units}");
        }
    }

    #[test]
    fn wrong_shares_are_refused() {
        for wrong in ["", "1", "0/1", "2/1", "1/0", "-1/2", "1/2/3", "a/b", "1/1000001", "1/ 2"] {
            assert!(wrong.parse::<Shard>().unwrap_err().contains("2/5"), "{wrong}");
        }
    }
}
