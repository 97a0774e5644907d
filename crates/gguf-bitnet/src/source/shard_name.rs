//! The file names of a model in several files: `NAME-00002-of-00007.ENDING`.
//!
//! Writers give the two numbers five digits, or six; DeepSeek's checkpoints have five before and six after `of`.

use std::ops::RangeInclusive;

/// Digits of a number in such a name.
const DIGITS: RangeInclusive<usize> = 5..=6;

/// A file name of this form, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShardName<'a> {
    /// The part before the numbers, which all files of a set share.
    pub(crate) stem: &'a str,
    /// The number of the file, from 1 to `count`.
    pub(crate) number: u64,
    /// The number of files.
    pub(crate) count: u64,
    /// Digits of the two numbers.
    digits: [usize; 2],
    ending: &'a str,
}

impl<'a> ShardName<'a> {
    /// Takes `file` apart; `None` for a name of another form. `ending` includes its dot.
    pub(crate) fn parse(file: &'a str, ending: &'a str) -> Option<ShardName<'a>> {
        let (rest, count) = file.strip_suffix(ending)?.rsplit_once("-of-")?;
        let (stem, number) = rest.rsplit_once('-')?;
        let digits = [number.len(), count.len()];
        let plain = |digits: &str| DIGITS.contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
        if !plain(number) || !plain(count) {
            return None;
        }
        let (number, count) = (number.parse().ok()?, count.parse().ok()?);
        (1..=count).contains(&number).then_some(ShardName { stem, number, count, digits, ending })
    }

    /// The name of file `number` of the same set.
    pub(crate) fn sibling(&self, number: u64) -> String {
        let ShardName { stem, count, digits: [a, b], ending, .. } = self;
        format!("{stem}-{number:0a$}-of-{count:0b$}{ending}")
    }

    /// Whether both names are of one set.
    pub(crate) fn same_set(&self, other: &ShardName<'_>) -> bool {
        (self.stem, self.count, self.digits) == (other.stem, other.count, other.digits)
    }
}

#[cfg(test)]
mod tests {
    use super::ShardName;

    #[test]
    fn names_of_five_and_six_digits_are_taken_apart() {
        for file in ["a-of-b-1-00012-of-00345.gguf", "m-00012-of-000345.gguf", "m-000012-of-000345.gguf"] {
            let name = ShardName::parse(file, ".gguf").expect(file);
            assert_eq!((name.number, name.count, &*name.sibling(12)), (12, 345, file));
        }
        let name = ShardName::parse("m-00002-of-000163.safetensors", ".safetensors").expect("DeepSeek's form");
        assert_eq!(name.sibling(163), "m-00163-of-000163.safetensors");
        let [five, six] = ["m-00001-of-00002.gguf", "m-000001-of-00002.gguf"].map(|f| ShardName::parse(f, ".gguf"));
        assert!(!five.expect("five digits").same_set(&six.expect("six digits")), "two copies are two sets");
        for file in [
            "m.gguf",
            "m-1-of-2.gguf",
            "m-00001-of-00002.bin",
            "m-0000a-of-00002.gguf",
            "m-+0001-of-00002.gguf",
            "m-0000001-of-00002.gguf",
            "m-00003-of-00002.gguf",
            "m-00000-of-00002.gguf",
            "00001-of-00002.gguf",
        ] {
            assert_eq!(ShardName::parse(file, ".gguf"), None, "{file}");
        }
    }
}
