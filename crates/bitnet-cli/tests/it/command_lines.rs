//! Wrong command lines of every verb end with 2 and name the option and the remedy; other failures end with 1.
//!
//! The model of the wrong command lines does not exist, so that 2 proves that nothing was opened.

use crate::common::{bitnet, fixture, teacher};

/// Arguments that follow the verb's own, and parts of the message.
type Case = (&'static [&'static str], &'static [&'static str]);

const MODEL: &str = "no/such/model";

fn refused(base: &[&str], cases: &[Case]) {
    for (more, parts) in cases {
        let args = [base, more].concat();
        let ended = bitnet(&args);
        assert_eq!(ended.code, Some(2), "{args:?}: {}", ended.stderr);
        let message = ended.usage();
        assert!(message.starts_with("error: "), "{args:?}: {message}");
        for part in *parts {
            assert!(message.contains(part), "{args:?}: `{part}` is not in: {message}");
        }
    }
}

const PRECISION: [Case; 2] = [(&["--act", "a4"], &["--act", "a8-block"]), (&["--kv", "i4"], &["--kv", "f16"])];

const THREADS: [Case; 3] = [
    (&["--threads", "0"], &["--threads", "from 1 to 1024"]),
    (&["--threads", "1025"], &["--threads", "from 1 to 1024"]),
    (&["--threads", "many"], &["--threads", "from 1 to 1024"]),
];

/// `run` and `bench` share these.
const ENGINE: [Case; 18] = [
    (&["--expert-memory", "lots"], &["--expert-memory", "1.5GB"]),
    (&["--expert-policy", "mru", "--expert-memory", "1MB"], &["--expert-policy", "adaptive"]),
    (&["--expert-policy", "lru"], &["--expert-memory"]),
    (&["--expert-ahead", "2"], &["--expert-memory"]),
    (&["--expert-ahead", "256", "--expert-memory", "1MB"], &["--expert-ahead", "from 0 to 255"]),
    (&["--expert-ahead-shuffled", "1", "--expert-memory", "1MB"], &["--expert-ahead"]),
    (&["--layout", "tiles"], &["--layout", "packed"]),
    (&["--layout", "packed", "--expert-memory", "1MB"], &["--expert-memory needs --layout file or auto"]),
    (&["--layout", "tl1", "--expert-memory", "1MB"], &["--expert-memory needs --layout file or auto"]),
    (&["--layout", "tl2", "--expert-memory", "1MB"], &["--expert-memory needs --layout file or auto"]),
    (&["--layout-cache="], &["--layout-cache"]),
    (&["--layout-cache", "--layout", "file"], &["--layout-cache", "needs --layout packed or auto"]),
    (&["--layout-cache", "--layout", "tl1"], &["--layout-cache", "needs --layout packed or auto"]),
    (&["--layout-cache", "--layout", "tl2"], &["--layout-cache", "needs --layout packed or auto"]),
    (&["--layout-cache", "--expert-memory", "1MB"], &["--layout-cache", "no --expert-memory"]),
    (&["--adapter", ""], &["--adapter", "=SCALE"]),
    (&["--adapter", "a.gguf=inf"], &["--adapter", "finite number"]),
    (&["--frobnicate"], &["--frobnicate"]),
];

/// `quantize` and `synth` share these.
const RECIPE: [Case; 5] = [
    (&["--preset", "tiny"], &["--preset", "balanced"]),
    (&["--ternary", "q8_0"], &["--ternary", "tq1_0"]),
    (&["--tensor-type", "blk"], &["--tensor-type", "no `=`"]),
    (&["--tensor-type", "(=F16"], &["--tensor-type", "(=F16"]),
    (&["--tensor-type", "x=IQ2_XXS"], &["--tensor-type", "IQ2_XXS"]),
];

#[test]
fn without_a_verb() {
    let help = bitnet([""; 0]);
    assert_eq!(help.code, Some(2), "{}", help.stderr);
    assert!(help.stderr.contains("quantize"), "{}", help.stderr);
    refused(&[], &[(&["frobnicate"], &["frobnicate"]), (&["--frobnicate"], &["--frobnicate"])]);
}

#[cfg(unix)]
#[test]
fn offload() {
    refused(
        &["offload", "check"],
        &[
            (&[], &["<DEVICE>"]),
            (&["x", "--requests", "0"], &["--requests", "from 1 to 1000000"]),
            (&["x", "--deadline-ms", "0"], &["--deadline-ms", "from 1 to 3600000"]),
            (&["x", "--attempts", "0"], &["--attempts", "from 1 to 1000"]),
        ],
    );
    let wrong: [Case; 3] = [
        (&["--drop", "1001"], &["--drop", "from 0 to 1000"]),
        (&["--hang", "-1"], &["--hang", "from 0 to 1000"]),
        (&["--seed", "x"], &["--seed", "whole number"]),
    ];
    refused(&["offload", "simulate"], &wrong);
}

#[test]
fn batch_and_merge() {
    let base = ["batch", "-m", MODEL, "-i", "in.jsonl"];
    refused(&base[..3], &[(&["-o", "x"], &["--input"])]);
    refused(
        &base,
        &[
            (&[], &["--out"]),
            (&["-o", "-"], &["--out", "name of a file"]),
            (&["--shard", "1/2"], &["--part"]),
            (&["--part", "p"], &["--shard"]),
            (&["--part", "p", "-o", "x"], &["--part", "--out"]),
            (&["--shard", "3/2", "--part", "p"], &["--shard", "2/5"]),
            (&["--shard", "0/2", "--part", "p"], &["--shard", "2/5"]),
            (&["--shard", "1/2", "--part", "-"], &["--part", "name of a file"]),
            (&["--shard", "1/2", "--part", "p", "-o", "x"], &["--shard", "--out"]),
            (&["-o", "x", "--slots", "17"], &["--slots", "from 1 to 16"]),
            (&["-o", "x", "-c", "0"], &["--context", "at least 1"]),
        ],
    );
    refused(&[&base[..], &["-o", "x"]].concat(), &THREADS);
    refused(&[&base[..], &["-o", "x"]].concat(), &PRECISION);
    refused(&["merge"], &[(&[], &["<OUT>", "<PART>"]), (&["x"], &["<PART>"]), (&["-", "p"], &["name of a file"])]);
}

#[test]
fn adapt() {
    let base = ["adapt", "-m", MODEL, "--teacher", MODEL, "-o", "a.gguf"];
    refused(&base[..3], &[(&[], &["--teacher", "--out"])]);
    refused(&base, &THREADS);
    refused(
        &base,
        &[
            (&[], &["made on texts", "--calibration"]),
            (&["--rank", "0"], &["--rank", "from 1 to 64"]),
            (&["--rank", "65"], &["--rank", "from 1 to 64"]),
            (&["--kicks", "1"], &["--kicks"]),
        ],
    );
    refused(&["adapt", "-m", MODEL, "--teacher", MODEL], &[(&["-o", "-"], &["--out", "standard output"])]);
}

#[test]
fn refine_of_adapters() {
    let base = ["refine", "-m", MODEL, "--teacher", MODEL, "--calibration", "text.txt", "-o", "out.gguf"];
    refused(
        &base,
        &[
            (&["--rank", "2"], &["--rank", "--train adapter"]),
            (&["--train", "adapter", "--rank", "65"], &["--rank", "from 1 to 64"]),
            (&["--train", "sidecar", "--rank", "0"], &["--rank", "from 1 to 64"]),
            (&["--train", "sidecars"], &["--train", "no group `sidecars`", "sidecar"]),
            (&["--adapter", "a", "--rank", "2"], &["--adapter", "--rank", "cannot be used with"]),
            // A file that exists stands for the adapter.
            (&["--adapter", "Cargo.toml", "--log", "Cargo.toml"], &["--adapter", "other names"]),
        ],
    );
}

#[test]
fn refine_on_rewards() {
    let base = ["refine", "-m", MODEL, "-o", "out.gguf"];
    let rewards = ["--grpo", "1", "--grpo-suite", "no/suite", "--grpo-corpus", "no/corpus"];
    let cases: [Case; 2] = [
        (&["--artifact", "artifact.bin"], &["--artifact", "--grpo", "cannot be used with"]),
        (&["--teacher", MODEL, "--calibration", "text.txt", "--steps", "3"], &["--steps", "cannot be used with"]),
    ];
    refused(&[&base[..], &rewards].concat(), &cases);
    // The suite is opened before any model.
    let texts = ["--teacher", MODEL, "--calibration", "text.txt"];
    let refusal = bitnet([&base[..], &rewards, &texts].concat()).refusal();
    assert!(refusal.contains("no/suite") && !refusal.contains(MODEL), "{refusal}");
}

#[test]
fn export() {
    let base = ["export", "-m", MODEL, "-o", "a.gguf"];
    refused(&base, &[(&[], &["nothing to fold", "--adapter"]), (&["--adapter", "-"], &["--adapter"])]);
    refused(&["export", "-m", MODEL], &[(&["-o", "-"], &["--out", "standard output"])]);
}

#[test]
fn run() {
    let base = ["run", MODEL, "-p", "hi"];
    refused(&["run"], &[(&[], &["MODEL"]), (&[""], &["MODEL"]), (&["-m", ""], &["--model"])]);
    refused(&["run", MODEL], &[(&["-m", MODEL], &["--model", "cannot be used with"])]);
    refused(&base, &PRECISION);
    refused(&base, &THREADS);
    refused(&base, &ENGINE);
    refused(
        &base,
        &[
            (&["-n", "many"], &["--max-tokens", "a whole number"]),
            (&["--max-tokens=-3"], &["--max-tokens", "a whole number"]),
            (&["-c", "0"], &["--context", "at least 1"]),
            (&["-c", "long"], &["--context", "at least 1"]),
            (&["--temp", "nan"], &["--temp", "at least 0"]),
            (&["--temp", "-1"], &["--temp", "at least 0"]),
            (&["--temp", "inf"], &["--temp", "at least 0"]),
            (&["--temp", "hot"], &["--temp", "write a number"]),
            (&["--top-p", "0"], &["--top-p", "above 0 and at most 1"]),
            (&["--top-p", "2"], &["--top-p", "above 0 and at most 1"]),
            (&["--top-p", "most"], &["--top-p", "write a number"]),
            (&["--min-p", "1.5"], &["--min-p", "between 0 and 1"]),
            (&["--min-p", "-0.1"], &["--min-p", "between 0 and 1"]),
            (&["--min-p", "some"], &["--min-p", "write a number"]),
            (&["--top-k", "1.5"], &["--top-k", "a whole number"]),
            (&["--seed", "x"], &["--seed", "a whole number"]),
            (&["--raw", "--system", "x"], &["--raw", "--system"]),
            (&["--raw", "--think", "on"], &["--raw", "--think"]),
            (&["--think", "maybe"], &["--think", "on, off"]),
            (&["--memory", "much"], &["--memory", "1.5GB"]),
            (&["--memory", "1GB", "--layout", "tl1"], &["--memory needs --layout auto, file or packed"]),
            (&["--memory", "1GB", "--layout", "tl2"], &["--memory needs --layout auto, file or packed"]),
        ],
    );
}

#[test]
fn bench() {
    let base = ["bench", "-m", MODEL];
    refused(&["bench"], &[(&[], &["--model"]), (&["-m", ""], &["--model"])]);
    refused(&base, &PRECISION);
    refused(&base, &THREADS);
    refused(&base, &ENGINE);
    refused(
        &base,
        &[
            (&["-p", "0", "-n", "0"], &["nothing to measure", "-p or -n"]),
            (&["-p", "x"], &["--prompt", "a whole number"]),
            (&["-p", "1,,2"], &["--prompt", "a whole number"]),
            (&["-n", "1,x"], &["--decode", "a whole number"]),
            (&["-d", "deep"], &["--depth", "a whole number"]),
            (&["-r", "0"], &["--repetitions", "from 1 to 1000"]),
            (&["-r", "1001"], &["--repetitions", "from 1 to 1000"]),
            (&["--chunk", "0"], &["--chunk", "from 1 to 65535"]),
            (&["--chunk", "65536"], &["--chunk", "from 1 to 65535"]),
        ],
    );
}

#[test]
fn quantize() {
    let base = ["quantize", "-m", MODEL, "-o", "x.gguf"];
    refused(
        &["quantize"],
        &[
            (&["-m", MODEL], &["--out"]),
            (&["-o", "x.gguf"], &["--model"]),
            (&["-m", "", "-o", "x.gguf"], &["--model"]),
            (&["-m", MODEL, "-o", ""], &["--out"]),
        ],
    );
    refused(&base, &RECIPE);
    refused(&base, &THREADS);
    refused(
        &base,
        &[
            (&["--method", "median"], &["--method", "absmean"]),
            (&["--method", "gptq"], &["--method gptq needs texts", "--calibration"]),
            (&["--calibration", "a.txt"], &["--calibration needs --method gptq or --target-size"]),
            (&["--exclude", "a.txt"], &["--exclude needs --method gptq or --target-size"]),
            (&["--kicks", "1", "--target-size", "1GB", "--calibration", "a"], &["--kicks needs --method gptq"]),
            (&["--target-size", "1GB"], &["--target-size needs texts", "--calibration"]),
            (&["--target-size", "small", "--calibration", "a"], &["--target-size", "1.5GB"]),
            (&["--target-size", "1GB", "--preset", "8g"], &["--target-size", "--preset"]),
            (&["--target-size", "1GB", "--ternary", "tq1_0"], &["--target-size", "--ternary"]),
            (&["--without", "luck"], &["--without", "no step `luck`", "student-inputs"]),
            (&["--calibration-tokens", "0"], &["--calibration-tokens"]),
            (&["--max-memory", "much"], &["--max-memory", "1.5GB"]),
            (&["more"], &["more"]),
        ],
    );
}

#[test]
fn a_student_does_not_replace_its_teacher() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model.gguf");
    std::fs::copy(fixtures::path("goldens/ternary-forward/model.gguf"), &model).unwrap();
    let model = model.to_str().unwrap();
    let message = bitnet(["quantize", "-m", model, "-o", model, "--force"]).usage();
    assert!(message.contains("--out") && message.contains("choose another name"), "{message}");
}

#[test]
fn convert() {
    refused(&["convert"], &[(&[], &["--model", "--to", "--out"])]);
    refused(
        &["convert", "-m", MODEL, "-o", "out.gguf"],
        &[
            (&[], &["--to"]),
            (&["--to", "q8_0"], &["--to", "tq2_0", "q2_0_g128"]),
            (&["--to", "tq2_0", "--i2s-layout", "mips"], &["--i2s-layout", "arm"]),
        ],
    );
}

#[test]
fn inspect_verify_and_doctor() {
    refused(
        &["inspect"],
        &[
            (&[], &["FILE|DIR"]),
            (&[""], &["FILE|DIR"]),
            (&[MODEL, "-c", "0"], &["--context", "at least 1"]),
            (&[MODEL, "-c", "long"], &["--context", "at least 1"]),
            (&[MODEL, "--kv", "i4"], &["--kv", "f16"]),
        ],
    );
    refused(&["verify"], &[(&[], &["FILE"]), (&[""], &["FILE"]), (&[MODEL, "more"], &["more"])]);
    refused(&["doctor"], &[(&["-m", ""], &["--model"]), (&["--act", "a4"], &["--act", "a8-block"])]);
}

#[test]
fn tokenize() {
    refused(&["tokenize"], &[(&[], &["--model"]), (&["-m", ""], &["--model"])]);
    refused(
        &["tokenize", "-m", MODEL],
        &[(&["--text", "a", "--file", "b"], &["--text", "--file"]), (&["--file", ""], &["--file"])],
    );
}

#[test]
fn dump() {
    let base = ["dump", "-m", MODEL, "-o", "x.safetensors"];
    refused(&base, &[(&[], &["--tokens"]), (&["--tokens", "1", "--text", "a"], &["--tokens", "--text"])]);
    refused(&["dump", "-m", MODEL, "--tokens", "1"], &[(&[], &["--out"]), (&["-o", ""], &["--out"])]);
    refused(&["dump", "-o", "x", "--tokens", "1"], &[(&[], &["--model"]), (&["-m", ""], &["--model"])]);
    refused(
        &base,
        &[
            (&["--text", ""], &["--text"]),
            (&["--tokens", ""], &["--tokens", "a whole number"]),
            (&["--tokens", "1,,2"], &["--tokens", "a whole number"]),
            (&["--tokens=-1"], &["--tokens", "a whole number"]),
            (&["--tokens", "4294967296"], &["--tokens", "from 0 to 4294967295"]),
            (&["--tokens", "1", "--chunk", "0"], &["--chunk", "at least 1"]),
        ],
    );
    let base = [&base[..], &["--tokens", "1"]].concat();
    refused(&base, &PRECISION);
    refused(&base, &THREADS);
}

#[test]
fn eval() {
    refused(&["eval"], &[(&["frobnicate"], &["frobnicate"])]);
    assert_eq!(bitnet(["eval"]).code, Some(2));
    refused(&["eval", "fidelity"], &[(&["--teacher", MODEL], &["--text"]), (&["--text", "x"], &["--teacher"])]);
    let base = ["eval", "fidelity", "--text", "no/such/text", "--teacher", MODEL];
    refused(&base, &PRECISION);
    refused(&base, &THREADS);
    refused(
        &base,
        &[
            (&["--student", ""], &["--student"]),
            (&["--n-ctx", "3"], &["--n-ctx", "at least 4"]),
            (&["--n-ctx", "x"], &["--n-ctx", "at least 4"]),
            (&["--windows", "0"], &["--windows", "at least 1"]),
        ],
    );
    refused(&["eval", "fidelity", "--text", "", "--teacher", MODEL], &[(&[], &["--text"])]);
    refused(&["eval", "fidelity", "--text", "x", "--teacher", ""], &[(&[], &["--teacher"])]);
    refused(&["eval", "trace"], &[(&[], &["TRACE"]), (&[""], &["TRACE"]), (&["a", "b", "c"], &["'c'"])]);
}

#[test]
fn eval_gates() {
    let files = ["--suite", "no/such/suite", "--corpus", "no/such/corpus"];
    let base = [&["eval-gates", "--teacher", MODEL, "--student", MODEL][..], &files].concat();
    refused(&["eval-gates"], &[(&[], &["--teacher", "--student", "--suite", "--corpus"])]);
    refused(&[&["eval-gates", "--teacher", "", "--student", MODEL][..], &files].concat(), &[(&[], &["--teacher"])]);
    refused(&[&["eval-gates", "--teacher", MODEL, "--student", ""][..], &files].concat(), &[(&[], &["--student"])]);
    refused(&base, &PRECISION);
    refused(&base, &THREADS);
    refused(
        &base,
        &[
            (&["--threshold", "vibes=1"], &["--threshold", "must_answer"]),
            (&["--threshold", "must_answer=2"], &["--threshold", "from 0 to 1"]),
            (&["--threshold", "must_answer=much"], &["--threshold", "write a number"]),
            (&["--threshold", "must_answer"], &["--threshold", "GATE=VALUE"]),
            (&["--label-threshold", "vibes=1"], &["--label-threshold", "fragility"]),
            (&["--label-threshold", "fragility=1.1"], &["--label-threshold", "fragility"]),
            (&["--label-threshold", "fragility"], &["--label-threshold", "SIGNAL=VALUE"]),
            (&["--perturb", "0"], &["--perturb", "between 0 and 1"]),
            (&["--perturb", "1"], &["--perturb", "between 0 and 1"]),
            (&["--perturb", "half"], &["--perturb", "between 0 and 1"]),
            (&["--perturb-mode", "fragile"], &["--perturb <SHARE>"]),
            (&["--perturb-seed", "1"], &["--perturb <SHARE>"]),
            (&["--perturb", "0.1", "--perturb-mode", "best"], &["--perturb-mode", "stratified"]),
            (&["--perturb", "0.1", "--perturb-seed", "x"], &["--perturb-seed", "a whole number"]),
            (&["--min-prompts", "0"], &["--min-prompts", "at least 1"]),
            (&["--max-new-tokens", "0"], &["--max-new-tokens", "from 1 to 65535"]),
            (&["--max-new-tokens", "65536"], &["--max-new-tokens", "from 1 to 65535"]),
            (&["--baseline", "x", "--filter-failing"], &["--baseline", "--filter-failing"]),
            (&["--filter-failing", "--stamp"], &["--filter-failing", "--stamp"]),
            (&["--filter-failing", "--perturb", "0.1"], &["--filter-failing", "--perturb"]),
            (&["--artifacts", ""], &["--artifacts"]),
            (&["--report", ""], &["--report"]),
            (&["--baseline", ""], &["--baseline"]),
            (&["--refusal-signals", ""], &["--refusal-signals"]),
        ],
    );
}

#[test]
fn synth() {
    let base = ["synth", "--shape", "mini", "-o", "no/such/x.gguf"];
    refused(
        &["synth"],
        &[
            (&["-o", "x"], &["--shape"]),
            (&["--shape", "mini"], &["--out"]),
            (&["-o", "x", "--shape", ""], &["--shape"]),
        ],
    );
    refused(&base, &RECIPE);
    refused(&base, &THREADS);
    refused(
        &base,
        &[
            (&["--layers", "0"], &["--layers", "at least 1"]),
            (&["--layers", "some"], &["--layers", "at least 1"]),
            (&["--layers", "1000000"], &["--layers", "at most"]),
            (&["--format", "gptq"], &["--format", "safetensors-bf16"]),
            (&["--format", "safetensors-bf16", "--force"], &["--force", "remove the directory"]),
            (&["--format", "safetensors-bf16", "--preset", "balanced"], &["--preset", "leave it out"]),
            (&["--format", "safetensors-bf16", "--tokenizer", "x"], &["--tokenizer", "tokenizer.json"]),
            (&["--format", "safetensors-bf16", "--ternary", "tq2_0"], &["--ternary", "leave it out"]),
            (&["--format", "safetensors-bf16", "--tensor-type", "x=F16"], &["--tensor-type", "leave it out"]),
            (&["--seed", "x"], &["--seed", "a whole number"]),
            (&["--tensor-type", "nothing=F16"], &["--tensor-type", "matches no tensor"]),
            (&["--tensor-type", ".*=TQ2_0"], &["--tensor-type", "must never be ternary"]),
            (&["--tensor-type", r"blk\.0\.attn_k_b\.weight=TQ2_0"], &["--tensor-type", "override it with F16"]),
        ],
    );
}

#[test]
fn failures_beyond_the_command_line_end_with_one() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let (dir, out) = (dir.path().to_str().unwrap(), out.to_str().unwrap());
    let (teacher, tiny) = (&*teacher(), &*fixture("goldens/glm-tiny"));
    let heldout = &*fixture("texts/heldout.txt");
    let suite = &*fixture("suites/suite-200.jsonl");
    let cases: [(&[&str], &str); 23] = [
        (&["run", MODEL, "-p", "hi"], "give an existing file"),
        (&["run", teacher, "-p", "hi", "-c", "5000"], "4096"),
        (&["run", teacher, "-p", "hi", "--memory", "1MB"], "shorter context"),
        (&["run", tiny, "-p", "hi", "--system", "x"], "no chat template"),
        (&["bench", "-m", MODEL], "give an existing file"),
        (&["bench", "-m", tiny, "-d", "999999999"], "made for"),
        (&["quantize", "-m", MODEL, "-o", out], "give an existing file"),
        (&["quantize", "-m", teacher, "-o", out, "--tensor-type", "nothing=F16"], "matches no tensor"),
        (&["quantize", "-m", teacher, "-o", out, "--max-memory", "1MB"], "raise --max-memory"),
        (&["quantize", "-m", teacher, "-o", "no/such/dir.gguf"], "create it first"),
        (&["inspect", MODEL], "give an existing file"),
        (&["verify", MODEL], "give an existing file"),
        (&["tokenize", "-m", MODEL, "--text", "hi"], "give an existing file"),
        (&["tokenize", "-m", teacher, "--file", "no/such/text"], "no/such/text"),
        (&["dump", "-m", tiny, "--tokens", "1,9999", "-o", out], "9999"),
        (&["dump", "-m", tiny, "--tokens", "1", "-o", dir], "directory"),
        (&["eval", "fidelity", "--text", "no/such/text", "--teacher", tiny], "no/such/text"),
        (&["eval", "fidelity", "--text", heldout, "--teacher", tiny, "--n-ctx", "100000"], "100000"),
        (&["eval", "trace", "no/such/trace"], "no/such/trace"),
        (&["eval-gates", "--teacher", MODEL, "--student", MODEL, "--suite", suite, "--corpus", MODEL], MODEL),
        (&["synth", "--shape", "no/such/config.json", "-o", out], "give glm-4.7-flash, mini or a config.json"),
        (&["synth", "--shape", "mini", "--layers", "1", "-o", "no/such/x.gguf"], "no/such"),
        (&["synth", "--shape", "mini", "--tokenizer", "no/such", "-o", out], "no/such"),
    ];
    for (args, part) in cases {
        let sentence = bitnet(args).refusal();
        assert!(sentence.contains(part), "{args:?}: `{part}` is not in: {sentence}");
    }
}
