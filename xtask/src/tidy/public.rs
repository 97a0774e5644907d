//! The public items of every library, in a file of the repository, so that a change of them is seen in a review.

use super::graph::{Sources, Tree};
use super::outline::Visibility;

/// The file, from the root of the repository.
pub(super) const FILE: &str = "docs/public-items.txt";

/// The paths under which users reach the items of the crate `name`, sorted; methods and fields are not among them.
pub(super) fn items(name: &str, sources: &Sources) -> Vec<String> {
    const ROOT: &str = "src/lib.rs";
    if !sources.contains_key(ROOT) {
        return Vec::new();
    }
    let tree = Tree::new(sources, ROOT);
    let mut found = Vec::new();
    let mut open = vec![(0, name.replace('-', "_"))];
    while let Some((at, path)) = open.pop() {
        let module = &tree.modules[at];
        let imports = module.scope.imports.iter().filter(|import| import.visibility == Visibility::Public);
        for import in imports.filter(|import| !import.is_local) {
            let item = if import.is_glob { Some("*") } else { import.binding.as_deref() };
            found.extend(item.map(|item| format!("{path}::{item}")));
        }
        found.extend(module.scope.public_items.iter().map(|item| format!("{path}::{item}")));
        for declaration in module.scope.modules.iter().filter(|module| module.is_public) {
            if let Some(&child) = module.children.get(&declaration.name) {
                open.push((child, format!("{path}::{}", declaration.name)));
            }
        }
    }
    let macros = tree.modules.iter().flat_map(|module| &module.scope.exported_macros);
    found.extend(macros.map(|item| format!("{}::{item}!", name.replace('-', "_"))));
    found.sort();
    found.dedup();
    found
}

/// Sentences about items that only one of `listed` and `found` has.
pub(super) fn differences(listed: &str, found: &[String]) -> Vec<String> {
    let listed: Vec<&str> = listed.lines().filter(|line| !line.starts_with('#')).collect();
    let added =
        found.iter().filter(|item| !listed.contains(&item.as_str())).map(|item| format!("{item} is not listed"));
    let removed = listed.iter().filter(|item| !found.iter().any(|f| f == *item)).map(|item| format!("{item} is gone"));
    added
        .chain(removed)
        .map(|what| format!("{FILE}: {what}: `cargo xtask tidy --list-public` writes the list"))
        .collect()
}

/// The text of the file.
pub(super) fn listing(found: &[String]) -> String {
    let mut text =
        String::from("# The public items of the library crates, written by `cargo xtask tidy --list-public`.\n");
    for item in found {
        text += item;
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Sources, differences, items, listing};

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let sources: Sources = files.iter().map(|(name, text)| (format!("src/{name}"), (*text).to_owned())).collect();
        items("my-crate", &sources)
    }

    #[test]
    fn items_are_listed_under_the_paths_that_users_write() {
        let root = "mod a; pub mod b; pub use a::{A, inner as outer}; pub(crate) use a::C; fn private() {}\n\
                    pub const fn f() {} pub unsafe fn g() {} pub(crate) struct Hidden; #[cfg(test)] pub struct T;";
        let a = ("a.rs", "pub struct A; pub fn inner() {} pub struct Unreachable;");
        let b = ("b.rs", "pub struct B; impl B { pub fn method(&self) {} } pub mod c; mod d;");
        let expected = ["A", "b::B", "b::c::C", "f", "g", "outer"].map(|item| format!("my_crate::{item}")).to_vec();
        let files = [("lib.rs", root), a, b, ("b/c.rs", "pub enum C {}"), ("b/d.rs", "pub enum D {}")];
        assert_eq!(found(&files), expected);
        assert!(found(&[("main.rs", "pub struct A;")]).is_empty());
    }

    #[test]
    fn a_changed_item_is_named() {
        let items = ["c::A".to_owned(), "c::B".to_owned()];
        assert!(differences(&listing(&items), &items).is_empty());
        let changed = differences("# head\nc::A\nc::Old\n", &items);
        assert_eq!(changed.len(), 2);
        assert!(changed[0].contains("c::B is not listed") && changed[1].contains("c::Old is gone"), "{changed:?}");
    }
}
