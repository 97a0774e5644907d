//! `bitnet tokenize`: text to token ids.

use anyhow::Result;
use clap::builder::NonEmptyStringValueParser;
use serde_json::json;

use crate::args::ModelArg;
use crate::{load, output};

/// Show the token ids of a text.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArg,
    /// The text to cut into tokens
    #[arg(long, allow_hyphen_values = true, conflicts_with = "file")]
    text: Option<String>,
    /// A file with the text; `-` is standard input
    #[arg(long, default_value = "-", value_name = "FILE", value_parser = NonEmptyStringValueParser::new())]
    file: String,
    /// Encode control tokens such as <|user|> in the text as tokens, not as ordinary characters
    #[arg(long)]
    parse_special: bool,
    /// The default: control tokens in the text are ordinary characters
    #[arg(long, hide = true, conflicts_with = "parse_special")]
    no_special: bool,
    /// Print ids and pieces as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn execute(args: Args) -> Result<()> {
    let tokenizer = load::open(&args.model.model)?.tokenizer()?;
    let text = match args.text {
        Some(text) => text,
        None => load::read_text(&args.file)?,
    };
    let ids = tokenizer.encode(&text, args.parse_special)?;
    if args.json {
        let pieces = ids.iter().map(|&id| String::from_utf8_lossy(tokenizer.piece(id)).into_owned());
        return output::json(&json!({ "ids": ids, "pieces": pieces.collect::<Vec<_>>() }));
    }
    output::line(ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" "))
}
