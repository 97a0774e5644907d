//! `quantize --rounds`: a calibration that several machines share ends with the student of one machine, whatever is killed on the way,
//! and parts that do not fit are refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use gguf_bitnet::{Cut, Parts, UnitJob, UnitResult};

use crate::common::{Ended, bitnet, listing, student, teacher, text, variables};
use crate::shards::short_text;

/// Kills of a shard in a round, behind each result that it wrote.
const MOST_KILLS: usize = 4;

/// The layers of the rounds: the dense one, one with a shared expert, and one with routed experts alone.
const LAYERS: [usize; 3] = [0, 1, 2];

/// A calibration with little to search in three layers.
fn calibration<'a>(model: &'a str, prose: &'a str) -> Vec<&'a str> {
    let types = [
        r"blk\.0\.ffn_(gate|up|down)\.weight=TQ2_0",
        r"blk\.1\.ffn_.*_shexp.*=TQ2_0",
        r"blk\.[34]\.ffn_.*_exps.*=Q8_0",
    ];
    let method = ["quantize", "-m", model, "--method", "gptq", "--calibration", prose, "--calibration-tokens", "900"];
    let search = ["--sweeps", "1", "--kicks", "0"];
    let types = types.into_iter().flat_map(|rule| ["--tensor-type", rule]);
    method.into_iter().chain(search).chain(types).collect()
}

fn share<'a>(base: &[&'a str], shard: &'a str, dir: &'a Path) -> Vec<&'a str> {
    base.iter().copied().chain(["--shard", shard, "--rounds", text(dir)]).collect()
}

/// A process that ends with the test that started it, also where the test fails.
struct Running(Child);

impl Running {
    fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A process that has ended cannot be killed, which is no fault.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(args: &[&str]) -> Running {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bitnet"));
    for name in variables() {
        command.env_remove(name);
    }
    Running(command.args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

/// Results in a folder: parts, and lines in the journals of those that are being written.
fn results(dir: &Path) -> usize {
    let names = if dir.exists() { listing(dir) } else { Vec::new() };
    let lines = |name: &String| {
        let journal = fs::read(dir.join(name).join("journal.jsonl")).unwrap_or_default();
        journal.iter().filter(|&&byte| byte == b'\n').count()
    };
    names.iter().map(|name| if name.ends_with(".part") { 100 } else { lines(name) }).sum()
}

/// Runs a share with `kill -9` behind each of its first results, until it ends by itself. Returns the number of kills.
fn killed_and_continued(args: &[&str], dir: &Path) -> usize {
    for kills in 0..=MOST_KILLS {
        let before = results(dir);
        let mut child = spawn(args);
        while (kills == MOST_KILLS || results(dir) <= before) && !child.has_ended() {
            std::thread::yield_now();
        }
        if child.has_ended() {
            return kills;
        }
        child.kill();
    }
    MOST_KILLS
}

fn part(layer: usize, number: usize, of: usize) -> String {
    format!("layer-{layer}.{number}-of-{of}.part")
}

/// The student of one machine, with its report.
fn whole(base: &[&str], dir: &Path) -> (Vec<u8>, serde_json::Value) {
    let out = dir.join("whole.gguf");
    let report = bitnet(base.iter().chain(&["--threads", "1", "--json", "-o", text(&out)])).json();
    (fs::read(&out).unwrap(), report["report"].clone())
}

#[test]
fn the_student_of_shared_rounds_is_the_student_of_one_machine() {
    let dir = tempfile::tempdir().unwrap();
    let (teacher, prose) = (teacher(), short_text(dir.path()));
    let base = calibration(&teacher, &prose);
    let (bytes, report) = whole(&base, dir.path());
    let mut kills = 0;
    for n in [1, 2, 5] {
        // Each machine has a folder of its own, and behind a round the parts are copied.
        let folders: Vec<PathBuf> = (1..=n).map(|number| dir.path().join(format!("{number}-of-{n}"))).collect();
        for layer in LAYERS {
            for (folder, number) in folders.iter().zip(1..) {
                kills += killed_and_continued(&share(&base, &format!("{number}/{n}"), folder), folder);
            }
            for (from, number) in folders.iter().zip(1..) {
                let name = part(layer, number, n);
                for to in folders.iter().filter(|to| *to != from) {
                    fs::copy(from.join(&name), to.join(&name)).unwrap();
                }
            }
        }
        let out = dir.path().join(format!("{n}.gguf"));
        let join = ["--json", "--rounds", text(&folders[n - 1]), "-o", text(&out)];
        assert_eq!(bitnet(base.iter().chain(&join)).json()["report"], report, "{n} shards");
        assert!(fs::read(&out).unwrap() == bytes, "{n} shards");
        let left = listing(&folders[0]).into_iter().filter(|name| name.ends_with(".partial"));
        assert_eq!(left.count(), 0, "{n} shards");
    }
    assert!(kills >= 8, "{kills} processes were killed before their end");
}

#[test]
fn machines_that_wait_in_one_folder_go_through_all_rounds() {
    let dir = tempfile::tempdir().unwrap();
    let (teacher, prose, rounds) = (teacher(), short_text(dir.path()), dir.path().join("rounds"));
    let base = calibration(&teacher, &prose);
    let (bytes, _) = whole(&base, dir.path());
    let wait = |shard| [&share(&base, shard, &rounds)[..], &["--wait"]].concat();
    let mut first = spawn(&wait("1/2"));
    // The other one dies with a result of the second layer.
    let mut second = spawn(&wait("2/2"));
    let finished = rounds.join(part(1, 2, 2));
    while !finished.exists() && !finished.with_added_extension("partial").exists() {
        assert!(!first.has_ended() && !second.has_ended(), "a shard ended before the second layer");
        std::thread::yield_now();
    }
    second.kill();
    assert!(!first.has_ended(), "a shard that waits has ended");
    bitnet(wait("2/2")).done();
    assert!(first.0.wait().unwrap().success());
    let out = dir.path().join("joined.gguf");
    bitnet(base.iter().chain(&["--rounds", text(&rounds), "-o", text(&out)])).done();
    assert!(fs::read(&out).unwrap() == bytes);
    // Everything is there, so nothing is solved again.
    let again = bitnet(share(&base, "1/2", &rounds)).done();
    assert!(again.contains("all layers are solved") && !again.contains("wrote"), "{again}");
}

#[test]
fn parts_of_rounds_that_do_not_fit_are_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let (teacher, prose) = (teacher(), short_text(dir.path()));
    let (rounds, alien) = (dir.path().join("rounds"), dir.path().join("alien"));
    let base = calibration(&teacher, &prose);
    let refused = |ended: Ended, words: &[&str]| {
        let refusal = ended.refusal();
        words.iter().for_each(|word| assert!(refusal.contains(word), "`{word}` is not in: {refusal}"));
    };
    let out = dir.path().join("out.gguf");
    let join = || bitnet(base.iter().chain(&["--rounds", text(&rounds), "-o", text(&out)]));

    // A missing shard: for the machine that has done its share, and for the student.
    let told = bitnet(share(&base, "1/2", &rounds)).done();
    assert!(told.contains("layer-0.1-of-2.part") && told.contains("shard 2/2 is missing"), "{told}");
    refused(bitnet(share(&base, "1/2", &rounds)), &["layer 0", "shard 2/2 is missing", "run what is missing"]);
    refused(join(), &["layer 0", "shard 2/2 is missing", text(&rounds)]);

    // Another cut, other settings.
    refused(bitnet(share(&base, "1/3", &rounds)), &["layer-0.1-of-2.part", "2 parts", "into 3"]);
    let other = [&base[..], &["--seed", "7"]].concat();
    refused(bitnet(share(&other, "2/2", &rounds)), &["rounds.json", "`gptq.seed` is 0, here it is 7"]);

    // Another model: alone in the folder, and beside parts of the right one.
    bitnet(share(&calibration(student(), &prose), "2/2", &alien)).done();
    let of_alien = rounds.join(part(0, 2, 2));
    fs::copy(alien.join(part(0, 2, 2)), &of_alien).unwrap();
    refused(join(), &["layer-0.2-of-2.part", "another job", "blake3"]);
    let own = rounds.join(part(0, 1, 2));
    fs::rename(&own, dir.path().join("kept")).unwrap();
    refused(join(), &["layer-0.2-of-2.part", "another calibration", "blake3"]);
    fs::rename(dir.path().join("kept"), &own).unwrap();
    fs::remove_file(&of_alien).unwrap();

    // Two results of one network that differ, and a part of another cut beside them.
    let parts = Parts::some(std::slice::from_ref(&own)).unwrap();
    let wrong = |shard: &str, name: &str| {
        let cut = Cut { units: parts.units(), shard: Some(shard.parse().unwrap()) };
        let mut job = UnitJob::open(&rounds.join(name), parts.manifest(), cut, false).unwrap();
        while job.next_unit().is_some() {
            job.append(&UnitResult { bytes: b"{}\n".to_vec(), ..UnitResult::default() }).unwrap();
        }
        job.finish().unwrap();
        rounds.join(name)
    };
    let twice = wrong("1/2", "layer-0.from-another-host.part");
    refused(join(), &["from-another-host.part", "holds unit 0 with other bytes", "layer-0.1-of-2.part"]);
    fs::remove_file(twice).unwrap();
    let overlap = wrong("3/3", "layer-0.3-of-3.part");
    refused(join(), &["3-of-3.part", "overlap"]);
    fs::remove_file(overlap).unwrap();
    let nonsense = wrong("2/2", "layer-0.2-of-2.part");
    fs::remove_file(&own).unwrap();
    wrong("1/2", "layer-0.1-of-2.part");
    refused(join(), &["damaged", "network dense"]);
    fs::remove_file(nonsense).unwrap();
    fs::remove_file(&own).unwrap();

    refused(bitnet(["merge", text(&out), text(&alien.join(part(0, 2, 2)))]), &["shard 1/2 is missing"]);
    bitnet(share(&base, "1/1", &alien)).refusal();
    let solved = dir.path().join("solved");
    bitnet(share(&base, "1/1", &solved)).done();
    refused(bitnet(["merge", text(&out), text(&solved.join(part(0, 1, 1)))]), &["--rounds", "--out"]);
    assert!(!out.exists());
    // The job of the student was kept, and goes on with the right parts.
    bitnet(base.iter().chain(&["--rounds", text(&solved), "-o", text(&out)])).done();
    assert!(fs::read(&out).unwrap() == whole(&base, dir.path()).0);
}

#[test]
fn options_that_do_not_go_with_rounds_are_refused() {
    let base = ["quantize", "-m", "x", "--calibration", "x"];
    let refused = |args: &[&str], words: &[&str]| {
        let usage = bitnet(base.iter().chain(args)).usage();
        words.iter().for_each(|word| assert!(usage.contains(word), "`{word}` is not in: {usage}"));
    };
    let gptq = |args: &[&'static str]| [&["--method", "gptq"], args].concat();
    refused(&gptq(&["--shard", "1/2", "--part", "x.part"]), &["--shard", "--rounds in place of --part"]);
    refused(&gptq(&["--shard", "1/2"]), &["--rounds"]);
    refused(&gptq(&["--shard", "1/2", "--part", "x.part", "--rounds", "x"]), &["--part", "--rounds"]);
    refused(&gptq(&["--shard", "1/2", "--rounds", "x", "-o", "x.gguf"]), &["--out", "--shard"]);
    refused(&gptq(&["--rounds", "x", "-o", "x.gguf", "--wait"]), &["--wait", "--out"]);
    refused(&gptq(&["--rounds", "x", "-o", "x.gguf", "--policies", "x.redb"]), &["--policies", "--rounds"]);
    refused(&gptq(&["--rounds", "x", "-o", "x.gguf", "--target-size", "1GB"]), &["--target-size", "--rounds"]);
    refused(&["--target-size", "1GB", "--rounds", "x", "-o", "x.gguf"], &["--rounds needs --method gptq"]);
}
