//! `prove streaming`: a teacher that is larger than the memory it may take is recorded with the same bytes.
//!
//! A full-width checkpoint of 4 layers answers a few prompts twice: with the whole model in memory, and layer by layer in a control
//! group with less than a third of its size, page cache included. Where no control group can be made, resident memory alone is
//! measured, and the figures say so. The student is small: the verb loads it when the teacher has been recorded.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

use super::child::Scoped;
use super::clock::{disk_reads, high_water};
use super::kill::same_bytes;
use super::memory_limit::MemoryLimit;
use super::proof::Proof;
use crate::bitnet::{self, arg};
use crate::outcome::Outcome;
use crate::repo;

/// The checkpoint has 5.25 GB, the student 1.06 GB; the rest is for two recordings.
const DISK_BYTES: u64 = 7_000_000_000;
/// More than the limit takes in one group.
const PROMPTS: usize = 9;
/// The limit in percent of the checkpoint: a layer is 24 % of it, and 256 MiB are planned for the program.
const LIMIT_PERCENT: u64 = 31;
const ANSWER_TOKENS: &str = "3";
/// Page cache is given up late, so a page may be read again before its layer is done; more than this would be thrashing.
const MOST_READS: f64 = 1.5;
const POLL: Duration = Duration::from_millis(10);

pub(super) fn prove(proof: &mut Proof<'_>, binary: &Path) -> Outcome {
    proof.need_disk(DISK_BYTES)?;
    let teacher = checkpoint(proof, binary)?;
    let bytes = weight_files(&teacher)?.iter().map(|path| Ok(path.metadata()?.len())).sum::<Outcome<u64>>()?;
    let student = proof.work.join("student.gguf");
    let mini = repo::root().join("fixtures/craftsman-mini");
    let shape = ["synth", "--shape", "glm-4.7-flash", "--layers", "4", "--preset", "8g", "--tokenizer", arg(&mini)?];
    bitnet::output(binary, &[&shape[..], &["--out", arg(&student)?]].concat())?;
    few_prompts(&proof.work)?;

    let base = ["eval-gates", "--teacher", arg(&teacher)?, "--student", arg(&student)?, "--min-prompts", "1"];
    let files = ["--suite", "../few.jsonl", "--corpus", "../few.corpus.jsonl", "--max-new-tokens", ANSWER_TOKENS];
    let places = ["--artifacts", "artifacts", "--report", "report"];
    let args = [&base[..], &files, &places].concat();
    let mut whole = Command::new(binary);
    run(whole.args(&args), &folder(proof, "whole")?)?;

    let limit = bytes / 100 * LIMIT_PERCENT;
    let told = limit.to_string();
    let args = [&args[..], &["--stream-teacher", "--teacher-memory", &told]].concat();
    weight_files(&teacher)?.iter().try_for_each(|path| forget(path))?;
    let group = MemoryLimit::create(limit);
    let mut capped = match &group {
        Some(group) => inside(group, binary),
        None => Command::new(binary),
    };
    let run = run(capped.args(&args), &folder(proof, "streamed")?)?;
    let name = match &group {
        Some(_) => "under a limit that counts page cache",
        None => "without a control group, so page cache is not counted",
    };
    judge(proof, &run, bytes, limit, name, group.as_ref().and_then(MemoryLimit::peak_bytes))
}

/// States what the streamed recording took, and compares it with the one in memory.
fn judge(proof: &mut Proof<'_>, run: &Run, bytes: u64, limit: u64, name: &str, peak: Option<u64>) -> Outcome {
    let (same, recorded) =
        same_recordings(&proof.work.join("whole/artifacts"), &proof.work.join("streamed/artifacts"))?;
    let figure = if same { "every byte" } else { "differs" };
    let figure = format!("{figure} of {}", repo::bytes(recorded));
    proof.figure("the streamed recording is the one made in memory", figure, "equal", same);
    let resident = run.peak_bytes.ok_or("this system has no /proc to read the memory of a process from")?;
    let figure = match peak {
        Some(peak) => format!("{} resident, {} with page cache", repo::bytes(resident), repo::bytes(peak)),
        None => format!("{} resident", repo::bytes(resident)),
    };
    let within = resident <= limit && peak.is_none_or(|peak| peak <= limit);
    let target = format!("at most {}, of a checkpoint of {}", repo::bytes(limit), repo::bytes(bytes));
    proof.figure(format!("most memory {name}"), figure, target, within);
    // Pages that another process has in the cache would cost this one nothing.
    let first = run.groups.first().map_or(0, |group| group.read_bytes);
    let figure = format!("{} from disk", repo::bytes(first));
    proof.figure("reading for the identity and the first group", figure, "at least the checkpoint", first >= bytes);
    let several = run.groups.len() > 1;
    proof.figure("groups of prompts", run.groups.len().to_string(), "more than one", several);
    // Before its first group the run reads the checkpoint once, to identify it.
    let mut before = bytes;
    for (number, group) in run.groups.iter().enumerate() {
        let read = group.read_bytes.saturating_sub(before);
        before = group.read_bytes;
        let passes = group.passes as f64 * bytes as f64;
        let first = if number == 0 { ", less one reading for the identity" } else { "" };
        let figure = format!("{} from disk{first}; the verb says: {}", repo::bytes(read), group.line);
        let target = format!("at most {MOST_READS} times the checkpoint per pass");
        proof.figure(
            format!("bytes read for group {}", number + 1),
            figure,
            target,
            read as f64 <= MOST_READS * passes,
        );
    }
    Ok(())
}

/// The full-width checkpoint, with the words of the mini teacher.
fn checkpoint(proof: &Proof<'_>, binary: &Path) -> Outcome<PathBuf> {
    let (teacher, mini) = (proof.work.join("teacher"), repo::root().join("fixtures/craftsman-mini"));
    let shape = ["synth", "--shape", "glm-4.7-flash", "--layers", "4", "--format", "safetensors-bf16"];
    bitnet::output(binary, &[&shape[..], &["--out", arg(&teacher)?]].concat())?;
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(mini.join(name), teacher.join(name))?;
    }
    let read = |folder: &Path| -> Outcome<Value> {
        Ok(serde_json::from_str(&std::fs::read_to_string(folder.join("config.json"))?)?)
    };
    let (mut config, words) = (read(&teacher)?, read(&mini)?);
    for key in ["eos_token_id", "pad_token_id"] {
        config[key] = words[key].clone();
    }
    std::fs::write(teacher.join("config.json"), config.to_string())?;
    Ok(teacher)
}

/// The first prompts of the small suite and their chunks, in files of their own.
fn few_prompts(folder: &Path) -> Outcome {
    let suites = repo::root().join("fixtures/suites");
    let prompts = std::fs::read_to_string(suites.join("suite-200.jsonl"))?;
    let corpus = std::fs::read_to_string(suites.join("suite-200.corpus.jsonl"))?;
    let (prompts, corpus) = first_prompts(&prompts, &corpus, PROMPTS)?;
    std::fs::write(folder.join("few.jsonl"), prompts)?;
    Ok(std::fs::write(folder.join("few.corpus.jsonl"), corpus)?)
}

/// The first `n` lines of a suite, and the lines of its corpus that belong to them.
fn first_prompts(prompts: &str, corpus: &str, n: usize) -> Outcome<(String, String)> {
    let id = |line: &str| -> Outcome<String> {
        let value: Value = serde_json::from_str(line)?;
        Ok(value["prompt_id"].as_str().ok_or("a line without prompt_id")?.to_owned())
    };
    let chosen: Vec<&str> = prompts.lines().take(n).collect();
    let ids = chosen.iter().map(|line| id(line)).collect::<Outcome<Vec<String>>>()?;
    let mut chunks = Vec::new();
    for line in corpus.lines() {
        if ids.contains(&id(line)?) {
            chunks.push(line);
        }
    }
    Ok((chosen.join("\n"), chunks.join("\n")))
}

/// A run of the verb.
struct Run {
    groups: Vec<Group>,
    /// VmHWM, mapped pages included.
    peak_bytes: Option<u64>,
}

/// A group of prompts, as the verb announces its end.
struct Group {
    line: String,
    passes: u64,
    /// Bytes that the process had read from the disk by then.
    read_bytes: u64,
}

/// Runs the verb in `folder`, and reads its memory and its disk reads on the way.
fn run(command: &mut Command, folder: &Path) -> Outcome<Run> {
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = Scoped(command.spawn()?);
    let stderr = child.0.stderr.take().ok_or("the child has no standard error")?;
    let (tell, told) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        BufReader::new(stderr).lines().map_while(Result::ok).try_for_each(|line| tell.send(line))
    });
    let (mut groups, mut peak_bytes, mut read_bytes) = (Vec::new(), None, 0);
    let mut last = String::new();
    let status = loop {
        let ended = child.0.try_wait()?;
        (peak_bytes, read_bytes) = sample(&child.0, (peak_bytes, read_bytes));
        if ended.is_some() && !reader.is_finished() {
            std::thread::sleep(POLL);
            continue;
        }
        for line in told.try_iter() {
            match passes(&line) {
                Some(passes) => groups.push(Group { line, passes, read_bytes }),
                None => last = line,
            }
        }
        match ended {
            Some(status) => break status,
            None => std::thread::sleep(POLL),
        }
    };
    // A synthetic student fails its gates.
    match status.code() {
        Some(0 | 3) => Ok(Run { groups, peak_bytes }),
        _ => Err(format!("`bitnet eval-gates` ended with {status}: {last}").into()),
    }
}

/// The high-water mark and the disk reads of a process; those before where it has ended.
fn sample(child: &Child, before: (Option<u64>, u64)) -> (Option<u64>, u64) {
    (high_water(child).or(before.0), disk_reads(child).unwrap_or(before.1))
}

/// The passes in a line such as `group of 3 prompts: 4 passes over the layers, 21.0 GB of weights`.
fn passes(line: &str) -> Option<u64> {
    line.strip_prefix("group of ")?.split_once(": ")?.1.split_once(' ')?.0.parse().ok()
}

/// The program in a control group: the shell enters it and becomes the program.
fn inside(group: &MemoryLimit, binary: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(group.members()).arg(binary);
    command
}

/// Takes a file out of the page cache, so that the process that reads it next is charged for its pages.
fn forget(path: &Path) -> Outcome {
    let input = format!("if={}", path.display());
    let done = Command::new("dd").args([&input, "iflag=nocache", "count=0"]).stderr(Stdio::null()).status()?;
    if done.success() { Ok(()) } else { Err(format!("dd cannot drop the cache of {}: {done}", path.display()).into()) }
}

fn folder(proof: &Proof<'_>, name: &str) -> Outcome<PathBuf> {
    let folder = proof.work.join(name);
    std::fs::create_dir(&folder)?;
    Ok(folder)
}

/// The files of a folder with this ending.
fn with_ending(folder: &Path, ending: &str) -> Outcome<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == ending) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn weight_files(checkpoint: &Path) -> Outcome<Vec<PathBuf>> {
    with_ending(checkpoint, "safetensors")
}

/// Whether two folders hold the same recordings under the same keys, and the bytes of the first.
fn same_recordings(a: &Path, b: &Path) -> Outcome<(bool, u64)> {
    let keys = |folder: &Path| -> Outcome<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let file = entry?.path().join("artifact.bin");
            if file.is_file() {
                found.push(file.strip_prefix(folder)?.to_owned());
            }
        }
        found.sort();
        Ok(found)
    };
    let (mut bytes, found) = (0, keys(a)?);
    let mut same = !found.is_empty() && found == keys(b)?;
    for file in &found {
        bytes += a.join(file).metadata()?.len();
        same = same && same_bytes(&a.join(file), &b.join(file))?;
    }
    Ok((same, bytes))
}

#[cfg(test)]
mod tests {
    use super::{first_prompts, passes, same_recordings};

    #[test]
    fn the_passes_of_a_group_are_in_its_line() {
        assert_eq!(passes("group of 3 prompts: 4 passes over the layers, 21.0 GB of weights"), Some(4));
        assert_eq!(passes("error: group of 3 prompts: 4 passes"), None);
        assert_eq!(passes("group of 3 prompts"), None);
    }

    #[test]
    fn a_prompt_keeps_its_own_chunks() {
        let line = |id: u32| format!("{{\"prompt_id\":\"{id}\"}}");
        let (prompts, corpus) = ([1, 2, 3].map(line).join("\n"), [1, 1, 3, 2].map(line).join("\n"));
        let (prompts, corpus) = first_prompts(&prompts, &corpus, 2).unwrap();
        assert_eq!((prompts, corpus), ([1, 2].map(line).join("\n"), [1, 1, 2].map(line).join("\n")));
        assert!(first_prompts("{}", "", 1).is_err());
    }

    #[test]
    fn recordings_are_compared_by_key_and_byte() {
        let root = std::env::temp_dir().join(format!("prove-streaming-{}", std::process::id()));
        let file = |folder: &str, key: &str, bytes: &[u8]| {
            let folder = root.join(folder).join(key);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("artifact.bin"), bytes).unwrap();
        };
        file("a", "k", b"one");
        file("b", "k", b"one");
        file("c", "k", b"two");
        file("d", "other", b"one");
        std::fs::create_dir_all(root.join("empty")).unwrap();
        let same = |a: &str, b: &str| same_recordings(&root.join(a), &root.join(b)).unwrap();
        assert_eq!([same("a", "b"), same("a", "c"), same("a", "d")], [(true, 3), (false, 3), (false, 3)]);
        assert_eq!(same("empty", "empty"), (false, 0));
        std::fs::remove_dir_all(&root).unwrap();
    }
}
