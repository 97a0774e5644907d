//! `bitnet adapt` and `bitnet refine` make adapters, every verb that runs a model applies them, and `export` folds them or refuses.

use crate::common::{bitnet, fixture, student, teacher, text};

#[test]
fn an_adapter_is_made_applied_and_refused_for_another_model() {
    let dir = tempfile::tempdir().unwrap();
    let (adapter, out) = (dir.path().join("adapter.gguf"), dir.path().join("dump.safetensors"));
    let (teacher, texts) = (teacher(), fixture("texts/calibration.txt"));
    let adapt = ["adapt", "-m", student(), "--teacher", &teacher, "-o", text(&adapter), "--calibration", &texts];
    let report = bitnet(adapt.iter().chain(&["--calibration-tokens", "600", "--rank", "2", "--json"])).json();
    assert_eq!((report["rank"].as_u64(), report["bytes"].as_u64()), (Some(2), Some(adapter.metadata().unwrap().len())));
    assert!(report["layers"].as_array().unwrap().iter().any(|layer| layer["adapted"].as_u64().unwrap() > 0));
    // The same command replaces its own result, and no other file.
    bitnet(adapt.iter().chain(&["--calibration-tokens", "300"])).done();
    std::fs::write(&out, "notes").unwrap();
    let other = ["adapt", "-m", student(), "--teacher", &teacher, "-o", text(&out), "--calibration", &texts];
    assert!(bitnet(other).refusal().contains("dump.safetensors"));
    std::fs::remove_file(&out).unwrap();

    let dump = |more: &[&str]| {
        let args = ["dump", "-m", student(), "--tokens", "5,9,12,30", "-o", text(&out)];
        bitnet(args.iter().chain(more)).done();
        std::fs::read(&out).unwrap()
    };
    let (plain, with) = (dump(&[]), dump(&["--adapter", text(&adapter)]));
    assert_ne!(plain, with);
    let none = format!("{}=0", text(&adapter));
    assert_eq!(dump(&["--adapter", &none]), plain, "a strength of 0 changes no bit");
    let run = ["run", student(), "--raw", "-p", "Once", "-n", "2", "--temp", "0", "--memory", "1GB", "--adapter"];
    let ended = bitnet(run.iter().chain(&[text(&adapter)]));
    assert!(ended.stderr.contains("+ adapters "), "the memory plan counts it: {}", ended.stderr);
    let adapted = ended.done();
    // Prompts of an adapted model are kept under the adapter's name.
    let prompts = dir.path().join("prompts");
    let long = "Once upon a time ".repeat(40);
    let answer = |more: &[&str]| {
        let run = ["run", student(), "--raw", "-p", &long, "-n", "4", "--temp", "0", "--prompt-cache", text(&prompts)];
        let ended = bitnet(run.iter().chain(more));
        (ended.stderr.lines().find(|line| line.starts_with("prompt ")).unwrap()[..11].to_owned(), ended.done())
    };
    let (plain, with) = (answer(&[]), answer(&["--adapter", text(&adapter)]));
    assert_eq!(plain.0, with.0, "the adapter finds none of the plain model's blocks");
    let again = answer(&["--adapter", text(&adapter)]);
    assert!(again.0 != with.0 && again.1 == with.1, "{again:?} {with:?}");
    assert!(!adapted.is_empty());

    let refused = bitnet(["dump", "-m", &teacher, "--tokens", "5", "-o", text(&out), "--adapter", text(&adapter)]);
    assert!(refused.refusal().contains("made for the model"));
    let folded = dir.path().join("folded.gguf");
    let refused = bitnet(["export", "-m", student(), "--adapter", text(&adapter), "-o", text(&folded)]).refusal();
    assert!(refused.contains("--adapter") && !folded.exists(), "{refused}");
}

#[test]
fn a_sidecar_is_trained_applied_trained_further_and_never_folded() {
    let dir = tempfile::tempdir().unwrap();
    let [sidecar, further, out] =
        ["sidecar.gguf", "further.gguf", "dump.safetensors"].map(|name| dir.path().join(name));
    let (teacher, texts) = (teacher(), fixture("texts/calibration.txt"));
    let refine = |to: &std::path::Path, more: &[&str]| {
        let models = ["refine", "-m", student(), "--teacher", &teacher, "-o", text(to), "--calibration", &texts];
        let few = ["--calibration-tokens", "6000", "--steps", "2", "--windows", "1", "--json"];
        bitnet([&models[..], &few, more].concat()).json()
    };
    let report = refine(&sidecar, &["--train", "sidecar", "--rank", "4"]);
    assert_eq!(report["report"]["trained"][0][0], "sidecar");
    // Both factors of five layers 256 wide.
    assert_eq!(report["report"]["trained"][0][1], 5 * 2 * 4 * 256);
    // A file says by itself what it trains.
    let report = refine(&further, &["--adapter", text(&sidecar)]);
    assert_eq!(report["report"]["trained"][0][0], "sidecar");
    let models = ["refine", "-m", student(), "--teacher", &teacher, "-o", text(&out), "--calibration", &texts];
    let other = bitnet([&models[..], &["--adapter", text(&sidecar), "--train", "adapter"]].concat()).usage();
    assert!(other.contains("groups sidecar") && other.contains("leave out --train"), "{other}");

    let dump = |more: &[&str]| {
        let args = ["dump", "-m", student(), "--tokens", "5,9,12,30", "-o", text(&out)];
        bitnet(args.iter().chain(more)).done();
        std::fs::read(&out).unwrap()
    };
    let plain = dump(&[]);
    let with = dump(&["--adapter", text(&sidecar)]);
    assert!(plain != with && with != dump(&["--adapter", text(&further)]));
    assert_eq!(dump(&["--adapter", &format!("{}=0", text(&sidecar))]), plain, "a strength of 0 changes no bit");
    let refused = bitnet(["dump", "-m", &teacher, "--tokens", "5", "-o", text(&out), "--adapter", text(&sidecar)]);
    assert!(refused.refusal().contains("made for the model"));
    let folded = dir.path().join("folded.gguf");
    let refused = bitnet(["export", "-m", student(), "--adapter", text(&sidecar), "-o", text(&folded)]).refusal();
    assert!(refused.contains("sidecar of the residual stream") && !folded.exists(), "{refused}");
}
