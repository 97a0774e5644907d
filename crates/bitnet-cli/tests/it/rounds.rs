//! `quantize --rounds`: a calibration that several machines share ends with the student of one machine, whatever is killed on the way,
//! and parts that do not fit are refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use gguf_bitnet::{Cut, Parts, UnitJob, UnitResult};
use serde_json::json;

use crate::common::{Ended, bitnet, listing, student, teacher, text, variables};
use crate::shards::short_text;

/// Kills of a shard in a round, behind each result that it wrote.
const MOST_KILLS: usize = 3;

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
    /// Whether it has ended, which it may do with success alone.
    fn has_ended(&mut self) -> bool {
        let status = self.0.try_wait().unwrap();
        assert!(status.is_none_or(|status| status.success()), "a process failed: {status:?}");
        status.is_some()
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

/// Looks again and again until `is_done`, for ten minutes or more, which no step takes: the test ends in any case.
fn wait_until(what: &str, mut is_done: impl FnMut() -> bool) {
    for _ in 0..300_000 {
        if is_done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    panic!("waited too long until {what}");
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

/// Runs a share with `kill -9` behind each of its first results, until the part `part` of its folder is there. Returns the number of
/// kills: at least one where parts of other shards are missing, because `--wait` keeps the process from ending by itself.
fn killed_and_continued(args: &[&str], part: &Path) -> usize {
    let (waiting, folder) = ([args, &["--wait"]].concat(), part.parent().unwrap());
    let mut kills = 0;
    while kills < MOST_KILLS && !part.exists() {
        let before = results(folder);
        let mut child = spawn(&waiting);
        wait_until("there is a result", || results(folder) > before || child.has_ended());
        kills += usize::from(!child.has_ended());
        child.kill();
    }
    let leftover = part.with_added_extension("partial");
    if !part.exists() || leftover.exists() {
        // It ends with 1 where it had nothing to write.
        bitnet(args);
    }
    assert!(part.exists() && !leftover.exists(), "{}", part.display());
    kills
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
    for n in [1, 2, 5] {
        // Each machine has a folder of its own, and behind a round the parts are copied.
        let folders: Vec<PathBuf> = (1..=n).map(|number| dir.path().join(format!("{number}-of-{n}"))).collect();
        for layer in LAYERS {
            for (folder, number) in folders.iter().zip(1..) {
                let part = folder.join(part(layer, number, n));
                let killed = killed_and_continued(&share(&base, &format!("{number}/{n}"), folder), &part);
                assert!(n == 1 || killed > 0, "no process was killed before {}", part.display());
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
}

#[test]
fn machines_that_wait_in_one_folder_go_through_all_rounds() {
    let dir = tempfile::tempdir().unwrap();
    let (teacher, prose, rounds) = (teacher(), short_text(dir.path()), dir.path().join("rounds"));
    let base = calibration(&teacher, &prose);
    let (bytes, _) = whole(&base, dir.path());
    let wait = |shard| [&share(&base, shard, &rounds)[..], &["--wait"]].concat();
    // Machine 2 dies with a result of the second layer, for which it waits for machine 1.
    bitnet(share(&base, "1/2", &rounds)).done();
    let mut killed = spawn(&wait("2/2"));
    wait_until("the second layer has a part", || {
        assert!(!killed.has_ended(), "a shard that waits has ended");
        rounds.join(part(1, 2, 2)).exists()
    });
    killed.kill();
    let mut both = [spawn(&wait("2/2")), spawn(&wait("1/2"))];
    wait_until("both machines are done", || both.each_mut().map(Running::has_ended) == [true, true]);
    let out = dir.path().join("joined.gguf");
    bitnet(base.iter().chain(&["--rounds", text(&rounds), "-o", text(&out)])).done();
    assert!(fs::read(&out).unwrap() == bytes);
    // Everything is there, so nothing is solved again.
    let again = bitnet(share(&base, "1/2", &rounds)).done();
    assert!(again.contains("all layers are solved") && !again.contains("wrote"), "{again}");
}

/// Writes a whole part to `to` that differs from that at `from` in its first unit.
fn changed_part(from: &Path, to: &Path, change: &dyn Fn(&mut Vec<u8>)) {
    let parts = Parts::some(&[from.to_owned()]).unwrap();
    let number = (1..=parts.shards()).find(|number| parts.path_of_shard(*number).is_some()).unwrap();
    let shard = format!("{number}/{}", parts.shards()).parse().unwrap();
    let cut = Cut { units: parts.units(), shard: Some(shard) };
    let mut job = UnitJob::open(to, parts.manifest(), cut, false).unwrap();
    while let Some(unit) = job.next_unit() {
        let mut bytes = parts.read(unit).unwrap();
        if job.progress().0 == 0 {
            change(&mut bytes);
        }
        job.append(&UnitResult { bytes, ..UnitResult::default() }).unwrap();
    }
    job.finish().unwrap();
}

fn copy_parts(layer: usize, n: usize, from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for name in (1..=n).map(|number| part(layer, number, n)) {
        fs::copy(from.join(&name), to.join(&name)).unwrap();
    }
}

#[test]
fn the_cut_may_change_between_layers_and_a_job_may_change_its_way() {
    let dir = tempfile::tempdir().unwrap();
    let (teacher, prose) = (teacher(), short_text(dir.path()));
    let base = calibration(&teacher, &prose);
    let (bytes, _) = whole(&base, dir.path());
    let [halves, rounds] = ["halves", "rounds"].map(|name| dir.path().join(name));
    bitnet(share(&base, "1/2", &halves)).done();
    bitnet(share(&base, "2/2", &halves)).done();
    copy_parts(0, 2, &halves, &rounds);
    let join = |out: &Path| bitnet(base.iter().chain(&["--rounds", text(&rounds), "-o", text(out)]));

    // A job that began with the parts of the first layer goes on without parts.
    let out = dir.path().join("without.gguf");
    let refusal = join(&out).refusal();
    assert!(refusal.contains("layer 1: all parts are missing"), "{refusal}");
    let journal = out.with_added_extension("partial").join("journal.jsonl");
    assert!(fs::read_to_string(journal).unwrap().contains("drift"), "the first layer is in the job");
    bitnet(base.iter().chain(&["-o", text(&out)])).done();
    assert!(fs::read(&out).unwrap() == bytes);

    // Two shards of the first layer, one of the others.
    bitnet(share(&base, "1/1", &rounds)).done();
    assert!(listing(&rounds).contains(&part(0, 2, 2)) && listing(&rounds).contains(&part(2, 1, 1)));
    // A job that began without parts goes on with them. If it ends before it is killed, its output is right as well.
    let out = dir.path().join("with.gguf");
    let journal = out.with_added_extension("partial").join("journal.jsonl");
    let mut alone = spawn(&[&base[..], &["-o", text(&out)]].concat());
    wait_until("the job has begun", || {
        fs::read_to_string(&journal).is_ok_and(|lines| lines.contains("drift")) || alone.has_ended()
    });
    alone.kill();
    if !out.exists() {
        join(&out).done();
    }
    assert!(fs::read(&out).unwrap() == bytes);
}

#[test]
fn a_wrong_sum_in_an_earlier_layer_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (teacher, prose) = (teacher(), short_text(dir.path()));
    let base = calibration(&teacher, &prose);
    let [right, wrong] = ["right", "wrong"].map(|name| dir.path().join(name));
    bitnet(share(&base, "1/2", &right)).done();
    bitnet(share(&base, "2/2", &right)).done();
    // The other machine reads one scale of the first layer with another lowest bit.
    fs::create_dir(&wrong).unwrap();
    fs::copy(right.join(part(0, 2, 2)), wrong.join(part(0, 2, 2))).unwrap();
    changed_part(&right.join(part(0, 1, 2)), &wrong.join(part(0, 1, 2)), &|unit| {
        let at = unit.len() - 2;
        unit[at] ^= 1;
    });
    bitnet(share(&base, "1/2", &wrong)).done();
    fs::copy(wrong.join(part(1, 1, 2)), right.join(part(1, 1, 2))).unwrap();
    let out = dir.path().join("out.gguf");
    let refusal = bitnet(base.iter().chain(&["--rounds", text(&right), "-o", text(&out)])).refusal();
    for word in ["layer-1.2-of-2.part", "round.streams_blake3"] {
        assert!(refusal.contains(word), "`{word}` is not in: {refusal}");
    }
    assert!(!out.exists());
}

#[test]
fn a_model_of_equal_shape_does_not_take_over_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    let (prose, rounds, tuned) = (short_text(dir.path()), dir.path().join("rounds"), dir.path().join("tuned"));
    bitnet(share(&calibration(&teacher(), &prose), "1/2", &rounds)).done();
    fs::create_dir(&tuned).unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        fs::copy(Path::new(&teacher()).join(name), tuned.join(name)).unwrap();
    }
    let weights = tuned.join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    // The lowest bit of the mantissa of the last weight in the file.
    let at = bytes.len() - 2;
    bytes[at] ^= 1;
    fs::write(&weights, bytes).unwrap();
    let refusal = bitnet(share(&calibration(text(&tuned), &prose), "1/2", &rounds)).refusal();
    assert!(refusal.contains("rounds.json") && refusal.contains("`model_sample_blake3`"), "{refusal}");
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

    // The own part was copied in beside a job of the same name that had begun.
    let own = rounds.join(part(0, 1, 2));
    let (elsewhere, leftover) = (dir.path().join("elsewhere"), own.with_added_extension("partial"));
    let mut begun = UnitJob::open(&elsewhere, &json!("begun"), Cut { units: 2, shard: None }, false).unwrap();
    begun.append(&UnitResult::default()).unwrap();
    drop(begun);
    fs::rename(elsewhere.with_added_extension("partial"), &leftover).unwrap();
    refused(bitnet(share(&base, "1/2", &rounds)), &["layer 0", "shard 2/2 is missing"]);
    assert!(own.exists() && !leftover.exists());

    // Another cut, other settings.
    refused(bitnet(share(&base, "1/3", &rounds)), &["layer-0.1-of-2.part", "2 parts", "into 3"]);
    let other = [&base[..], &["--seed", "7"]].concat();
    refused(bitnet(share(&other, "2/2", &rounds)), &["rounds.json", "`gptq.seed` is 0, here it is 7"]);

    // Another model: alone in the folder, and beside parts of the right one.
    bitnet(share(&calibration(student(), &prose), "2/2", &alien)).done();
    let of_alien = rounds.join(part(0, 2, 2));
    fs::copy(alien.join(part(0, 2, 2)), &of_alien).unwrap();
    refused(join(), &["layer-0.2-of-2.part", "another job", "blake3"]);
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
    refused(join(), &["layer-0.1-of-2.part", "damaged", "network dense"]);
    fs::remove_file(nonsense).unwrap();
    fs::remove_file(&own).unwrap();

    refused(bitnet(["merge", text(&out), text(&alien.join(part(0, 2, 2)))]), &["shard 1/2 is missing"]);
    bitnet(share(&base, "1/1", &alien)).refusal();
    let solved = dir.path().join("solved");
    bitnet(share(&base, "1/1", &solved)).done();
    refused(bitnet(["merge", text(&out), text(&solved.join(part(0, 1, 1)))]), &["--rounds", "--out"]);
    // Whole parts whose numbers are none, or whose codes stand for no trit.
    let partial = out.with_added_extension("partial");
    for (name, last_bytes) in [("codes", &[0xff, 0x00, 0x3c]), ("scale", &[0x00, 0x00, 0x7e])] {
        let bad = dir.path().join(name);
        fs::create_dir(&bad).unwrap();
        changed_part(&solved.join(part(0, 1, 1)), &bad.join(part(0, 1, 1)), &|unit| {
            let at = unit.len() - last_bytes.len();
            unit[at..].copy_from_slice(last_bytes);
        });
        let joined = bitnet(base.iter().chain(&["--rounds", text(&bad), "-o", text(&out)]));
        refused(joined, &[text(&bad.join(part(0, 1, 1))), "damaged (network dense)"]);
        assert!(partial.exists() && !out.exists());
    }
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
    let searched = ["--target-size", "1GB", "--shard", "1/2", "--part", "x.part"];
    refused(&searched, &["--shard", "search of types", "leave out --shard, or --target-size"]);
    refused(&gptq(&searched), &["leave out --shard, or --target-size"]);
    let usage = bitnet(base.iter().chain(&searched)).usage();
    assert!(!usage.contains("--rounds"), "{usage}");
    refused(&gptq(&["--shard", "1/2", "--part", "x.part", "--rounds", "x"]), &["--part", "--rounds"]);
    refused(&gptq(&["--shard", "1/2", "--rounds", "x", "-o", "x.gguf"]), &["--out", "--shard"]);
    refused(&gptq(&["--rounds", "x", "-o", "x.gguf", "--wait"]), &["--wait", "--out"]);
    refused(&gptq(&["--rounds", "x", "-o", "x.gguf", "--policies", "x.redb"]), &["--policies", "--rounds"]);
    refused(&gptq(&["--rounds", "x", "-o", "x.gguf", "--target-size", "1GB"]), &["--target-size", "--rounds"]);
    refused(&["--target-size", "1GB", "--rounds", "x", "-o", "x.gguf"], &["--rounds needs --method gptq"]);
}
