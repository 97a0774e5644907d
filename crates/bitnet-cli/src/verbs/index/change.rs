//! `bitnet index build`, `add` and `remove`: changes of an index. Every batch of chunks is on the disk before the next begins, so
//! that the same command continues an interrupted one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::builder::NonEmptyStringValueParser;
use rlm_embed::encoder::BaseEmbedder;
use rlm_embed::store::{FlatNeighborStore, IndexError, NewChunk, cut};
use serde::Deserialize;
use tl_kernels::Pool;

use crate::args::{EmbedderArgs, whole};
use crate::output::Progress;
use crate::{load, output};

/// Chunks that are encoded and written together.
const BATCH: usize = 32;

/// Make an index of texts, or continue to make one.
///
/// A text file is cut into paragraphs; a file that ends in .jsonl has an object with `text` and, if wanted, `id` and `source` per
/// line. Chunks whose id is in the index already are left out when their text is the same, and replaced when it is another.
#[derive(clap::Args)]
pub(crate) struct BuildArgs {
    /// File that holds the index
    index: PathBuf,
    #[command(flatten)]
    texts: TextArgs,
}

/// Add texts to an index.
#[derive(clap::Args)]
pub(crate) struct AddArgs {
    /// The index file, which must exist
    index: PathBuf,
    #[command(flatten)]
    texts: TextArgs,
}

#[derive(clap::Args)]
struct TextArgs {
    /// Text files, or .jsonl files with an object per line
    #[arg(required = true, value_name = "FILE", value_parser = NonEmptyStringValueParser::new())]
    files: Vec<String>,
    #[command(flatten)]
    embedder: EmbedderArgs,
    /// Most words of a chunk that is cut out of a text file
    #[arg(long, default_value = "120", value_name = "N", value_parser = whole::<usize>(1..=10_000))]
    chunk_words: usize,
}

/// Remove chunks from an index.
#[derive(clap::Args)]
pub(crate) struct RemoveArgs {
    /// File that holds the index
    index: PathBuf,
    /// Ids of chunks, or names of sources, whose chunks are all removed
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
}

/// A chunk of a file.
#[derive(Deserialize)]
struct Piece {
    id: Option<String>,
    source: Option<String>,
    text: String,
}

pub(super) fn build(args: &BuildArgs) -> Result<()> {
    change(&args.index, &args.texts, true)
}

pub(super) fn add(args: &AddArgs) -> Result<()> {
    change(&args.index, &args.texts, false)
}

pub(super) fn remove(args: &RemoveArgs) -> Result<()> {
    let mut store = FlatNeighborStore::open_to_change(&args.index, Arc::new(Pool::serial()))?;
    let mut ids = Vec::new();
    for name in &args.ids {
        let of_source = store.live_rows().map(|row| store.chunk(row)).filter(|chunk| chunk.source == name);
        let found: Vec<String> = of_source.map(|chunk| chunk.id.to_owned()).collect();
        match found.is_empty() {
            true => ids.push(name.clone()),
            false => ids.extend(found),
        }
    }
    store.remove(&ids.iter().map(String::as_str).collect::<Vec<_>>())?;
    output::line(format_args!("{}: {} chunks removed, {} left", args.index.display(), ids.len(), store.len()))
}

fn change(index: &Path, args: &TextArgs, may_create: bool) -> Result<()> {
    let mut pieces = Vec::new();
    for file in &args.files {
        pieces.extend(read(file, args.chunk_words)?);
    }
    let (mut embedder, pool) = args.embedder.load()?;
    let mut store = match may_create && !index.exists() {
        true => FlatNeighborStore::create(index, embedder.dims(), embedder.identity(), pool)?,
        false => FlatNeighborStore::open_to_change(index, pool)?,
    };
    check_embedder(&store, &*embedder, index)?;
    let (mut old, mut new) = (Vec::new(), Vec::new());
    for piece in &pieces {
        let there = store.row_of(piece.0.as_str()).map(|row| store.chunk(row).text == piece.2);
        old.extend((there == Some(false)).then_some(piece.0.as_str()));
        new.extend((there != Some(true)).then_some(NewChunk { id: &piece.0, source: &piece.1, text: &piece.2 }));
    }
    store.remove(&old)?;
    let progress = Progress::items("indexing");
    for (n, batch) in new.chunks(BATCH).enumerate() {
        let texts: Vec<&str> = batch.iter().map(|chunk| chunk.text).collect();
        store.add(batch, &embedder.embed(&texts)?)?;
        progress.show((n * BATCH + batch.len()) as u64, new.len() as u64);
    }
    drop(progress);
    let (added, replaced, left) = (new.len() - old.len(), old.len(), pieces.len() - new.len());
    output::line(format_args!(
        "{}: {added} chunks added, {replaced} replaced, {left} left as they were, {} in all",
        index.display(),
        store.len()
    ))
}

/// Refuses an index of another embedder.
pub(super) fn check_embedder(store: &FlatNeighborStore, embedder: &dyn BaseEmbedder, index: &Path) -> Result<()> {
    match store.identity() == embedder.identity() && store.dims() == embedder.dims() {
        true => Ok(()),
        false => Err(rlm_embed::Error::from(IndexError::OtherEmbedder { path: index.to_owned() }).into()),
    }
}

/// Id, source and text of the chunks of a file.
fn read(file: &str, chunk_words: usize) -> Result<Vec<(String, String, String)>> {
    let text = load::read_text(file)?;
    let source = match file {
        "-" => "stdin",
        path => path,
    };
    let id = |n: usize| format!("{source}#{}", n + 1);
    if !file.ends_with(".jsonl") {
        let chunks = cut(&text, chunk_words).into_iter().enumerate();
        return Ok(chunks.map(|(n, text)| (id(n), source.to_owned(), text)).collect());
    }
    let mut pieces = Vec::new();
    for (n, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        match serde_json::from_str::<Piece>(line) {
            Ok(piece) => pieces.push((
                piece.id.unwrap_or_else(|| id(n)),
                piece.source.unwrap_or_else(|| source.to_owned()),
                piece.text,
            )),
            Err(error) => bail!("{file}: line {} is no object with a `text` ({error}): mend it", n + 1),
        }
    }
    Ok(pieces)
}
