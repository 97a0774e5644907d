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
use rlm_embed::graph::{Evidence, Passage, Relation, RelationRules};
use rlm_embed::store::{FlatNeighborStore, Neighbor, NeighborRetriever};
use tl_kernels::Pool;

use crate::args::{PrecisionArg, Recursion, embedder, whole};
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
    /// Search with the prompt and the texts of the chunks that it finds, in a loop of one or two passes
    #[arg(long, value_enum, default_value = "off", requires = "docs")]
    docs_recursion: Recursion,
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
        Ok(Some(Docs { store, embedder, n_chunks: self.docs_chunks, recursion: self.docs_recursion }))
    }
}

/// An index that answers are taken from.
pub(super) struct Docs {
    store: FlatNeighborStore,
    embedder: Box<dyn BaseEmbedder>,
    n_chunks: usize,
    recursion: Recursion,
}

/// A prompt with the chunks that stand in it.
pub(super) struct Asked {
    pub(super) user: String,
    /// Empty without an index.
    chunks: Vec<Chunk>,
    /// The pairs of them that contradict each other, with the sign that tells it.
    contradictions: Vec<(usize, usize, &'static str)>,
}

impl Asked {
    /// A question, with the chunks of `docs` that are nearest to it.
    ///
    /// # Errors
    /// A question that the embedder cannot take.
    pub(super) fn new(question: &str, docs: Option<&mut Docs>) -> Result<Asked> {
        let Some(docs) = docs else { return Ok(Asked::alone(question)) };
        let (query, _) = docs.recursion.embed(question, &mut *docs.embedder, &docs.store)?;
        let found = docs.store.nearest(&query, docs.n_chunks);
        let chunk = |(n, row): (usize, usize)| {
            let chunk = docs.store.chunk(row);
            // One line without brackets: the text of a chunk cannot pose as another chunk, its id, or the question.
            let text = chunk.text.split_whitespace().collect::<Vec<_>>().join(" ").replace('[', "(").replace(']', ")");
            Chunk { id: format!("doc-{}", n + 1), source: chunk.id.to_owned(), text }
        };
        let chunks: Vec<Chunk> = found.iter().map(|found| found.row).enumerate().map(chunk).collect();
        let passage = |found: &Neighbor| Passage::new(docs.store.chunk(found.row).text, docs.store.vector(found.row));
        let passages: Vec<Passage<'_>> = found.iter().map(passage).collect();
        let evidence = Evidence::of(Some(question), &passages, &RelationRules::default());
        let sign = |(i, j)| match evidence.relation(i, j) {
            Relation::Contradicts(signal) => Some((i, j, signal.name())),
            Relation::Agrees | Relation::Unrelated => None,
        };
        let pairs = (0..chunks.len()).flat_map(|i| (i + 1..chunks.len()).map(move |j| (i, j)));
        Ok(Asked { user: render_user(&chunks, question), contradictions: pairs.filter_map(sign).collect(), chunks })
    }

    /// A question without chunks.
    fn alone(question: &str) -> Asked {
        Asked { user: question.to_owned(), chunks: Vec::new(), contradictions: Vec::new() }
    }

    /// Lists the chunks that an answer cites, the chunks of the prompt that contradict one of these, and the citations of chunks
    /// that do not exist.
    pub(super) fn note_citations(self, answer: &str) {
        self.citations(answer).into_iter().for_each(output::note);
    }

    fn citations(self, answer: &str) -> Vec<String> {
        if self.chunks.is_empty() {
            return Vec::new();
        }
        let mut lines = Vec::new();
        let prompt = Prompt { chunks: self.chunks, ..Prompt::default() };
        let cited = sentences(answer, &prompt).into_iter().flat_map(|sentence| sentence.citations);
        let cited: BTreeSet<String> = cited.map(|citation| citation.chunk_id).collect();
        for chunk in prompt.chunks.iter().filter(|chunk| cited.contains(&chunk.id)) {
            lines.push(format!("[{}] {}: {}", chunk.id, output::name(&chunk.source), output::name(&chunk.text)));
        }
        let of_cited = |i: usize| cited.contains(&prompt.chunks[i].id);
        for (i, j, sign) in self.contradictions.into_iter().filter(|&(i, j, _)| of_cited(i) || of_cited(j)) {
            let (cited, other) = if of_cited(i) { (i, j) } else { (j, i) };
            let [cited, other] = [cited, other].map(|i| &prompt.chunks[i]);
            let (source, text) = (output::name(&other.source), output::name(&other.text));
            lines.push(format!("[{}] is contradicted by {source} ({sign}): {text}", cited.id));
        }
        for id in cited.iter().filter(|id| prompt.chunk(id).is_none()) {
            lines.push(format!("[{}] is no chunk of the prompt", output::name(id)));
        }
        if cited.is_empty() {
            lines.push("the answer cites no chunk".to_owned());
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use rlm_embed::encoder::HashEmbedder;
    use rlm_embed::store::NewChunk;

    use super::*;

    fn docs(recursion: Recursion) -> Docs {
        let mut embedder = HashEmbedder::new(HashEmbedder::DEFAULT_DIMS);
        let texts = [
            ("open", "The Orra bridge is open to carts."),
            ("closed", "The Orra bridge is closed to carts."),
            ("violin", "A violin has [four] strings."),
        ];
        let mut store = FlatNeighborStore::in_memory(embedder.dims(), embedder.identity(), Arc::new(Pool::serial()));
        let chunks = texts.map(|(id, text)| NewChunk { id, source: "notes", text });
        store.add(&chunks, &embedder.embed(&texts.map(|(_, text)| text)).unwrap()).unwrap();
        Docs { store, embedder: Box::new(embedder), n_chunks: 3, recursion }
    }

    #[test]
    fn a_cited_chunk_is_listed_with_those_that_contradict_it() {
        for recursion in [Recursion::Off, Recursion::On] {
            let asked = || Asked::new("Is the Orra bridge open?", Some(&mut docs(recursion))).unwrap();
            let place = |id: &str| asked().chunks.iter().position(|chunk| chunk.source == id).unwrap() + 1;
            let [open, closed, violin] = ["open", "closed", "violin"].map(place);
            let expected = [
                format!("[doc-{open}] open: The Orra bridge is open to carts."),
                format!("[doc-{open}] is contradicted by closed (antonym): The Orra bridge is closed to carts."),
            ];
            assert_eq!(asked().citations(&format!("It is open. [doc-{open}]")), expected);
            let other = asked().citations(&format!("It is closed. [doc-{closed}] [doc-9]"));
            assert!(other[1].contains("is contradicted by open") && other[2].contains("no chunk"), "{other:?}");
            let apart = asked().citations(&format!("It has four strings. [doc-{violin}]"));
            assert_eq!(apart, [format!("[doc-{violin}] violin: A violin has (four) strings.")]);
            assert_eq!(asked().citations("No."), ["the answer cites no chunk"]);
        }
        assert!(Asked::alone("a").citations("b").is_empty());
    }
}
