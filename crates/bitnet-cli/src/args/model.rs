//! `--model`: the model that a verb is about.

use clap::builder::NonEmptyStringValueParser;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ModelArg {
    /// Model directory, GGUF file, or name in the local Hugging Face cache
    #[arg(short, long, value_parser = NonEmptyStringValueParser::new())]
    pub(crate) model: String,
}
