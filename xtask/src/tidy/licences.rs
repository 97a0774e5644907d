//! The licences of all crates that a build of the workspace may contain, from `cargo metadata`. The bindings have lockfiles
//! of their own, which are not read here.
//!
//! Ours are MIT or Apache-2.0, at the user's choice; a dependency must allow a binary under either. **Invariant**: an
//! expression is accepted when a user can comply with it by licences of [`ACCEPTED`] alone.

use serde_json::Value;
use xshell::cmd;

use super::findings::Findings;
use crate::outcome::Outcome;
use crate::repo;
use crate::report::list;

/// Licences (SPDX) that ask for no more than their text and the names of the authors.
const ACCEPTED: [&str; 11] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Zlib",
];

/// Checks the crates that this machine's builds use; other platforms' crates need not be downloaded.
pub(super) fn check(findings: &mut Findings) -> Outcome {
    let sh = repo::shell()?;
    let version = cmd!(sh, "rustc -vV").quiet().read()?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).ok_or("`rustc -vV` names no host")?;
    let text = cmd!(sh, "cargo metadata --locked --format-version 1 --filter-platform {host}").quiet().read()?;
    for package in list(&serde_json::from_str(&text)?, "packages") {
        if let Some(problem) = judge(package) {
            findings.problem(problem);
        }
    }
    Ok(())
}

fn judge(package: &Value) -> Option<String> {
    let name = package["name"].as_str().unwrap_or_default();
    let version = package["version"].as_str().unwrap_or_default();
    match package["license"].as_str() {
        None => Some(format!("{name} {version} names no licence: use another crate")),
        Some(licence) if is_accepted(licence) => None,
        Some(licence) => Some(format!(
            "{name} {version} is under `{licence}`: use another crate, or add the licence to tidy/licences.rs"
        )),
    }
}

/// Whether one of the alternatives of an SPDX expression consists of accepted licences. `/` is the old way to write OR.
fn is_accepted(expression: &str) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = &words[..];
    any(&mut rest) && rest.is_empty()
}

/// `all OR all ...`
fn any(words: &mut &[&str]) -> bool {
    let mut accepted = all(words);
    while let ["OR", rest @ ..] = *words {
        *words = rest;
        accepted |= all(words);
    }
    accepted
}

/// `licence AND licence ...`; AND binds more tightly than OR.
fn all(words: &mut &[&str]) -> bool {
    let mut accepted = licence(words);
    while let ["AND", rest @ ..] = *words {
        *words = rest;
        accepted &= licence(words);
    }
    accepted
}

/// A licence, one with an exception, or an expression in brackets.
fn licence(words: &mut &[&str]) -> bool {
    match *words {
        ["(", rest @ ..] => {
            *words = rest;
            let accepted = any(words);
            let [")", rest @ ..] = *words else { return false };
            *words = rest;
            accepted
        }
        [name, "WITH", exception, rest @ ..] => {
            *words = rest;
            ACCEPTED.contains(&format!("{name} WITH {exception}").as_str())
        }
        [name, rest @ ..] => {
            *words = rest;
            ACCEPTED.contains(name)
        }
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{is_accepted, judge};

    #[test]
    fn an_alternative_of_accepted_licences_suffices() {
        for expression in [
            "MIT",
            "MIT/Apache-2.0",
            "Apache-2.0 / MIT",
            "GPL-3.0 OR MIT",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "GPL-2.0 AND MIT OR Zlib",
            "Apache-2.0 WITH LLVM-exception OR GPL-2.0",
        ] {
            assert!(is_accepted(expression), "{expression}");
        }
    }

    #[test]
    fn a_duty_beyond_them_is_refused() {
        for expression in [
            "",
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "(MIT OR Zlib) AND (GPL-3.0 OR MPL-2.0)",
            "GPL-3.0 WITH Classpath-exception-2.0",
            "MIT Zlib",
            "(MIT",
        ] {
            assert!(!is_accepted(expression), "{expression}");
        }
    }

    #[test]
    fn the_crate_and_its_licence_are_named() {
        assert_eq!(judge(&json!({"name": "a", "version": "1.0.0", "license": "MIT"})), None);
        let problem = judge(&json!({"name": "a", "version": "1.0.0", "license": "GPL-3.0"})).unwrap();
        assert!(problem.starts_with("a 1.0.0 is under `GPL-3.0`"), "{problem}");
        assert!(judge(&json!({"name": "a", "version": "1.0.0"})).unwrap().contains("no licence"));
    }
}
