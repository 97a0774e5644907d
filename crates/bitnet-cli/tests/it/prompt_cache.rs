//! `run --prompt-cache`: a second run computes only what is new, whatever ended the first one; another model is a miss.

use std::io::Read;
use std::path::Path;
use std::process::Stdio;

use crate::common::{Ended, bitnet, command, listing, student, teacher, text};

/// The tokens of a block.
const BLOCK: usize = 64;

/// A prompt of several blocks.
fn prompt() -> String {
    "Who moved the table by the door, and how long is it? ".repeat(12)
}

/// The answer, and how many tokens of the prompt were computed.
fn answer(ended: Ended) -> (String, usize) {
    let line = ended.stderr.lines().find_map(|line| line.strip_prefix("prompt ")).expect("the line of the statistics");
    let tokens = line.split(' ').next().and_then(|n| n.parse().ok()).expect("a number of tokens");
    (ended.done(), tokens)
}

fn run(model: &str, dir: &Path, more: &[&str]) -> (String, usize) {
    let prompt = prompt();
    let args = ["run", model, "-p", &prompt, "--temp", "0", "-n", "8", "--prompt-cache", text(dir)];
    answer(bitnet(args.iter().chain(more)))
}

/// The tokens behind the last full block that is no answer's first token.
fn rest(all: usize) -> usize {
    all - (all - 1) / BLOCK * BLOCK
}

#[test]
fn a_second_run_computes_what_is_new_and_another_model_or_cache_everything() {
    let dir = tempfile::tempdir().unwrap();
    let (cache, model) = (dir.path().join("prompts"), dir.path().join("model.gguf"));
    std::fs::copy(student(), &model).unwrap();
    let model = text(&model);
    let (plain, all) = answer(bitnet(["run", model, "-p", &prompt(), "--temp", "0", "-n", "8"]));
    assert!(all > 2 * BLOCK, "{all}");
    let others: [&[&str]; 4] = [&[], &["--kv", "i8"], &["--act", "f32"], &["--ffn-act", "relu2"]];
    for more in others {
        let first = run(model, &cache, more);
        assert_eq!(first.1, all, "{more:?} is found by itself only");
        assert_eq!(run(model, &cache, more), (first.0, rest(all)), "{more:?}");
    }
    assert_eq!(run(model, &cache, &[]).0, plain);
    assert_eq!(run(&teacher(), &cache, &[]).1, all, "another model");
    // The same bytes in a new file: nothing but reading it could tell that they are the same.
    std::fs::remove_file(model).unwrap();
    std::fs::copy(student(), model).unwrap();
    assert_eq!(run(model, &cache, &[]).1, all, "a file that was written anew");
    // A flipped byte in each block: misses, and the answer is the same.
    for folder in listing(&cache) {
        for name in listing(&cache.join(&folder)) {
            let path = cache.join(&folder).join(name);
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[500] ^= 1;
            std::fs::write(&path, bytes).unwrap();
        }
    }
    assert_eq!(run(model, &cache, &[]), (plain, all));
}

#[test]
fn a_run_that_is_killed_leaves_its_prompt() {
    let dir = tempfile::tempdir().unwrap();
    let (cache, prompt) = (dir.path().join("prompts"), prompt());
    // An answer that goes on until the context is full.
    let endless = ["-n", "100000", "--temp", "5", "--top-p", "1", "--prompt-cache", text(&cache)];
    let mut child = std::process::Command::new(command().get_program())
        .args(["run", student(), "-p", &prompt])
        .args(endless)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // The prompt is kept behind the first token; some text later it is on the disk.
    let mut some = [0; 200];
    child.stdout.take().unwrap().read_exact(&mut some).unwrap();
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success(), "it was killed before its end");
    let (killed, computed) = run(student(), &cache, &[]);
    let (plain, all) = answer(bitnet(["run", student(), "-p", &prompt, "--temp", "0", "-n", "8"]));
    assert_eq!((killed, computed), (plain, rest(all)));
}
