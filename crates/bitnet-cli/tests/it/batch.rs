//! `batch`: lines of prompts to lines of answers.

use std::fs;
use std::path::Path;

use moe_runtime::ModelFiles;
use serde_json::{Value, json};

use crate::common::{bitnet, bitnet_reading, listing, student, teacher, text};

/// Conversations of the suite that the teacher was trained for, as lines of a batch.
pub(crate) fn conversations(n: usize, max_tokens: usize) -> String {
    let suite = fs::read_to_string(fixtures::path("suites/suite-200.jsonl")).unwrap();
    let line = |(index, line): (usize, &str)| {
        let prompt: Value = serde_json::from_str(line).unwrap();
        let message = |role: &str| json!({ "role": role, "content": prompt[role] });
        json!({ "id": index, "messages": [message("system"), message("user")], "max_tokens": max_tokens }).to_string()
    };
    suite.lines().take(n).enumerate().map(line).collect::<Vec<_>>().join("\n")
}

fn answers(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn answers_are_those_that_the_model_gives_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (input, out) = (dir.path().join("in.jsonl"), dir.path().join("out.jsonl"));
    let seeded = json!({ "id": "seeded", "prompt": "The capital of", "max_tokens": 12, "temperature": 1, "seed": 7 });
    let greedy = json!({ "prompt": "The capital of", "max_tokens": 9, "temperature": 0 });
    fs::write(&input, format!("{}\n{seeded}\n\n{greedy}\n", conversations(3, 40))).unwrap();
    let model = teacher();
    bitnet(["batch", "-m", &model, "-i", text(&input), "-o", text(&out), "--temp", "0"]).done();
    let answers = answers(&out);
    assert_eq!(answers.len(), 5);
    for (index, line) in conversations(3, 40).lines().enumerate() {
        let line: Value = serde_json::from_str(line).unwrap();
        let [system, user] = [0, 1].map(|i| line["messages"][i]["content"].as_str().unwrap().to_owned());
        let alone = bitnet(["run", &model, "-p", &user, "--system", &system, "--temp", "0", "-n", "40"]).done();
        let answer = &answers[index];
        assert_eq!(answer["message"]["content"].as_str().unwrap().trim_end(), alone.trim_end());
        assert_eq!((&answer["id"], &answer["message"]["role"]), (&json!(index), &json!("assistant")));
        let usage = &answer["usage"];
        let [prompt, answered, total] =
            ["prompt_tokens", "completion_tokens", "total_tokens"].map(|key| usage[key].as_u64().unwrap());
        assert!(prompt > 20 && answered > 0 && total == prompt + answered, "{usage}");
    }
    let alone = |more: &[&str]| bitnet([&["run", &model, "--raw", "-p", "The capital of"], more].concat()).done();
    assert_eq!(
        answers[3]["text"].as_str().unwrap(),
        alone(&["--temp", "1", "--seed", "7", "-n", "12"]).trim_end_matches('\n')
    );
    assert_eq!(answers[4]["text"].as_str().unwrap(), alone(&["--temp", "0", "-n", "9"]).trim_end_matches('\n'));
    assert_eq!((&answers[4]["id"], &answers[4]["finish_reason"]), (&Value::Null, &json!("length")));
}

#[test]
fn lines_without_an_answer_are_named_and_the_others_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.jsonl");
    let long = "word ".repeat(300);
    let input = format!(
        "{}\n\n{}\nno json\n{}\n{}",
        r#"{"id":"a","prompt":"One"}"#,
        r#"{"id":"b","promt":"Two"}"#,
        json!({ "id": "d", "prompt": long }),
        r#"{"id":"e","prompt":"Three"}"#,
    );
    let args = ["batch", "-m", student(), "-i", "-", "-o", text(&out), "-n", "3", "--temp", "0", "-c", "128"];
    let ended = bitnet_reading(&*input, args);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    for part in ["standard input, line 3: unknown field `promt`", "3 of 5 lines have no answer", "out.jsonl"] {
        assert!(ended.stderr.contains(part), "{}", ended.stderr);
    }
    let answers = answers(&out);
    let ids: Vec<&Value> = answers.iter().map(|answer| &answer["id"]).collect();
    assert_eq!(ids, [&json!("a"), &json!("b"), &Value::Null, &json!("d"), &json!("e")]);
    let lines: Vec<Option<u64>> = answers.iter().map(|answer| answer["error"]["line"].as_u64()).collect();
    assert_eq!(lines, [None, Some(3), Some(4), Some(5), None]);
    let message = answers[3]["error"]["message"].as_str().unwrap();
    assert!(message.contains("the context 128") && message.contains("--context"), "{message}");
    assert!(answers[0]["text"].is_string() && answers[4]["text"].is_string());
}

#[test]
fn the_manifest_has_the_digests_of_all_inputs_and_of_the_output() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.jsonl");
    let input = "{\"prompt\":\"One\"}\n{\"prompt\":\"Two\"}\n";
    let args = ["batch", "-m", student(), "-i", "-", "-o", text(&out), "-n", "2", "--temp", "0"];
    bitnet_reading(input, args).done();
    assert_eq!(listing(dir.path()), ["out.jsonl", "out.jsonl.manifest.json"]);
    let manifest = fs::read_to_string(dir.path().join("out.jsonl.manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    let digest = |bytes: &[u8]| json!(blake3::hash(bytes).to_string());
    assert_eq!(manifest["input"], json!({ "blake3": digest(input.as_bytes()), "lines": 2 }));
    assert_eq!(manifest["output"]["blake3"], digest(&fs::read(&out).unwrap()));
    let model = ModelFiles::open(Path::new(student())).unwrap();
    assert_eq!(manifest["model"], json!(model.identity(&mut |_, _| {}).unwrap()));
    // Answers depend neither on the number of slots nor on the threads.
    let again = dir.path().join("again.jsonl");
    let args = ["batch", "-m", student(), "-i", "-", "-o", text(&again), "-n", "2", "--temp", "0", "--slots", "1"];
    bitnet_reading(input, args.into_iter().chain(["--threads", "1"])).done();
    assert_eq!(fs::read(&again).unwrap(), fs::read(&out).unwrap());
    let refusal = bitnet_reading(input, args).refusal();
    assert!(refusal.contains("again.jsonl") && refusal.contains("--force"), "{refusal}");
}
