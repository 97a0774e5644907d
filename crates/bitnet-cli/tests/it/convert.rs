//! `bitnet convert`: there and back to equal bytes, the report, and refusals that leave nothing behind.

use std::fs;

use crate::common::{bitnet, listing, student, text};

#[test]
fn a_student_goes_there_and_back_and_answers_alike() {
    let dir = tempfile::tempdir().unwrap();
    let [there, back] = ["there.gguf", "back.gguf"].map(|name| dir.path().join(name));
    let to = |model: &str, ty: &str, out: &str| bitnet(["convert", "-m", model, "--to", ty, "-o", out]);
    let said = to(student(), "q2_0", text(&there)).done();
    assert!(said.contains("as Q2_0") && said.contains("all trits and scales equal"), "{said}");
    let answer =
        |model: &str| bitnet(["run", "-m", model, "-p", "hello", "-n", "6", "--temp", "0", "--act", "f32"]).done();
    assert_eq!(answer(text(&there)), answer(student()));
    let report = bitnet(["convert", "-m", text(&there), "--to", "tq2_0", "-o", text(&back), "--json"]).json();
    assert_eq!(report["type"], "TQ2_0");
    assert!(report["report"]["bytes_after"].as_u64() < report["report"]["bytes_before"].as_u64(), "{report}");
    assert!(fs::read(student()).unwrap() == fs::read(&back).unwrap(), "there and back");
    bitnet(["verify", text(&there)]).done();
}

#[test]
fn refusals_name_the_tensor_and_leave_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.gguf");
    let said = bitnet(["convert", "-m", student(), "--to", "i2_s", "-o", text(&out)]).refusal();
    assert!(said.contains("blk.") && said.contains("scales of") && said.contains("smaller blocks"), "{said}");
    let over = bitnet(["convert", "-m", student(), "--to", "tq1_0", "-o", student(), "--force"]).usage();
    assert!(over.contains("--out") && over.contains("name another one"), "{over}");
    fs::write(&out, "kept").unwrap();
    bitnet(["convert", "-m", student(), "--to", "tq1_0", "-o", text(&out)]).refusal();
    assert_eq!((fs::read_to_string(&out).unwrap().as_str(), listing(dir.path()).len()), ("kept", 1));
}
