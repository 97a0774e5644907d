//! Recording: a job with a unit for the header, one per prompt, and one for the index.
//!
//! **Invariant:** a unit's bytes depend on the prompt and the settings alone, so a resumed recording equals one that was
//! never stopped.

use std::path::{Path, PathBuf};

use gguf_bitnet::Job;
use serde::Deserialize;
use serde_json::{Value, json};

use super::layout::{self, Column, ColumnEntry, Header, Index, PromptEntry};
use super::reader::TeacherArtifact;
use super::sparse_logits::SparseLogits;
use super::spec::ArtifactSpec;
use crate::Result;
use crate::model::{Answer, RoutingTable, Run};
use crate::records::bytes::{write_f16, write_f32, write_u16, write_u32};
use crate::records::format::{ARTIFACT_VERSION, END_MAGIC, MAGIC};
use crate::records::{ArtifactDefect, job};
use crate::suite::Label;

/// The recording of one prompt.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct TeacherRecord {
    pub prompt_id: String,
    /// Its preference label, where there is one.
    pub label: Option<Label>,
    /// Its tokens, at least one.
    pub prompt: Vec<u32>,
    pub answer: Answer,
    /// The columns of the run over prompt and answer.
    pub run: Run,
    /// Routing of the router inputs rounded to F16; there whenever the inputs are recorded.
    pub local: Option<RoutingTable>,
    pub logits: Vec<SparseLogits>,
}

/// An artifact that is being recorded. Dropping it keeps what is done for the next [`ArtifactWriter::open`].
#[derive(Debug)]
pub struct ArtifactWriter {
    job: Job,
    path: PathBuf,
    spec: ArtifactSpec,
    done: Vec<PromptEntry>,
    /// The index has been written; only the commit is missing.
    indexed: bool,
}

impl ArtifactWriter {
    /// Starts the recording of `spec` below `root`, or continues it.
    ///
    /// # Errors
    /// [`RecordError::Artifact`](crate::records::RecordError::Artifact) for settings that no artifact can have; [`Error::Store`](crate::Error::Store) when the artifact exists, another
    /// process records it, or the disk fails.
    pub fn open(root: &Path, spec: &ArtifactSpec) -> Result<Self> {
        let path = spec.path(root);
        layout::check_spec(spec).map_err(|defect| defect.at(&path))?;
        let mut job = job::open(&path, &spec.manifest())?;
        if job.units().is_empty() {
            let header = header_text(spec);
            job.append(json!({ "part": "header" }), |out| {
                out.write_all(MAGIC)?;
                out.write_all(&(header.len() as u64).to_le_bytes())?;
                out.write_all(header.as_bytes())
            })?;
        }
        let units = &job.units()[1..];
        let entries = units.iter().filter_map(|unit| unit.payload.get("prompt")).map(PromptEntry::deserialize);
        let done: Vec<PromptEntry> =
            entries.collect::<Result<_, _>>().map_err(|error| ArtifactDefect::damaged("journal", error).at(&path))?;
        let indexed = done.len() < units.len();
        Ok(Self { job, path, spec: spec.clone(), done, indexed })
    }

    /// Ids of the prompts that are recorded already, in order.
    pub fn done(&self) -> impl Iterator<Item = &str> {
        self.done.iter().map(|entry| entry.prompt_id.as_str())
    }

    /// Adds a prompt.
    ///
    /// # Errors
    /// [`RecordError::Artifact`](crate::records::RecordError::Artifact) when a column is missing or has another length than the settings say, or the prompt is
    /// recorded already; [`Error::Store`](crate::Error::Store) when the disk fails.
    pub fn append(&mut self, record: &TeacherRecord) -> Result<()> {
        let refuse = |column: Column, reason: String| column.defect(&record.prompt_id, reason).at(&self.path);
        if self.done().any(|id| id == record.prompt_id) {
            return Err(refuse(Column::Tokens, "the prompt is recorded already".to_owned()).into());
        }
        let (prompt, n) = (record.prompt.len(), record.prompt.len() + record.answer.tokens.len());
        if prompt == 0 || record.prompt_id.is_empty() {
            return Err(refuse(Column::Tokens, "the prompt or its id is empty".to_owned()).into());
        }
        let (mut block, mut columns) = (Vec::new(), Vec::new());
        for name in Column::of(&self.spec) {
            let start = block.len();
            encode(name, record, &mut block).ok_or_else(|| refuse(name, "it is missing".to_owned()))?;
            let column = &block[start..];
            let bytes = column.len() as u64;
            match name.bytes(&self.spec, prompt, n) {
                Some(expected) if expected != bytes => {
                    return Err(refuse(name, format!("{bytes} bytes where {expected} are due")).into());
                }
                _ => columns.push(ColumnEntry { name, bytes, blake3: blake3::hash(column).to_string() }),
            }
        }
        let entry = PromptEntry {
            prompt_id: record.prompt_id.clone(),
            label: record.label,
            prompt_tokens: prompt,
            tokens: n,
            stop_reason: record.answer.stop_reason,
            columns,
        };
        self.job.append(json!({ "prompt": entry }), |out| out.write_all(&block))?;
        self.done.push(entry);
        Ok(())
    }

    /// Adds a prompt that another artifact of the same settings holds: its entry there and the bytes of its columns.
    ///
    /// # Errors
    /// [`RecordError::Artifact`](crate::records::RecordError::Artifact) when a column is missing, has another length than the
    /// settings say or another hash than the entry, or the prompt is recorded already; [`Error::Store`](crate::Error::Store)
    /// when the disk fails.
    pub(crate) fn append_block(&mut self, entry: &PromptEntry, block: &[u8]) -> Result<()> {
        let refuse = |column: Column, reason: &str| {
            Err(column.defect(&entry.prompt_id, reason.to_owned()).at(&self.path).into())
        };
        let names = Column::of(&self.spec);
        if self.done().any(|id| id == entry.prompt_id) || entry.prompt_tokens == 0 || entry.prompt_tokens > entry.tokens
        {
            return refuse(Column::Tokens, "the prompt is recorded already, or has a wrong number of tokens");
        }
        if entry.block_bytes() != Some(block.len()) || !entry.columns.iter().map(|column| column.name).eq(names) {
            return refuse(Column::Tokens, "the columns are not those of these settings");
        }
        let mut rest = block;
        for ColumnEntry { name, bytes, blake3 } in &entry.columns {
            let due = name.bytes(&self.spec, entry.prompt_tokens, entry.tokens);
            // The sum of the lengths is the length of the block, so each fits.
            let column = usize::try_from(*bytes).ok().and_then(|bytes| rest.split_off(..bytes)).unwrap_or_default();
            if due.is_some_and(|due| due != *bytes) || ::blake3::hash(column).to_string() != *blake3 {
                return refuse(*name, "its length or its hash is wrong");
            }
        }
        self.job.append(json!({ "prompt": entry }), |out| out.write_all(block))?;
        self.done.push(entry.clone());
        Ok(())
    }

    /// Writes the index, puts the file in place and opens it.
    ///
    /// # Errors
    /// [`RecordError::Artifact`](crate::records::RecordError::Artifact) for a recording without a prompt, [`Error::Store`](crate::Error::Store) when the disk fails.
    pub fn finish(mut self) -> Result<TeacherArtifact> {
        if self.done.is_empty() {
            return Err(ArtifactDefect::damaged("index", "it holds no prompt").at(&self.path).into());
        }
        if !self.indexed && !self.job.is_committed() {
            let header = blake3::hash(header_text(&self.spec).as_bytes()).to_string();
            let index = Index { header, prompts: self.done };
            let text = serde_json::to_string(&index)
                .map_err(|error| ArtifactDefect::damaged("index", error).at(&self.path))?;
            self.job.append(json!({ "part": "index" }), |out| {
                out.write_all(text.as_bytes())?;
                out.write_all(&(text.len() as u64).to_le_bytes())?;
                out.write_all(blake3::hash(text.as_bytes()).as_bytes())?;
                out.write_all(END_MAGIC)
            })?;
        }
        self.job.commit(&self.path)?;
        TeacherArtifact::open_for(&self.path, &self.spec)
    }
}

/// The header's JSON. The model's name stays empty: an artifact's bytes follow from its key.
fn header_text(spec: &ArtifactSpec) -> String {
    let mut header = Header { artifact: ARTIFACT_VERSION, spec: spec.clone() };
    header.spec.model.name.clear();
    serde_json::to_value(header).map_or_else(|_| String::new(), |value: Value| value.to_string())
}

/// Appends a column's bytes; `None` when the record lacks it.
fn encode(column: Column, record: &TeacherRecord, out: &mut Vec<u8>) -> Option<()> {
    let run = &record.run;
    match column {
        Column::Tokens => {
            write_u32(&record.prompt, out);
            write_u32(&record.answer.tokens, out);
        }
        Column::Answer => out.extend(record.answer.text.as_bytes()),
        Column::Ids => write_u16(&run.routing.ids, out),
        Column::Weights => write_f32(&run.routing.weights, out),
        Column::Margins => write_f32(&run.routing.margins, out),
        Column::Scores => write_f16(run.scores.as_ref()?, out),
        Column::RouterInputs => write_f16(run.router_inputs.as_ref()?, out),
        Column::LocalIds => write_u16(&record.local.as_ref()?.ids, out),
        Column::LocalWeights => write_f32(&record.local.as_ref()?.weights, out),
        Column::LocalMargins => write_f32(&record.local.as_ref()?.margins, out),
        Column::FinalHidden => write_f16(run.final_hidden.as_ref()?, out),
        Column::Logits => record.logits.iter().for_each(|row| row.write(out)),
    }
    Some(())
}
