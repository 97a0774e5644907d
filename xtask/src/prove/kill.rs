//! `prove kill`: quantising survives `kill -9` at random moments.
//!
//! The run is killed five times, resumed each time, and must end with exactly the bytes of an undisturbed run. At each
//! kill the data beyond the last journalled unit have to be redone: at most one work unit of 64 MiB of rows.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::clock;
use super::proof::Proof;
use crate::bitnet::{self, arg};
use crate::outcome::Outcome;
use crate::repo;
use crate::report::number;

const KILLS: u32 = 5;
const UNIT_BYTES: u64 = 64 << 20;

pub(super) fn prove(proof: &mut Proof<'_>, binary: &Path) -> Outcome {
    proof.need_disk(2_000_000_000)?;
    let model = proof.work.join("checkpoint");
    bitnet::output(
        binary,
        &["synth", "--shape", "glm-4.7-flash", "--layers", "1", "--format", "safetensors-bf16", "--out", arg(&model)?],
    )?;
    let whole = proof.work.join("whole.gguf");
    let ended = clock::run(binary, &arguments(&model, &whole)?, None)?;
    if !ended.status.success() {
        return Err(format!("`bitnet quantize` ended with {}", ended.status).into());
    }
    survive(proof, binary, &model, &whole, ended.wall)
}

/// The command line of the run under test.
pub(super) fn arguments<'a>(model: &'a Path, out: &'a Path) -> Outcome<[&'a str; 9]> {
    Ok(["quantize", "--model", arg(model)?, "--out", arg(out)?, "--preset", "balanced", "--method", "ls"])
}

/// Kills and resumes, then compares with `whole`, which took `wall` undisturbed.
pub(super) fn survive(proof: &mut Proof<'_>, binary: &Path, model: &Path, whole: &Path, wall: Duration) -> Outcome {
    let out = proof.work.join("killed.gguf");
    let args = arguments(model, &out)?;
    let mut random = seed();
    let (mut kills, mut worst) = (0, 0);
    while kills < KILLS {
        // Between 4 % and 20 % of the whole each, so that five of them end before the work does.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let share = 0.04 + 0.16 * (random >> 40) as f64 / (1_u64 << 24) as f64;
        let ended = clock::run(binary, &args, Some(wall.mul_f64(share)))?;
        if !ended.killed {
            break;
        }
        kills += 1;
        worst = worst.max(to_redo(&out)?);
    }
    proof.figure("kills before the end", kills.to_string(), KILLS.to_string(), kills == KILLS);
    proof.figure(
        "bytes to redo after a kill, worst",
        repo::bytes(worst),
        "one unit of 64 MiB of rows",
        worst <= UNIT_BYTES,
    );
    if !out.is_file() {
        let ended = clock::run(binary, &args, None)?;
        if !ended.status.success() {
            return Err(format!("the resumed `bitnet quantize` ended with {}", ended.status).into());
        }
    }
    let same = same_bytes(whole, &out)?;
    proof.figure(
        "the resumed file equals the undisturbed one",
        if same { "every byte" } else { "differs" },
        "equal",
        same,
    );
    let rest = partial(&out).exists();
    proof.figure("nothing is left behind", if rest { "OUT.partial remains" } else { "clean" }, "no OUT.partial", !rest);
    Ok(())
}

/// The job folder of an output file.
pub(super) fn partial(out: &Path) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

/// Data written beyond the last complete line of the journal.
fn to_redo(out: &Path) -> Outcome<u64> {
    let dir = partial(out);
    let data = std::fs::metadata(dir.join("data")).map_or(0, |m| m.len());
    let journal = std::fs::read_to_string(dir.join("journal.jsonl")).unwrap_or_default();
    Ok(data.saturating_sub(journalled(&journal)))
}

/// Where the last complete unit of a journal ends; a torn last line does not count.
fn journalled(journal: &str) -> u64 {
    let whole = journal.rfind('\n').map_or("", |end| &journal[..end]);
    let mut ends = whole.lines().filter_map(|line| number(&serde_json::from_str(line).ok()?, "record.unit.end").ok());
    ends.next_back().map_or(0, |end| end as u64)
}

pub(super) fn same_bytes(a: &Path, b: &Path) -> Outcome<bool> {
    if std::fs::metadata(a)?.len() != std::fs::metadata(b)?.len() {
        return Ok(false);
    }
    let (mut a, mut b) = (std::fs::File::open(a)?, std::fs::File::open(b)?);
    let (mut x, mut y) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let n = a.read(&mut x)?;
        b.read_exact(&mut y[..n])?;
        if x[..n] != y[..n] {
            return Ok(false);
        }
        if n == 0 {
            return Ok(true);
        }
    }
}

/// A different start for every run, so that the moments are random.
fn seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(1, |t| t.as_nanos() as u64) ^ u64::from(std::process::id()) << 32
}

#[cfg(test)]
mod tests {
    use super::{journalled, partial};
    use std::path::Path;

    #[test]
    fn a_torn_journal_line_does_not_count() {
        assert_eq!(journalled(""), 0);
        let line = |end: u64| format!("{{\"check\":\"0\",\"record\":{{\"unit\":{{\"end\":{end}}}}}}}");
        assert_eq!(journalled(&format!("{}\n{}\n{}", line(10), line(25), line(40))), 25);
        assert_eq!(journalled(&line(10)), 0);
    }

    #[test]
    fn the_job_folder_is_a_sibling() {
        assert_eq!(partial(Path::new("a/b.gguf")), Path::new("a/b.gguf.partial"));
    }
}
