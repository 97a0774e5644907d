//! `quantize`, `inspect`, `verify` and `synth`: their output, their files and their refusals.

use std::fs;

use gguf_bitnet::{GgufFile, TensorSource, TensorType};

use crate::common::{bitnet, bitnet_reading, fixture, listing, student, teacher, text};

#[test]
fn quantize_prints_the_plan_before_and_the_report_after() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("student.gguf");
    let args = ["quantize", "--model", &fixture("goldens/glm4-moe-gqa"), "--out", text(&out), "--method", "absmean"];
    let ended = bitnet(args);
    let bytes = fs::metadata(&out).unwrap().len();
    assert!(ended.stderr.contains(&format!("-> {bytes} bytes")), "{}", ended.stderr);
    assert!(ended.stderr.contains("memory below"), "{}", ended.stderr);
    let stdout = ended.done();
    for part in ["routed-expert", "TQ2_0", "2.0625", "wrote and verified"] {
        assert!(stdout.contains(part), "{part}: {stdout}");
    }
    assert_eq!(listing(dir.path()), ["student.gguf"]);

    let again = bitnet(args);
    assert!(again.refusal().contains("--force"), "an existing file stays");
    bitnet(args.into_iter().chain(["--force"])).done();
}

#[test]
fn the_report_and_the_dry_run_are_json() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("student.gguf");
    let base = ["quantize", "-m", &fixture("goldens/glm-tiny"), "-o", text(&out), "--json", "--preset", "8g"];
    let plan = bitnet(base.into_iter().chain(["--dry-run"])).json();
    assert!(listing(dir.path()).is_empty(), "a dry run writes nothing");
    let report = bitnet(base).json();
    assert_eq!(plan["output_bytes"], fs::metadata(&out).unwrap().len());
    assert_eq!(plan["output_bytes"], report["report"]["output_bytes"]);
    assert_eq!(plan["memory_bound_bytes"], report["memory_bound_bytes"]);
    let file = GgufFile::open(&out).unwrap();
    let planned = plan["tensors"].as_array().unwrap();
    assert_eq!(planned.len(), file.tensors().len());
    for (planned, info) in planned.iter().zip(file.tensors()) {
        assert_eq!((&planned["name"], &planned["type"]), (&info.name.clone().into(), &info.ty.name().into()));
    }
    let peak = report["peak_rss_bytes"].as_u64();
    assert!(peak.is_none_or(|peak| peak < report["memory_bound_bytes"].as_u64().unwrap()), "{report}");
}

#[test]
fn a_budget_is_kept_and_the_table_of_its_search_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("student.gguf");
    let texts = fixture("texts/calibration.txt");
    let base = ["quantize", "-m", &teacher(), "-o", text(&out), "--calibration", &texts, "--calibration-tokens", "600"];
    let with = |more: &[&str]| bitnet(base.iter().chain(more));
    let refused = with(&["--target-size", "1MB"]).refusal();
    assert!(refused.contains("the smallest has 33") && refused.contains("raise --target-size"), "{refused}");
    let shown = with(&["--target-size", "4.85MB", "--dry-run"]).done();
    let chosen: Vec<_> = shown.lines().filter(|line| line.trim_end().ends_with("yes")).collect();
    assert_eq!(chosen.len(), 6, "one type per class: {shown}");
    let [attention, routed] = ["attention", "routed-expert"].map(|class| {
        let line = chosen.iter().find(|line| line.split_whitespace().next() == Some(class)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    });
    assert_eq!((&*attention, &*routed), ("Q6_K", "TQ1_0"), "{shown}");
    let plan = with(&["--target-size", "4.85MB", "--dry-run", "--json"]).json();
    assert!(listing(dir.path()).is_empty(), "a dry run writes nothing");
    let gptq = ["--method", "gptq", "--sweeps", "0", "--kicks", "0", "--json", "--target-size", "4.85MB"];
    for more in [&["--target-size", "4.85MB", "--json"][..], &[&gptq[..], &["--force"]].concat()] {
        let report = with(more).json();
        assert!(fs::metadata(&out).unwrap().len() <= 4_850_000);
        assert_eq!(report["report"]["precision"], plan["precision"], "texts and rounding are the same");
    }
    let again = with(&["--target-size", "4.85MB"]).refusal();
    assert!(again.contains("--force"), "{again}");
}

#[test]
fn recipes_are_chosen_on_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("student.gguf");
    let more = ["--preset", "phase2", "--ternary", "bitnet-t158", "--tensor-type", r"blk\.1\.ffn_up_exps\.weight=Q8_0"];
    let base = ["quantize", "-m", &fixture("goldens/glm4-moe-gqa"), "-o", text(&out), "--threads", "1"];
    bitnet(base.into_iter().chain(more).chain(["--max-memory", "200MB"])).done();
    let file = GgufFile::open(&out).unwrap();
    let ty = |name: &str| file.tensors()[file.index_of(name).unwrap()].ty;
    assert_eq!(ty("blk.1.ffn_up_exps.weight"), TensorType::Q8_0);
    assert_eq!(ty("blk.1.ffn_down_exps.weight"), TensorType::BitnetT158);
    assert_eq!(ty("blk.0.attn_q.weight"), TensorType::BitnetT158);
    assert_eq!(ty("output.weight"), TensorType::F16);
}

#[test]
fn wrong_command_lines_end_with_two_and_say_why() {
    let model = teacher();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("x.gguf");
    let quantize = ["quantize", "-m", &model, "-o", text(&out)];
    let with = |more: &[&str]| bitnet(quantize.iter().chain(more)).usage();
    assert!(with(&["--preset", "tiny"]).contains("balanced"));
    assert!(with(&["--ternary", "q8_0"]).contains("tq1_0"));
    assert!(with(&["--tensor-type", "blk"]).contains("no `=`"));
    assert!(with(&["--tensor-type", "(=F16"]).contains("(=F16"));
    assert!(with(&["--tensor-type", "x=IQ2_XXS"]).contains("IQ2_XXS"));
    assert!(with(&["--max-memory", "much"]).contains("1.5GB"));
    assert!(with(&["--threads", "0"]).contains("from 1 to 1024"));
    assert!(bitnet(["quantize", "-m", &model]).usage().contains("--out"));
    assert!(bitnet(["frobnicate"]).usage().contains("frobnicate"));
    bitnet([""; 0]).usage();
    bitnet(["eval"]).usage();
    assert!(listing(dir.path()).is_empty());
    assert!(bitnet(["--help"]).done().contains("quantize"));
    assert!(bitnet(["--version"]).done().contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn an_impossible_recipe_is_refused_with_the_tensor() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("x.gguf");
    let model = teacher();
    let with = |more: &[&str]| bitnet(["quantize", "-m", &model, "-o", text(&out)].iter().chain(more)).refusal();
    assert!(with(&["--tensor-type", ".*=TQ2_0"]).contains("`token_embd.weight` must never be ternary"));
    assert!(with(&["--tensor-type", r"blk\.0\.attn_k_b\.weight=TQ2_0"]).contains("override it with F16"));
    assert!(with(&["--tensor-type", "nothing=F16"]).contains("`nothing` matches no tensor"));
    assert!(with(&["--max-memory", "1MB"]).contains("raise --max-memory"));
    assert!(bitnet(["quantize", "-m", &model, "-o", "no/such/dir.gguf"]).refusal().contains("create it first"));
    assert!(listing(dir.path()).is_empty());
}

#[test]
fn inspect_shows_every_kind_of_model() {
    let shown = bitnet(["inspect", &teacher()]).done();
    for part in
        ["glm4_moe_lite", "8 experts (2 active + 1 shared)", "routed-expert", "BF16", "16.0000", "with 4096 tokens"]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let student = student();
    let shown = bitnet(["inspect", student, "--tensors", "-c", "100", "--kv", "f32"]).done();
    for part in [
        "TQ2_0",
        "ternary tensors 2.0625",
        "with 100 tokens",
        "craftsman.bitnet.weight_encoding = \"ls_ternary\"",
        "craftsman.provenance.source_blake3",
        "blk.1.ffn_up_exps.weight TQ2_0 [8, 256, 256]",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    for case in fixtures::golden_cases() {
        if case == "ternary-forward" {
            continue;
        }
        let facts = bitnet(["inspect", &fixture(&format!("goldens/{case}")), "--json"]).json();
        assert_eq!(facts["complete"], true, "{case}: {facts}");
    }
    let facts = bitnet(["inspect", &fixture("goldens/ternary-forward/model.gguf"), "--json", "--tensors"]).json();
    assert!(facts["tensors"].as_array().unwrap().iter().any(|t| t["type"] == "TQ2_0"), "{facts}");
}

#[test]
fn inspect_counts_in_json() {
    let facts = bitnet(["inspect", student(), "--json", "-c", "1000"]).json();
    assert_eq!(facts["architecture"], "glm4_moe_lite");
    assert_eq!(facts["params"], 10_900_768);
    assert_eq!(facts["experts"]["routed"], 8);
    assert_eq!(facts["ternary_bits_per_weight"], 2.0625);
    // (256 + 32) values of 2 bytes in 5 layers.
    assert_eq!(facts["kv_bytes_per_token"], 2880);
    // A cache is made of blocks of 64 positions.
    assert_eq!(facts["memory"]["cache_bytes"], 2880 * 1024);
    assert!(facts["bits_per_weight"].as_f64().unwrap() < 5.0, "{facts}");
    assert_eq!(facts["metadata"]["craftsman.bitnet.block_size"], 256);
}

#[test]
fn verify_finds_damage_that_opening_misses() {
    let sound = bitnet(["verify", student()]).done();
    assert!(sound.contains("sound") && sound.contains("BLAKE3"), "{sound}");
    let report = bitnet(["verify", &teacher(), "--json"]).json();
    assert_eq!(report["defects"].as_array().unwrap().len(), 0);
    assert_eq!(report["identity"].as_str().unwrap().len(), 64);

    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("damaged.gguf");
    let whole = fs::read(student()).unwrap();
    let file = GgufFile::open(student()).unwrap();
    let name = "blk.2.ffn_down_exps.weight";
    let data = file.bytes(file.index_of(name).unwrap()).unwrap();
    let at = whole.windows(data.len()).position(|window| *window == data[..]).unwrap();
    // A block is 64 bytes of codes and 2 of scale; rows have one block here.
    let spoil = |change: &dyn Fn(&mut [u8])| {
        let mut bytes = whole.clone();
        change(&mut bytes[at + 5 * 66..at + 6 * 66]);
        fs::write(&copy, bytes).unwrap();
        bitnet(["verify", text(&copy)])
    };
    for (what, change) in [
        ("1 invalid codes", &(|block: &mut [u8]| block[9] |= 0b11) as &dyn Fn(&mut [u8])),
        ("1 scales that are NaN", &|block| block[64..].copy_from_slice(&[0x00, 0x7e])),
        ("1 scales that are NaN or infinite", &|block| block[64..].copy_from_slice(&[0x00, 0x7c])),
    ] {
        let ended = spoil(change);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stdout.contains(&format!("tensor `{name}` (TQ2_0): {what}")), "{}", ended.stdout);
        assert!(ended.stdout.contains("first in row 5") && ended.stdout.contains("DAMAGED"), "{}", ended.stdout);
        assert!(ended.stderr.contains("has a defect"), "{}", ended.stderr);
    }
    let json = bitnet(["verify", text(&copy), "--json"]);
    assert_eq!(json.code, Some(1));
    let report: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((&report["defects"][0]["tensor"], &report["defects"][0]["first_row"]), (&name.into(), &5.into()));
    // A damaged model does not run either.
    let ran = bitnet(["run", text(&copy), "-p", "hi", "-n", "1"]);
    assert!(ran.refusal().contains(name));

    fs::write(&copy, &whole[..whole.len() - 100_000]).unwrap();
    let cut = bitnet(["verify", text(&copy)]).refusal();
    assert!(cut.contains("damaged.gguf") && cut.contains("blk.4."), "{cut}");
}

#[test]
fn synth_writes_models_that_open_and_run() {
    let dir = tempfile::tempdir().unwrap();
    let (file, folder) = (dir.path().join("random.gguf"), dir.path().join("random"));
    let synth = ["synth", "--shape", "mini", "--layers", "2", "--out"];
    bitnet(synth.into_iter().chain([text(&file), "--preset", "phase2"])).done();
    bitnet(synth.into_iter().chain([text(&folder), "--format", "safetensors-bf16"])).done();
    for model in [&file, &folder] {
        assert_eq!(bitnet(["inspect", text(model), "--json"]).json()["complete"], true);
        bitnet(["verify", text(model)]).done();
        bitnet(["run", text(model), "--raw", "-p", "x", "-n", "2", "--temp", "0"]);
    }
    assert!(bitnet(synth.into_iter().chain([text(&file)])).refusal().contains("--force"));
    bitnet(synth.into_iter().chain([text(&folder), "--format", "safetensors-bf16"])).refusal();
    assert!(bitnet(["synth", "--shape", "huge", "--out", "x"]).refusal().contains("glm-4.7-flash"));
    assert_eq!(listing(dir.path()), ["random", "random.gguf"]);
}

#[test]
fn cached_models_are_found_by_name_and_never_fetched() {
    let home = tempfile::tempdir().unwrap();
    let repository = home.path().join("hub/models--craft--mini");
    let snapshot = repository.join("snapshots/abc");
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir(repository.join("refs")).unwrap();
    fs::write(repository.join("refs/main"), "abc").unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(fixtures::path("goldens/no-q-lora").join(name), snapshot.join(name)).unwrap();
    }
    let inspect =
        |name: &str| crate::common::command().env("HF_HOME", home.path()).args(["inspect", name]).output().unwrap();
    assert!(inspect("craft/mini").status.success());
    let missing = inspect("craft/maxi");
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("download it first"));
}

#[test]
fn a_full_disk_behind_standard_output_is_an_error() {
    let ended = bitnet_reading("some words", ["tokenize", "-m", &teacher()]);
    assert!(!ended.done().is_empty());
    if cfg!(target_os = "linux") {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let model = teacher();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_bitnet"))
            .args(["inspect", &model])
            .stdout(full)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        let sentence = String::from_utf8(output.stderr).unwrap();
        assert!(sentence.starts_with("error: cannot write to standard output: "), "{sentence}");
    }
}

#[test]
fn a_layout_cache_is_made_once_and_changes_no_answer() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("student.gguf");
    fs::copy(student(), &model).unwrap();
    let base = ["run", text(&model), "-p", "What is the river of amber harbor?", "--temp", "0", "-n", "12"];
    let run = |more: &[&str]| bitnet(base.iter().chain(more));
    let expected = run(&[]).done();
    assert_eq!(listing(dir.path()), ["student.gguf"], "no cache unless asked for");

    let first = run(&["--layout-cache"]);
    assert!(first.stderr.contains("note: made") && first.stderr.contains("student.gguf.tiles"), "{}", first.stderr);
    assert_eq!(first.done(), expected);
    let second = run(&["--layout-cache"]);
    assert!(!second.stderr.contains("note:"), "{}", second.stderr);
    assert_eq!(second.done(), expected);
    assert_eq!(listing(dir.path()), ["student.gguf", "student.gguf.tiles"]);

    let cache = dir.path().join("student.gguf.tiles");
    let cut = fs::metadata(&cache).unwrap().len() - 1;
    fs::File::options().write(true).open(&cache).unwrap().set_len(cut).unwrap();
    let third = run(&["--layout-cache", "--layout", "packed"]);
    assert!(third.stderr.contains("anew") && third.stderr.contains("bytes instead of"), "{}", third.stderr);
    assert_eq!(third.done(), expected);

    let nowhere = format!("--layout-cache={}", dir.path().join("none/tiles").display());
    let packed = run(&[&nowhere]);
    assert!(packed.stderr.contains("packed in memory"), "{}", packed.stderr);
    assert_eq!(packed.done(), expected);
    let bench = ["bench", "-m", text(&model), "-p", "4", "-n", "0", "-r", "1", "--layout-cache"];
    assert!(!bitnet(bench).stderr.contains("note:"));
    for wrong in ["file", "tl1"] {
        assert!(run(&["--layout", wrong, "--layout-cache"]).usage().contains("--layout-cache"), "{wrong}");
    }
}
