//! `--layout`: where ternary weights are computed from.

use std::sync::Arc;

use anyhow::{Result, anyhow, bail};
use clap::{Args, ValueEnum};
use gguf_bitnet::Catalog;
use moe_runtime::{CraftsmanModel, MemoryPlan};

use crate::model::Experts;
use crate::{output, size};

/// Layout of ternary weights in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Layout {
    /// Packed where the memory allows (that of --memory, else what the system has free)
    Auto,
    /// As the file has them, mapped: starts at once, and the system may drop what it needs room for
    File,
    /// As tiles in memory: read whole at start, then faster
    Packed,
}

/// The choice of a layout.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct LayoutArgs {
    /// Layout of ternary weights in memory
    #[arg(long, value_enum, default_value = "auto")]
    layout: Layout,
}

impl LayoutArgs {
    /// Packs a model that was just loaded, as far as was asked for and `plan` fits the memory.
    pub(crate) fn apply(
        self,
        model: &mut Arc<CraftsmanModel>,
        catalog: &Catalog,
        plan: &MemoryPlan,
        memory: Option<u64>,
        experts: Experts,
    ) -> Result<()> {
        if experts.are_bounded() && self.layout == Layout::Packed {
            bail!("packed weights stay in memory, so --expert-memory needs --layout file or auto");
        }
        let allowed = || memory.or_else(available_bytes);
        let growth = match self.layout {
            Layout::File => return Ok(()),
            Layout::Auto if experts.are_bounded() => return Ok(()),
            Layout::Auto => allowed().and_then(|bytes| bytes.checked_sub(plan.total_bytes())),
            Layout::Packed => Some(memory.map_or(u64::MAX, |bytes| bytes.saturating_sub(plan.total_bytes()))),
        };
        let Some(growth) = growth else { return Ok(()) };
        let model = Arc::get_mut(model).ok_or_else(|| anyhow!("a model is packed before it is shared"))?;
        let packed = model.pack(catalog, growth)?;
        if packed.layers_left > 0 && self.layout == Layout::Packed {
            output::note(format_args!(
                "note: {} of {} layers keep the layout of the file; more memory than {} would pack them",
                packed.layers_left,
                packed.layers + packed.layers_left,
                memory.map_or_else(|| "there is".to_owned(), size::show)
            ));
        }
        Ok(())
    }
}

/// What the system could give without paging, where it tells.
fn available_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}
