//! The arguments of filters and methods, by position or by name as in Python.

use minijinja::value::{Kwargs, Value, from_args};
use minijinja::{Error, ErrorKind};

/// Whether an option is given and true.
pub(super) fn is_on(option: Option<Value>) -> bool {
    option.is_some_and(|on| on.is_true())
}

/// The values of the parameters `names`, in their order; `None` for one that is not given.
///
/// # Errors
/// Too many arguments, an unknown name, a parameter given twice.
pub(super) fn named<const N: usize>(args: &[Value], names: [&str; N]) -> Result<[Option<Value>; N], Error> {
    let (positional, by_name): (&[Value], Kwargs) = from_args(args)?;
    if positional.len() > N {
        return Err(Error::from(ErrorKind::TooManyArguments));
    }
    let mut found = [const { None }; N];
    for (i, (name, slot)) in names.iter().zip(&mut found).enumerate() {
        *slot = positional.get(i).cloned();
        if by_name.has(name) {
            let value = by_name.get::<Value>(name)?;
            if slot.replace(value).is_some() {
                return Err(Error::new(ErrorKind::TooManyArguments, format!("{name} is given twice")));
            }
        }
    }
    by_name.assert_all_used()?;
    Ok(found)
}

/// The value that a filter is applied to, and its parameters.
///
/// # Errors
/// As [`named`].
pub(super) fn of_filter<'a, const N: usize>(
    args: &'a [Value],
    names: [&str; N],
) -> Result<(&'a Value, [Option<Value>; N]), Error> {
    let (value, args) = args.split_first().ok_or(ErrorKind::MissingArgument)?;
    Ok((value, named(args, names)?))
}

/// Arguments by position as arguments by the `names` of the parameters, beside those that are given by name.
///
/// # Errors
/// Too many arguments.
pub(super) fn by_name(args: &[Value], names: &[&'static str]) -> Result<Kwargs, Error> {
    let (positional, by_name): (&[Value], Kwargs) = from_args(args)?;
    if positional.len() > names.len() {
        return Err(Error::from(ErrorKind::TooManyArguments));
    }
    let mut all = Vec::new();
    for name in by_name.args() {
        all.push((name, by_name.peek::<Value>(name)?));
    }
    all.extend(names.iter().copied().zip(positional.iter().cloned()));
    Ok(all.into_iter().collect())
}
