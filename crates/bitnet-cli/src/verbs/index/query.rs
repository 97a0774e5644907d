//! `bitnet index query`: the chunks nearest to a question, with the relations between them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::Result;
use rlm_embed::encoder::BaseEmbedder;
use rlm_embed::graph::{Evidence, Passage, Relation, RelationRules};
use rlm_embed::recursion::RlmEmbedding;
use rlm_embed::store::{Chunk, FlatNeighborStore, Neighbor, NeighborRetriever};
use serde_json::{Value, json};

use super::change::note_void;
use crate::args::{EmbedderArgs, Recursion, whole};
use crate::output;

/// Find the chunks nearest to a question.
///
/// Below a chunk stand the chunks of the result that contradict it, with the sign that tells it, and below all chunks those that
/// agree. Chunks that answer the question are compared by their answers, others by words, numbers, names and vectors.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// File that holds the index
    index: PathBuf,
    /// Text whose nearest chunks are wanted
    #[arg(allow_hyphen_values = true)]
    question: String,
    #[command(flatten)]
    embedder: EmbedderArgs,
    /// Number of chunks to find
    #[arg(short, default_value = "5", value_name = "N", value_parser = whole::<usize>(1..=1000))]
    k: usize,
    /// Embed the question with the texts of the chunks that it finds, in a loop of one or two passes
    #[arg(long, value_enum, default_value = "off")]
    recursion: Recursion,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn execute(args: &Args) -> Result<()> {
    let (mut embedder, pool) = args.embedder.load()?;
    let store = FlatNeighborStore::open(&args.index, pool)?;
    store.check_embedder(embedder.dims(), embedder.identity(), &args.index)?;
    note_void(&store, &args.index);
    let (query, looped) = args.recursion.embed(&args.question, &mut *embedder, &store)?;
    let passes = looped.map(|RlmEmbedding { iterations, confidence, stop, .. }| {
        json!({ "iterations": iterations, "confidence": confidence, "stop": stop.name() })
    });
    let found = store.nearest(&query, args.k);
    let passage = |found: &Neighbor| Passage::new(store.chunk(found.row).text, store.vector(found.row));
    let passages: Vec<Passage<'_>> = found.iter().map(passage).collect();
    let evidence = Evidence::of(Some(&args.question), &passages, &RelationRules::default());
    let result = QueryResult { store: &store, found, evidence };
    match args.json {
        true => output::json(&result.json(passes)),
        false => result.print(),
    }
}

/// The chunks that were found, and the relations between them.
struct QueryResult<'a> {
    store: &'a FlatNeighborStore,
    found: Vec<Neighbor>,
    evidence: Evidence,
}

/// Chunks of the result that agree with each other, by their numbers in it.
struct Cluster {
    members: Vec<usize>,
    is_contested: bool,
}

impl QueryResult<'_> {
    fn chunk(&self, i: usize) -> Chunk<'_> {
        self.store.chunk(self.found[i].row)
    }

    /// The chunks that contradict chunk `i`, each with the name of the signal that tells it.
    fn opponents(&self, i: usize) -> Vec<(usize, &'static str)> {
        let signal = |other| match self.evidence.relation(i, other) {
            Relation::Contradicts(signal) => Some((other, signal.name())),
            Relation::Agrees | Relation::Unrelated => None,
        };
        self.evidence.graph.opponents(i).into_iter().filter_map(signal).collect()
    }

    fn clusters(&self) -> Vec<Cluster> {
        let names = self.evidence.graph.clusters();
        let mut clusters: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (i, name) in names.into_iter().enumerate() {
            clusters.entry(name).or_default().push(i);
        }
        let contested = |first: usize| self.evidence.graph.is_contested(first);
        clusters.into_iter().map(|(first, members)| Cluster { members, is_contested: contested(first) }).collect()
    }

    /// Number of distinct sources of some chunks.
    fn sources(&self, members: &[usize]) -> usize {
        members.iter().map(|&i| self.chunk(i).source).collect::<BTreeSet<&str>>().len()
    }

    fn json(&self, passes: Option<Value>) -> Value {
        let results = self.found.iter().enumerate().map(|(i, neighbor)| {
            let Chunk { id, source, text } = self.chunk(i);
            let opponents = self.opponents(i);
            let opponents = opponents.iter().map(|(other, sign)| json!({ "id": self.chunk(*other).id, "sign": sign }));
            json!({
                "id": id, "source": source, "text": text, "score": neighbor.score,
                "contradicted_by": opponents.collect::<Vec<_>>(),
            })
        });
        let ids = |members: &[usize]| members.iter().map(|&i| self.chunk(i).id.to_owned()).collect::<Vec<String>>();
        let clusters = self.clusters();
        let clusters = clusters.iter().map(|Cluster { members, is_contested }| {
            let sources = self.sources(members);
            let cut = self.evidence.graph.minimal_cut(members[0]);
            json!({
                "chunks": ids(members), "sources": sources, "fragility": 1.0 / sources.max(1) as f64,
                "contested": is_contested,
                "weakest_cut": cut.map(|cut| json!({ "weight": cut.weight, "chunks": ids(&cut.far_side) })),
            })
        });
        json!({
            "results": results.collect::<Vec<_>>(), "clusters": clusters.collect::<Vec<_>>(), "recursion": passes,
        })
    }

    fn print(&self) -> Result<()> {
        for (i, neighbor) in self.found.iter().enumerate() {
            let chunk = self.chunk(i);
            output::line(format_args!("{:.4}  {}", neighbor.score, output::name(chunk.id)))?;
            output::line(format_args!("        {}", chunk.text))?;
            for (other, sign) in self.opponents(i) {
                let id = output::name(self.chunk(other).id);
                output::line(format_args!("        contradicted by {id} ({sign})"))?;
            }
        }
        for Cluster { members, is_contested } in self.clusters() {
            if members.len() > 1 {
                let ids: Vec<String> = members.iter().map(|&i| output::name(self.chunk(i).id).to_string()).collect();
                let (sources, contested) = (self.sources(&members), if is_contested { ", contested" } else { "" });
                output::line(format_args!("agree: {} (sources: {sources}{contested})", ids.join(", ")))?;
            }
        }
        Ok(())
    }
}
