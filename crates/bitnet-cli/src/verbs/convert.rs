//! `bitnet convert`: writes a ternary model in another ternary type, without loss.

use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;
use gguf_bitnet::{GgufFile, Job, ModelError, OpenOptions, TensorType, convert};
use ternary_core::I2sLayout;

use crate::args::{self, ModelArg};
use crate::exit::UsageError;
use crate::load;
use crate::output::{self, Progress, size};

/// Write a ternary model in another ternary type, without loss.
///
/// Trits and scales are compared after writing, and all other tensors are copied. A type that cannot hold a scale or a row is
/// refused with the reason.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArg,
    /// The type of the ternary tensors
    #[arg(long, value_enum, value_name = "TYPE")]
    to: Target,
    /// The GGUF to write
    #[arg(short, long, value_name = "FILE", value_parser = args::path_not_stream(args::MODEL_OUT))]
    out: PathBuf,
    /// The layout of I2_S tensors in a file that does not state it
    #[arg(long, value_enum, default_value = "x86")]
    i2s_layout: Layout,
    /// Replace an existing file
    #[arg(long)]
    force: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Target {
    /// 2 bits, one F32 scale per tensor: bitnet.cpp on x86
    #[value(name = "i2_s")]
    I2s,
    /// The same in bitnet.cpp's layout for ARM
    #[value(name = "i2_s_arm")]
    I2sArm,
    /// 1.6875 bits, one scale per 256
    #[value(name = "tq1_0")]
    Tq1_0,
    /// 2.0625 bits, one scale per 256
    #[value(name = "tq2_0")]
    Tq2_0,
    /// 2.25 bits, one scale per 64
    #[value(name = "q2_0")]
    Q2_0,
    /// 2.125 bits, one scale per 128: the layout that a fork of llama.cpp calls Q2_0
    #[value(name = "q2_0_g128")]
    Q2_0G128,
    /// 2 bits, one F32 scale per row: ik_llama.cpp
    #[value(name = "iq2_bn")]
    Iq2Bn,
    /// 2.0625 bits, one scale per 256, a type of our own
    #[value(name = "bitnet_t158")]
    BitnetT158,
}

#[derive(Clone, Copy, ValueEnum)]
enum Layout {
    X86,
    Arm,
}

pub(crate) fn execute(args: Args) -> Result<()> {
    let ty = match args.to {
        Target::I2s => TensorType::I2s,
        Target::I2sArm => TensorType::I2sArm,
        Target::Tq1_0 => TensorType::Tq1_0,
        Target::Tq2_0 => TensorType::Tq2_0,
        Target::Q2_0 => TensorType::Q2_0,
        Target::Q2_0G128 => TensorType::Q2_0G128,
        Target::Iq2Bn => TensorType::Iq2Bn,
        Target::BitnetT158 => TensorType::BitnetT158,
    };
    let i2s_layout = match args.i2s_layout {
        Layout::X86 => I2sLayout::X86,
        Layout::Arm => I2sLayout::Arm,
    };
    let source = GgufFile::open_with(load::locate(&args.model.model)?, OpenOptions { i2s_layout })?;
    Job::check(&args.out, args.force)?;
    let progress = Progress::items("converting");
    let report = convert(&source, ty, &args.out, &mut |done, total| progress.show(done, total)).map_err(usage)?;
    drop(progress);
    if args.json {
        return output::json(&serde_json::json!({ "out": args.out, "type": ty, "report": report }));
    }
    output::line(format_args!(
        "wrote {}: {} tensors as {ty} ({}, before {}), all trits and scales equal",
        args.out.display(),
        report.tensors,
        size(report.bytes_after),
        size(report.bytes_before)
    ))
}

/// An output that is the source makes a wrong command line, whatever the file holds.
fn usage(error: gguf_bitnet::Error) -> anyhow::Error {
    match error.root() {
        gguf_bitnet::Error::Model(ModelError::OutputIsSource) => UsageError::new(format!("--out: {error}")).into(),
        _ => error.into(),
    }
}
