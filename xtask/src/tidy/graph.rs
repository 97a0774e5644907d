//! The module graph of a crate: which file names items that another file defines.
//!
//! A re-export (`pub use`, `pub(crate) use`) leads to the file that defines the item and is no edge itself, unless the
//! file also uses the name it re-exports. Naming a module is no edge either; naming something inside of it is.
//! **Invariant**: a crate has no circle between files, so each file can be read with the files it imports alone.

use std::collections::{BTreeMap, BTreeSet};

use super::outline::{Import, Scope, Visibility, outline};

/// Source files by their path from the crate's folder, with forward slashes.
pub(super) type Sources = BTreeMap<String, String>;

/// Files, and for each the files it names items of.
pub(super) struct Graph {
    pub(super) files: Vec<String>,
    edges: BTreeMap<(usize, usize), Reason>,
}

/// The first place that made an edge.
#[derive(Debug, PartialEq)]
struct Reason {
    line: usize,
    path: String,
}

/// A circle: its files, and its edges as sentences.
pub(super) struct Circle {
    pub(super) files: Vec<String>,
    pub(super) edges: Vec<String>,
}

/// The graph of the crate whose root is `root`: `src/lib.rs` or `src/main.rs`.
pub(super) fn graph(sources: &Sources, root: &str) -> Graph {
    let tree = Tree::new(sources, root);
    let mut graph = Graph { files: tree.files.clone(), edges: BTreeMap::new() };
    for module in 0..tree.modules.len() {
        for (target, line, path) in tree.named_by(module) {
            let edge = (tree.modules[module].file, target);
            if edge.0 != edge.1 {
                graph.edges.entry(edge).or_insert(Reason { line, path });
            }
        }
    }
    graph
}

impl Graph {
    /// The circles, each with at least two files; the largest first.
    pub(super) fn circles(&self) -> Vec<Circle> {
        let n = self.files.len();
        let reachable: Vec<BTreeSet<usize>> = (0..n).map(|file| self.reachable(file)).collect();
        let mut groups = BTreeSet::new();
        for file in 0..n {
            let group: Vec<usize> =
                (0..n).filter(|&other| reachable[file].contains(&other) && reachable[other].contains(&file)).collect();
            if group.len() > 1 {
                groups.insert(group);
            }
        }
        let mut circles: Vec<Circle> = groups.into_iter().map(|group| self.circle(&group)).collect();
        circles.sort_by_key(|circle| std::cmp::Reverse(circle.files.len()));
        circles
    }

    fn circle(&self, group: &[usize]) -> Circle {
        let inside = self.edges.iter().filter(|((from, to), _)| group.contains(from) && group.contains(to));
        let sentence = |((from, to), reason): (&(usize, usize), &Reason)| {
            let (from, to) = (&self.files[*from], &self.files[*to]);
            format!("{from}:{} names {}, which {to} defines", reason.line, reason.path)
        };
        Circle {
            files: group.iter().map(|&file| self.files[file].clone()).collect(),
            edges: inside.map(sentence).collect(),
        }
    }

    /// The files that can be reached from one in one or more steps.
    fn reachable(&self, from: usize) -> BTreeSet<usize> {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(file) = open.pop() {
            for ((_, to), _) in self.edges.range((file, 0)..(file + 1, 0)) {
                if seen.insert(*to) {
                    open.push(*to);
                }
            }
        }
        seen
    }

    /// The folder with the most files directly inside of it, and their number.
    pub(super) fn largest_folder(&self) -> (&str, usize) {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for file in &self.files {
            *counts.entry(file.rsplit_once('/').map_or("", |(folder, _)| folder)).or_default() += 1;
        }
        counts.into_iter().max_by_key(|(_, n)| *n).unwrap_or_default()
    }
}

/// The modules of a crate.
#[derive(Default)]
pub(super) struct Tree {
    pub(super) files: Vec<String>,
    /// The crate's root comes first.
    pub(super) modules: Vec<Module>,
    /// Where `macro_rules!` defines the macros that are named without a path.
    macros: BTreeMap<String, usize>,
}

pub(super) struct Module {
    pub(super) file: usize,
    parent: Option<usize>,
    pub(super) children: BTreeMap<String, usize>,
    pub(super) scope: Scope,
}

/// The end of a path.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Target {
    Module(usize),
    /// An item that the module with this index defines.
    ItemOf(usize),
}

/// Paths that are being followed, so that re-exports in a circle end.
type Trail = BTreeSet<(usize, Vec<String>)>;

impl Tree {
    /// The modules below the crate root `root`: `src/lib.rs` or `src/main.rs`.
    pub(super) fn new(sources: &Sources, root: &str) -> Self {
        let mut tree = Self::default();
        tree.add_file(sources, root, None, "");
        tree
    }

    /// Adds a file with its inline modules and, from `sources`, the files it declares.
    fn add_file(&mut self, sources: &Sources, path: &str, parent: Option<usize>, name: &str) {
        let Some(text) = sources.get(path) else { return };
        let (file, first) = (self.files.len(), self.modules.len());
        self.files.push(path.to_owned());
        let (folder, file_name) = path.rsplit_once('/').unwrap_or(("", path));
        let owns_folder = parent.is_none() || file_name == "mod.rs";
        let below = if owns_folder { folder.to_owned() } else { path.trim_end_matches(".rs").to_owned() };
        // The folder in which each scope of this file looks for the files of its modules.
        let mut folders: Vec<String> = Vec::new();
        for (i, scope) in outline(text).into_iter().enumerate() {
            let (around, name, folder) = match scope.parent {
                None => (parent, name, below.clone()),
                Some(around) => (Some(first + around), &*scope.name, format!("{}/{}", folders[around], scope.name)),
            };
            folders.push(folder);
            if let Some(around) = around {
                self.modules[around].children.insert(name.to_owned(), first + i);
            }
            self.macros.extend(scope.macro_rules.iter().map(|name| (name.clone(), first + i)));
            self.modules.push(Module { file, parent: around, children: BTreeMap::new(), scope });
        }
        for (i, folder) in folders.iter().enumerate() {
            let declared: Vec<String> = self.modules[first + i].scope.modules.iter().map(|m| m.name.clone()).collect();
            for name in declared {
                let places = [format!("{folder}/{name}.rs"), format!("{folder}/{name}/mod.rs")];
                if let Some(place) = places.iter().find(|place| sources.contains_key(*place)) {
                    self.add_file(sources, place, Some(first + i), &name);
                }
            }
        }
    }

    /// The files whose items a module names, each with the line and the path of the name.
    fn named_by(&self, module: usize) -> Vec<(usize, usize, String)> {
        let scope = &self.modules[module].scope;
        let mut named = Vec::new();
        let mut add = |target: Option<Target>, line: usize, path: String| {
            if let Some(Target::ItemOf(other)) = target {
                named.push((self.modules[other].file, line, path));
            }
        };
        // The single names of the module, and the first ones of its paths.
        let used: BTreeMap<&str, usize> = scope
            .paths
            .iter()
            .map(|(path, line)| (path[0].as_str(), *line))
            .chain(scope.names.iter().map(|(name, line)| (name.as_str(), *line)))
            .collect();
        for import in &scope.imports {
            if import.is_glob {
                for (name, line) in &used {
                    let path = [import.path.as_slice(), &[(*name).to_owned()]].concat();
                    if !scope.items.contains(*name) && self.glob_has(module, import, name) {
                        add(self.resolve(module, &path, &mut Trail::new()), *line, path.join("::"));
                    }
                }
                continue;
            }
            let is_used = import.binding.as_deref().and_then(|name| used.get(name));
            if import.visibility == Visibility::Private || is_used.is_some() {
                let line = if import.visibility == Visibility::Private { import.line } else { *is_used.unwrap_or(&0) };
                add(self.resolve(module, &import.path, &mut Trail::new()), line, import.path.join("::"));
            }
        }
        for (path, line) in &scope.paths {
            add(self.resolve(module, path, &mut Trail::new()), *line, path.join("::"));
        }
        for (name, line) in &scope.macros {
            let is_known = self.resolve(module, std::slice::from_ref(name), &mut Trail::new()).is_some();
            if let Some(definition) = self.macros.get(name).filter(|_| !is_known) {
                add(Some(Target::ItemOf(*definition)), *line, format!("{name}!"));
            }
        }
        named
    }

    /// Whether a glob import brings `name` into `module`.
    fn glob_has(&self, module: usize, import: &Import, name: &str) -> bool {
        match self.resolve(module, &import.path, &mut Trail::new()) {
            Some(Target::Module(from)) => self.lookup(from, name, true, &mut Trail::new()).is_some(),
            // The variants of an enum.
            Some(Target::ItemOf(_)) => name.starts_with(char::is_uppercase),
            None => false,
        }
    }

    /// Follows a path that stands in `module`; `None` where it leads out of the crate.
    fn resolve(&self, module: usize, path: &[String], trail: &mut Trail) -> Option<Target> {
        if !trail.insert((module, path.to_vec())) {
            return None;
        }
        let (mut at, mut rest) = (module, path);
        let mut is_rooted = false;
        while let [first, after @ ..] = rest {
            at = match first.as_str() {
                "crate" => 0,
                "self" => at,
                "super" => self.modules[at].parent?,
                _ => break,
            };
            (rest, is_rooted) = (after, true);
        }
        let Some((first, mut rest)) = rest.split_first() else {
            return is_rooted.then_some(Target::Module(at));
        };
        let mut target = match self.lookup(at, first, rest.is_empty(), trail) {
            Some(target) => target,
            // A name inside the crate that no item of the text explains, such as one a macro defines.
            None if is_rooted => Target::ItemOf(at),
            None => return None,
        };
        while let (Target::Module(inside), Some((name, after))) = (target, rest.split_first()) {
            target = self.lookup(inside, name, after.is_empty(), trail).unwrap_or(Target::ItemOf(inside));
            rest = after;
        }
        Some(target)
    }

    /// The target of `name` in a module. The last name of a path is an item rather than a module of the same name.
    fn lookup(&self, module: usize, name: &str, is_last: bool, trail: &mut Trail) -> Option<Target> {
        let Module { children, scope, .. } = &self.modules[module];
        let child = children.get(name).map(|&child| Target::Module(child));
        if let Some(child) = child.filter(|_| !is_last) {
            return Some(child);
        }
        if scope.items.contains(name) {
            return Some(Target::ItemOf(module));
        }
        let binds = |import: &&Import| !import.is_local && import.binding.as_deref() == Some(name);
        for import in scope.imports.iter().filter(binds) {
            if let Some(target) = self.resolve(module, &import.path, trail) {
                return Some(target);
            }
        }
        if child.is_some() {
            return child;
        }
        if module == 0
            && let Some(definition) = self.modules.iter().position(|m| m.scope.exported_macros.contains(name))
        {
            return Some(Target::ItemOf(definition));
        }
        for import in scope.imports.iter().filter(|import| import.is_glob && !import.is_local) {
            match self.resolve(module, &import.path, trail) {
                Some(Target::Module(from)) if from != module && trail.insert((from, vec![name.to_owned()])) => {
                    if let Some(target) = self.lookup(from, name, is_last, trail) {
                        return Some(target);
                    }
                }
                _ => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{Graph, Sources, graph};

    fn made(files: &[(&str, &str)]) -> Graph {
        let sources: Sources = files.iter().map(|(name, text)| (format!("src/{name}"), (*text).to_owned())).collect();
        graph(&sources, "src/lib.rs")
    }

    /// `a.rs -> b.rs`, in the order of the files.
    fn edges(files: &[(&str, &str)]) -> Vec<String> {
        let graph = made(files);
        let name = |file: usize| graph.files[file].trim_start_matches("src/").trim_end_matches(".rs").to_owned();
        let mut edges: Vec<String> = graph.edges.keys().map(|(a, b)| format!("{} -> {}", name(*a), name(*b))).collect();
        edges.sort();
        edges
    }

    fn circles(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        made(files).circles().into_iter().map(|circle| circle.files).collect()
    }

    #[test]
    fn a_chain_has_no_circle_and_a_ring_has_one() {
        let root = ("lib.rs", "mod a; mod b; mod c;");
        let chain =
            [root, ("a.rs", "use crate::b::B;"), ("b.rs", "use crate::c::C; pub struct B;"), ("c.rs", "pub struct C;")];
        assert_eq!(edges(&chain), ["a -> b", "b -> c"]);
        assert!(circles(&chain).is_empty());
        let ring = [
            root,
            ("a.rs", "use crate::b::B; pub struct A;"),
            ("b.rs", "use crate::c::C; pub struct B;"),
            ("c.rs", "use crate::a::A; pub struct C;"),
        ];
        assert_eq!(circles(&ring), [["src/a.rs", "src/b.rs", "src/c.rs"]]);
    }

    #[test]
    fn a_circle_says_which_line_names_what() {
        let graph = made(&[
            ("lib.rs", "mod a; mod b;"),
            (
                "a.rs",
                "//! A.
use crate::b::B;
pub struct A;",
            ),
            (
                "b.rs",
                "pub struct B;
fn f(a: super::a::A) {}",
            ),
        ]);
        assert_eq!(
            graph.circles()[0].edges,
            [
                "src/a.rs:2 names crate::b::B, which src/b.rs defines",
                "src/b.rs:2 names super::a::A, which src/a.rs defines",
            ]
        );
    }

    #[test]
    fn a_re_export_leads_to_the_file_of_the_item() {
        let files = [
            ("lib.rs", "mod room; mod user;"),
            ("room.rs", "mod a; mod b; pub use a::A; pub(crate) use b::*; pub struct Own;"),
            ("room/a.rs", "pub struct A;"),
            ("room/b.rs", "pub struct B; use super::Own;"),
            ("user.rs", "use crate::room::{A, B as C};"),
        ];
        assert_eq!(edges(&files), ["room/b -> room", "user -> room/a", "user -> room/b"]);
    }

    #[test]
    fn a_re_export_that_the_room_itself_uses_is_an_edge() {
        let files = [
            ("lib.rs", "pub mod room;"),
            ("room.rs", "mod a; pub use a::A; pub struct Own { a: A }"),
            ("room/a.rs", "use super::Own; pub struct A;"),
        ];
        assert_eq!(circles(&files), [["src/room.rs", "src/room/a.rs"]]);
    }

    #[test]
    fn nested_trees_and_paths_in_code_are_edges() {
        let files = [
            ("lib.rs", "mod a; mod b; mod c; mod d;"),
            ("a.rs", "use crate::{b::{self, B}, c::{C as X}}; fn f() { d::D; crate::d::D; b::B }"),
            ("b.rs", "pub struct B;"),
            ("c.rs", "pub struct C;"),
            ("d.rs", "pub struct D;"),
        ];
        assert_eq!(edges(&files), ["a -> b", "a -> c", "a -> d"]);
    }

    #[test]
    fn naming_a_module_is_no_edge_but_naming_something_inside_is() {
        let files = [("lib.rs", "mod a; mod b;"), ("a.rs", "use crate::b; fn f() {}"), ("b.rs", "pub fn g() {}")];
        assert!(edges(&files).is_empty());
        let files = [files[0], ("a.rs", "use crate::b; fn f() { b::g() }"), files[2]];
        assert_eq!(edges(&files), ["a -> b"]);
    }

    #[test]
    fn a_glob_brings_the_names_that_are_used() {
        let files = [
            ("lib.rs", "mod room;"),
            ("room.rs", "mod a; mod b; mod c; use b::B; use c::C; struct Own; struct Other;"),
            ("room/a.rs", "use super::*; fn f(b: B) {}"),
            ("room/b.rs", "pub struct B;"),
            ("room/c.rs", "pub struct C;"),
        ];
        assert_eq!(edges(&files), ["room -> room/b", "room -> room/c", "room/a -> room/b"]);
        let files = [files[0], files[1], ("room/a.rs", "use super::*; fn f(own: Own) {}"), files[3], files[4]];
        assert_eq!(edges(&files), ["room -> room/b", "room -> room/c", "room/a -> room"]);
    }

    #[test]
    fn the_parent_that_names_an_item_of_its_child_has_an_edge() {
        let files = [("lib.rs", "mod a; fn f() { a::g() }"), ("a.rs", "pub fn g() { crate::f() }")];
        assert_eq!(circles(&files), [["src/lib.rs", "src/a.rs"]]);
    }

    #[test]
    fn inline_modules_belong_to_their_file() {
        let files = [
            (
                "lib.rs",
                "mod a; mod b; mod inner { mod deep { use super::super::a::A; fn f(x: super::Own) {} } struct Own; }",
            ),
            ("a.rs", "pub struct A;"),
            ("b.rs", "fn f() { crate::inner::Own; }"),
        ];
        assert_eq!(edges(&files), ["b -> lib", "lib -> a"]);
        let files = [("lib.rs", "mod outer { mod a; }"), ("outer/a.rs", "use super::super::X;")];
        assert_eq!(edges(&files), ["outer/a -> lib"]);
    }

    #[test]
    fn both_forms_of_a_room_are_read() {
        let files = [
            ("lib.rs", "mod new; mod old; fn top() {}"),
            ("new.rs", "mod a;"),
            ("new/a.rs", "fn f() { super::super::top() }"),
            ("old/mod.rs", "mod a;"),
            ("old/a.rs", "use crate::new::a::f;"),
        ];
        assert_eq!(edges(&files), ["new/a -> lib", "old/a -> new/a"]);
        assert_eq!(made(&files).largest_folder(), ("src/old", 2));
    }

    #[test]
    fn other_crates_and_tests_are_no_edges() {
        let files = [
            ("lib.rs", "mod a; mod b;"),
            (
                "a.rs",
                "use std::fmt; use half::f16; use ::b::B; fn f() -> fmt::Result { half::x::y() }
#[cfg(test)]
mod tests { use crate::b::B; }",
            ),
            ("b.rs", "use crate::a; pub struct B;"),
        ];
        assert!(edges(&files).is_empty());
    }

    #[test]
    fn macros_are_found_by_scope_and_by_export() {
        let files = [
            ("lib.rs", "mod m; mod a; mod b;"),
            (
                "m.rs",
                "macro_rules! inner { () => { $crate::a::A } }
#[macro_export] macro_rules! outer { () => {} }",
            ),
            ("a.rs", "inner!(); pub struct A;"),
            ("b.rs", "crate::outer!(); vec![1];"),
        ];
        assert_eq!(edges(&files), ["a -> m", "b -> m", "m -> a"]);
    }

    #[test]
    fn re_exports_in_a_circle_end() {
        let files = [
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "pub use crate::b::X; fn f(x: X) {}"),
            ("b.rs", "pub use crate::a::X; pub use crate::a::*;"),
        ];
        let _ = edges(&files);
    }
}
