//! `--threads`.

use std::sync::Arc;

use anyhow::Result;
use tl_kernels::{HardwareCaps, Pool};

use super::number::whole;

#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Threads {
    /// Number of threads (default: one per physical core)
    #[arg(long, value_name = "N", value_parser = whole::<u16>(1..=1024))]
    threads: Option<u16>,
}

impl Threads {
    /// Starts the threads that were asked for.
    pub(crate) fn pool(self) -> Result<Arc<Pool>> {
        let threads = self.threads.map_or_else(|| HardwareCaps::detect().default_threads(), usize::from);
        Ok(Arc::new(Pool::new(threads)?))
    }
}
