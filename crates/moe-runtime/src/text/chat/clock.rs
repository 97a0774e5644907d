//! `strftime_now`: the caller's time in the form a template asks for, in the words of the C locale.

use std::fmt::Write as _;

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// A second on the calendar.
#[derive(Clone, Copy)]
struct Time {
    year: i64,
    /// The month, where January is 1.
    month: i64,
    /// The day of the month, from 1.
    day: i64,
    /// Of the year, from 1.
    yearday: i64,
    /// The day of the week, where Sunday is 0.
    weekday: i64,
    seconds: i64,
    unix_s: i64,
}

impl Time {
    fn new(unix_s: i64) -> Time {
        let (days, seconds) = (unix_s.div_euclid(86_400), unix_s.rem_euclid(86_400));
        // Years from March on, in eras of 400 years (Howard Hinnant, "chrono-compatible low-level date algorithms").
        let shifted = days + 719_468;
        let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let from_march = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * from_march + 2) / 153;
        let day = from_march - (153 * march_month + 2) / 5 + 1;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
        let yearday = before[(month - 1) as usize] + day + i64::from(leap && month > 2);
        Time { year, month, day, yearday, weekday: (days + 4).rem_euclid(7), seconds, unix_s }
    }
}

/// The time as the format says; letters it does not know stay as they are.
pub(super) fn strftime(unix_s: i64, form: &str) -> String {
    // Beyond the years that Python has, the earliest or latest one.
    let time = Time::new(unix_s.clamp(-62_135_596_800, 253_402_300_799));
    let mut out = String::new();
    write(time, form, &mut out);
    out
}

fn write(time: Time, form: &str, out: &mut String) {
    let mut chars = form.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut letter = chars.next();
        let flag = letter.filter(|c| "-_0".contains(*c));
        if flag.is_some() {
            letter = chars.next();
        }
        let Some(letter) = letter else {
            out.push('%');
            break;
        };
        let (hours, minutes, seconds) = (time.seconds / 3600, time.seconds / 60 % 60, time.seconds % 60);
        let twelve = (hours + 11) % 12 + 1;
        let (day_name, month_name) = (DAYS[time.weekday as usize], MONTHS[(time.month - 1) as usize]);
        let (number, width, pad) = match letter {
            'Y' => (time.year, 1, '0'),
            'C' => (time.year / 100, 2, '0'),
            'y' => (time.year % 100, 2, '0'),
            'm' => (time.month, 2, '0'),
            'd' => (time.day, 2, '0'),
            'e' => (time.day, 2, ' '),
            'H' => (hours, 2, '0'),
            'k' => (hours, 2, ' '),
            'I' => (twelve, 2, '0'),
            'l' => (twelve, 2, ' '),
            'M' => (minutes, 2, '0'),
            'S' => (seconds, 2, '0'),
            'f' => (0, 6, '0'),
            's' => (time.unix_s, 1, '0'),
            'j' => (time.yearday, 3, '0'),
            'w' => (time.weekday, 1, '0'),
            'u' => ((time.weekday + 6) % 7 + 1, 1, '0'),
            'U' => ((time.yearday + 6 - time.weekday) / 7, 2, '0'),
            'W' => ((time.yearday + 6 - (time.weekday + 6) % 7) / 7, 2, '0'),
            _ => {
                match letter {
                    'A' => out.push_str(day_name),
                    'a' => out.push_str(&day_name[..3]),
                    'B' => out.push_str(month_name),
                    'b' | 'h' => out.push_str(&month_name[..3]),
                    'p' => out.push_str(if hours < 12 { "AM" } else { "PM" }),
                    'P' => out.push_str(if hours < 12 { "am" } else { "pm" }),
                    'D' | 'x' => write(time, "%m/%d/%y", out),
                    'F' => write(time, "%Y-%m-%d", out),
                    'T' | 'X' => write(time, "%H:%M:%S", out),
                    'R' => write(time, "%H:%M", out),
                    'r' => write(time, "%I:%M:%S %p", out),
                    'c' => write(time, "%a %b %e %H:%M:%S %Y", out),
                    'n' => out.push('\n'),
                    't' => out.push('\t'),
                    'Z' | 'z' => {}
                    '%' => out.push('%'),
                    other => out.extend(['%', other]),
                }
                continue;
            }
        };
        let _ = match (flag, pad) {
            (Some('-'), _) => write!(out, "{number}"),
            (Some('_'), _) | (None, ' ') => write!(out, "{number:width$}"),
            _ => write!(out, "{number:0width$}"),
        };
    }
}
