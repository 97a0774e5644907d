//! Rules about the text of single files: headers, sizes, words that must not be there.

use std::path::Path;

use super::findings::Findings;

/// Lines of code a file should not and must not exceed, tests apart.
const SOFT_LINES: usize = 400;
const HARD_LINES: usize = 800;
/// Lines a function should not exceed.
const FUNCTION_LINES: usize = 80;

/// Words that no Rust file may hold. Split, so that this table is not a finding itself.
const FORBIDDEN: [(&str, &str, &str); 5] = [
    ("todo", "!(", "write the code or leave it out"),
    ("unimpl", "emented!(", "write the code or return an error"),
    ("db", "g!(", "remove it"),
    ("#[ign", "ore", "a test runs always; heavy ones are `cargo xtask prove`"),
    (".un", "wrap_unchecked(", "return an error"),
];

/// Folders that exist on one machine only. Split for the same reason.
const MACHINE_PATHS: [(&str, &str); 5] =
    [("/ho", "me/"), ("/ro", "ot/"), ("/wo", "rk/"), ("/tm", "p/"), ("/Us", "ers/")];

/// Where `unsafe` may be allowed, with a reason.
const UNSAFE_FILES: [&str; 6] = [
    "crates/tl-kernels/src/arch",
    "crates/tl-kernels/src/pool",
    "crates/gguf-bitnet/src/store/map",
    // This test has an allocator that counts.
    "crates/moe-runtime/tests/allocation",
    "crates/moe-runtime/examples/wasm",
    "crates/rlm-embed/examples",
];

/// Calls that read a whole file, or open one: `store/read.rs` has them with a limit, for regular files only.
const READS: [&str; 4] = ["fs::read(", "read_to_string(", "read_to_end(", "File::open("];

/// Where these calls stand: the reader itself, the flush of a directory, and the facts of the machine under `/proc` and
/// `/sys`, which a crate below the reader needs.
const READERS: [&str; 3] = [
    "crates/gguf-bitnet/src/store/read.rs",
    "crates/gguf-bitnet/src/store/disk.rs",
    "crates/tl-kernels/src/machine/caps.rs",
];

/// The text of a source file; `None` for data.
pub(super) fn read_text(path: &Path) -> Option<String> {
    let known = ["rs", "toml", "md", "py", "yml", "yaml", "sh", "txt", "json"];
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    let is_data =
        path.components().any(|c| ["goldens", "texts", "suites", "craftsman-mini"].iter().any(|d| c.as_os_str() == *d));
    let is_script = path.components().any(|c| c.as_os_str() == ".ci");
    if is_data || !(is_script || known.contains(&extension)) {
        return None;
    }
    std::fs::read_to_string(path).ok()
}

/// Checks one file; `name` is its path from the root with forward slashes.
pub(super) fn check(name: &str, text: &str, findings: &mut Findings) {
    for (a, b) in MACHINE_PATHS {
        let path = format!("{a}{b}");
        if let Some(line) = text.lines().position(|l| l.contains(&path)) {
            findings.problem(format!("{name}:{}: names a folder of one machine ({path})", line + 1));
        }
    }
    if !name.ends_with(".rs") {
        return;
    }
    if !text.starts_with("//!") {
        findings.problem(format!("{name}: must open with `//!`: what it is, its invariant, its source"));
    }
    for (a, b, remedy) in FORBIDDEN {
        let word = format!("{a}{b}");
        if let Some(line) = text.lines().position(|l| l.contains(&word)) {
            findings.problem(format!("{name}:{}: `{word}`: {remedy}", line + 1));
        }
    }
    let is_test = name.contains("/tests/") || name.ends_with("/tests.rs");
    if !is_test {
        sizes(name, text, findings);
    }
    if name.starts_with("crates/") && !is_test && !name.starts_with("crates/bitnet-cli/") {
        layers(name, text, findings);
    }
    if name.starts_with("crates/") && name.contains("/src/") && !is_test && !READERS.contains(&name) {
        reads(name, text, findings);
    }
}

/// Checks that files are read through the one function that takes regular files up to a limit.
fn reads(name: &str, text: &str, findings: &mut Findings) {
    let lines = before_tests(text).lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
    for (at, line) in lines {
        // `GgufFile::open(` is another function.
        let calls = |call: &str| line.match_indices(call).any(|(at, _)| !line[..at].ends_with(char::is_alphanumeric));
        if let Some(call) = READS.iter().find(|call| calls(call)) {
            let remedy = "use `gguf_bitnet::{read_text, open_regular}`, which refuse pipes and huge files";
            findings.problem(format!("{name}:{}: `{call}`: {remedy}", at + 1));
        }
    }
}

fn sizes(name: &str, text: &str, findings: &mut Findings) {
    let code = code_lines(text);
    if code > HARD_LINES {
        findings.problem(format!("{name}: {code} lines of code, more than {HARD_LINES}: split it"));
    } else if code > SOFT_LINES {
        findings.remark(format!("{name}: {code} lines of code, more than {SOFT_LINES}"));
    }
    for (line, length) in long_functions(text) {
        findings.remark(format!("{name}:{line}: a function of {length} lines, more than {FUNCTION_LINES}"));
    }
}

/// Checks that only `bitnet-cli` reads the environment, and that `unsafe` is allowed only in [`UNSAFE_FILES`].
fn layers(name: &str, text: &str, findings: &mut Findings) {
    let shipped = before_tests(text);
    let find = |word: &str| shipped.lines().position(|l| !l.trim_start().starts_with("//") && l.contains(word));
    if let Some(line) = find("env::var").filter(|_| name != "crates/tl-kernels/src/arch/level.rs") {
        findings.problem(format!("{name}:{}: reads the environment below the command line", line + 1));
    }
    let allows = format!("allow(unsafe{}", "_code");
    if let Some(line) = find(&allows).filter(|_| !UNSAFE_FILES.iter().any(|prefix| name.starts_with(prefix))) {
        findings.problem(format!("{name}:{}: unsafe code belongs in {}", line + 1, UNSAFE_FILES.join(", ")));
    }
}

/// The part before the test module at the end.
fn before_tests(text: &str) -> &str {
    let ends = ["\n#[cfg(test)]\nmod ", "\nmod tests {"].map(|start| text.find(start));
    ends.into_iter().flatten().min().map_or(text, |end| &text[..end])
}

/// Lines that hold code: no blank lines, no comments, no test module at the end.
fn code_lines(text: &str) -> usize {
    before_tests(text).lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//")).count()
}

/// `(line, length)` of every function longer than [`FUNCTION_LINES`], by the indentation rustfmt gives it.
fn long_functions(text: &str) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = before_tests(text).lines().collect();
    let mut long = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let is_function =
            code.starts_with("fn ") || (code.starts_with("pub") || code.starts_with("unsafe")) && code.contains(" fn ");
        if !is_function || code.ends_with(';') {
            continue;
        }
        let end = format!("{}}}", &line[..line.len() - code.len()]);
        let length = lines[start..].iter().position(|l| *l == end).map_or(1, |n| n + 1);
        if length > FUNCTION_LINES {
            long.push((start + 1, length));
        }
    }
    long
}

#[cfg(test)]
mod tests {
    use super::super::findings::Findings;
    use super::{check, code_lines, long_functions};

    fn problems(name: &str, text: &str) -> Vec<String> {
        let mut findings = Findings::default();
        check(name, text, &mut findings);
        findings.problems
    }

    #[test]
    fn a_clean_file_has_no_problem() {
        assert!(problems("crates/x/src/a.rs", "//! A.\n\nfn a() {}\n").is_empty());
    }

    #[test]
    fn each_rule_finds_its_defect() {
        let with = |body: &str| format!("//! A.\n{body}\n");
        for (name, text) in [
            ("crates/x/src/a.rs", "fn a() {}".to_owned()),
            ("crates/x/src/a.rs", with(&format!("fn a() {{ {}!() }}", "todo"))),
            ("crates/x/src/a.rs", with(&format!("{}[ignore]", "#"))),
            ("crates/x/src/a.rs", with("let a = std::env::var(\"A\");")),
            ("crates/x/src/a.rs", with(&format!("#[allow({}_code, reason = \"\")]", "unsafe"))),
            ("crates/bitnet-cli/src/a.rs", with("let a = std::fs::read_to_string(path)?;")),
            ("crates/x/src/a.rs", with("let a = File::open(path)?.take(9);")),
            ("docs/a.md", format!("see {}/me", "/home")),
            ("crates/x/src/a.rs", with(&"let a = 1;\n".repeat(801))),
        ] {
            assert_eq!(problems(name, &text).len(), 1, "{text}");
        }
    }

    #[test]
    fn the_exceptions_are_where_the_design_says() {
        let allow = format!("//! A.\n#[allow({}_code, reason = \"loads\")]\n", "unsafe");
        assert!(problems("crates/tl-kernels/src/arch/avx2.rs", &allow).is_empty());
        let read = "//! A.\n// fs::read(a)\nlet a = fs::read(b);\n";
        assert!(problems("crates/x/src/a.rs", "//! A.\nlet a = GgufFile::open(b);\n").is_empty());
        assert!(problems("crates/gguf-bitnet/src/store/read.rs", read).is_empty());
        assert!(problems("crates/x/tests/it/a.rs", read).is_empty());
        assert!(
            problems("crates/x/src/a.rs", "//! A.\n// fs::read(a)\n\n#[cfg(test)]\nmod tests {\n    fs::read(a)\n}\n")
                .is_empty()
        );
        assert!(problems("crates/bitnet-cli/src/main.rs", "//! A.\nlet a = std::env::var(\"A\");\n").is_empty());
        assert!(
            problems("crates/tl-kernels/src/arch/level.rs", "//! A.\nlet a = std::env::var(\"TL_ISA\");\n").is_empty()
        );
    }

    #[test]
    fn comments_blanks_and_tests_do_not_count_as_code() {
        assert_eq!(code_lines("//! A.\n\n// b\nfn a() {}\n\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\n"), 1);
    }

    #[test]
    fn long_functions_are_found_by_their_indentation() {
        let text = format!(
            "impl A {{\n    pub fn a() {{\n{}    }}\n\n    fn b() {{}}\n}}\n",
            "        let a = 1;\n".repeat(90)
        );
        assert_eq!(long_functions(&text), [(2, 92)]);
    }
}
