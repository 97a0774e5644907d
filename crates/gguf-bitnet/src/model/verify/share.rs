//! The check of a model in shards, and the report of all shards.
//!
//! ```text
//! unit 0       what is said without reading weights: the path, unwritten ends of files, the header's part of the identity
//! unit 1, ...  the findings of one tensor, by ascending name, and its part of the identity
//! ```

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::super::identity::{by_name, header_bytes, sample_of};
use super::super::open::OpenModel;
use super::pieces::{Joined, Piece, PieceHasher};
use super::tensor::{Scanner, TensorFindings};
use super::{VerifyReport, report};
use crate::error::{Error, Result};
use crate::source::{TensorSource, ZeroTail};
use crate::store::{Cut, PartError, Parts, Shard, StoreError, UnitJob, UnitResult};

/// The name of the job in manifests.
pub const VERIFY_JOB: &str = "verify";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderUnit {
    path: PathBuf,
    zero_tails: Vec<ZeroTail>,
    piece: Piece,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TensorUnit {
    findings: TensorFindings,
    piece: Piece,
}

/// Reads the tensors of `shard` of the model at `path`, and writes what it finds to the file `part`, or continues an earlier call
/// that was stopped. `progress` is called with the bytes done and their total.
///
/// # Errors
/// As [`verify`](crate::verify()), and as [`UnitJob`].
pub fn verify_shard(
    path: &Path,
    (shard, part): (Shard, &Path),
    allow_zero: bool,
    force: bool,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    let model = OpenModel::open(path)?;
    let (source, metadata): (&dyn TensorSource, _) = match &model {
        OpenModel::Gguf(file) => (&**file, Some(file.metadata())),
        OpenModel::Safetensors(dir) => (&**dir, None),
    };
    let (header, order) = (header_bytes(source, metadata), by_name(source));
    let manifest = json!({
        "job": VERIFY_JOB, "version": VERSION, "model": sample_of(source, metadata)?.to_string(),
        "allow_zero": allow_zero,
    });
    let cut = Cut { units: order.len() + 1, shard: Some(shard) };
    let mut job = UnitJob::open(part, &manifest, cut, force)?;
    let size = |unit: usize| Some(source.tensors()[*order.get(unit.checked_sub(1)?)?].bytes);
    let total = shard.units(cut.units).filter_map(size).sum();
    let mut done = shard.units(cut.units).take(job.progress().0).filter_map(size).sum();
    let zero_tails = source.zero_tails();
    let scanner = Scanner::new(source, &zero_tails);
    progress(done, total);
    while let Some(unit) = job.next_unit() {
        let bytes = match unit.checked_sub(1) {
            None => {
                let mut piece = PieceHasher::new(0, header.len() as u64);
                piece.update(&header);
                let (path, zero_tails) = (source.path().to_owned(), zero_tails.clone());
                text(&HeaderUnit { path, zero_tails, piece: piece.finish() }, part)?
            }
            Some(at) => {
                let before: u64 = order[..at].iter().map(|&index| source.tensors()[index].bytes).sum();
                let bytes = source.tensors()[order[at]].bytes;
                let mut piece = PieceHasher::new(header.len() as u64 + before, bytes);
                let findings = scanner.tensor(order[at], &mut |chunk| {
                    piece.update(chunk);
                    done += chunk.len() as u64;
                    progress(done, total);
                })?;
                text(&TensorUnit { findings, piece: piece.finish() }, part)?
            }
        };
        job.append(&UnitResult { bytes, ..UnitResult::default() })?;
    }
    job.finish()
}

/// The form of the units: version 1 had the bytes of a tensor twice.
const VERSION: u64 = 2;

/// The report of the parts of [`verify_shard`], which is that of [`verify`](crate::verify()) where shard 1 ran.
///
/// # Errors
/// Parts that cannot be read, and parts whose units are not those of a model.
pub fn verify_parts(parts: &Parts) -> Result<VerifyReport> {
    if parts.units() == 0 {
        return Err(StoreError::from(PartError::Damaged { what: "it has no units".to_owned() }).into());
    }
    if parts.manifest()["version"] != VERSION {
        let what = "the form of another version of this program; verify again".to_owned();
        return Err(StoreError::from(PartError::Damaged { what }).into());
    }
    let damaged = |unit| StoreError::from(PartError::Damaged { what: format!("unit {unit}") });
    let (mut joined, mut tensors, mut elements) = (Joined::default(), Vec::new(), 0u64);
    let header: HeaderUnit = unit(parts, 0)?;
    joined.add(&header.piece).ok_or_else(|| damaged(0))?;
    for number in 1..parts.units() {
        let TensorUnit { findings, piece } = unit(parts, number)?;
        joined.add(&piece).ok_or_else(|| damaged(number))?;
        elements = elements.checked_add(findings.elements).ok_or_else(|| damaged(number))?;
        tensors.push((findings, piece.bytes()));
    }
    let identity = joined.hash().ok_or_else(|| damaged(parts.units()))?;
    let report = report((header.path, header.zero_tails), tensors, identity);
    Ok(if parts.manifest()["allow_zero"] == true { report.allow_zero() } else { report })
}

fn text(unit: &impl Serialize, part: &Path) -> Result<Vec<u8>> {
    serde_json::to_vec(unit).map_err(|error| Error::io("write", part)(error.into()))
}

fn unit<T: DeserializeOwned>(parts: &Parts, number: usize) -> Result<T> {
    let damaged = || StoreError::from(PartError::Damaged { what: format!("unit {number}") });
    Ok(serde_json::from_slice(&parts.read(number)?).map_err(|_| damaged())?)
}
