//! `cargo xtask cross`: the kernels, attention and the runtime on processors that this machine emulates.
//!
//! 64-bit ARM is run by qemu, once as a processor without integer dot products and once with; WASM with SIMD128 is run
//! by Node, and the pages of the examples by a browser where there is one. The tests are those that compare a kernel with the
//! oracle or a forward pass with a golden; then the mini student must give its golden tokens.
//!
//! The device's side of the offload protocol is built for a microcontroller without an operating system, and the static
//! memory that it takes there is bounded.
//!
//! Each part needs its target's standard library and the tools of its list. Missing ones are installed, the library by
//! rustup, the tools by apt-get where this runs as root. A SKIP line names those that cannot be installed; with
//! `CRAFTSMAN_REQUIRE_CROSS=1` they are an error.

mod tools;

use std::path::PathBuf;
use std::time::Instant;

use xshell::{Cmd, Shell, cmd};

use crate::outcome::Outcome;
use crate::{bitnet, repo};

use tools::Tool;

const ARM_LIBRARIES: &str = "/usr/aarch64-linux-gnu";

const ARM: &str = "aarch64-unknown-linux-gnu";
const WASM: &str = "wasm32-unknown-unknown";
const FIRMWARE: &str = "thumbv7em-none-eabihf";

const ARM_TOOLS: [Tool; 3] = [
    Tool { name: "qemu-aarch64", package: "qemu-user" },
    Tool { name: "aarch64-linux-gnu-gcc", package: "gcc-aarch64-linux-gnu" },
    Tool { name: "/usr/aarch64-linux-gnu/lib/libc.so", package: "libc6-dev-arm64-cross" },
];
const NODE: Tool = Tool { name: "node", package: "nodejs" };
const NM: Tool = Tool { name: "nm", package: "binutils" };
const CHROMIUM: Tool = Tool { name: "chromium", package: "chromium" };

const ENCODER: &str = "fixtures/goldens/bert-tiny";
const GOLDEN: &str = "fixtures/goldens/mini-student/tokens.json";

/// The tests of kernels that every target runs: they need neither files nor threads.
const KERNEL_TESTS: &[&str] = &["--test", "it"];

/// Packages and test binaries that run on ARM.
const ARM_TESTS: [(&str, &[&str]); 5] = [
    ("tl-kernels", &["--lib"]),
    ("tl-kernels", KERNEL_TESTS),
    ("mla-attention", &["--test", "it", "--", "mla::", "gqa::"]),
    ("rlm-refine", &["--test", "it", "--", "golden_tokens::", "train_model::gradients_and_a_step"]),
    ("rlm-embed", &["--test", "it", "encoder::vectors_have"]),
];

/// Processors that qemu emulates, each with the level that its kernels must use.
const ARM_PROCESSORS: [(&str, &str); 2] = [("cortex-a53", "neon"), ("max", "neon-dotprod")];

/// Most static memory of the device in the firmware, in bytes; it took 12,380 when the bound was set.
const FIRMWARE_BYTES: u64 = 16 << 10;

/// How the code under test is built.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The cargo profile of what is built.
    #[arg(long, default_value = "checked")]
    profile: String,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let cross = Cross { sh: repo::shell()?, profile: args.profile.clone() };
    let required = std::env::var("CRAFTSMAN_REQUIRE_CROSS").is_ok_and(|value| value == "1");
    let mut skipped = Vec::new();
    for (name, target, needs, run) in [
        ("ARM", ARM, &ARM_TOOLS[..], Cross::arm as Step),
        ("WASM", WASM, &[NODE], Cross::wasm),
        ("page", WASM, &[NODE, CHROMIUM], Cross::page),
        ("firmware", FIRMWARE, &[NM], Cross::firmware),
    ] {
        let missing = tools::install(&cross.sh, target, needs)?;
        if missing.is_empty() {
            let start = Instant::now();
            run(&cross).map_err(|error| format!("{name}: {error}"))?;
            repo::say(&format!("PASS {name} in {} s", start.elapsed().as_secs()));
        } else {
            repo::say(&format!("SKIP {name}: not installed: {}", missing.join(", ")));
            skipped.push(name);
        }
    }
    if required && !skipped.is_empty() {
        return Err(format!("CRAFTSMAN_REQUIRE_CROSS=1, and {} could not be tried", skipped.join(", ")).into());
    }
    Ok(())
}

type Step = fn(&Cross) -> Outcome;

struct Cross {
    sh: Shell,
    profile: String,
}

impl Cross {
    /// `cargo SUBCOMMAND` for a target. `RUSTFLAGS` is removed, because it would override the flags of the target.
    fn cargo(&self, subcommand: &str, target: &str, args: &[&str]) -> Cmd<'_> {
        let Cross { sh, profile } = self;
        cmd!(sh, "cargo {subcommand} --quiet --profile {profile} --target {target} {args...}")
            .env_remove("RUSTFLAGS")
            .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc")
            .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS", "-C target-feature=+simd128")
    }

    fn arm(&self) -> Outcome {
        for (processor, level) in ARM_PROCESSORS {
            let runner = format!("qemu-aarch64 -cpu {processor} -L {ARM_LIBRARIES}");
            for (package, tests) in ARM_TESTS {
                self.cargo("test", ARM, &[&["-p", package], tests].concat())
                    .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", &runner)
                    .env("TL_ISA", level)
                    .run()?;
            }
            repo::say(&format!(
                "PASS ARM {processor}: kernels, attention, golden tokens, a training step and sentence vectors on {level}"
            ));
        }
        Ok(())
    }

    fn wasm(&self) -> Outcome {
        let runner = format!("node {}", repo::root().join("xtask/src/cross/run.mjs").display());
        self.cargo("test", WASM, &[&["-p", "tl-kernels"], KERNEL_TESTS].concat())
            .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER", &runner)
            .run()?;
        repo::say("PASS WASM: kernels on simd128");
        let (module, student) = self.example()?;
        let sh = &self.sh;
        cmd!(sh, "node crates/moe-runtime/examples/wasm/golden.mjs {module} {student} {GOLDEN}").run()?;
        let (encoder, [texts, vectors]) = (self.encoder()?, ["texts.json", "vectors.safetensors"]);
        let golden = "crates/rlm-embed/examples/wasm/golden.mjs";
        cmd!(sh, "node {golden} {encoder} {ENCODER} {ENCODER}/{texts} {ENCODER}/{vectors}").run()?;
        cmd!(sh, "node {golden} {encoder} {ENCODER} {ENCODER}/{texts} {ENCODER}/{vectors} q8_0 0.999").run()?;
        Ok(())
    }

    fn page(&self) -> Outcome {
        let (module, student) = self.example()?;
        let sh = &self.sh;
        cmd!(sh, "node crates/moe-runtime/examples/wasm/browser.mjs chromium {module} {student} {GOLDEN}").run()?;
        let encoder = self.encoder()?;
        cmd!(sh, "node crates/rlm-embed/examples/wasm/browser.mjs chromium {encoder} {ENCODER}").run()?;
        Ok(())
    }

    fn firmware(&self) -> Outcome {
        let Cross { sh, profile } = self;
        let example = ["-p", "rlm-embed", "--no-default-features", "--example", "firmware"];
        self.cargo("build", FIRMWARE, &example).run()?;
        let library = bitnet::target_dir().join(FIRMWARE).join(profile).join("examples/libfirmware.a");
        let symbols = cmd!(sh, "nm --print-size --radix=d {library}").quiet().ignore_stderr().read()?;
        let bytes = bytes_of(&symbols, "DEVICE").ok_or_else(|| format!("{} has no DEVICE", library.display()))?;
        if bytes > FIRMWARE_BYTES {
            return Err(format!("the device takes {bytes} bytes of static memory, more than {FIRMWARE_BYTES}").into());
        }
        repo::say(&format!(
            "PASS firmware: the device takes {bytes} of at most {FIRMWARE_BYTES} bytes of static memory"
        ));
        Ok(())
    }

    /// The example of the sentence encoder as a module.
    fn encoder(&self) -> Outcome<PathBuf> {
        let features = ["--no-default-features", "--features", "encoder"];
        self.cargo("build", WASM, &[&["-p", "rlm-embed"], &features[..], &["--example", "encoder"]].concat()).run()?;
        Ok(bitnet::target_dir().join(WASM).join(&self.profile).join("examples/encoder.wasm"))
    }

    /// The example as a module, and the mini student.
    fn example(&self) -> Outcome<(PathBuf, PathBuf)> {
        self.cargo("build", WASM, &["-p", "moe-runtime", "--no-default-features", "--example", "wasm"]).run()?;
        let folder = bitnet::target_dir().join(WASM).join(&self.profile);
        let (module, student) = (folder.join("examples/wasm.wasm"), folder.join("student.gguf"));
        let (sh, bitnet) = (&self.sh, bitnet::binary(None, &self.profile)?);
        cmd!(sh, "{bitnet} quantize -m fixtures/craftsman-mini -o {student} --preset balanced --method ls --force")
            .quiet()
            .ignore_stderr()
            .run()?;
        Ok((module, student))
    }
}

/// The size of the symbol whose name has `part`, in the table that `nm --print-size --radix=d` prints.
fn bytes_of(symbols: &str, part: &str) -> Option<u64> {
    symbols.lines().find_map(|line| match line.split_whitespace().collect::<Vec<&str>>()[..] {
        [_, bytes, _, name] if name.contains(part) => bytes.parse().ok(),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::bytes_of;

    #[test]
    fn sizes_of_symbols_are_read() {
        let table =
            "\nfirmware.o:\n00000000 00012380 b _ZN8firmware6DEVICE17hE\n         U memcpy\n00000001 00000032 T push\n";
        assert_eq!(
            (bytes_of(table, "DEVICE"), bytes_of(table, "push"), bytes_of(table, "memcpy")),
            (Some(12_380), Some(32), None)
        );
    }
}
