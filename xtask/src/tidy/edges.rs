//! The dependencies that each crate may have. Arrows point down only; the picture is in `docs/architecture.md`.

use serde_json::Value;
use xshell::cmd;

use super::findings::Findings;
use crate::outcome::Outcome;
use crate::repo;
use crate::report::list;

/// The crates that programs use: the command line, the bindings, the benches.
const LIBRARIES: &[&str] = &[
    "rlm-refine",
    "behavior-eval",
    "rlm-embed",
    "moe-runtime",
    "mla-attention",
    "gguf-bitnet",
    "tl-kernels",
    "ternary-core",
];

/// The manifests of packages outside of the workspace.
const LEAVES: [&str; 2] = ["bindings/python/Cargo.toml", "bindings/node/Cargo.toml"];

/// Crates of ours, each with the crates of ours that it may use in shipped code.
const ALLOWED: [(&str, &[&str]); 14] = [
    ("ternary-core", &[]),
    ("tl-kernels", &["ternary-core"]),
    ("gguf-bitnet", &["ternary-core"]),
    ("mla-attention", &["tl-kernels", "ternary-core"]),
    ("moe-runtime", &["mla-attention", "gguf-bitnet", "tl-kernels", "ternary-core"]),
    ("behavior-eval", &["gguf-bitnet"]),
    ("rlm-refine", &["moe-runtime", "mla-attention", "gguf-bitnet", "tl-kernels", "ternary-core", "behavior-eval"]),
    ("rlm-embed", &["moe-runtime", "gguf-bitnet", "tl-kernels", "ternary-core", "behavior-eval"]),
    ("bitnet-cli", LIBRARIES),
    ("craftsman-python", LIBRARIES),
    ("craftsman-node", LIBRARIES),
    ("fixtures", &[]),
    ("xtask", &[]),
    ("benches", LIBRARIES),
];

/// Crates of ours that may use only these external crates.
const ONLY: [(&str, &[&str]); 3] = [
    ("ternary-core", &["half", "bytemuck", "thiserror"]),
    ("xtask", &["clap", "xshell", "serde_json", "safetensors"]),
    ("fixtures", &[]),
];

/// External crates that only `bitnet-cli` may ship.
const CLI_ONLY: [&str; 4] = ["tokio", "axum", "anyhow", "clap"];

/// Features that break a crate of ours on purpose, with the crate: tests alone may ask for them.
const TEST_FEATURES: [(&str, &str); 1] = [("tl-kernels", "broken-kernel")];

/// Whether code calls a crate of ours `name`, such as `ternary_core`.
pub(super) fn is_ours(name: &str) -> bool {
    ALLOWED.iter().any(|(ours, _)| ours.replace('-', "_") == name)
}

/// Checks every dependency that `cargo metadata` reports.
pub(super) fn check(findings: &mut Findings) -> Outcome {
    let sh = repo::shell()?;
    let leaves = LEAVES.into_iter().filter(|leaf| repo::root().join(leaf).is_file());
    for manifest in std::iter::once("Cargo.toml").chain(leaves) {
        let metadata = cmd!(sh, "cargo metadata --no-deps --offline --format-version 1 --manifest-path {manifest}");
        let metadata: Value = serde_json::from_str(&metadata.quiet().read()?)?;
        edges(&metadata).iter().filter_map(judge).for_each(|problem| findings.problem(problem));
        broken(&metadata).into_iter().for_each(|problem| findings.problem(problem));
    }
    Ok(())
}

#[derive(Debug)]
struct Edge {
    from: String,
    to: String,
    ours: bool,
    test_only: bool,
}

fn edges(metadata: &Value) -> Vec<Edge> {
    let text = |json: &Value, key: &str| json[key].as_str().unwrap_or_default().to_owned();
    let mut edges = Vec::new();
    for package in list(metadata, "packages") {
        for dependency in list(package, "dependencies") {
            edges.push(Edge {
                from: text(package, "name"),
                to: text(dependency, "name"),
                ours: dependency["path"].is_string(),
                test_only: text(dependency, "kind") == "dev",
            });
        }
    }
    edges
}

/// Sentences about shipped code that asks for a feature of tests, by a dependency or by a feature of its own.
fn broken(metadata: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    for package in list(metadata, "packages") {
        let name = package["name"].as_str().unwrap_or_default();
        let dependencies = list(package, "dependencies");
        for (of, feature) in TEST_FEATURES {
            let asks = |dependency: &Value| {
                let features = list(dependency, "features");
                dependency["name"] == of && dependency["kind"] != "dev" && features.iter().any(|f| f == feature)
            };
            let own = package["features"].as_object().into_iter().flat_map(|own| own.values());
            let mut wanted = own.filter_map(Value::as_array).flatten().filter_map(Value::as_str);
            if wanted.any(|wanted| wanted.ends_with(feature)) || dependencies.iter().any(asks) {
                problems.push(format!("{name} asks for the feature {feature} of {of} outside its tests"));
            }
        }
    }
    problems
}

/// The sentence about a forbidden edge; `None` for an allowed one.
fn judge(edge: &Edge) -> Option<String> {
    let Edge { from, to, ours, test_only } = edge;
    let Some((_, may)) = ALLOWED.iter().find(|(name, _)| name == from) else {
        return Some(format!("the crate {from} is not in the table of allowed edges (xtask/src/tidy/edges.rs)"));
    };
    let allowed = match (ours, test_only) {
        // Benches ship to nobody, and measure the fixtures.
        (true, false) => may.contains(&to.as_str()) || (from == "benches" && to == "fixtures"),
        (true, true) => to == "fixtures" || may.contains(&to.as_str()),
        (false, true) => true,
        (false, false) => {
            let listed = ONLY.iter().find(|(name, _)| name == from).is_none_or(|(_, only)| only.contains(&to.as_str()));
            listed && (!CLI_ONLY.contains(&to.as_str()) || ["bitnet-cli", "xtask"].contains(&from.as_str()))
        }
    };
    let kind = if *test_only { "test" } else { "shipped code" };
    (!allowed).then(|| format!("{from} must not depend on {to} in {kind} (docs/architecture.md)"))
}

#[cfg(test)]
mod tests {
    use super::{Edge, broken, edges, judge};

    fn edge(from: &str, to: &str, ours: bool, test_only: bool) -> Edge {
        Edge { from: from.to_owned(), to: to.to_owned(), ours, test_only }
    }

    #[test]
    fn arrows_point_down_only() {
        assert!(judge(&edge("moe-runtime", "tl-kernels", true, false)).is_none());
        assert!(judge(&edge("tl-kernels", "moe-runtime", true, false)).is_some());
        assert!(judge(&edge("gguf-bitnet", "tl-kernels", true, false)).is_some());
        assert!(judge(&edge("behavior-eval", "rlm-refine", true, false)).is_some());
        assert!(judge(&edge("rlm-refine", "behavior-eval", true, false)).is_none());
        assert!(judge(&edge("new-crate", "half", false, false)).is_some());
        assert!(judge(&edge("craftsman-python", "rlm-embed", true, false)).is_none());
        assert!(judge(&edge("craftsman-python", "bitnet-cli", true, false)).is_some());
    }

    #[test]
    fn tests_may_use_fixtures_but_shipped_code_may_not() {
        assert!(judge(&edge("moe-runtime", "fixtures", true, true)).is_none());
        assert!(judge(&edge("moe-runtime", "fixtures", true, false)).is_some());
        assert!(judge(&edge("bitnet-cli", "fixtures", true, false)).is_some());
        assert!(judge(&edge("benches", "fixtures", true, false)).is_none());
        assert!(judge(&edge("tl-kernels", "bitnet-cli", true, true)).is_some());
    }

    #[test]
    fn the_lowest_crates_stay_lean() {
        assert!(judge(&edge("ternary-core", "half", false, false)).is_none());
        assert!(judge(&edge("ternary-core", "rayon", false, false)).is_some());
        assert!(judge(&edge("ternary-core", "proptest", false, true)).is_none());
        assert!(judge(&edge("moe-runtime", "anyhow", false, false)).is_some());
        assert!(judge(&edge("bitnet-cli", "anyhow", false, false)).is_none());
    }

    #[test]
    fn reads_cargo_metadata() {
        let json = r#"{"packages":[{"name":"a","dependencies":[{"name":"b","kind":null,"path":"/x"},{"name":"c","kind":"dev"}]}]}"#;
        let found = edges(&serde_json::from_str(json).expect("valid"));
        assert_eq!(found.len(), 2);
        assert!(found[0].ours && !found[0].test_only && !found[1].ours && found[1].test_only);
    }

    #[test]
    fn only_tests_may_ask_for_a_broken_kernel() {
        let problems = |kind: &str, own: &str| {
            let dependency = format!(r#"{{"name":"tl-kernels","kind":{kind},"features":["broken-kernel"]}}"#);
            let package = format!(r#"{{"name":"a","dependencies":[{dependency}],"features":{{{own}}}}}"#);
            broken(&serde_json::from_str(&format!(r#"{{"packages":[{package}]}}"#)).expect("valid")).len()
        };
        assert_eq!(problems(r#""dev""#, ""), 0);
        assert_eq!(problems("null", ""), 1);
        assert_eq!(problems(r#""build""#, ""), 1);
        assert_eq!(problems(r#""dev""#, r#""default":["tl-kernels/broken-kernel"]"#), 1);
        assert_eq!(problems(r#""dev""#, r#""default":["tl-kernels/other"]"#), 0);
    }
}
