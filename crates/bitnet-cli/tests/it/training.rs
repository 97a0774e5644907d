//! `refine` and `distill` state the memory that they will hold, and hold it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::common::{Ended, bitnet, student, teacher, text};

/// The part of a stated bound that is not computed from shapes.
const PROGRAM_BYTES: u64 = 130 << 20;

/// A teacher, its student and a short text.
struct Pair {
    teacher: String,
    student: String,
    text: PathBuf,
    dir: tempfile::TempDir,
}

impl Pair {
    fn new(teacher: String, student: String, dir: tempfile::TempDir) -> Self {
        let text = dir.path().join("prose.txt");
        let prose = fs::read_to_string(fixtures::path("texts/calibration.txt")).unwrap();
        fs::write(&text, prose.chars().take(30_000).collect::<String>()).unwrap();
        Self { teacher, student, text, dir }
    }

    /// A random teacher with wider experts than those of the fixtures, and its student.
    fn wide() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let [shape, checkpoint, student] = ["shape.json", "wide", "wide.gguf"].map(|name| dir.path().join(name));
        let mini = fs::read_to_string(fixtures::path("craftsman-mini/config.json")).unwrap();
        let mut config: Value = serde_json::from_str(&mini).unwrap();
        config["hidden_size"] = 1024.into();
        config["moe_intermediate_size"] = 512.into();
        fs::write(&shape, config.to_string()).unwrap();
        let synth = ["synth", "--shape", text(&shape), "--layers", "3", "--format", "safetensors-bf16"];
        bitnet([&synth[..], &["--out", text(&checkpoint)]].concat()).done();
        for name in ["tokenizer.json", "tokenizer_config.json"] {
            fs::copy(fixtures::path("craftsman-mini").join(name), checkpoint.join(name)).unwrap();
        }
        bitnet(["quantize", "-m", text(&checkpoint), "-o", text(&student)]).done();
        Self::new(text(&checkpoint).to_owned(), text(&student).to_owned(), dir)
    }

    fn run(&self, verb: &str, out: &Path, more: &[&str]) -> Ended {
        let models = [verb, "-m", &self.student, "--teacher", &self.teacher, "--calibration", text(&self.text)];
        let few = ["-o", text(out), "--steps", "2", "--windows", "4", "--threads", "2"];
        bitnet([&models[..], &few, more].concat())
    }
}

#[test]
fn runs_hold_the_memory_that_they_state_and_a_limit_changes_no_byte() {
    let mini = Pair::new(teacher(), student().to_owned(), tempfile::tempdir().unwrap());
    for pair in [mini, Pair::wide()] {
        let sidecar = &["--train", "sidecar", "--rank", "64"][..];
        for (i, (verb, groups)) in [("refine", &[][..]), ("distill", &[]), ("refine", sidecar)].into_iter().enumerate()
        {
            let [free, limited] = ["free.gguf", "limited.gguf"].map(|name| pair.dir.path().join(format!("{i}-{name}")));
            let ended = pair.run(verb, &free, &[groups, &["--json"]].concat());
            assert!(ended.stderr.contains("memory: at most "), "{}", ended.stderr);
            let report = ended.json();
            let bytes = |report: &Value, key: &str| report[key].as_u64().unwrap();
            let (bound, peak) = (bytes(&report, "memory_bound_bytes"), bytes(&report, "peak_rss_bytes"));
            assert!(peak <= bound, "{verb}: {peak} of {bound}");
            assert!(bound - PROGRAM_BYTES <= 2 * peak, "{verb}: {bound} is far above {peak}");

            // Pages that are given back make room for a limit below that; one below the program alone is refused.
            let limit = (bound - 1).to_string();
            let limits = ["--json", "--max-memory", &limit];
            let report = pair.run(verb, &limited, &[groups, &limits].concat()).json();
            let memory = &report["report"]["memory"];
            let within = bytes(&report, "memory_bound_bytes");
            assert!(within < bound && memory["keeps_pages"] == false, "{memory}");
            assert!(bytes(&report, "peak_rss_bytes") <= within, "{report}");
            assert!(fs::read(&free).unwrap() == fs::read(&limited).unwrap(), "{verb}");
            let limit = (PROGRAM_BYTES / 2).to_string();
            let limits = [groups, &["--max-memory", &limit]].concat();
            let refused = pair.run(verb, &pair.dir.path().join("none.gguf"), &limits).refusal();
            for part in [&limit, "--windows-at-a-time", "--train", "--max-memory"] {
                assert!(refused.contains(part), "{refused}");
            }
        }
    }
}
