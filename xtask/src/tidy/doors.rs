//! One path to each public item: an item of a public module, or of another crate of ours, is not re-exported.

use super::edges::is_ours;
use super::graph::{Module, Sources, Tree};
use super::outline::{Import, Visibility};

/// A public re-export of an item that has a public path already.
#[derive(Debug, PartialEq)]
pub(super) struct SecondPath {
    pub(super) file: String,
    pub(super) line: usize,
    pub(super) path: String,
}

/// The second paths in the crate whose root is `root`.
pub(super) fn second_paths(sources: &Sources, root: &str) -> Vec<SecondPath> {
    let tree = Tree::new(sources, root);
    let mut found = Vec::new();
    for (at, module) in tree.modules.iter().enumerate() {
        for import in module.scope.imports.iter().filter(|import| import.visibility == Visibility::Public) {
            if is_of_another_crate(module, import) || is_second(&tree, at, import) {
                let file = tree.files[module.file].clone();
                found.push(SecondPath { file, line: import.line, path: import.path.join("::") });
            }
        }
    }
    found
}

/// Whether `import` names an item of another crate of ours: users have its path there.
fn is_of_another_crate(module: &Module, import: &Import) -> bool {
    import.path.first().is_some_and(|name| is_ours(name) && !module.children.contains_key(name))
}

/// Whether a user of the module `at` reaches the item of `import` by public modules alone.
fn is_second(tree: &Tree, at: usize, import: &Import) -> bool {
    let path = import.path.strip_prefix(&["self".to_owned()]).unwrap_or(&import.path);
    let (modules, item) = match path.split_last() {
        Some((item, modules)) if !import.is_glob => (modules, Some(item)),
        _ => (path, None),
    };
    let mut at = at;
    for (depth, name) in modules.iter().enumerate() {
        let Module { children, scope, .. } = &tree.modules[at];
        let is_public = scope.modules.iter().any(|module| module.is_public && module.name == *name);
        let Some(&child) = children.get(name).filter(|_| is_public) else { return false };
        at = child;
        let scope = &tree.modules[at].scope;
        let is_last = depth + 1 == modules.len();
        let is_re_exported = scope
            .imports
            .iter()
            .any(|other| other.visibility == Visibility::Public && item.is_some() && other.binding.as_ref() == item);
        if is_re_exported || is_last && item.is_none_or(|item| scope.items.contains(item)) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::{Sources, second_paths};

    fn found(files: &[(&str, &str)]) -> Vec<(String, usize)> {
        let sources: Sources = files.iter().map(|(name, text)| (format!("src/{name}"), (*text).to_owned())).collect();
        second_paths(&sources, "src/lib.rs").into_iter().map(|second| (second.file, second.line)).collect()
    }

    #[test]
    fn an_item_of_a_private_module_is_re_exported() {
        let a = ("a.rs", "pub struct A; mod b;");
        let b = ("a/b.rs", "pub struct B;");
        for root in [
            "mod a; pub use a::A;",
            "pub(crate) mod a; pub use a::A;",
            "pub mod a; pub(crate) use a::A;",
            "pub mod a; pub use a::b::B;",
            "pub mod a; pub use half::f16;",
        ] {
            assert!(found(&[("lib.rs", root), a, b]).is_empty(), "{root}");
        }
    }

    #[test]
    fn an_item_of_another_crate_of_ours_is_not() {
        for root in [
            "mod a;\npub use ternary_core::Bytes;",
            "mod a;\npub use tl_kernels::{Isa as Level};",
            "mod a;\npub use gguf_bitnet::*;",
            "mod a;\npub use moe_runtime;",
        ] {
            assert_eq!(found(&[("lib.rs", root), ("a.rs", "")]), [("src/lib.rs".to_owned(), 2)], "{root}");
        }
        for root in ["mod a; pub(crate) use ternary_core::Bytes;", "mod fixtures; pub use fixtures::A;"] {
            assert!(found(&[("lib.rs", root), ("fixtures.rs", "pub struct A;")]).is_empty(), "{root}");
        }
    }

    #[test]
    fn an_item_of_a_public_module_is_not() {
        let a = ("a.rs", "pub struct A;\npub struct C; pub mod b; mod d; pub use d::D;");
        let files = [a, ("a/b.rs", "pub struct B;"), ("a/d.rs", "pub struct D;")];
        for root in [
            "pub mod a;\npub use a::A;",
            "pub mod a;\npub use self::a::{C as X};",
            "pub mod a;\npub use a::*;",
            "pub mod a;\npub use a::b::B;",
            "pub mod a;\npub use a::D;",
            "pub mod a;\npub use a::d::D;",
        ] {
            assert_eq!(found(&[&[("lib.rs", root)][..], &files].concat()), [("src/lib.rs".to_owned(), 2)], "{root}");
        }
    }
}
