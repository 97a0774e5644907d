//! The claims of a file, and the store of all their texts.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tl_kernels::Pool;

use crate::encoder::BaseEmbedder;
use crate::error::Result;
use crate::store::{FlatNeighborStore, NewChunk};

/// How a text stands to its claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Says the same in other words.
    Paraphrase,
    /// Denies what the claim says.
    Negated,
    /// States another number than the claim.
    Number,
    /// Names another thing than the claim.
    Entity,
    /// Has a word of opposite meaning.
    Antonym,
    /// Says the same of another subject.
    Unrelated,
}

impl Kind {
    /// Every kind, in the order of reports.
    pub const ALL: [Kind; 6] =
        [Kind::Paraphrase, Kind::Negated, Kind::Number, Kind::Entity, Kind::Antonym, Kind::Unrelated];

    /// Whether the text and its claim cannot both be true.
    #[must_use]
    pub fn contradicts(self) -> bool {
        !matches!(self, Kind::Paraphrase | Kind::Unrelated)
    }

    /// The name in files and reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Paraphrase => "paraphrase",
            Kind::Negated => "negated",
            Kind::Number => "number",
            Kind::Entity => "entity",
            Kind::Antonym => "antonym",
            Kind::Unrelated => "unrelated",
        }
    }
}

/// A text beside a claim.
#[derive(Clone, Debug, Deserialize)]
pub struct Other {
    /// How it stands to the claim.
    pub kind: Kind,
    /// The words of it, one sentence.
    pub text: String,
}

/// A claim, the question that it answers, and texts that stand to it in known ways.
#[derive(Clone, Debug, Deserialize)]
pub struct Claim {
    /// A name that no other claim has.
    pub id: String,
    /// The question that the claim answers.
    pub query: String,
    /// The words of the claim.
    pub claim: String,
    /// The texts beside it.
    pub others: Vec<Other>,
}

/// Reads claims, one JSON object per line.
///
/// # Errors
/// The number of the first line that is none, with the reason.
pub fn parse_claims(text: &str) -> Result<Vec<Claim>, (usize, serde_json::Error)> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(n, line)| serde_json::from_str(line).map_err(|error| (n + 1, error))).collect()
}

/// Claims with the vectors of all their texts and of their queries.
#[derive(Debug)]
pub struct ClaimSet {
    /// The claims in the order of their file.
    pub claims: Vec<Claim>,
    /// All texts and the distractors. Texts of claims come first: each claim, then its others.
    pub store: FlatNeighborStore,
    /// The vectors of the queries, `[claims, dims]`.
    pub queries: Vec<f32>,
    /// The row of each claim; the rows of its others follow.
    pub rows: Vec<usize>,
}

impl ClaimSet {
    /// Encodes claims and distractors with `encoder`.
    ///
    /// # Errors
    /// A text that the encoder cannot take.
    pub fn new(
        claims: Vec<Claim>,
        distractors: &[String],
        encoder: &mut dyn BaseEmbedder,
        pool: Arc<Pool>,
    ) -> Result<ClaimSet> {
        let mut store = FlatNeighborStore::in_memory(encoder.dims(), encoder.identity(), pool);
        let mut rows = Vec::with_capacity(claims.len());
        for claim in &claims {
            rows.push(store.rows());
            let texts: Vec<&str> =
                std::iter::once(claim.claim.as_str()).chain(claim.others.iter().map(|o| o.text.as_str())).collect();
            add(&mut store, &claim.id, &texts, encoder)?;
        }
        let distractors: Vec<&str> = distractors.iter().map(String::as_str).collect();
        add(&mut store, "distractor", &distractors, encoder)?;
        let queries: Vec<&str> = claims.iter().map(|claim| claim.query.as_str()).collect();
        let queries = encoder.embed(&queries)?;
        Ok(ClaimSet { claims, store, queries, rows })
    }

    /// Number of rows that hold texts of claims; distractors lie behind them.
    #[must_use]
    pub fn n_claim_texts(&self) -> usize {
        self.claims.iter().map(|claim| 1 + claim.others.len()).sum()
    }

    /// The rows of the texts of claim `i` with their kinds; `None` is the claim itself.
    pub fn texts(&self, i: usize) -> impl Iterator<Item = (usize, Option<Kind>)> {
        let kinds = std::iter::once(None).chain(self.claims[i].others.iter().map(|other| Some(other.kind)));
        kinds.enumerate().map(move |(n, kind)| (self.rows[i] + n, kind))
    }
}

fn add(store: &mut FlatNeighborStore, source: &str, texts: &[&str], encoder: &mut dyn BaseEmbedder) -> Result<()> {
    let vectors = encoder.embed(texts)?;
    let ids: Vec<String> = (0..texts.len()).map(|n| format!("{source}/{n}")).collect();
    let chunks = ids.iter().zip(texts).map(|(id, text)| NewChunk { id, source, text }).collect::<Vec<_>>();
    store.add(&chunks, &vectors)
}
