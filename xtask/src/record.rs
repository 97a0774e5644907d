//! Appends figures to `benches/record/<arch>/<date>.csv` with the machine and the commit they were measured on.

use std::io::Write;
use std::path::PathBuf;

use xshell::cmd;

use crate::outcome::Outcome;
use crate::repo;

const HEADER: &str = "proof,figure,value,target,verdict,cpu,cores,flags,commit,utc";

/// One measured figure and its verdict.
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) value: String,
    pub(crate) target: String,
    pub(crate) pass: bool,
}

/// The record of one run. The columns on the machine and the commit are read once, at its start.
pub(crate) struct Record {
    path: PathBuf,
    proof: String,
    machine: [String; 5],
}

impl Record {
    /// Opens the record of today for the rows of `proof`.
    pub(crate) fn open(proof: &str) -> Outcome<Record> {
        let sh = repo::shell()?;
        let utc = cmd!(sh, "date -u +%Y-%m-%dT%H:%M:%SZ").quiet().read()?;
        let dirty = !cmd!(sh, "git status --porcelain --untracked-files=no").quiet().read()?.is_empty();
        let commit = cmd!(sh, "git rev-parse --short=10 HEAD").quiet().read()? + if dirty { "+changes" } else { "" };
        let cores = std::thread::available_parallelism().map_or(0, usize::from).to_string();
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = field(&cpuinfo, "model name").unwrap_or("unknown").to_owned();
        let dir = repo::root().join("benches/record").join(std::env::consts::ARCH);
        std::fs::create_dir_all(&dir)?;
        let path = dir.join(format!("{}.csv", utc.get(..10).unwrap_or("undated")));
        Ok(Record { path, proof: proof.to_owned(), machine: [cpu, cores, isa_flags(&cpuinfo), commit, utc] })
    }

    /// Adds the row of a figure at once, so that an interrupted run keeps the rows before.
    pub(crate) fn append(&self, figure: &Figure) -> Outcome {
        let Figure { name, value, target, pass } = figure;
        let header = if self.path.exists() { String::new() } else { format!("{HEADER}\n") };
        let verdict = if *pass { "PASS" } else { "MISS" };
        let cells =
            [&self.proof, name, value, target, verdict].into_iter().chain(self.machine.iter().map(String::as_str));
        let row = cells.map(quote).collect::<Vec<_>>().join(",");
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&self.path)?;
        Ok(file.write_all(format!("{header}{row}\n").as_bytes())?)
    }

    /// Says where the rows are.
    pub(crate) fn say(&self) -> Outcome {
        repo::say(&format!("recorded in {}", self.path.strip_prefix(repo::root())?.display()));
        Ok(())
    }
}

/// A CSV cell: quoted when it holds a comma, a quote or a line break.
fn quote(cell: &str) -> String {
    if cell.contains([',', '"', '\n']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.to_owned() }
}

fn field<'a>(cpuinfo: &'a str, key: &str) -> Option<&'a str> {
    cpuinfo.lines().find(|line| line.starts_with(key))?.split_once(':').map(|(_, value)| value.trim())
}

/// The instruction sets that decide which kernel runs.
fn isa_flags(cpuinfo: &str) -> String {
    const KNOWN: [&str; 9] =
        ["avx2", "fma", "f16c", "avx512bw", "avx512vl", "avx512_vnni", "avx_vnni", "avx512vbmi", "asimddp"];
    let all = field(cpuinfo, "flags").or_else(|| field(cpuinfo, "Features")).unwrap_or_default();
    let found: Vec<&str> = all.split_whitespace().filter(|flag| KNOWN.contains(flag)).collect();
    found.join(" ")
}

#[cfg(test)]
mod tests {
    use super::{field, isa_flags, quote};

    #[test]
    fn cells_are_quoted_when_they_must_be() {
        assert_eq!(quote("1.5 GB"), "1.5 GB");
        assert_eq!(quote("a,\"b\""), "\"a,\"\"b\"\"\"");
    }

    #[test]
    fn the_machine_is_read_from_cpuinfo() {
        let text = "processor\t: 0\nmodel name\t: Some CPU @ 2GHz\nflags\t\t: fpu avx2 xyz avx512bw\n";
        assert_eq!(field(text, "model name"), Some("Some CPU @ 2GHz"));
        assert_eq!(isa_flags(text), "avx2 avx512bw");
    }
}
