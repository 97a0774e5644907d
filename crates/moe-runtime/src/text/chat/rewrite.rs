//! Rewrites the source of a template, where the engine's syntax or operators differ from Jinja2's.
//!
//! | Jinja2 | written for the engine as |
//! |---|---|
//! | `a + b`, `a ~ b`, `a % b` | `(a)|__add(b)` and so on: filters that compute as Python does |
//! | `a == b`, `a < b`, `a in b`, `a not in b` (one operator) | `(a)|__eq(b)`, `(a)|__lt(b)`, `(a)|__in(b)`, ... |
//! | `a < b < c` | `(a)|__weigh < (b)|__weigh < (c)|__weigh`: the filter pays for the comparison |
//! | `for x in e` | `for x in (e)|__iter` |
//! | `{{ a, b }}`, `+a` | `{{( a, b) }}`, `a` |
//! | `'\U0001f600'`, a literal over several lines | the character, the lines joined |
//! | `generation`, `endgeneration` | `with`, `endwith` |
//! | a macro that reads `varargs` or `kwargs` | module `macros` |
//! | carriage returns | line feeds |
//!
//! **Invariant:** no line feed is added or lost after the ends of lines are unified, so that errors name the right line. A
//! tag that this module cannot read stays as it is: the engine says what is wrong with it.

mod lexer;
mod macros;

use std::borrow::Cow;

use lexer::{Item, Kind, Piece, split};
use macros::Macros;

/// The source as the engine is to read it.
pub(super) fn rewrite(source: &str) -> String {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let pieces = split(&source);
    let mut out = String::with_capacity(source.len() + source.len() / 4);
    let writer = Writer { macros: Macros::of(&pieces) };
    for piece in &pieces {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Tag { open, items, rest, close } => {
                out.push_str(open);
                if open.starts_with("{%") {
                    writer.statement(items, &mut out)
                } else {
                    let is_tuple = items.iter().any(|item| item.is(","));
                    out.push_str(if is_tuple { "(" } else { "" });
                    writer.expression(items, &mut out);
                    out.push_str(if is_tuple { ")" } else { "" });
                }
                out.push_str(rest);
                out.push_str(close);
            }
        }
    }
    out
}

/// Operators of equal rank, each with the filter that takes its place.
type Rank = &'static [(&'static str, Option<&'static str>)];
/// Weakest first; all of them group to the left.
const RANKS: [Rank; 3] = [
    &[("+", Some("__add")), ("-", None)],
    &[("~", Some("__concat"))],
    &[("*", None), ("/", None), ("//", None), ("%", Some("__mod"))],
];
const COMPARISONS: Rank = &[
    ("==", Some("__eq")),
    ("!=", Some("__ne")),
    ("<", Some("__lt")),
    ("<=", Some("__le")),
    (">", Some("__gt")),
    (">=", Some("__ge")),
    ("in", Some("__in")),
];

struct Writer {
    macros: Macros,
}

impl Writer {
    fn statement(&self, items: &[Item<'_>], out: &mut String) {
        let Some((Item::Token { space, text, kind: Kind::Name }, tail)) = items.split_first() else {
            return self.plain(items, out);
        };
        out.push_str(space);
        out.push_str(match *text {
            "generation" => "with",
            "endgeneration" => "endwith",
            other => other,
        });
        match *text {
            "for" => self.head_of_loop(tail, out),
            "macro" => self.head_of_macro(tail, out),
            _ => self.expression(tail, out),
        }
    }

    fn head_of_loop(&self, items: &[Item<'_>], out: &mut String) {
        let Some(start) = items.iter().position(|item| item.is("in")) else { return self.plain(items, out) };
        self.plain(&items[..=start], out);
        let items = &items[start + 1..];
        let end = items.iter().position(|item| item.is("if") || item.is("recursive")).unwrap_or(items.len());
        if end == 0 {
            return self.plain(items, out);
        }
        out.push_str(" (");
        self.expression(&items[..end], out);
        out.push_str(")|__iter");
        self.expression(&items[end..], out);
    }

    fn head_of_macro(&self, items: &[Item<'_>], out: &mut String) {
        match items {
            [Item::Token { space, text, .. }, Item::Group { items: parameters, rest, .. }] => {
                out.push_str(space);
                out.push_str(text);
                out.push('(');
                self.expression(parameters, out);
                let more = self.macros.more_parameters(text);
                if !more.is_empty() && parameters.last().is_some_and(|last| !last.is(",")) {
                    out.push(',');
                }
                out.push_str(&more);
                out.push_str(rest);
                out.push(')');
            }
            _ => self.plain(items, out),
        }
    }

    /// An expression, or several between words and commas.
    fn expression(&self, items: &[Item<'_>], out: &mut String) {
        let mut start = 0;
        for i in 0..items.len() {
            if separates(items, i) {
                self.comparison(&items[start..i], out);
                self.plain(&items[i..=i], out);
                start = i + 1;
            }
        }
        self.comparison(&items[start..], out);
    }

    fn comparison(&self, items: &[Item<'_>], out: &mut String) {
        let operators: Vec<usize> = (0..items.len()).filter(|&i| compares(items, i)).collect();
        let filter =
            |at: usize| COMPARISONS.iter().find(|(name, _)| items[at].is(name)).and_then(|(_, filter)| *filter);
        if let [at] = operators[..]
            && let Some(filter) = filter(at)
        {
            let negated = at > 0 && items[at - 1].is("not");
            let (left, right) = (&items[..at - usize::from(negated)], &items[at + 1..]);
            if !left.is_empty() && !right.is_empty() {
                let filter = if negated { "__not_in" } else { filter };
                out.push_str(" (");
                self.chain(0, left, out);
                out.push_str(&format!(")|{filter}("));
                self.chain(0, right, out);
                return out.push(')');
            }
        }
        let n_operators = operators.len();
        let operand = |items: &[Item<'_>], out: &mut String| match n_operators {
            0 => self.chain(0, items, out),
            _ => {
                out.push_str(" (");
                self.chain(0, items, out);
                out.push_str(")|__weigh");
            }
        };
        let mut start = 0;
        for at in operators {
            let first = at - usize::from(at > start && items[at - 1].is("not"));
            operand(&items[start..first], out);
            self.plain(&items[first..=at], out);
            start = at + 1;
        }
        operand(&items[start..], out);
    }

    /// A chain of operators of one rank, folded from the left.
    fn chain(&self, rank: usize, items: &[Item<'_>], out: &mut String) {
        let Some(operators) = RANKS.get(rank) else { return self.plain(items, out) };
        let find = |i: usize| {
            operators.iter().find(|(name, _)| items[i].is(name)).filter(|_| i > 0 && ends_operand(&items[i - 1]))
        };
        let found: Vec<(usize, Option<&str>)> =
            (0..items.len()).filter_map(|i| find(i).map(|(_, filter)| (i, *filter))).collect();
        let mut ends = found.iter().map(|(at, _)| *at).skip(1).chain([items.len()]);
        let first = found.first().map_or(items.len(), |(at, _)| *at);
        let mut text = String::new();
        self.chain(rank + 1, &items[..first], &mut text);
        let mut filtered = false;
        for (at, filter) in &found {
            let right = &items[at + 1..ends.next().unwrap_or(items.len())];
            match filter {
                Some(filter) if !right.is_empty() => {
                    if !filtered {
                        text = format!(" ({text})");
                    }
                    text.push_str(&format!("|{filter}("));
                    self.chain(rank + 1, right, &mut text);
                    text.push(')');
                    filtered = true;
                }
                _ => {
                    self.plain(&items[*at..=*at], &mut text);
                    self.chain(rank + 1, right, &mut text);
                    filtered = false;
                }
            }
        }
        out.push_str(&text);
    }

    /// Items as they are, except for the inside of brackets.
    fn plain(&self, items: &[Item<'_>], out: &mut String) {
        for (i, item) in items.iter().enumerate() {
            match item {
                Item::Token { space, text, kind } => {
                    out.push_str(space);
                    let sign = *text == "+"
                        && *kind == Kind::Operator
                        && (i == 0 || !ends_operand(&items[i - 1]))
                        && items.len() > 1;
                    match kind {
                        Kind::Text => out.push_str(&literal(text)),
                        _ if sign => {}
                        _ => out.push_str(text),
                    }
                }
                Item::Group { space, open, items: inner, rest, close } => {
                    out.push_str(space);
                    out.push(*open);
                    let called = i.checked_sub(1).and_then(|at| match &items[at] {
                        Item::Token { text, kind: Kind::Name, .. } if *open == '(' => {
                            self.macros.arguments(text, inner)
                        }
                        _ => None,
                    });
                    match called {
                        Some(arguments) => self.arguments(&arguments, out),
                        None => self.expression(inner, out),
                    }
                    out.push_str(rest);
                    out.push(*close);
                }
            }
        }
    }

    /// The arguments of a macro: those that it names, then the others as a tuple and as a dict.
    fn arguments(&self, arguments: &macros::Arguments<'_, '_>, out: &mut String) {
        for argument in &arguments.known {
            self.expression(argument, out);
            out.push(',');
        }
        if !arguments.more.is_empty() {
            out.push_str(" varargs=(");
            for argument in &arguments.more {
                self.expression(argument, out);
                out.push(',');
            }
            out.push_str("),");
        }
        if !arguments.named.is_empty() {
            out.push_str(" kwargs={");
            for (name, value) in &arguments.named {
                out.push_str(&format!("'{name}': "));
                self.expression(value, out);
                out.push(',');
            }
            out.push('}');
        }
    }
}

/// A literal without the escapes that the engine does not read: `\UXXXXXXXX`, and a line that goes on in the next one,
/// whose line feed stands behind the literal then.
fn literal(text: &str) -> Cow<'_, str> {
    if !text.contains("\\U") && !text.contains("\\\n") {
        return text.into();
    }
    let (mut out, mut line_feeds, mut rest) = (String::new(), String::new(), text);
    while let Some((before, escape)) = rest.split_once('\\') {
        out.push_str(before);
        let code = escape.strip_prefix('U').and_then(|code| code.get(..8));
        let long = code.and_then(|code| u32::from_str_radix(code, 16).ok()).and_then(char::from_u32);
        let len = escape.chars().next().map_or(0, char::len_utf8);
        match long {
            Some(c) => out.push(c),
            None if escape.starts_with('\n') => line_feeds.push('\n'),
            None => out.extend(["\\", &escape[..len]]),
        }
        rest = &escape[if long.is_some() { 9 } else { len }..];
    }
    (out + rest + &line_feeds).into()
}

/// Whether the item stands after `is` or `is not`, where a test's name is.
fn names_a_test(items: &[Item<'_>], i: usize) -> bool {
    i > 0 && (items[i - 1].is("is") || (i > 1 && items[i - 1].is("not") && items[i - 2].is("is")))
}

fn after_dot_or_pipe(items: &[Item<'_>], i: usize) -> bool {
    i > 0 && (items[i - 1].is(".") || items[i - 1].is("|"))
}

fn separates(items: &[Item<'_>], i: usize) -> bool {
    let item = &items[i];
    let word = ["and", "or", "if", "else"].iter().any(|word| item.is(word));
    let not = item.is("not") && !items.get(i + 1).is_some_and(|next| next.is("in"));
    let mark = [",", ":", "="].iter().any(|mark| item.is(mark));
    mark || ((word || not) && !names_a_test(items, i) && !after_dot_or_pipe(items, i))
}

fn compares(items: &[Item<'_>], i: usize) -> bool {
    COMPARISONS.iter().any(|(name, _)| items[i].is(name)) && !names_a_test(items, i) && !after_dot_or_pipe(items, i)
}

/// Whether an operator after the item has it as its left operand, so that it is no sign.
fn ends_operand(item: &Item<'_>) -> bool {
    match item {
        Item::Group { .. } => true,
        Item::Token { text, kind, .. } => match kind {
            Kind::Operator => false,
            Kind::Name => !["and", "or", "not", "in", "is", "if", "else"].contains(text),
            Kind::Number | Kind::Text => true,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::rewrite;

    #[test]
    fn operators_become_filters() {
        for (source, want) in [
            ("{{ a ~ b }}", "{{ ( a)|__concat( b) }}"),
            ("{{ a + b * 2 }}", "{{ ( a)|__add( b * 2) }}"),
            ("{{ a ~ b + c }}", "{{ ( ( a)|__concat( b))|__add( c) }}"),
            ("{{ a + b ~ c }}", "{{ ( a)|__add( ( b)|__concat( c)) }}"),
            ("{{ a - b + c }}", "{{ ( a - b)|__add( c) }}"),
            ("{{ a % b % c }}", "{{ ( a)|__mod( b)|__mod( c) }}"),
            ("{{ 'x%s' % (a, b) }}", "{{ ( 'x%s')|__mod( (a, b)) }}"),
            ("{{ a * b % c }}", "{{ ( a * b)|__mod( c) }}"),
            ("{{ -a + +b }}", "{{ ( -a)|__add( b) }}"),
            ("{{ a < b }}", "{{ ( a)|__lt( b) }}"),
            ("{{ a < b < c }}", "{{ ( a)|__weigh < ( b)|__weigh < ( c)|__weigh }}"),
            ("{{ a not in b and c in d }}", "{{ ( a)|__not_in( b) and ( c)|__in( d) }}"),
            ("{{ not a in b }}", "{{ not ( a)|__in( b) }}"),
            ("{{ a == b if c != d else e }}", "{{ ( a)|__eq( b) if ( c)|__ne( d) else e }}"),
            ("{{ f(a + b, c=d ~ e)[g + 1] }}", "{{ f( (a)|__add( b), c= (d)|__concat( e))[ (g)|__add( 1)] }}"),
            ("{{ a is in b }}{{ a is not in b }}", "{{ a is in b }}{{ a is not in b }}"),
            ("{{ a.in.not | in }}", "{{ a.in.not | in }}"),
            (
                "{% if a ~ b %}{% set x = a ~ b %}{% endif %}",
                "{% if ( a)|__concat( b) %}{% set x = ( a)|__concat( b) %}{% endif %}",
            ),
            ("{% for x in a + b if x %}{% endfor %}", "{% for x in ( ( a)|__add( b))|__iter if x %}{% endfor %}"),
            ("{% for x in %}{% endfor %}", "{% for x in %}{% endfor %}"),
        ] {
            assert_eq!(rewrite(source), want, "{source}");
        }
    }

    #[test]
    fn what_needs_no_change_stays() {
        for source in [
            "a ~ b % c { {{}} }",
            "{{ a.b['c ~ d'](e)[1:2] | f(g) }}",
            "{{- a -}}{%- if b -%}{%+ endif +%}",
            "{# {{ a ~ b }} #}{% raw %}{{ a ~ b }}{% endraw %}",
            "{{ a ** b // c / d * e - f }}",
            "{% macro f(a, b=1) %}{{ f(1, 2, c=3) }}{% endmacro %}",
            "{{ 'a' 'b' }}{{ \"it's\" }}",
            "{{ {'a': [1, 2], 'b': (3,)} }}",
            // Not to be read: the engine says what is wrong.
            "{{ a ~ b",
            "{{ (a ~ b }}",
            "{{ 'a ~ b }}",
            "{{ a ~ b ; c }}",
            "{% raw %}{{ a ~ b }}",
            "{# {{ a ~ b }}",
        ] {
            assert_eq!(rewrite(source), source);
        }
    }

    #[test]
    fn macros_gather_the_arguments_that_they_do_not_name() {
        let of =
            |body: &str, call: &str| rewrite(&format!("{{% macro f(a, b=1) %}}{body}{{% endmacro %}}{{{{ {call} }}}}"));
        for (body, call, want) in [
            (
                "{{ varargs }}",
                "f(1, 2, 3, 4)",
                "{% macro f(a, b=1, varargs=()) %}{{ varargs }}{% endmacro %}{{ f(1, 2, varargs=( 3, 4,),) }}",
            ),
            ("{{ varargs }}", "f(1)", "{% macro f(a, b=1, varargs=()) %}{{ varargs }}{% endmacro %}{{ f(1) }}"),
            (
                "{{ varargs }}",
                "f(1, 2, 3, b=4)",
                "{% macro f(a, b=1, varargs=()) %}{{ varargs }}{% endmacro %}{{ f(1, 2, b=4, varargs=( 3,),) }}",
            ),
            (
                "{{ kwargs }}",
                "f(1, c=2, caller=x, b=3)",
                "{% macro f(a, b=1, kwargs={}) %}{{ kwargs }}{% endmacro %}{{ f(1, caller=x, b=3, kwargs={'c': 2,}) }}",
            ),
            (
                "{{ kwargs }}{{ varargs }}",
                "f(1, 2, f(1, 2, 3), c=4)",
                "{% macro f(a, b=1, varargs=(), kwargs={}) %}{{ kwargs }}{{ varargs }}{% endmacro %}{{ f(1, 2, varargs=( f(1, 2, varargs=( 3,),),), kwargs={'c': 4,}) }}",
            ),
            ("{{ kwargs }}", "f(*x)", "{% macro f(a, b=1, kwargs={}) %}{{ kwargs }}{% endmacro %}{{ f(*x) }}"),
            (
                "{{ x.varargs }}",
                "g(1, 2, 3)",
                "{% macro f(a, b=1, varargs=()) %}{{ x.varargs }}{% endmacro %}{{ g(1, 2, 3) }}",
            ),
        ] {
            assert_eq!(of(body, call), want, "{body} {call}");
        }
    }

    #[test]
    fn lines_keep_their_numbers() {
        let source = "a\r\n{{ x ~\r\n y }}\r{% for a in\nb %}\n{% endfor %}{{ 'a\\\nb' ~ c }}\n";
        let want = source.replace("\r\n", "\n").replace('\r', "\n").matches('\n').count();
        assert_eq!(rewrite(source).matches('\n').count(), want);
        assert!(!rewrite(source).contains('\r'));
    }

    #[test]
    fn other_differences_of_the_syntax() {
        for (source, want) in [
            ("{{ a, b ~ c }}", "{{( a, ( b)|__concat( c)) }}"),
            ("{% generation %}x{%- endgeneration -%}", "{% with %}x{%- endwith -%}"),
            (r"{{ 'a\U0001f600\\U0001f600\n' }}", r"{{ 'a😀\\U0001f600\n' }}"),
            (r"{{ 'a\U00zz\U0011ffff' }}", r"{{ 'a\U00zz\U0011ffff' }}"),
        ] {
            assert_eq!(rewrite(source), want, "{source}");
        }
    }
}
