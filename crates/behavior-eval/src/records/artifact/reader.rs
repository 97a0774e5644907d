//! Reading an artifact, trusting none of it.

use std::collections::HashSet;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use gguf_bitnet::open_regular;
use serde::de::DeserializeOwned;

use super::layout::{
    self, Column, HEAD_BYTES, Header, Index, MAX_HEADER_BYTES, MAX_INDEX_BYTES, PromptEntry, TRAILER_BYTES,
};
use super::sparse_logits::SparseLogits;
use super::spec::ArtifactSpec;
use crate::model::{Answer, RoutingTable};
use crate::records::bytes::{read_f16, read_f32, read_u16, read_u32};
use crate::records::format::{ARTIFACT_VERSION, END_MAGIC, FILE_NAME, MAGIC};
use crate::records::{ArtifactDefect, file};
use crate::suite::{Prompt, SuiteError};
use crate::text::parse;
use crate::{Error, Result};

/// An open artifact. Prompts are named by their place in [`TeacherArtifact::prompts`].
///
/// A column that was not recorded is `None`, and the figures that need it are absent from reports.
#[derive(Debug)]
pub struct TeacherArtifact {
    path: PathBuf,
    file: Mutex<File>,
    spec: ArtifactSpec,
    prompts: Vec<PromptEntry>,
    /// Where the block of each prompt starts.
    starts: Vec<u64>,
}

impl TeacherArtifact {
    /// Opens the artifact at `path`, its file or the folder that holds it, and checks everything but the columns.
    ///
    /// # Errors
    /// [`Error::Store`] and [`Error::File`] when it cannot be read, [`RecordError::Artifact`](crate::records::RecordError::Artifact) with the reason when it is not what it should be.
    pub fn open(path: &Path) -> Result<Self> {
        let path = if path.is_dir() { path.join(FILE_NAME) } else { path.to_owned() };
        let file = open_regular(&path)?;
        let (spec, prompts, blocks) = read_parts(&file, &path)?;
        let starts = block_starts(&path, &spec, &prompts, blocks).map_err(|defect| defect.at(&path))?;
        Ok(Self { path, file: Mutex::new(file), spec, prompts, starts })
    }

    /// Opens the artifact at `path` if it is a recording of `spec`.
    ///
    /// # Errors
    /// As [`TeacherArtifact::open`]; [`ArtifactDefect::Foreign`] names what differs and both values.
    pub fn open_for(path: &Path, spec: &ArtifactSpec) -> Result<Self> {
        let artifact = Self::open(path)?;
        match artifact.foreign(spec) {
            None => Ok(artifact),
            Some(defect) => Err(defect.at(&artifact.path).into()),
        }
    }

    /// Path of the artifact's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The specification that it is a recording of.
    pub fn spec(&self) -> &ArtifactSpec {
        &self.spec
    }

    /// Its prompts, in the order of the suite.
    pub fn prompts(&self) -> &[PromptEntry] {
        &self.prompts
    }

    /// Whether it holds exactly these prompts, in this order.
    ///
    /// # Errors
    /// [`ArtifactDefect::Damaged`] with the first place where it does not.
    pub fn check_prompts<'a>(&self, prompt_ids: impl Iterator<Item = &'a str>) -> Result<()> {
        let mut stored = self.prompts.iter().map(|entry| entry.prompt_id.as_str());
        for (place, id) in prompt_ids.map(Some).chain([None]).enumerate() {
            let found = stored.next();
            if found != id {
                let name = |id: Option<&str>| id.map_or_else(|| "its end".to_owned(), |id| format!("prompt {id}"));
                let reason = format!("{} stands at place {place} where the suite has {}", name(found), name(id));
                return Err(ArtifactDefect::damaged("index", reason).at(&self.path).into());
            }
        }
        Ok(())
    }

    /// The place of a prompt that must be there.
    pub(crate) fn place_of(&self, prompt: &Prompt) -> Result<usize, SuiteError> {
        let place = self.prompts.iter().position(|entry| entry.prompt_id == prompt.id);
        place.ok_or_else(|| SuiteError::UnknownPrompt { prompt_id: prompt.id.clone() })
    }

    /// The tokens of prompt and answer `[n]`.
    ///
    /// # Errors
    /// [`ArtifactDefect::Column`], here and in all that follows, for bytes that are not those recorded.
    ///
    /// # Panics
    /// Here and in all that follows, when there is no such prompt.
    pub fn tokens(&self, prompt: usize) -> Result<Vec<u32>> {
        let tokens = read_u32(&self.column(prompt, Column::Tokens)?.unwrap_or_default());
        let vocab_size = self.spec.model.vocab_size;
        match tokens.iter().find(|&&token| usize::try_from(token).map_or(true, |token| token >= vocab_size)) {
            None => Ok(tokens),
            Some(token) => Err(self.wrong(prompt, Column::Tokens, format!("token {token} of {vocab_size}"))),
        }
    }

    /// The teacher's greedy answer to the prompt.
    pub fn answer(&self, prompt: usize) -> Result<Answer> {
        let entry = &self.prompts[prompt];
        let tokens = self.tokens(prompt)?.split_off(entry.prompt_tokens);
        let text = self.column(prompt, Column::Answer)?.unwrap_or_default();
        let text =
            String::from_utf8(text).map_err(|_| self.wrong(prompt, Column::Answer, "it is not UTF-8".to_owned()))?;
        Ok(Answer { tokens, text, stop_reason: entry.stop_reason })
    }

    /// The teacher's routing of prompt and answer.
    pub fn routing(&self, prompt: usize) -> Result<RoutingTable> {
        let table = self.table(prompt, [Column::Ids, Column::Weights, Column::Margins])?;
        table.ok_or_else(|| self.wrong(prompt, Column::Ids, "it is missing".to_owned()))
    }

    /// The teacher's routing of the recorded [`TeacherArtifact::router_inputs`]: the reference of the local mode.
    pub fn local_routing(&self, prompt: usize) -> Result<Option<RoutingTable>> {
        self.table(prompt, [Column::LocalIds, Column::LocalWeights, Column::LocalMargins])
    }

    /// All router scores `[layers, n, n_experts]`, rounded to F16.
    pub fn scores(&self, prompt: usize) -> Result<Option<Vec<f32>>> {
        self.halves(prompt, Column::Scores)
    }

    /// The inputs of the routers `[layers, n, hidden]`, rounded to F16.
    pub fn router_inputs(&self, prompt: usize) -> Result<Option<Vec<f32>>> {
        self.halves(prompt, Column::RouterInputs)
    }

    /// The residual stream after the final norm `[n, hidden]`, rounded to F16.
    pub fn final_hidden(&self, prompt: usize) -> Result<Option<Vec<f32>>> {
        self.halves(prompt, Column::FinalHidden)
    }

    /// The rows of logits, ascending by position.
    pub fn sparse_logits(&self, prompt: usize) -> Result<Option<Vec<SparseLogits>>> {
        let Some(bytes) = self.column(prompt, Column::Logits)? else { return Ok(None) };
        let first = layout::first_logits(&self.spec, self.prompts[prompt].prompt_tokens).unwrap_or(0);
        let rows = bytes.chunks_exact(layout::row_bytes(layout::kept(&self.spec)));
        let read = |(i, row)| SparseLogits::read(row, first + i, self.spec.model.vocab_size);
        let rows: Result<Vec<_>, String> = rows.enumerate().map(read).collect();
        rows.map(Some).map_err(|reason| self.wrong(prompt, Column::Logits, reason))
    }

    /// The bytes of all columns of a prompt, as [`ArtifactWriter::append_block`](super::ArtifactWriter::append_block) takes
    /// them.
    pub(crate) fn block(&self, prompt: usize) -> Result<Vec<u8>> {
        let columns = self.prompts[prompt].columns.iter().map(|column| self.column(prompt, column.name));
        let columns = columns.collect::<Result<Vec<Option<Vec<u8>>>>>()?;
        Ok(columns.into_iter().flatten().flatten().collect())
    }

    /// The first difference that keeps this from being a recording of `spec`.
    fn foreign(&self, spec: &ArtifactSpec) -> Option<ArtifactDefect> {
        let text = |value: Option<&serde_json::Value>| value.map_or_else(|| "nothing".to_owned(), ToString::to_string);
        let (stored, wanted) = (self.spec.manifest(), spec.manifest());
        let keys = wanted.as_object()?.keys();
        let parts = keys.map(|key| (key.clone(), text(stored.get(key)), text(wanted.get(key))));
        let shape =
            |spec: &ArtifactSpec| format!("{:?}", (&spec.model.moe_layers, spec.model.n_experts, spec.model.top_k));
        let shapes = ("MoE layers, experts and experts per token".to_owned(), shape(&self.spec), shape(spec));
        let differs = parts.chain([shapes]).find(|(_, stored, wanted)| stored != wanted);
        differs.map(|(what, stored, wanted)| ArtifactDefect::Foreign { what, stored, wanted })
    }

    fn wrong(&self, prompt: usize, column: Column, reason: String) -> Error {
        column.defect(&self.prompts[prompt].prompt_id, reason).at(&self.path).into()
    }

    /// The bytes of a column, checked against their hash; `None` when it was not recorded.
    fn column(&self, prompt: usize, column: Column) -> Result<Option<Vec<u8>>> {
        let mut at = self.starts[prompt];
        for span in &self.prompts[prompt].columns {
            if span.name != column {
                // Checked when the file was opened: all spans lie within it.
                at += span.bytes;
                continue;
            }
            // A reader that panicked left the file at some place, and every read says where it starts.
            let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            let bytes = file::read_at(&file, &self.path, at, span.bytes)?;
            if blake3::hash(&bytes).to_string() != span.blake3 {
                return Err(self.wrong(prompt, column, "its bytes do not have the hash of the index".to_owned()));
            }
            return Ok(Some(bytes));
        }
        Ok(None)
    }

    fn halves(&self, prompt: usize, column: Column) -> Result<Option<Vec<f32>>> {
        let Some(values) = self.column(prompt, column)?.map(|bytes| read_f16(&bytes)) else { return Ok(None) };
        match values.iter().find(|x| !x.is_finite()) {
            None => Ok(Some(values)),
            Some(x) => Err(self.wrong(prompt, column, format!("it holds {x}"))),
        }
    }

    fn table(&self, prompt: usize, columns: [Column; 3]) -> Result<Option<RoutingTable>> {
        let [ids, weights, margins] = columns;
        let (Some(id_bytes), Some(weights), Some(margins)) =
            (self.column(prompt, ids)?, self.column(prompt, weights)?, self.column(prompt, margins)?)
        else {
            return Ok(None);
        };
        let mut table = RoutingTable::new(self.prompts[prompt].tokens, self.spec.model.top_k);
        table.push_layer(&read_u16(&id_bytes), &read_f32(&weights), &read_f32(&margins));
        match table.defect(self.spec.model.n_experts) {
            None => Ok(Some(table)),
            Some(reason) => Err(self.wrong(prompt, ids, reason)),
        }
    }
}

/// Reads header and index of the file at `path`, and where the prompts' blocks lie between them.
fn read_parts(file: &File, path: &Path) -> Result<(ArtifactSpec, Vec<PromptEntry>, Range<u64>)> {
    let refuse = |defect: ArtifactDefect| Error::Records(defect.at(path));
    let len = file.metadata().map_err(|source| Error::File { path: path.to_owned(), source })?.len();
    // The stored length of the JSON part `what`, when the file has room for it.
    let json_bytes =
        |what, stored: &[u8], possible: u64| match u64::from_le_bytes(stored.try_into().unwrap_or([0xff; 8])) {
            claimed if claimed > possible => Err(refuse(ArtifactDefect::Length { what, claimed, possible })),
            claimed => Ok(claimed),
        };
    let room = len.checked_sub(HEAD_BYTES + TRAILER_BYTES).ok_or_else(|| refuse(ArtifactDefect::NotAnArtifact))?;
    let head = file::read_at(file, path, 0, HEAD_BYTES)?;
    if !head.starts_with(MAGIC) {
        return Err(refuse(ArtifactDefect::NotAnArtifact));
    }
    let header_bytes = json_bytes("header", &head[8..], room.min(MAX_HEADER_BYTES))?;
    let header = file::read_at(file, path, HEAD_BYTES, header_bytes)?;
    let tail = file::read_at(file, path, len - TRAILER_BYTES, TRAILER_BYTES)?;
    if !tail.ends_with(END_MAGIC) {
        return Err(refuse(ArtifactDefect::damaged("end", "the file is cut off or something follows its index")));
    }
    let index_bytes = json_bytes("index", &tail[..8], (room - header_bytes).min(MAX_INDEX_BYTES))?;
    let end = len - TRAILER_BYTES - index_bytes;
    let index = file::read_at(file, path, end, index_bytes)?;
    if blake3::hash(&index).as_bytes()[..] != tail[8..40] {
        return Err(refuse(ArtifactDefect::damaged("index", "it does not have the hash behind it")));
    }
    let (spec, index) = parse_parts(&header, &index).map_err(|defect| defect.at(path))?;
    Ok((spec, index.prompts, HEAD_BYTES + header_bytes..end))
}

/// One of the two JSON parts.
fn json_part<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, ArtifactDefect> {
    let text = std::str::from_utf8(bytes).map_err(|error| ArtifactDefect::damaged(what, error))?;
    let value = parse(text).map_err(|fault| ArtifactDefect::damaged(what, fault))?;
    T::deserialize(value).map_err(|error| ArtifactDefect::damaged(what, error))
}

fn parse_parts(header: &[u8], index: &[u8]) -> Result<(ArtifactSpec, Index), ArtifactDefect> {
    let header_hash = blake3::hash(header).to_string();
    let header: Header = json_part("header", header)?;
    if header.artifact != ARTIFACT_VERSION {
        return Err(ArtifactDefect::NotAnArtifact);
    }
    layout::check_spec(&header.spec)?;
    let index: Index = json_part("index", index)?;
    if index.header != header_hash {
        return Err(ArtifactDefect::damaged("header", "it does not have the hash of the index"));
    }
    Ok((header.spec, index))
}

/// Where each prompt's block starts; all of them fill `blocks`.
fn block_starts(
    path: &Path,
    spec: &ArtifactSpec,
    prompts: &[PromptEntry],
    blocks: Range<u64>,
) -> Result<Vec<u64>, ArtifactDefect> {
    let key = spec.key();
    let folder = path.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    if let Some(folder) = folder.filter(|folder| *folder != key) {
        return Err(ArtifactDefect::Misplaced { key, folder });
    }
    let damaged = |reason: String| ArtifactDefect::damaged("index", reason);
    let (mut seen, mut starts) = (HashSet::new(), Vec::new());
    let columns = Column::of(spec);
    let Range { start: mut at, end } = blocks;
    for entry in prompts {
        if !seen.insert(&entry.prompt_id) {
            return Err(damaged(format!("prompt {} stands in it twice", entry.prompt_id)));
        }
        starts.push(at);
        at = check_entry(entry, spec, &columns, at, end)?;
    }
    if at != end || prompts.is_empty() {
        return Err(damaged(format!("its prompts end at byte {at} of {end}")));
    }
    Ok(starts)
}

/// Checks a prompt's columns and returns where its block, which starts at `at`, ends.
fn check_entry(
    entry: &PromptEntry,
    spec: &ArtifactSpec,
    columns: &[Column],
    mut at: u64,
    end: u64,
) -> Result<u64, ArtifactDefect> {
    let id = &entry.prompt_id;
    let damaged = |reason: String| ArtifactDefect::damaged("index", format!("prompt {id}: {reason}"));
    if id.is_empty() || entry.prompt_tokens == 0 || entry.prompt_tokens > entry.tokens {
        return Err(damaged(format!("{} tokens of {} are its question", entry.prompt_tokens, entry.tokens)));
    }
    if !entry.columns.iter().map(|span| span.name).eq(columns.iter().copied()) {
        return Err(damaged("its columns are not those of the header".to_owned()));
    }
    for span in &entry.columns {
        let due = span.name.bytes(spec, entry.prompt_tokens, entry.tokens);
        if span.name != Column::Answer && due != Some(span.bytes) {
            let name = span.name;
            return Err(damaged(format!("its column {name} claims {} bytes where {due:?} are due", span.bytes)));
        }
        at = at
            .checked_add(span.bytes)
            .filter(|&at| at <= end)
            .ok_or_else(|| damaged(format!("its column {} of {} bytes reaches past the end", span.name, span.bytes)))?;
    }
    Ok(at)
}
