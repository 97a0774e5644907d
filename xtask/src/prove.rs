//! `cargo xtask prove NAME`: the heavy demonstrations, one file each.
//!
//! A proof checks the disk first, works in a folder of its own that is removed afterwards, prints one PASS or MISS line
//! per figure, and appends the figures to `benches/record/<arch>/<date>.csv`. It fails when a figure misses its target.

mod bindings;
mod calibrate;
mod child;
mod clients;
mod clock;
mod cluster;
mod drafts;
mod embed;
mod environment;
mod gates;
mod goldens;
mod interop;
mod kill;
mod memory;
mod memory_limit;
mod namespace;
mod offload;
mod p95;
mod page;
mod perplexity;
mod proof;
mod quantize;
mod real;
mod rivals;
mod served;
mod soak;
mod speed;
mod streaming;
mod templates;
mod ternary_forward;

use std::path::PathBuf;

use clap::ValueEnum;

use crate::outcome::Outcome;
use crate::record::Record;
use crate::{bitnet, repo};

use proof::{Judged, Options, Proof, Work};

/// A proof and the place it works in.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The proof to run.
    #[arg(value_enum)]
    name: Name,
    /// A folder on a disk with enough room; the default is below `target/`.
    #[arg(long)]
    work: Option<PathBuf>,
    /// Leave the files where they are afterwards.
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    options: Options,
    /// Test this binary instead of building one.
    #[arg(long)]
    bitnet: Option<PathBuf>,
    /// Do not append to benches/record.
    #[arg(long)]
    no_record: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Name {
    /// A 4-layer full-width checkpoint (5.25 GB): peak memory, speed, five kills and resumes.
    Quantize,
    /// `bitnet dump` on every reference checkpoint of a folder against its golden.safetensors.
    Goldens,
    /// Perplexity of the mini teacher on held-out text against transformers.
    Perplexity,
    /// Our files in llama.cpp and in the `gguf` package, and theirs here.
    Interop,
    /// A ternary model of width 2048 in three activation modes against NumPy.
    TernaryForward,
    /// The kill and resume part of `quantize` on a small checkpoint.
    Kill,
    /// The speed of `bitnet refine` on the mini teacher's student beside PyTorch, whose Python --python names.
    Training,
    /// A calibrated student of the mini teacher: killed behind every layer and in the middle of each.
    Calibrate,
    /// The gates on the mini teacher itself, on both suites, with kills, and on two students of it.
    Gates,
    /// Full-size random files (9 GB, one after the other) against the memory bandwidth and llama.cpp.
    Speed,
    /// A full-size random `8g` file (7.7 GB) with full contexts: the planned memory beside the memory taken.
    Memory,
    /// The mini teacher's experts at IQ2_XXS, IQ1_M and Q2_K by llama.cpp beside ternary ones, by one measure.
    Rivals,
    /// The vectors of all-MiniLM-L6-v2 in the folder DIR against transformers, in F32, Q8_0 and with INT8 activations; its speed beside ONNX Runtime.
    Embed,
    /// SmolLM2-135M, fetched through pip: chat, ids and logits against others, perplexity, speed, ternary students.
    Real,
    /// The Python packages of OpenAI, Anthropic and LangChain, lm-eval, Codex, Claude Code and opencode against `bitnet serve`.
    Clients,
    /// 10,000 requests to a coprocessor on a pseudo-terminal for each kind of fault, in real time.
    Offload,
    /// 12,000 requests to `bitnet serve`, of which a part leaves, is too long or has a wrong key.
    Soak,
    /// A long prompt arrives at `bitnet serve` while an answer streams: the times between tokens, and the time of the prompt.
    P95,
    /// The built-in page in headless Chromium: streams, folded thoughts, errors, narrow windows, colours, the keyboard.
    Page,
    /// The packages for Python and Node: built without a C compiler, installed into clean environments, tested there.
    Bindings,
    /// A 4-layer full-width checkpoint (5.25 GB) recorded layer by layer in less than a third of its size: the same bytes.
    Streaming,
    /// A batch and the gates by the Ray adapter, in a network namespace: on one worker, and on two nodes of this machine with a
    /// worker, the driver and a node killed.
    Cluster,
    /// Answers of the mini teacher, or of the one in DIR that has an MTP block, with drafts and without: equal texts, tokens per
    /// step.
    Drafts,
    /// Every chat template of the folder DIR against Jinja2 as transformers sets it up.
    Templates,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let name = args.name.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default();
    let parent = args.work.clone().unwrap_or_else(|| repo::root().join("target/prove"));
    let work = Work::create(&std::path::absolute(parent)?, &name, args.keep)?;
    let record = (!args.no_record).then(|| Record::open(&name)).transpose()?;
    let mut proof = Proof::new(&args.options, &work, record);
    let bitnet = || bitnet::binary(args.bitnet.as_deref(), "release");
    let judged = match args.name {
        Name::Quantize => measured(quantize::prove(&mut proof, &bitnet()?)),
        Name::Goldens => measured(goldens::prove(&mut proof, &bitnet()?)),
        Name::Perplexity => measured(perplexity::prove(&mut proof, &bitnet()?)),
        Name::Interop => measured(interop::prove(&mut proof, &bitnet()?)),
        Name::TernaryForward => measured(ternary_forward::prove(&mut proof, &bitnet()?)),
        Name::Drafts => measured(drafts::prove(&mut proof, &bitnet()?)),
        Name::Kill => measured(kill::prove(&mut proof, &bitnet()?)),
        Name::Calibrate => measured(calibrate::prove(&mut proof, &bitnet()?)),
        Name::Training => measured(interop::script(&mut proof, &bitnet()?, "training.py", &[])),
        Name::Gates => measured(gates::prove(&mut proof, &bitnet()?)),
        Name::Speed => measured(speed::prove(&mut proof, &bitnet()?)),
        Name::Offload => measured(offload::prove(&mut proof, &bitnet()?)),
        Name::Memory => measured(memory::prove(&mut proof, &bitnet()?)),
        Name::P95 => p95::prove(&mut proof, &bitnet()?),
        Name::Streaming => measured(streaming::prove(&mut proof, &bitnet()?)),
        Name::Soak => measured(soak::prove(&mut proof)),
        Name::Rivals => rivals::prove(&mut proof, bitnet),
        Name::Embed => embed::prove(&mut proof, bitnet),
        Name::Real => real::prove(&mut proof, bitnet),
        Name::Page => page::prove(&mut proof, bitnet),
        Name::Clients => clients::prove(&mut proof, bitnet),
        Name::Bindings => bindings::prove(&mut proof, bitnet),
        Name::Cluster => cluster::prove(&mut proof, bitnet),
        Name::Templates => templates::prove(&mut proof),
    };
    match judged? {
        Judged::Measured => proof.judge(),
        Judged::Skipped => Ok(()),
    }
}

/// The outcome of a proof that is never skipped.
fn measured(done: Outcome) -> Outcome<Judged> {
    done.map(|()| Judged::Measured)
}
