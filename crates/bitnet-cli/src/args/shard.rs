//! `--shard` and `--part`: a share of a job, and the file that holds its results.

use std::path::{Path, PathBuf};

use gguf_bitnet::Shard;

use super::path::path_not_stream;

const PART: &str = "a part is read back by `bitnet merge`: write the name of a file, such as 2-of-5.part";

/// The group of the options that name the place of a share's results; one of them goes with `--shard`.
pub(crate) const SHARE_OUT: &str = "share_out";

/// Which share of a job is done. Without it the job is done as a whole.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct ShardArgs {
    /// Do share I of N of the work only, for example 2/5, and write it to --part; `bitnet merge` joins the parts
    #[arg(long, value_name = "I/N", requires = SHARE_OUT)]
    shard: Option<Shard>,
    /// The file of the share that --shard names
    #[arg(long, value_name = "FILE", requires = "shard", group = SHARE_OUT, value_parser = path_not_stream(PART))]
    part: Option<PathBuf>,
}

impl ShardArgs {
    /// The share, wherever its results go.
    pub(crate) fn share(&self) -> Option<Shard> {
        self.shard
    }

    /// The share and the file of its part.
    pub(crate) fn given(&self) -> Option<(Shard, &Path)> {
        self.shard.zip(self.part.as_deref())
    }
}
