//! The rounds of a calibration that several machines share: a layer is a round, and each machine solves its share of the networks.
//!
//! ```text
//! DIR/rounds.json            the settings that all rounds have in common
//! DIR/state.L                the streams in front of layer L, as in the job of one machine
//! DIR/layer-L.I-of-N.part    the networks of layer L that shard I/N solved, one per unit
//! ```
//! Each machine computes the streams itself, so that parts alone are copied from one folder to the others.
//!
//! **Invariant:** the manifest of a part names everything that its units follow from: the settings, the weights of the layer and
//! the streams in front of it. A machine that computed another stream has another manifest, and its parts are refused.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use gguf_bitnet::{Cut, PartError, Parts, Shard, StoreError, UnitJob, UnitResult, first_difference, write_atomic};
use moe_runtime::ModelFiles;
use serde_json::{Value, json};

use super::error::PtqError;
use super::streams::Streams;
use super::tensors::layer_of;
use crate::error::{Error, Result};
use crate::student::StudentPlan;

/// The name of the job in manifests.
pub const CALIBRATION_JOB: &str = "calibrate";
/// The file of the settings.
const SETTINGS: &str = "rounds.json";
/// Most bytes of the settings.
const MAX_SETTINGS_BYTES: u64 = 16 << 20;
/// The endings of the tensors' names of a network, in files.
const SUFFIXES: [&str; 3] = ["", "_exps", "_shexp"];

/// Indices of gate, up and down in the plan.
pub(super) type Names = [usize; 3];

/// The tensors of the networks with this ending in a layer, if any is ternary.
pub(super) fn ternary_names(plan: &StudentPlan, layer: usize, suffix: &str) -> Option<Names> {
    let find = |part: &str| {
        let name = format!("blk.{layer}.ffn_{part}{suffix}.weight");
        plan.tensors.iter().position(|tensor| tensor.name == name)
    };
    let names = [find("gate")?, find("up")?, find("down")?];
    names.iter().any(|&index| plan.tensors[index].assignment.ty.is_ternary()).then_some(names)
}

/// The layers with a network to solve, ascending.
fn rounds(plan: &StudentPlan, n_layers: usize) -> impl DoubleEndedIterator<Item = usize> {
    (0..n_layers).filter(move |layer| SUFFIXES.iter().any(|suffix| ternary_names(plan, *layer, suffix).is_some()))
}

/// The number of layers with a network to solve.
pub(crate) fn rounds_of(plan: &StudentPlan, n_layers: usize) -> usize {
    rounds(plan, n_layers).count()
}

/// The last layer with a network to solve.
pub(crate) fn last_round(plan: &StudentPlan, n_layers: usize) -> Option<usize> {
    rounds(plan, n_layers).next_back()
}

/// The file of state `number` in the folder of the rounds.
pub(super) fn state(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("state.{number}"))
}

/// A folder of rounds, and the share of them that is solved here.
pub(crate) struct Rounds<'a> {
    dir: &'a Path,
    /// `None` where all results come from the folder.
    shard: Option<Shard>,
    /// The settings that all rounds have in common.
    settings: Value,
    /// Whether to look again for parts that are missing.
    looks_again: &'a dyn Fn(&PtqError) -> bool,
    written: RefCell<Vec<PathBuf>>,
}

/// Solves one network; returns the bytes of its unit.
type Solve<'s> = dyn FnMut(usize) -> Result<Vec<u8>> + 's;

impl<'a> Rounds<'a> {
    /// The results in `dir`.
    pub(crate) fn read(dir: &'a Path, settings: Value) -> Self {
        Self { dir, shard: None, settings, looks_again: &|_| false, written: RefCell::default() }
    }

    /// The results in `dir`, and those of `shard`, which are added to them.
    ///
    /// # Errors
    /// A folder that cannot be made, or that holds the rounds of another calibration.
    pub(crate) fn share(
        dir: &'a Path,
        shard: Shard,
        settings: Value,
        looks_again: &'a dyn Fn(&PtqError) -> bool,
    ) -> Result<Self> {
        fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
        let path = dir.join(SETTINGS);
        match gguf_bitnet::read_text_if_any(&path, MAX_SETTINGS_BYTES)? {
            None => write_atomic(&path, format!("{settings:#}\n").as_bytes())?,
            Some(text) => {
                let found = serde_json::from_str(&text).unwrap_or_default();
                ensure_equal(&path, &found, &settings)?;
            }
        }
        Ok(Self { shard: Some(shard), looks_again, ..Self::read(dir, settings) })
    }

    /// The files of states in the folder.
    pub(crate) fn states(&self) -> impl Fn(usize) -> PathBuf + use<> {
        let dir = self.dir.to_owned();
        move |number| state(&dir, number)
    }

    /// The parts that were written since the folder was opened.
    pub(crate) fn written(&self) -> Vec<PathBuf> {
        self.written.borrow().clone()
    }

    /// The inputs of the units of a layer, beside the settings: weights and streams, by their BLAKE3.
    pub(super) fn inputs(files: &ModelFiles, layer: usize, streams: &Streams) -> Result<Value> {
        let source = files.catalog.source();
        let tensors = files.catalog.tensors().iter().filter(|tensor| layer_of(&tensor.name) == Some(layer));
        let stored = tensors.flat_map(|tensor| tensor.parts.iter().map(|part| part.source));
        let scales = |index: usize| source.scales(index).map(|scales| scales.tensor);
        let indices: BTreeSet<usize> = stored.flat_map(|index| [Some(index), scales(index)]).flatten().collect();
        let mut weights = blake3::Hasher::new();
        for index in indices {
            let bytes = source.bytes(index)?;
            weights.update(&(bytes.len() as u64).to_le_bytes()).update(&bytes[..]);
        }
        let (weights, streams) = (weights.finalize().to_string(), streams.blake3());
        Ok(json!({ "layer": layer, "weights_blake3": weights, "streams_blake3": streams }))
    }

    /// All parts of a layer with `units` networks. Units of the own shard that the layer lacks are solved first.
    ///
    /// # Errors
    /// [`PtqError::MissingParts`]; parts of another calibration or another cut, or that contradict each other; and the errors of
    /// `solve`.
    pub(super) fn parts(&self, inputs: &Value, units: usize, solve: &mut Solve<'_>) -> Result<Parts> {
        let layer = inputs["layer"].as_u64().and_then(|layer| usize::try_from(layer).ok()).unwrap_or_default();
        let mut manifest = self.settings.clone();
        manifest["round"] = inputs.clone();
        let found = self.found(layer, &manifest, units)?;
        if let Some(shard) = self.shard
            && found.as_ref().is_none_or(|parts| parts.missing().is_some())
        {
            if let Some(other) = found.filter(|parts| parts.shards() != shard.of()) {
                let path = self.files(layer)?.remove(0).display().to_string();
                return Err(PtqError::OtherCut { path, found: other.shards(), given: shard.of() }.into());
            }
            self.solve_share(shard, layer, (&manifest, units), solve)?;
        }
        loop {
            let missing = match self.found(layer, &manifest, units)? {
                None => "all parts are".to_owned(),
                Some(parts) => match parts.missing() {
                    None => return Ok(parts),
                    Some(missing) => missing,
                },
            };
            let error = PtqError::MissingParts { layer, missing, dir: self.dir.display().to_string() };
            if !(self.looks_again)(&error) {
                return Err(error.into());
            }
        }
    }

    fn solve_share(
        &self,
        shard: Shard,
        layer: usize,
        (manifest, units): (&Value, usize),
        solve: &mut Solve<'_>,
    ) -> Result<()> {
        let part = self.dir.join(format!("layer-{layer}.{}-of-{}.part", shard.number(), shard.of()));
        // Behind a kill at the very end, the part is there and the folder of its job too.
        if part.exists() && !part.with_added_extension("partial").exists() {
            return Ok(());
        }
        let mut job = UnitJob::open(&part, manifest, Cut { units, shard: Some(shard) }, false)?;
        while let Some(unit) = job.next_unit() {
            job.append(&UnitResult { bytes: solve(unit)?, ..UnitResult::default() })?;
        }
        job.finish()?;
        self.written.borrow_mut().push(part);
        Ok(())
    }

    /// The finding that a unit is not that of a network.
    pub(super) fn damaged(&self, network: &str) -> Error {
        let error = StoreError::from(PartError::Damaged { what: format!("network {network}") });
        gguf_bitnet::Error::from(error).in_file(self.dir).into()
    }

    /// The parts of a layer that are in the folder, checked; `None` without any.
    fn found(&self, layer: usize, manifest: &Value, units: usize) -> Result<Option<Parts>> {
        let paths = self.files(layer)?;
        let Some(first) = paths.first() else { return Ok(None) };
        let parts = Parts::some(&paths)?;
        ensure_equal(first, parts.manifest(), manifest)?;
        ensure_equal(first, &json!({ "units": parts.units() }), &json!({ "units": units }))?;
        Ok(Some(parts))
    }

    /// The files of a layer's parts, by name.
    fn files(&self, layer: usize) -> Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("list", self.dir)(error)),
        };
        let mut paths = Vec::new();
        for entry in entries {
            let name = entry.map_err(Error::io("list", self.dir))?.file_name();
            if name.to_str().is_some_and(|name| is_part_of(name, layer)) {
                paths.push(self.dir.join(name));
            }
        }
        paths.sort();
        Ok(paths)
    }
}

/// Whether a file of this name is a part of a layer, and not the folder of one that is being written.
fn is_part_of(name: &str, layer: usize) -> bool {
    let shard = name.strip_prefix(&format!("layer-{layer}.")).and_then(|rest| rest.strip_suffix(".part"));
    shard.is_some_and(|shard| !shard.is_empty())
}

fn ensure_equal(path: &Path, found: &Value, given: &Value) -> Result<()> {
    match first_difference(found, given) {
        None => Ok(()),
        Some((key, found, given)) => {
            Err(PtqError::OtherRounds { path: path.display().to_string(), key, found, given }.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_part_of;

    #[test]
    fn only_whole_parts_of_the_layer_are_read() {
        assert!(is_part_of("layer-3.2-of-5.part", 3) && is_part_of("layer-3.2-of-5.of-north.part", 3));
        let others = ["layer-31.2-of-5.part", "layer-3.2-of-5.part.partial", ".layer-3.2-of-5.part", "layer-3.part"];
        for other in others {
            assert!(!is_part_of(other, 3), "{other}");
        }
    }
}
