//! The example of the README is the doctest of the crate.

fn root() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn the_readme_shows_the_example_that_is_tested() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("the README");
    let (_, rest) = readme.split_once("```rust\n").expect("an example");
    let (shown, _) = rest.split_once("```\n").expect("its end");

    let source = std::fs::read_to_string(root().join("crates/moe-runtime/src/lib.rs")).expect("the crate root");
    let docs =
        source.lines().map_while(|line| line.strip_prefix("//!")).map(|line| line.strip_prefix(' ').unwrap_or(line));
    let tested = docs.skip_while(|&line| line != "```").skip(1).take_while(|&line| line != "```");
    let tested: Vec<&str> = tested.filter(|line| !line.starts_with("# ")).collect();
    assert_eq!(shown.lines().collect::<Vec<_>>(), tested);
}
