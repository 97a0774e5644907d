//! The folder of the repository, and the lines that this program prints.

use std::path::Path;

use xshell::Shell;

use crate::outcome::Outcome;

/// The repository's root folder.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the repository")
}

/// A shell that stands in the root.
pub(crate) fn shell() -> Outcome<Shell> {
    let sh = Shell::new()?;
    sh.change_dir(root());
    Ok(sh)
}

/// One line to standard output.
#[allow(clippy::print_stdout, reason = "a command line tool reports to its terminal")]
pub(crate) fn say(line: &str) {
    println!("{line}");
}

/// One line to standard error.
#[allow(clippy::print_stderr, reason = "a command line tool reports to its terminal")]
pub(crate) fn complain(line: &str) {
    eprintln!("{line}");
}

/// A number of bytes with its decimal unit, such as `5.25 GB`.
pub(crate) fn bytes(n: u64) -> String {
    let (unit, scale) = match n {
        0..1_000 => ("B", 1.0),
        1_000..1_000_000 => ("kB", 1e3),
        1_000_000..1_000_000_000 => ("MB", 1e6),
        _ => ("GB", 1e9),
    };
    let digits = if scale == 1.0 { 0 } else { 2 };
    format!("{:.digits$} {unit}", n as f64 / scale)
}

#[cfg(test)]
mod tests {
    use super::{bytes, root};

    #[test]
    fn the_root_holds_the_workspace() {
        assert!(root().join("Cargo.lock").is_file());
    }

    #[test]
    fn sizes_carry_their_unit() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(5_250_000_000), "5.25 GB");
    }
}
