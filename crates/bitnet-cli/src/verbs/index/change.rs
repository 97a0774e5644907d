//! `bitnet index build`, `add` and `remove`: changes of an index. Every batch of chunks is on the disk before the next begins, so
//! that the same command continues an interrupted one.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::builder::NonEmptyStringValueParser;
use rlm_embed::appliance::Candidate;
use rlm_embed::encoder::BaseEmbedder;
use rlm_embed::store::{FlatNeighborStore, NewChunk, cut};
use serde::Deserialize;
use tl_kernels::Pool;

use super::intake::PresetArgs;
use crate::args::{EmbedderArgs, whole};
use crate::output::Progress;
use crate::{load, output};

/// Chunks that are encoded and written together.
const BATCH: usize = 32;

/// Make an index of texts, or continue to make one.
///
/// A text file is cut into paragraphs; a file that ends in .jsonl has an object with `text` and, if wanted, `id`, `source` and
/// `priority` per line. Chunks that are in the index already are left as they are, and those with another text are replaced. A chunk without an id of
/// its own gets the id FILE#N. Chunks with such an id that FILE has no longer are removed; those of lines that name their own id or
/// source are not. Texts from standard input (`-`) get the ids stdin#N: a later input replaces those with the same number, and removes
/// none.
#[derive(clap::Args)]
pub(crate) struct BuildArgs {
    /// File that holds the index
    index: PathBuf,
    #[command(flatten)]
    texts: TextArgs,
}

/// Add texts to an index.
///
/// Does what `build` does, but makes no index. Chunks with an id FILE#N that FILE has no longer are removed, but none from standard
/// input, whose ids are stdin#N: a later input replaces those with the same number.
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
    #[command(flatten)]
    preset: PresetArgs,
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
struct Piece {
    id: String,
    source: String,
    text: String,
    priority: f32,
}

/// A chunk on a line of a .jsonl file.
#[derive(Deserialize)]
struct Line {
    id: Option<String>,
    source: Option<String>,
    text: String,
    #[serde(default)]
    priority: f32,
}

pub(super) fn build(args: &BuildArgs) -> Result<()> {
    change(&args.index, &args.texts, true)
}

pub(super) fn add(args: &AddArgs) -> Result<()> {
    change(&args.index, &args.texts, false)
}

pub(super) fn remove(args: &RemoveArgs) -> Result<()> {
    let mut store = FlatNeighborStore::open_to_change(&args.index, Arc::new(Pool::serial()))?;
    note_void(&store, &args.index);
    let mut ids = Vec::new();
    for name in &args.ids {
        let of_source = store.live_rows().map(|row| store.chunk(row)).filter(|chunk| chunk.source == name);
        let found: Vec<String> = of_source.map(|chunk| chunk.id.to_owned()).collect();
        match found.is_empty() {
            true => ids.push(name.clone()),
            false => ids.extend(found),
        }
    }
    let removed = store.remove(&ids.iter().map(String::as_str).collect::<Vec<_>>())?;
    output::line(format_args!("{}: {removed} chunks removed, {} left", args.index.display(), store.len()))
}

/// Brings an index up to date with files: new chunks are added, changed ones replaced, and at last those are removed that a file
/// has no longer. An interruption at any moment leaves each chunk in its old or its new state.
fn change(index: &Path, args: &TextArgs, may_create: bool) -> Result<()> {
    let pieces = read_all(&args.files, args.chunk_words)?;
    let (embedder, pool) = args.embedder.load()?;
    let (dims, identity) = (embedder.dims(), embedder.identity());
    let mut store = match may_create {
        true => FlatNeighborStore::open_or_create(index, dims, identity, pool)?,
        false => {
            let store = FlatNeighborStore::open_to_change(index, pool)?;
            store.check_embedder(dims, identity, index)?;
            store
        }
    };
    note_void(&store, index);
    let mut new = Vec::new();
    for Piece { id, source, text, priority } in &pieces {
        let chunk = NewChunk { id, source, text };
        let is_there = store.row_of(id).is_some_and(|row| store.chunk(row) == chunk);
        new.extend((!is_there).then_some(Candidate { chunk, priority: *priority }));
    }
    let (taken, [added, replaced]) = match args.preset.preset() {
        Some(preset) => {
            let taken = args.preset.take(preset, embedder, &new, (&mut store, index))?;
            let stored = taken.stored();
            (Some(taken), stored)
        }
        None => (None, put(&mut store, embedder, &new)?),
    };
    let gone = gone(&store, &args.files, &pieces);
    let removed = store.remove(&gone.iter().map(String::as_str).collect::<Vec<_>>())?;
    output::line(format_args!(
        "{}: {added} chunks added, {replaced} replaced, {removed} removed, {} left as they were, {} in all",
        index.display(),
        pieces.len() - new.len(),
        store.len()
    ))?;
    taken.map_or(Ok(()), |taken| taken.print())
}

/// Stores all chunks, a batch at a time; the numbers of those that are new, and of those that take the place of another one.
fn put(store: &mut FlatNeighborStore, mut embedder: impl BaseEmbedder, new: &[Candidate<'_>]) -> Result<[usize; 2]> {
    let before = store.len();
    let progress = Progress::items("indexing");
    for (n, batch) in new.chunks(BATCH).enumerate() {
        let chunks: Vec<NewChunk<'_>> = batch.iter().map(|candidate| candidate.chunk).collect();
        let texts: Vec<&str> = chunks.iter().map(|chunk| chunk.text).collect();
        store.put(&chunks, &embedder.embed(&texts)?)?;
        progress.show((n * BATCH + batch.len()) as u64, new.len() as u64);
    }
    let added = store.len() - before;
    Ok([added, new.len() - added])
}

/// Ids of the chunks that were made of one of the files, as their ids and sources show, and that are in none of them now. Standard
/// input is another text each time, so that nothing of it is gone.
fn gone(store: &FlatNeighborStore, files: &[String], pieces: &[Piece]) -> Vec<String> {
    let files: HashSet<&str> = files.iter().map(String::as_str).filter(|file| *file != "-").collect();
    let ids: HashSet<&str> = pieces.iter().map(|piece| piece.id.as_str()).collect();
    let is_of_file = |chunk: &NewChunk<'_>| {
        let file = chunk.id.rsplit_once('#').filter(|(_, n)| n.parse::<usize>().is_ok()).map(|(file, _)| file);
        file == Some(chunk.source) && files.contains(chunk.source)
    };
    let chunks = store.live_rows().map(|row| store.chunk(row));
    chunks.filter(|chunk| is_of_file(chunk) && !ids.contains(chunk.id)).map(|chunk| chunk.id.to_owned()).collect()
}

/// Says what an interrupted write left in the file.
pub(crate) fn note_void(store: &FlatNeighborStore, index: &Path) {
    if store.void_bytes() > 0 {
        output::note(format_args!(
            "{}: {} bytes of the file are no whole batch of chunks and are left out: a write was interrupted, or the end of the \
             file is damaged; `bitnet index build` adds what is missing",
            index.display(),
            store.void_bytes()
        ));
    }
}

/// The source of the chunks of a file.
fn source_of(file: &str) -> &str {
    if file == "-" { "stdin" } else { file }
}

/// The chunks of all files, in order.
fn read_all(files: &[String], chunk_words: usize) -> Result<Vec<Piece>> {
    let (mut pieces, mut ids) = (Vec::new(), HashSet::new());
    for file in files {
        for piece in read(file, chunk_words)? {
            if !ids.insert(piece.id.clone()) {
                bail!(
                    "{file}: the chunk id `{}` stands twice: give each chunk an id of its own",
                    output::name(&piece.id)
                );
            }
            pieces.push(piece);
        }
    }
    Ok(pieces)
}

/// The chunks of a file; see [`gone`] for the ids.
fn read(file: &str, chunk_words: usize) -> Result<Vec<Piece>> {
    let text = load::read_text(file)?;
    let source = source_of(file);
    let id = |n: usize| format!("{source}#{}", n + 1);
    if !file.ends_with(".jsonl") {
        let chunks = cut(&text, chunk_words).into_iter().enumerate();
        let piece = |(n, text)| Piece { id: id(n), source: source.to_owned(), text, priority: 0.0 };
        return Ok(chunks.map(piece).collect());
    }
    let mut pieces = Vec::new();
    for (n, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        match serde_json::from_str::<Line>(line) {
            Ok(Line { id: own, source: from, text, priority }) => pieces.push(Piece {
                id: own.unwrap_or_else(|| id(n)),
                source: from.unwrap_or_else(|| source.to_owned()),
                text,
                priority,
            }),
            Err(error) => bail!("{file}: line {} is no object with a `text` ({error}): mend it", n + 1),
        }
    }
    Ok(pieces)
}
