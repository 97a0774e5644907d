//! A moment in UTC, for reports and file names.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// Year to second, by the Gregorian calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Utc {
    year: u64,
    month: u64,
    day: u64,
    second: u64,
}

impl From<SystemTime> for Utc {
    /// A clock before 1970 counts as 1970.
    fn from(time: SystemTime) -> Self {
        let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let (mut days, second) = (seconds / 86_400, seconds % 86_400);
        let mut year = 1970;
        while days >= year_days(year) {
            days -= year_days(year);
            year += 1;
        }
        let mut month = 0;
        while days >= month_days(year, month) {
            days -= month_days(year, month);
            month += 1;
        }
        Self { year, month: month + 1, day: days + 1, second }
    }
}

impl Utc {
    fn clock(&self) -> (u64, u64, u64) {
        (self.second / 3600, self.second / 60 % 60, self.second % 60)
    }

    /// `20260102T030405Z`, for file names.
    pub(crate) fn compact(&self) -> String {
        let (h, m, s) = self.clock();
        format!("{:04}{:02}{:02}T{h:02}{m:02}{s:02}Z", self.year, self.month, self.day)
    }
}

impl fmt::Display for Utc {
    /// The ISO 8601 form, for example `2026-01-02T03:04:05Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (h, m, s) = self.clock();
        write!(f, "{:04}-{:02}-{:02}T{h:02}:{m:02}:{s:02}Z", self.year, self.month, self.day)
    }
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn year_days(year: u64) -> u64 {
    if is_leap(year) { 366 } else { 365 }
}

/// Days of a month counted from 0.
fn month_days(year: u64, month: u64) -> u64 {
    match month {
        1 => 28 + u64::from(is_leap(year)),
        3 | 5 | 8 | 10 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::Utc;

    #[test]
    fn moments_by_the_date_command() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_827_696, "2000-02-29T12:34:56Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_767_322_800, "2026-01-02T03:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(Utc::from(UNIX_EPOCH + Duration::from_secs(seconds)).to_string(), text);
        }
        assert_eq!(Utc::from(UNIX_EPOCH + Duration::from_secs(951_827_696)).compact(), "20000229T123456Z");
    }
}
