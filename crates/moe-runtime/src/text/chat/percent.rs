//! Python's `text % values`.

use std::iter::Peekable;
use std::str::Chars;

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, State};

use super::python::{self, charge, fail};

/// Largest width and precision; no prompt needs wider columns.
const MAX_WIDTH: usize = 9999;

/// Formats `values`: the items of a tuple, fields of a dict by name, otherwise one value.
pub(super) fn format(state: &State<'_, '_>, form: &str, values: &Value) -> Result<String, Error> {
    let listed: Vec<Value> = if values.is_tuple() { values.try_iter()?.collect() } else { vec![values.clone()] };
    let by_name = values.kind() == ValueKind::Map;
    let mut queue = listed.into_iter();
    let mut out = String::new();
    let mut chars = form.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let named = if chars.peek() == Some(&'(') { Some(name(&mut chars)?) } else { None };
        let field = Field::read(&mut chars, &mut queue)?;
        if field.letter == '%' {
            out.push('%');
            continue;
        }
        let value = match named {
            Some(name) if by_name => values.get_attr(&name)?,
            Some(_) => return Err(fail("a name in a format needs a dict")),
            None => queue.next().ok_or_else(|| fail("not enough arguments for the format"))?,
        };
        charge(state, field.width + field.precision.unwrap_or(0))?;
        let text = field.write(state, &value)?;
        charge(state, text.len())?;
        out.push_str(&text);
    }
    if queue.next().is_some() && !by_name {
        return Err(fail("not all arguments of the format are used"));
    }
    Ok(out)
}

fn name(chars: &mut Peekable<Chars<'_>>) -> Result<String, Error> {
    chars.next();
    let mut name = String::new();
    loop {
        match chars.next() {
            Some(')') => return Ok(name),
            Some(c) => name.push(c),
            None => return Err(fail("a name in a format does not end")),
        }
    }
}

/// One field of a format, from its `%` to its letter.
#[derive(Default)]
struct Field {
    left: bool,
    zero: bool,
    plus: bool,
    space: bool,
    alternate: bool,
    width: usize,
    precision: Option<usize>,
    letter: char,
}

impl Field {
    fn read(chars: &mut Peekable<Chars<'_>>, queue: &mut impl Iterator<Item = Value>) -> Result<Field, Error> {
        let mut field = Field::default();
        while let Some(c) = chars.peek() {
            match c {
                '-' => field.left = true,
                '0' => field.zero = true,
                '+' => field.plus = true,
                ' ' => field.space = true,
                '#' => field.alternate = true,
                _ => break,
            }
            chars.next();
        }
        field.width = count(chars, queue)?.unwrap_or(0);
        if chars.next_if_eq(&'.').is_some() {
            field.precision = Some(count(chars, queue)?.unwrap_or(0));
        }
        while chars.next_if(|c| "hlL".contains(*c)).is_some() {}
        field.letter = chars.next().ok_or_else(|| fail("a format ends within a field"))?;
        Ok(field)
    }

    fn write(&self, state: &State<'_, '_>, value: &Value) -> Result<String, Error> {
        let precision = self.precision.unwrap_or(6);
        let cut = |text: String| match self.precision {
            Some(n) => text.chars().take(n).collect(),
            None => text,
        };
        let body = match self.letter {
            's' => return Ok(self.pad(cut(python::text(state, value)?), false)),
            'r' | 'a' => return Ok(self.pad(cut(python::spelled(state, value)?), false)),
            'c' => return Ok(self.pad(value.as_str().ok_or_else(|| fail("%c needs a character"))?.to_owned(), false)),
            'd' | 'i' | 'u' => {
                let n = match i128::try_from(value.clone()) {
                    Ok(n) => n,
                    Err(_) => number(value)?.trunc() as i128,
                };
                let digits = self.precision.unwrap_or(0);
                format!("{}{:0>digits$}", if n < 0 { "-" } else { "" }, n.unsigned_abs().to_string())
            }
            letter @ ('x' | 'X' | 'o') => {
                let n = i128::try_from(value.clone()).map_err(|_| fail("the format needs an integer"))?;
                let (sign, n) = (if n < 0 { "-" } else { "" }, n.unsigned_abs());
                let mark = if self.alternate { format!("0{letter}") } else { String::new() };
                match letter {
                    'x' => format!("{sign}{mark}{n:x}"),
                    'X' => format!("{sign}{mark}{n:X}"),
                    _ => format!("{sign}{mark}{n:o}"),
                }
            }
            'f' | 'F' => format!("{:.precision$}", number(value)?),
            'e' => exponent(number(value)?, precision),
            'E' => exponent(number(value)?, precision).to_uppercase(),
            'g' => general(number(value)?, precision.max(1)),
            'G' => general(number(value)?, precision.max(1)).to_uppercase(),
            _ => return Err(fail("a format has an unknown letter")),
        };
        let signed = match body.starts_with('-') {
            false if self.plus => format!("+{body}"),
            false if self.space => format!(" {body}"),
            _ => body,
        };
        Ok(self.pad(signed, self.zero))
    }

    fn pad(&self, text: String, zero: bool) -> String {
        let missing = self.width.saturating_sub(text.chars().count());
        if self.left {
            text + &" ".repeat(missing)
        } else if zero {
            let digits = usize::from(text.starts_with(['-', '+', ' ']));
            format!("{}{}{}", &text[..digits], "0".repeat(missing), &text[digits..])
        } else {
            " ".repeat(missing) + &text
        }
    }
}

fn count(chars: &mut Peekable<Chars<'_>>, queue: &mut impl Iterator<Item = Value>) -> Result<Option<usize>, Error> {
    let n = if chars.next_if_eq(&'*').is_some() {
        queue.next().and_then(|n| n.as_usize()).ok_or_else(|| fail("a width of the format is missing"))?
    } else {
        let mut digits = String::new();
        while let Some(digit) = chars.next_if(char::is_ascii_digit) {
            digits.push(digit);
        }
        if digits.is_empty() {
            return Ok(None);
        }
        digits.parse().unwrap_or(usize::MAX)
    };
    if n > MAX_WIDTH { Err(fail("a format asks for too great a width")) } else { Ok(Some(n)) }
}

fn number(value: &Value) -> Result<f64, Error> {
    let number = if value.kind() == ValueKind::Bool {
        Ok(f64::from(u8::from(value.is_true())))
    } else {
        f64::try_from(value.clone())
    };
    number.map_err(|_| fail("the format needs a number"))
}

fn exponent(number: f64, precision: usize) -> String {
    let text = format!("{number:.precision$e}");
    match text.split_once('e') {
        Some((digits, power)) => {
            let (sign, power) = power.strip_prefix('-').map_or(('+', power), |power| ('-', power));
            format!("{digits}e{sign}{power:0>2}")
        }
        None => text,
    }
}

fn general(number: f64, precision: usize) -> String {
    let scientific = exponent(number, precision - 1);
    let power = scientific.split_once('e').and_then(|(_, power)| power.parse::<i64>().ok()).unwrap_or(0);
    let strip = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if power < -4 || power >= precision as i64 {
        match scientific.split_once('e') {
            Some((digits, power)) => format!("{}e{power}", strip(digits)),
            None => scientific,
        }
    } else {
        let decimals = usize::try_from(precision as i64 - 1 - power).unwrap_or(0);
        strip(&format!("{number:.decimals$}"))
    }
}
