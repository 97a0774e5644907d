//! The outline of a file for the module graph: its modules, its imports, its items and the paths it names.
//!
//! A reader of tokens, not a parser. Items behind `#[cfg(test)]` are left out. Where a name could be read in two ways
//! (a constant parameter as an item, a pattern as a path) the reading stays inside the same file and adds no edge.

use std::collections::BTreeSet;

use super::tokens::{Kind, Token, code};

/// One module of a file: the file itself, or an inline `mod x { ... }`.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Scope {
    /// The index of the scope around it in the file's list; the first scope has none.
    pub(super) parent: Option<usize>,
    /// The name of an inline module; empty for the file itself.
    pub(super) name: String,
    /// Modules that lie in files of their own.
    pub(super) modules: Vec<ModuleDeclaration>,
    pub(super) imports: Vec<Import>,
    pub(super) items: BTreeSet<String>,
    /// Items that are `pub` without a restriction.
    pub(super) public_items: BTreeSet<String>,
    /// The items that `macro_rules!` defines.
    pub(super) macro_rules: BTreeSet<String>,
    /// Macros that `#[macro_export]` moves to the crate root.
    pub(super) exported_macros: BTreeSet<String>,
    /// Paths of two or more names in code, with their lines.
    pub(super) paths: Vec<(Vec<String>, usize)>,
    /// Single names in code, which a glob import or a re-export may have brought.
    pub(super) names: Vec<(String, usize)>,
    /// Names that are followed by `!`.
    pub(super) macros: Vec<(String, usize)>,
}

/// A module in a file of its own: `mod name;`
#[derive(Debug, PartialEq)]
pub(super) struct ModuleDeclaration {
    pub(super) name: String,
    pub(super) is_public: bool,
    pub(super) line: usize,
}

/// How far an import is visible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Visibility {
    Private,
    /// `pub(crate)`, `pub(super)`, `pub(in ...)`
    Restricted,
    Public,
}

/// One leaf of a `use` tree.
#[derive(Debug, PartialEq)]
pub(super) struct Import {
    pub(super) path: Vec<String>,
    /// The name it introduces; `None` for a glob and for `as _`.
    pub(super) binding: Option<String>,
    pub(super) is_glob: bool,
    pub(super) visibility: Visibility,
    /// Stands in a function body: it binds nothing for the rest of the module.
    pub(super) is_local: bool,
    pub(super) line: usize,
}

/// The scopes of a file; the first is the file itself.
pub(super) fn outline(text: &str) -> Vec<Scope> {
    let tokens = code(text);
    let mut reader = Reader { tokens: &tokens, at: 0, scopes: vec![Scope::default()], braces: vec![Brace::Scope(0)] };
    while reader.at < tokens.len() {
        reader.step();
    }
    reader.scopes
}

/// The owner of an open brace.
#[derive(Clone, Copy, PartialEq)]
enum Brace {
    /// The scope with this index.
    Scope(usize),
    /// A function, a type, a block.
    Other,
}

struct Reader<'a> {
    tokens: &'a [Token<'a>],
    at: usize,
    scopes: Vec<Scope>,
    braces: Vec<Brace>,
}

impl<'a> Reader<'a> {
    fn kind(&self, at: usize) -> Option<Kind<'a>> {
        self.tokens.get(at).map(|token| token.kind)
    }

    fn name(&self, at: usize) -> Option<&'a str> {
        if let Some(Kind::Name(name)) = self.kind(at) { Some(name) } else { None }
    }

    fn is_mark(&self, at: usize, mark: char) -> bool {
        self.kind(at) == Some(Kind::Mark(mark))
    }

    fn line(&self) -> usize {
        self.tokens[self.at].line
    }

    fn scope(&mut self) -> &mut Scope {
        let open = self.braces.iter().rev().find_map(|brace| if let Brace::Scope(i) = brace { Some(*i) } else { None });
        &mut self.scopes[open.unwrap_or(0)]
    }

    /// Whether the reader stands among the items of a module, not in a body.
    fn is_among_items(&self) -> bool {
        matches!(self.braces.last(), None | Some(Brace::Scope(_)))
    }

    fn step(&mut self) {
        match self.tokens[self.at].kind {
            Kind::Mark('#') => self.attribute(),
            Kind::Mark('{') => {
                self.braces.push(Brace::Other);
                self.at += 1;
            }
            Kind::Mark('}') => {
                // The first entry is the file itself, which no brace closes.
                if self.braces.len() > 1 {
                    self.braces.pop();
                }
                self.at += 1;
            }
            Kind::Name("use") if !self.is_mark(self.at + 1, '<') => self.import(),
            Kind::Name("mod") if self.name(self.at + 1).is_some() => self.module(),
            Kind::Name("macro_rules") if self.is_mark(self.at + 1, '!') => self.macro_definition(),
            Kind::Name(word) => self.word(word),
            _ => self.at += 1,
        }
    }

    /// Passes over an attribute, and over the item behind it where that is for tests only.
    fn attribute(&mut self) {
        let open = self.at + 1 + usize::from(self.is_mark(self.at + 1, '!'));
        if !self.is_mark(open, '[') {
            self.at += 1;
            return;
        }
        let end = self.closing(open);
        let inside = &self.tokens[open + 1..end.min(self.tokens.len())];
        match inside.first().map(|token| token.kind) {
            Some(Kind::Name("cfg")) if is_test(inside) => {
                self.at = end + 1;
                self.skip_item();
                return;
            }
            Some(Kind::Name("macro_export")) => {
                let mut at = end + 1;
                while self.is_mark(at, '#') {
                    at = self.closing(at + 1) + 1;
                }
                if let (Some("macro_rules"), Some(name)) = (self.name(at), self.name(at + 2)) {
                    let name = name.to_owned();
                    self.scope().exported_macros.insert(name);
                }
            }
            _ => {}
        }
        // The tokens inside are read like code: they may name items, as in `#[arg(value_parser = size::parse)]`.
        self.at = open + 1;
    }

    /// The place of the bracket that closes the one at `open`; the end of the file where none does.
    fn closing(&self, open: usize) -> usize {
        let mut depth = 0usize;
        for at in open..self.tokens.len() {
            match self.tokens[at].kind {
                Kind::Mark('(' | '[' | '{') => depth += 1,
                Kind::Mark(')' | ']' | '}') => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 {
                return at;
            }
        }
        self.tokens.len()
    }

    /// Passes over an item, a field, a variant or a statement.
    fn skip_item(&mut self) {
        while self.is_mark(self.at, '#') {
            self.at = self.closing(self.at + 1) + 1;
        }
        let is_item = (self.at..self.at + 4).any(|at| {
            let item =
                ["fn", "mod", "use", "struct", "enum", "trait", "impl", "const", "static", "type", "union", "let"];
            self.name(at).is_some_and(|word| item.contains(&word))
        });
        while let Some(kind) = self.kind(self.at) {
            match kind {
                Kind::Mark('(' | '[') => self.at = self.closing(self.at) + 1,
                Kind::Mark('{') => {
                    self.at = self.closing(self.at) + 1;
                    if !self.is_mark(self.at, ';') {
                        return;
                    }
                }
                Kind::Mark(';') => {
                    self.at += 1;
                    return;
                }
                Kind::Mark(',') if !is_item => {
                    self.at += 1;
                    return;
                }
                Kind::Mark('}') => return,
                _ => self.at += 1,
            }
        }
    }

    /// How visible the item is whose keyword stands at `at`.
    fn visibility(&self, at: usize) -> Visibility {
        let before = |steps: usize| at.checked_sub(steps).and_then(|at| self.kind(at));
        if before(1) == Some(Kind::Name("pub")) {
            return Visibility::Public;
        }
        if before(1) != Some(Kind::Mark(')')) {
            return Visibility::Private;
        }
        let open = self.tokens[..at].iter().rposition(|token| token.kind == Kind::Mark('('));
        let is_pub = open.and_then(|open| open.checked_sub(1)).and_then(|at| self.name(at)) == Some("pub");
        if is_pub { Visibility::Restricted } else { Visibility::Private }
    }

    /// Whether the item whose keyword stands at `at` is `pub`; `const`, `unsafe` and the like may stand between.
    fn is_public(&self, mut at: usize) -> bool {
        while let Some(Kind::Name("const" | "unsafe" | "async" | "extern")) =
            at.checked_sub(1).and_then(|at| self.kind(at))
        {
            at -= 1;
        }
        self.visibility(at) == Visibility::Public
    }

    fn module(&mut self) {
        let name = self.name(self.at + 1).unwrap_or_default().to_owned();
        let line = self.line();
        let is_public = self.visibility(self.at) == Visibility::Public;
        if self.is_mark(self.at + 2, '{') {
            let parent = self.braces.iter().rev().find_map(|b| if let Brace::Scope(i) = b { Some(*i) } else { None });
            self.braces.push(Brace::Scope(self.scopes.len()));
            self.scopes.push(Scope { parent: parent.or(Some(0)), name, ..Scope::default() });
        } else {
            self.scope().modules.push(ModuleDeclaration { name, is_public, line });
        }
        self.at += 3;
    }

    fn macro_definition(&mut self) {
        if let Some(name) = self.name(self.at + 2) {
            let name = name.to_owned();
            self.scope().items.insert(name.clone());
            self.scope().macro_rules.insert(name);
        }
        self.at += 3;
    }

    fn import(&mut self) {
        let (line, visibility, is_local) = (self.line(), self.visibility(self.at), !self.is_among_items());
        self.at += 1;
        // `use ::name` names another crate.
        let is_foreign = self.kind(self.at) == Some(Kind::PathSep);
        let mut leaves = Vec::new();
        self.tree(&[], &mut leaves);
        if is_foreign {
            return;
        }
        self.scope().imports.extend(leaves.into_iter().map(|leaf| {
            let Leaf { path, binding, is_glob } = leaf;
            Import { path, binding, is_glob, visibility, is_local, line }
        }));
    }

    /// Reads a `use` tree behind `prefix`.
    fn tree(&mut self, prefix: &[String], leaves: &mut Vec<Leaf>) {
        let mut path = prefix.to_vec();
        loop {
            match self.kind(self.at) {
                Some(Kind::PathSep) => self.at += 1,
                Some(Kind::Name("as")) => {
                    let binding = self.name(self.at + 1).filter(|name| *name != "_").map(str::to_owned);
                    self.at += 2;
                    leaves.push(Leaf::new(path, binding));
                    return;
                }
                Some(Kind::Name(name)) => {
                    path.push(name.to_owned());
                    self.at += 1;
                }
                Some(Kind::Mark('*')) => {
                    self.at += 1;
                    leaves.push(Leaf { path, binding: None, is_glob: true });
                    return;
                }
                Some(Kind::Mark('{')) => {
                    self.at += 1;
                    while self.at < self.tokens.len() && !self.is_mark(self.at, '}') {
                        self.tree(&path, leaves);
                        self.at += usize::from(self.is_mark(self.at, ','));
                    }
                    self.at += 1;
                    return;
                }
                // The `;` of the declaration or the `,` or `}` of the group around it.
                _ => {
                    let binding = path.iter().rev().find(|name| *name != "self").cloned();
                    if path.len() > prefix.len() {
                        leaves.push(Leaf::new(path, binding));
                    } else {
                        self.at += usize::from(!matches!(self.kind(self.at), Some(Kind::Mark(';' | ',' | '}'))));
                    }
                    return;
                }
            }
        }
    }

    /// A keyword, the definition of an item, or a path in code.
    fn word(&mut self, word: &'a str) {
        const DEFINES: [&str; 8] = ["fn", "struct", "enum", "union", "trait", "type", "const", "static"];
        if DEFINES.contains(&word) && self.is_among_items() {
            let is_parameter = self.at > 0 && matches!(self.kind(self.at - 1), Some(Kind::Mark('<' | ',')));
            let next = self.at + 1 + usize::from(self.name(self.at + 1) == Some("mut"));
            if let Some(name) = self.name(next).filter(|name| !["fn", "unsafe", "extern", "async"].contains(name))
                && !is_parameter
            {
                let name = name.to_owned();
                if self.is_public(self.at) {
                    self.scope().public_items.insert(name.clone());
                }
                self.scope().items.insert(name);
                self.at = next + 1;
                return;
            }
        }
        self.path_in_code(word);
    }

    fn path_in_code(&mut self, first: &'a str) {
        let line = self.line();
        // `.name` is a field or a method, `::name` follows a type, `$name` stands for anything but `$crate`.
        let before = self.at.checked_sub(1).and_then(|at| self.kind(at));
        let is_start = match before {
            Some(Kind::Mark('.')) => self.at >= 2 && self.is_mark(self.at - 2, '.'),
            Some(Kind::PathSep) => false,
            Some(Kind::Mark('$')) => first == "crate",
            _ => true,
        };
        let mut path = vec![first.to_owned()];
        self.at += 1;
        while self.kind(self.at) == Some(Kind::PathSep)
            && let Some(name) = self.name(self.at + 1)
        {
            path.push(name.to_owned());
            self.at += 2;
        }
        if !is_start {
            return;
        }
        let is_macro = self.is_mark(self.at, '!') && !self.is_mark(self.at + 1, '=');
        let is_called = is_macro || self.is_mark(self.at, '(') || self.kind(self.at) == Some(Kind::PathSep);
        let scope = self.scope();
        if path.len() > 1 {
            scope.paths.push((path, line));
        } else if is_macro {
            scope.macros.push((first.to_owned(), line));
            scope.names.push((first.to_owned(), line));
        } else if is_called || first.starts_with(char::is_uppercase) {
            // A small name that is not called may be a variable; it is not taken for an item.
            scope.names.push((first.to_owned(), line));
        }
    }
}

struct Leaf {
    path: Vec<String>,
    binding: Option<String>,
    is_glob: bool,
}

impl Leaf {
    /// A leaf; the path `a::b::{self}` is read as `a::b`.
    fn new(mut path: Vec<String>, binding: Option<String>) -> Self {
        if path.len() > 1 && path.last().is_some_and(|name| name == "self") {
            path.pop();
        }
        Self { path, binding, is_glob: false }
    }
}

/// Whether the tokens of `cfg(...)` hold for tests only: they demand `test`, other than inside of `not` or `any`.
fn is_test(tokens: &[Token<'_>]) -> bool {
    let mut optional_depth = None;
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate() {
        match token.kind {
            Kind::Mark('(') => depth += 1,
            Kind::Mark(')') => {
                depth = depth.saturating_sub(1);
                optional_depth = optional_depth.filter(|inner| *inner <= depth);
            }
            Kind::Name("not" | "any") => optional_depth = optional_depth.or(Some(depth + 1)),
            Kind::Name("test") if optional_depth.is_none() => {
                return !matches!(tokens.get(at + 1).map(|token| token.kind), Some(Kind::Mark('=')));
            }
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::{Visibility, outline};

    fn imports(text: &str) -> Vec<String> {
        let shown = |import: &super::Import| {
            let glob = if import.is_glob { "::*" } else { "" };
            format!("{}{glob} as {}", import.path.join("::"), import.binding.as_deref().unwrap_or("nothing"))
        };
        outline(text).iter().flat_map(|scope| &scope.imports).map(shown).collect()
    }

    fn paths(text: &str) -> Vec<String> {
        outline(text).iter().flat_map(|scope| &scope.paths).map(|(path, _)| path.join("::")).collect()
    }

    #[test]
    fn use_trees_are_taken_apart() {
        assert_eq!(
            imports("use a::{b, c::{self, d as e}, f::*};\nuse g as _;"),
            ["a::b as b", "a::c as c", "a::c::d as e", "a::f::* as nothing", "g as nothing"]
        );
        assert_eq!(imports("use ::std::fmt; fn f() -> impl Sized + use<'_> {}"), Vec::<String>::new());
    }

    #[test]
    fn an_import_knows_its_visibility_and_its_place() {
        let scopes = outline("pub use a::B; pub(crate) use c::D; use e::F; fn f() { use g::H; }");
        let seen: Vec<_> = scopes[0].imports.iter().map(|import| (import.visibility, import.is_local)).collect();
        assert_eq!(
            seen,
            [
                (Visibility::Public, false),
                (Visibility::Restricted, false),
                (Visibility::Private, false),
                (Visibility::Private, true)
            ]
        );
    }

    #[test]
    fn test_code_is_left_out() {
        let text = "use a::A;\n#[cfg(test)]\nuse b::{B, C};\n#[cfg(test)]\n#[allow(x)]\nmod tests { use d::D; }\n\
                    #[cfg(all(test, unix))] fn f() { g::h() }\n#[cfg(not(test))] use i::I;\n\
                    struct S { #[cfg(test)] t: u::U, k: v::V }\n#[cfg(test)] mod far;\n#[cfg(feature = \"test\")] use j::J;\n\
                    #[cfg(any(test, windows))] use k::K;";
        assert_eq!(imports(text), ["a::A as A", "i::I as I", "j::J as J", "k::K as K"]);
        assert_eq!(paths(text), ["v::V"]);
        assert!(outline(text)[0].modules.is_empty());
    }

    #[test]
    fn modules_are_files_or_scopes() {
        let scopes = outline("pub mod a;\n#[cfg(unix)] mod b;\nmod c { mod d { fn g() {} } use super::E; }\nmod f;");
        let names: Vec<_> = scopes[0].modules.iter().map(|module| (module.name.as_str(), module.is_public)).collect();
        assert_eq!(names, [("a", true), ("b", false), ("f", false)]);
        assert_eq!(
            (scopes[1].name.as_str(), scopes[1].parent, scopes[2].name.as_str(), scopes[2].parent),
            ("c", Some(0), "d", Some(1))
        );
        assert_eq!(scopes[1].imports.len(), 1);
    }

    #[test]
    fn items_of_bodies_are_not_items_of_the_module() {
        let scopes = outline(
            "pub const fn a<const N: usize>() { struct B; }\nstatic mut C: u8 = 0;\nimpl D { fn e() {} }\nmacro_rules! g { () => {} }\nconst H: u8 = 0;",
        );
        assert_eq!(scopes[0].items.iter().map(String::as_str).collect::<Vec<_>>(), ["C", "H", "a", "g"]);
    }

    #[test]
    fn paths_in_code_are_found_wherever_they_stand() {
        assert_eq!(paths("struct S { #[arg(value_parser = size::parse)] n: u8 }"), ["size::parse"]);
        let text = "fn f(x: crate::a::B) -> c::D<super::E> { x.g::<h::I>(); <T as j::K>::l(); m!(self::n::o) ; $crate::p::q; $r::s }";
        assert_eq!(paths(text), ["crate::a::B", "c::D", "super::E", "h::I", "j::K", "self::n::o", "crate::p::q"]);
    }

    #[test]
    fn single_names_are_kept_where_they_may_be_items() {
        let scopes = outline("fn f(value: Value) { call(value); value.method(); Literal { field: 0 }; mac!(x) }");
        let names: Vec<&str> = scopes[0].names.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["Value", "call", "Literal", "mac"]);
    }

    #[test]
    fn exported_macros_are_known() {
        let scopes = outline("#[macro_export]\n#[doc(hidden)]\nmacro_rules! m { () => {} }");
        assert!(scopes[0].exported_macros.contains("m") && scopes[0].items.contains("m"));
    }
}
