//! The parts of one job, checked against each other.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::error::PartError;
use super::part::Part;
use crate::error::{Locate, Result};
use crate::store::StoreError;
use crate::store::job::first_difference;

/// Parts of a job: all of them, unless they were opened with [`Parts::some`].
#[derive(Debug)]
pub struct Parts {
    parts: Vec<Part>,
    /// For each shard, from 1, the part that holds it.
    by_shard: BTreeMap<usize, usize>,
}

impl Parts {
    /// Opens parts and checks that they are one job, that no shard is missing, and that a shard which is there twice has equal
    /// units.
    ///
    /// # Errors
    /// A [`PartError`] that names the file; nothing is written.
    pub fn open(paths: &[PathBuf]) -> Result<Parts> {
        let parts = Parts::some(paths)?;
        match parts.missing() {
            None => Ok(parts),
            Some(missing) => Err(StoreError::from(PartError::Missing { missing }).into()),
        }
    }

    /// Makes the checks of [`Parts::open`] on parts of which others may be [missing](Parts::missing).
    ///
    /// # Errors
    /// As [`Parts::open`].
    pub fn some(paths: &[PathBuf]) -> Result<Parts> {
        let parts = paths.iter().map(|path| Part::open(path)).collect::<Result<Vec<Part>>>()?;
        let Some(first) = parts.first() else {
            return Err(StoreError::from(PartError::Missing { missing: "all parts are".to_owned() }).into());
        };
        let mut by_shard = BTreeMap::new();
        for (index, part) in parts.iter().enumerate() {
            check_same_job(first, part)?;
            match by_shard.get(&part.shard.number()) {
                None => {
                    by_shard.insert(part.shard.number(), index);
                }
                Some(&other) => check_equal(&parts[other], part)?,
            }
        }
        Ok(Parts { parts, by_shard })
    }

    /// The shards without a part, such as "shard 2/5 is"; `None` where all parts are there.
    #[must_use]
    pub fn missing(&self) -> Option<String> {
        let of = self.shards();
        let missing: Vec<usize> = (1..=of).filter(|number| !self.by_shard.contains_key(number)).collect();
        (!missing.is_empty()).then(|| missing_sentence(&missing, of))
    }

    /// Into how many shards the job was cut.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.parts[0].shard.of()
    }

    /// The inputs and settings of the job.
    #[must_use]
    pub fn manifest(&self) -> &Value {
        &self.parts[0].manifest
    }

    /// Number of units of the job.
    #[must_use]
    pub fn units(&self) -> usize {
        self.parts[0].units
    }

    /// Things of all units that failed, and the reason of the first.
    #[must_use]
    pub fn failed(&self) -> (u64, Option<&str>) {
        let lines = self.by_shard.values().flat_map(|&part| &self.parts[part].lines);
        let failed = lines.clone().map(|(line, _)| line.failed).fold(0, u64::saturating_add);
        let first = lines.filter(|(line, _)| line.failure.is_some()).min_by_key(|(line, _)| line.unit);
        (failed, first.and_then(|(line, _)| line.failure.as_deref()))
    }

    /// Things of one unit that failed, and the reason of the first.
    ///
    /// # Panics
    /// When there is no unit of this number, or its part is missing.
    #[must_use]
    pub fn failed_in(&self, unit: usize) -> (u64, Option<&str>) {
        let (part, index) = self.place(unit);
        let line = &part.lines[index].0;
        (line.failed, line.failure.as_deref())
    }

    /// The bytes of a unit, checked against their digest.
    ///
    /// # Errors
    /// [`PartError::Damaged`], and a disk that fails.
    ///
    /// # Panics
    /// When there is no unit of this number, or its part is missing.
    pub fn read(&self, unit: usize) -> Result<Vec<u8>> {
        let (part, index) = self.place(unit);
        part.read(index)
    }

    /// The file of a shard, counted from 1; `None` where it is missing.
    #[must_use]
    pub fn path_of_shard(&self, number: usize) -> Option<&Path> {
        self.by_shard.get(&number).map(|&part| &*self.parts[part].path)
    }

    /// The file that holds a unit.
    ///
    /// # Panics
    /// When its part is missing.
    #[must_use]
    pub fn path(&self, unit: usize) -> &Path {
        &self.place(unit).0.path
    }

    /// The part that holds a unit, and its place there.
    fn place(&self, unit: usize) -> (&Part, usize) {
        let of = self.parts[0].shard.of();
        (&self.parts[self.by_shard[&(unit % of + 1)]], unit / of)
    }
}

fn check_same_job(first: &Part, part: &Part) -> Result<()> {
    let error = |error: PartError| Err(StoreError::from(error).in_file(&part.path));
    if let Some((key, first_value, found)) = first_difference(&first.manifest, &part.manifest) {
        return error(PartError::OtherJob { first: first.path.clone(), key, found, first_value });
    }
    if first.units != part.units {
        let (found, first_value) = (part.units.to_string(), first.units.to_string());
        return error(PartError::OtherJob { first: first.path.clone(), key: "units".to_owned(), found, first_value });
    }
    if first.shard.of() != part.shard.of() {
        let (found, first_shard) = (part.shard.to_string(), first.shard.to_string());
        return error(PartError::Overlap { first: first.path.clone(), found, first_shard });
    }
    Ok(())
}

/// Compares two parts of the same shard byte for byte.
fn check_equal(first: &Part, part: &Part) -> Result<()> {
    for (index, (line, _)) in part.lines.iter().enumerate() {
        let equal = first.lines.get(index).is_some_and(|(other, _)| other == line);
        if !equal || first.read(index)? != part.read(index)? {
            let shard = part.shard.to_string();
            let error = PartError::Differs { first: first.path.clone(), unit: line.unit, shard };
            return Err(StoreError::from(error).in_file(&part.path));
        }
    }
    Ok(())
}

/// "shard 2/5 is", "shards 2/5 and 4/5 are", or a count where there are many.
fn missing_sentence(missing: &[usize], of: usize) -> String {
    const SHOWN: usize = 8;
    let name = |number: &usize| format!("{number}/{of}");
    match missing {
        [one] => format!("shard {} is", name(one)),
        [head @ .., last] if missing.len() <= SHOWN => {
            let head: Vec<String> = head.iter().map(name).collect();
            format!("shards {} and {} are", head.join(", "), name(last))
        }
        _ => {
            let head: Vec<String> = missing.iter().take(SHOWN).map(name).collect();
            format!("shards {} and {} more are", head.join(", "), missing.len() - SHOWN)
        }
    }
}
