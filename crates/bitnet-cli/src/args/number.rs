//! Parsers of numbers; a refusal states the numbers that are allowed.

use std::ops::RangeInclusive;

/// A parser of whole numbers in `range`; `u64::MAX` as its end stands for no limit.
pub(crate) fn whole<T: TryFrom<u64>>(range: RangeInclusive<u64>) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number)).and_then(|n| T::try_from(n).ok());
        number.ok_or_else(|| match *range.end() {
            u64::MAX => format!("write a whole number of at least {}", range.start()),
            end => format!("write a whole number from {} to {end}", range.start()),
        })
    }
}

/// Parses a number of tokens; as in other engines, `-1` and `-2` stand for no limit but the end of the context.
pub(crate) fn tokens(text: &str) -> Result<usize, String> {
    match text {
        "-1" | "-2" => Ok(usize::MAX),
        text => text.parse().map_err(|_| "write a whole number of at least 0, or -1 for no limit".to_owned()),
    }
}

/// Parses a share above 0 and below 1.
pub(crate) fn fraction(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| *share > 0.0 && *share < 1.0);
    share.ok_or_else(|| "write a number between 0 and 1, for example 0.1".to_owned())
}

/// Parses a share from 0 to 1, both included.
pub(crate) fn share(text: &str) -> Result<f32, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "write a number from 0 to 1, for example 0.1".to_owned())
}

/// Parses a finite number above 0.
pub(crate) fn positive(text: &str) -> Result<f32, String> {
    let number = text.parse().ok().filter(|number: &f32| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| "write a number above 0, for example 0.001".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_keep_to_their_range() {
        let small = whole::<u16>(1..=1024);
        assert_eq!((small("1"), small("1024")), (Ok(1), Ok(1024)));
        for wrong in ["0", "1025", "65536", "-1", "1.5", "", "many", "18446744073709551616"] {
            assert_eq!(small(wrong), Err("write a whole number from 1 to 1024".to_owned()), "{wrong}");
        }
        assert_eq!(whole::<u64>(2..=u64::MAX)("1"), Err("write a whole number of at least 2".to_owned()));
        assert_eq!(whole::<u64>(0..=u64::MAX)("18446744073709551615"), Ok(u64::MAX));
    }

    #[test]
    fn tokens_have_a_limit_or_none() {
        assert_eq!((tokens("0"), tokens("12"), tokens("-1")), (Ok(0), Ok(12), Ok(usize::MAX)));
        for wrong in ["-3", "1.5", "", "many"] {
            assert!(tokens(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn fractions_leave_something_and_take_something() {
        assert_eq!(fraction("0.25"), Ok(0.25));
        for wrong in ["0", "1", "-0.5", "nan", "", "half"] {
            assert!(fraction(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn rates_are_above_zero_and_shares_at_most_one() {
        assert_eq!((positive("1e-3"), share("0"), share("1")), (Ok(1e-3), Ok(0.0), Ok(1.0)));
        for wrong in ["0", "-1", "inf", "NaN", "", "x"] {
            assert!(positive(wrong).is_err(), "{wrong}");
        }
        for wrong in ["-0.1", "1.01", "NaN", ""] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }
}
