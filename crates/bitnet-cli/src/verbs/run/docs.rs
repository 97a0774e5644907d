//! `--docs`: prompts with the chunks of an index before the question, and the citations of the answers.
//!
//! A prompt has the form that the gates measure: each chunk as `text [doc-N]` on a line of its own, then the question.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use behavior_eval::suite::{Chunk, Prompt, render_user};
use behavior_eval::text::sentences;
use clap::builder::NonEmptyStringValueParser;
use rlm_embed::encoder::BaseEmbedder;
use rlm_embed::store::{FlatNeighborStore, NeighborRetriever};
use tl_kernels::Pool;

use crate::args::{PrecisionArg, embedder, whole};
use crate::output;
use crate::verbs::index::note_void;

/// The system message where none is given; that of the suites of the gates.
pub(super) const SYSTEM: &str = "Cite the sources or refuse.";

#[derive(clap::Args)]
pub(super) struct DocsArgs {
    /// Answer from an index (see `bitnet index build`): the chunks nearest to the prompt stand before it, and behind
    /// the answer the chunks that it cites are listed
    #[arg(long, value_name = "INDEX", requires = "docs_model", conflicts_with = "raw")]
    docs: Option<PathBuf>,
    /// The embedder that the index was built with
    #[arg(long, value_name = "MODEL", requires = "docs", value_parser = NonEmptyStringValueParser::new())]
    docs_model: Option<String>,
    /// The precision that the index was built with
    #[arg(long, value_name = "TYPE", value_enum, requires = "docs")]
    docs_precision: Option<PrecisionArg>,
    /// Chunks that stand before a prompt
    #[arg(long, value_name = "N", default_value = "5", requires = "docs", value_parser = whole::<usize>(1..=100))]
    docs_chunks: usize,
}

impl DocsArgs {
    /// Whether answers are to come from an index.
    pub(super) fn is_given(&self) -> bool {
        self.docs.is_some()
    }

    /// Opens the index and loads its embedder; `None` without `--docs`.
    ///
    /// # Errors
    /// An index or an embedder that cannot be used, or that do not belong together.
    pub(super) fn open(&self, pool: &Arc<Pool>) -> Result<Option<Docs>> {
        let (Some(index), Some(model)) = (&self.docs, &self.docs_model) else { return Ok(None) };
        let embedder = embedder(model, self.docs_precision, "--docs-precision", pool.clone())?;
        let store = FlatNeighborStore::open(index, pool.clone())?;
        store.check_embedder(embedder.dims(), embedder.identity(), index)?;
        note_void(&store, index);
        Ok(Some(Docs { store, embedder, n_chunks: self.docs_chunks }))
    }
}

/// An index that answers are taken from.
pub(super) struct Docs {
    store: FlatNeighborStore,
    embedder: Box<dyn BaseEmbedder>,
    n_chunks: usize,
}

/// A prompt with the chunks that stand in it.
pub(super) struct Asked {
    pub(super) user: String,
    /// Empty without an index.
    chunks: Vec<Chunk>,
}

impl Asked {
    /// A question, with the chunks of `docs` that are nearest to it.
    ///
    /// # Errors
    /// A question that the embedder cannot take.
    pub(super) fn new(question: &str, docs: Option<&mut Docs>) -> Result<Asked> {
        let Some(docs) = docs else { return Ok(Asked { user: question.to_owned(), chunks: Vec::new() }) };
        let query = docs.embedder.embed(&[question])?;
        let found = docs.store.nearest(&query, docs.n_chunks);
        let chunk = |(n, row): (usize, usize)| {
            let chunk = docs.store.chunk(row);
            // One line without brackets: the text of a chunk cannot pose as another chunk, its id, or the question.
            let text = chunk.text.split_whitespace().collect::<Vec<_>>().join(" ").replace('[', "(").replace(']', ")");
            Chunk { id: format!("doc-{}", n + 1), source: chunk.id.to_owned(), text }
        };
        let chunks: Vec<Chunk> = found.iter().map(|found| found.row).enumerate().map(chunk).collect();
        Ok(Asked { user: render_user(&chunks, question), chunks })
    }

    /// Lists the chunks that an answer cites, and the citations of chunks that do not exist.
    pub(super) fn note_citations(self, answer: &str) {
        if self.chunks.is_empty() {
            return;
        }
        let prompt = Prompt { chunks: self.chunks, ..Prompt::default() };
        let cited = sentences(answer, &prompt).into_iter().flat_map(|sentence| sentence.citations);
        let cited: BTreeSet<String> = cited.map(|citation| citation.chunk_id).collect();
        for chunk in prompt.chunks.iter().filter(|chunk| cited.contains(&chunk.id)) {
            output::note(format_args!("[{}] {}: {}", chunk.id, output::name(&chunk.source), output::name(&chunk.text)));
        }
        for id in cited.iter().filter(|id| prompt.chunk(id).is_none()) {
            output::note(format_args!("[{}] is no chunk of the prompt", output::name(id)));
        }
        if cited.is_empty() {
            output::note("the answer cites no chunk");
        }
    }
}
