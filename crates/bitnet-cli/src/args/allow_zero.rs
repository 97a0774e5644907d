//! `--allow-zero`: use a model although weights are missing.

#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct AllowZero {
    /// Use a model of which weights are missing (matrices of zeros, a file that ends in zeros), and only say so
    #[arg(long)]
    pub(crate) allow_zero: bool,
}
