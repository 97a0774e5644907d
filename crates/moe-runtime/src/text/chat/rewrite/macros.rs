//! Macros that read `varargs` or `kwargs`: the arguments beyond those that a macro names.
//!
//! The engine refuses such arguments. Such a macro gets a parameter of that name, and its calls gather the arguments in it:
//! `f(1, 2, a=3)` of `macro f(x)` becomes `f(1, varargs=(2,), kwargs={'a': 3,})`.

use std::collections::BTreeMap;

use super::lexer::{Item, Kind, Piece};

/// The macros of a template that read `varargs` or `kwargs`, by name.
pub(super) struct Macros(BTreeMap<String, Signature>);

struct Signature {
    parameters: Vec<String>,
    varargs: bool,
    kwargs: bool,
}

/// The arguments of one call.
pub(super) struct Arguments<'i, 'a> {
    /// For a parameter that the macro names.
    pub(super) known: Vec<&'i [Item<'a>]>,
    /// By position, beyond the parameters.
    pub(super) more: Vec<&'i [Item<'a>]>,
    /// By name, for no parameter.
    pub(super) named: Vec<(&'a str, &'i [Item<'a>])>,
}

impl Macros {
    pub(super) fn of(pieces: &[Piece<'_>]) -> Self {
        let mut found: BTreeMap<String, Signature> = BTreeMap::new();
        let mut open: Vec<(String, Signature)> = Vec::new();
        for piece in pieces {
            let Piece::Tag { open: mark, items, .. } = piece else { continue };
            let head = if mark.starts_with("{%") { items.first() } else { None };
            match (head, items.get(1), items.get(2)) {
                (Some(head), Some(Item::Token { text, .. }), Some(Item::Group { items, .. })) if head.is("macro") => {
                    let parameters = split(items).into_iter().filter_map(|parameter| match parameter.first() {
                        Some(Item::Token { text, kind: Kind::Name, .. }) => Some((*text).to_owned()),
                        _ => None,
                    });
                    let signature = Signature { parameters: parameters.collect(), varargs: false, kwargs: false };
                    open.push(((*text).to_owned(), signature));
                }
                (Some(head), ..) if head.is("endmacro") => {
                    found.extend(open.pop().filter(|(_, signature)| signature.varargs || signature.kwargs));
                }
                _ => {
                    if let Some((_, signature)) = open.last_mut() {
                        signature.varargs |= mentions(items, "varargs");
                        signature.kwargs |= mentions(items, "kwargs");
                    }
                }
            }
        }
        Self(found)
    }

    /// The parameters that are added to a macro.
    pub(super) fn more_parameters(&self, name: &str) -> String {
        let Some(signature) = self.0.get(name) else { return String::new() };
        let more = [(signature.varargs, " varargs=()"), (signature.kwargs, " kwargs={}")];
        more.into_iter().filter(|(is, _)| *is).map(|(_, text)| text).collect::<Vec<_>>().join(",")
    }

    /// The arguments of a call of the macro `name`; none if it is no such macro, or gets no more than it names.
    pub(super) fn arguments<'i, 'a>(&self, name: &str, items: &'i [Item<'a>]) -> Option<Arguments<'i, 'a>> {
        let signature = self.0.get(name)?;
        let mut all = Arguments { known: Vec::new(), more: Vec::new(), named: Vec::new() };
        let mut positional = 0;
        for argument in split(items) {
            match argument {
                [] => {}
                [first, ..] if first.is("*") || first.is("**") => return None,
                [Item::Token { text, .. }, equal, value @ ..] if equal.is("=") => {
                    let is_known = *text == "caller" || signature.parameters.iter().any(|parameter| parameter == text);
                    if is_known || !signature.kwargs {
                        all.known.push(argument);
                    } else {
                        all.named.push((text, value));
                    }
                }
                _ => {
                    positional += 1;
                    let is_known = positional <= signature.parameters.len() || !signature.varargs;
                    if is_known { all.known.push(argument) } else { all.more.push(argument) }
                }
            }
        }
        (!all.more.is_empty() || !all.named.is_empty()).then_some(all)
    }
}

fn mentions(items: &[Item<'_>], name: &str) -> bool {
    items.iter().any(|item| match item {
        Item::Group { items, .. } => mentions(items, name),
        token => token.is(name),
    })
}

/// The arguments, which commas part.
fn split<'i, 'a>(items: &'i [Item<'a>]) -> Vec<&'i [Item<'a>]> {
    items.split(|item| item.is(",")).collect()
}
