//! `bitnet index query`: the chunks nearest to a question, with the relations between them.

use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;
use rlm_embed::encoder::cosine;
use rlm_embed::graph::{Relation, RelationRules, Statement};
use rlm_embed::recursion::{Corpus, RecursionConfig, RlmEmbedder, Variant};
use rlm_embed::store::{Chunk, FlatNeighborStore, Neighbor, NeighborRetriever};
use serde_json::json;

use super::change::check_embedder;
use crate::args::{EmbedderArgs, whole};
use crate::output;

/// Find the chunks nearest to a question.
///
/// Below a chunk stand the chunks of the result that contradict it, with the sign that tells it.
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
    /// Embed the question with the texts of the chunks that it finds, in a loop of at most two passes
    #[arg(long, value_enum, default_value = "off")]
    recursion: Recursion,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Recursion {
    Off,
    On,
}

pub(super) fn execute(args: &Args) -> Result<()> {
    let (mut embedder, pool) = args.embedder.load()?;
    let store = FlatNeighborStore::open(&args.index, pool)?;
    check_embedder(&store, &*embedder, &args.index)?;
    let mut passes = None;
    let query = match args.recursion {
        Recursion::Off => embedder.embed(&[&args.question])?,
        Recursion::On => {
            let mut embedder = RlmEmbedder::new(embedder, RecursionConfig::new(Variant::Query));
            let found = embedder.embed(&args.question, None, Corpus::exact(&store))?;
            passes = Some(json!({
                "iterations": found.iterations, "confidence": found.confidence, "stop": found.stop.name(),
            }));
            found.vector
        }
    };
    let found = store.nearest(&query, args.k);
    let contradictions = contradictions(&store, &found);
    if args.json {
        let results = found.iter().zip(&contradictions).map(|(neighbor, opponents)| {
            let Chunk { id, source, text } = store.chunk(neighbor.row);
            let opponents = opponents.iter().map(|(row, sign)| json!({ "id": store.chunk(*row).id, "sign": sign }));
            json!({
                "id": id, "source": source, "text": text, "score": neighbor.score,
                "contradicted_by": opponents.collect::<Vec<_>>(),
            })
        });
        return output::json(&json!({ "results": results.collect::<Vec<_>>(), "recursion": passes }));
    }
    for (neighbor, opponents) in found.iter().zip(&contradictions) {
        let chunk = store.chunk(neighbor.row);
        output::line(format_args!("{:.4}  {}", neighbor.score, output::name(chunk.id)))?;
        output::line(format_args!("        {}", chunk.text))?;
        for (row, sign) in opponents {
            let id = output::name(store.chunk(*row).id);
            output::line(format_args!("        contradicted by {id} ({sign})"))?;
        }
    }
    Ok(())
}

/// For each chunk of the result, the other chunks of it that contradict it.
fn contradictions(store: &FlatNeighborStore, found: &[Neighbor]) -> Vec<Vec<(usize, String)>> {
    let rules = RelationRules::default();
    let statements: Vec<Statement> = found.iter().map(|n| Statement::new(store.chunk(n.row).text)).collect();
    let of = |a: usize| {
        let others = (0..found.len()).filter(|&b| b != a);
        others
            .filter_map(|b| {
                let cosine = cosine(store.vector(found[a].row), store.vector(found[b].row));
                match rules.relation(&statements[a], &statements[b], cosine) {
                    Relation::Contradicts(signal) => Some((found[b].row, format!("{signal:?}").to_lowercase())),
                    Relation::Agrees | Relation::Unrelated => None,
                }
            })
            .collect()
    };
    (0..found.len()).map(of).collect()
}
