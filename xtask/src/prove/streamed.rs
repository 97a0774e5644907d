//! `prove streamed`: a teacher is recorded with memory for a third of it, and the recording has the bytes of one in memory.
//!
//! The teacher has the widths of GLM-4.7-Flash in 4 layers, with 16 experts in place of 64 and the vocabulary of the mini
//! teacher, so that it takes 1.28 GB. A control group of Linux bounds the memory, mapped pages included; without the right to
//! make one the proof is skipped by name.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use xshell::cmd;

use super::clock::{self, Ended};
use super::proof::{Judged, Proof};
use crate::bitnet::{self, arg};
use crate::outcome::Outcome;
use crate::repo;

const LAYERS: u32 = 4;
const PROMPTS: [(&str, usize); 3] = [("resolved", 2), ("contested", 1), ("indeterminate", 2)];
/// Where control groups are, and their files for the bound and for the peak: of version 2, then of version 1.
const GROUPS: [[&str; 3]; 2] = [
    ["/sys/fs/cgroup", "memory.max", "memory.peak"],
    ["/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.max_usage_in_bytes"],
];

pub(super) fn prove(proof: &mut Proof<'_>, binary: impl FnOnce() -> Outcome<PathBuf>) -> Outcome<Judged> {
    proof.need_disk(4_000_000_000)?;
    if Group::create(1 << 30).is_none() {
        repo::say("SKIP streamed: this user cannot make a control group with a bound on memory");
        return Ok(Judged::Skipped);
    }
    let binary = binary()?;
    let (teacher, student) = (proof.work.join("teacher"), proof.work.join("student.gguf"));
    let bytes = models(proof, &binary, &teacher, &student)?;
    let [suite, corpus] = few_prompts(proof)?;
    let run = |name: &str, more: &[&str], group: Option<&Group>| -> Outcome<(Ended, Vec<u8>)> {
        let artifacts = proof.work.join(name);
        let report = proof.work.join(format!("{name}-report"));
        let fixed = ["--min-prompts", "1", "--threads", "1", "--max-new-tokens", "2"];
        let files = [("--teacher", &teacher), ("--student", &student), ("--suite", &suite), ("--corpus", &corpus)];
        let places = [("--artifacts", &artifacts), ("--report", &report)];
        let mut args = vec!["eval-gates"];
        for (option, path) in files.into_iter().chain(places) {
            args.extend([option, arg(path)?]);
        }
        args.extend(fixed.iter().chain(more));
        let ended = match group {
            None => clock::run(&binary, &args, None)?,
            Some(group) => group.run(&binary, &args)?,
        };
        Ok((ended, recording(&artifacts)?))
    };
    let allowed = bytes / 3;
    evict(&teacher)?;
    let group = Group::create(allowed).ok_or("the control group cannot be made again")?;
    let (streamed, recorded) = run("streamed", &["--stream-teacher"], Some(&group))?;
    let peak = group.peak_bytes();
    drop(group);
    let (whole, in_memory) = run("whole", &[], None)?;
    proof.figure("streamed: the teacher", repo::bytes(bytes), "larger than the memory", bytes > allowed);
    let judged = |ended: &Ended| matches!(ended.status.code(), Some(0 | 1));
    let figure = format!("{} of {}", repo::bytes(peak), repo::bytes(allowed));
    proof.figure(
        "streamed: memory of the control group",
        figure,
        "a third of the teacher",
        judged(&streamed) && peak <= allowed,
    );
    let equal = recorded == in_memory && !recorded.is_empty();
    let figure = format!("{}, {}", repo::bytes(recorded.len() as u64), if equal { "equal" } else { "different" });
    proof.figure("streamed: recording beside one in memory", figure, "equal bytes", equal && judged(&whole));
    let read = streamed.read_bytes.map_or_else(|| "unknown".to_owned(), repo::bytes);
    let figure = format!(
        "{read} from the disk, {:.0} s; in memory {:.0} s",
        streamed.wall.as_secs_f64(),
        whole.wall.as_secs_f64()
    );
    proof.figure("streamed: one group of 5 prompts, 2 tokens each", figure, "reported", streamed.read_bytes.is_some());
    Ok(Judged::Measured)
}

/// Writes the teacher and a student of it; the bytes of the teacher's weights.
fn models(proof: &Proof<'_>, binary: &Path, teacher: &Path, student: &Path) -> Outcome<u64> {
    let fixture = repo::root().join("fixtures/craftsman-mini");
    let shape = proof.work.join("shape.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(fixture.join("config.json"))?)?;
    let widths = json!({
        "hidden_size": 2048, "intermediate_size": 10240, "moe_intermediate_size": 1536, "num_attention_heads": 20,
        "num_key_value_heads": 20, "q_lora_rank": 768, "kv_lora_rank": 512, "qk_nope_head_dim": 192,
        "qk_rope_head_dim": 64, "qk_head_dim": 256, "v_head_dim": 256, "n_routed_experts": 16, "num_experts_per_tok": 4,
        "num_hidden_layers": LAYERS, "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
    });
    for (key, value) in widths.as_object().into_iter().flatten() {
        config[key] = value.clone();
    }
    std::fs::write(&shape, config.to_string())?;
    let synth = ["synth", "--shape", arg(&shape)?, "--format", "safetensors-bf16", "--out", arg(teacher)?];
    bitnet::output(binary, &synth)?;
    for name in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
        std::fs::copy(fixture.join(name), teacher.join(name))?;
    }
    bitnet::output(binary, &["quantize", "-m", arg(teacher)?, "--out", arg(student)?])?;
    let mut bytes = 0;
    for entry in std::fs::read_dir(teacher)? {
        let entry = entry?;
        bytes += if entry.path().extension().is_some_and(|e| e == "safetensors") { entry.metadata()?.len() } else { 0 };
    }
    Ok(bytes)
}

/// Drops a folder's files from the cache of the system: pages that are there would not count in the control group.
fn evict(folder: &Path) -> Outcome {
    let sh = xshell::Shell::new()?;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        cmd!(sh, "sync {path}").quiet().run()?;
        let input = format!("if={}", path.display());
        cmd!(sh, "dd {input} iflag=nocache count=0 status=none").quiet().run()?;
    }
    Ok(())
}

/// A few prompts of the small suite and their texts, in files of their own.
fn few_prompts(proof: &Proof<'_>) -> Outcome<[PathBuf; 2]> {
    let read = |name: &str| -> Outcome<Vec<Value>> {
        let text = std::fs::read_to_string(repo::root().join("fixtures/suites").join(name))?;
        Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
    };
    let prompts = read("suite-200.jsonl")?;
    let chosen =
        |(label, n): (&'static str, usize)| prompts.iter().filter(move |prompt| prompt["label"] == label).take(n);
    let few: Vec<&Value> = PROMPTS.into_iter().flat_map(chosen).collect();
    let chunks = read("suite-200.corpus.jsonl")?;
    let used: Vec<&Value> =
        chunks.iter().filter(|chunk| few.iter().any(|prompt| prompt["prompt_id"] == chunk["prompt_id"])).collect();
    let paths = ["few.jsonl", "few.corpus.jsonl"].map(|name| proof.work.join(name));
    for (path, lines) in paths.iter().zip([few, used]) {
        let text: Vec<String> = lines.iter().map(ToString::to_string).collect();
        std::fs::write(path, text.join("\n"))?;
    }
    Ok(paths)
}

/// The bytes of all recordings below a folder, by path.
fn recording(folder: &Path) -> Outcome<Vec<u8>> {
    let (mut folders, mut files) = (vec![folder.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let list = if entry.file_type()?.is_dir() { &mut folders } else { &mut files };
            list.push(entry.path());
        }
    }
    files.sort();
    files.iter().map(std::fs::read).collect::<Result<Vec<_>, _>>().map(|files| files.concat()).map_err(Into::into)
}

/// A control group that bounds memory; it is removed when this value is dropped.
struct Group {
    folder: PathBuf,
    peak: &'static str,
}

impl Group {
    /// A group for at most `bytes`; `None` where this user cannot make one.
    fn create(bytes: u64) -> Option<Group> {
        GROUPS.into_iter().find_map(|[root, bound, peak]| {
            let folder = Path::new(root).join(format!("craftsman-{}", std::process::id()));
            std::fs::create_dir(&folder).ok()?;
            let group = Group { folder, peak };
            std::fs::write(group.folder.join(bound), bytes.to_string()).ok()?;
            Some(group)
        })
    }

    /// Runs a program inside.
    fn run(&self, binary: &Path, args: &[&str]) -> Outcome<Ended> {
        let enter = "echo $$ > \"$0/cgroup.procs\" && exec \"$@\"";
        let shell = [&["-c", enter, arg(&self.folder)?, arg(binary)?], args].concat();
        clock::run(Path::new("sh"), &shell, None)
    }

    /// The most memory that the group has held.
    fn peak_bytes(&self) -> u64 {
        let text = std::fs::read_to_string(self.folder.join(self.peak)).unwrap_or_default();
        text.trim().parse().unwrap_or(u64::MAX)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A group with a process in it stays; the next start of the machine removes it.
        drop(std::fs::remove_dir(&self.folder));
    }
}
