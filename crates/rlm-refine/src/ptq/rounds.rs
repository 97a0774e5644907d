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
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use gguf_bitnet::{
    Cut, Job, NewFile, PartError, Parts, Shard, StoreError, UnitJob, UnitResult, first_difference, read_text_if_any,
};
use moe_runtime::ModelFiles;
use serde_json::{Value, json};

use super::error::PtqError;
use super::streams::Streams;
use super::tensors::layer_of;
use crate::error::{Error, Result};

/// The name of the job in manifests.
pub const CALIBRATION_JOB: &str = "calibrate";
/// The file of the settings.
const SETTINGS: &str = "rounds.json";
/// Most bytes of the settings.
const MAX_SETTINGS_BYTES: u64 = 16 << 20;

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
        ensure_settings(&dir.join(SETTINGS), &settings)?;
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

    /// Bytes of the parts that the folder lacks, where the parts of each layer need these bytes.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub(crate) fn missing_bytes(&self, needs: impl Iterator<Item = (usize, u64)>) -> Result<u64> {
        let mut missing = 0u64;
        for (layer, need) in needs {
            let lengths = self.files(layer)?.into_iter().map(|path| fs::metadata(path).map_or(0, |file| file.len()));
            missing = missing.saturating_add(need.saturating_sub(lengths.sum()));
        }
        Ok(missing)
    }

    /// The round of a layer with `units` networks behind these streams.
    ///
    /// # Errors
    /// Weights that cannot be read.
    pub(super) fn round(&self, files: &ModelFiles, layer: usize, units: usize, streams: &Streams) -> Result<Round<'_>> {
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
        let mut manifest = self.settings.clone();
        manifest["round"] = json!({ "layer": layer, "weights_blake3": weights, "streams_blake3": streams });
        Ok(Round { rounds: self, layer, manifest, units })
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

/// The round of one layer.
pub(super) struct Round<'a> {
    rounds: &'a Rounds<'a>,
    layer: usize,
    /// All inputs of its units: the settings, the weights of the layer and the streams in front of it.
    manifest: Value,
    /// As many as the layer has networks that are solved.
    units: usize,
}

impl Round<'_> {
    /// All parts of the round. Units of the own shard that it lacks are solved first.
    ///
    /// # Errors
    /// [`PtqError::MissingParts`]; parts of another calibration or another cut, or that contradict each other; and the errors of
    /// `solve`.
    pub(super) fn parts(&self, solve: &mut Solve<'_>) -> Result<Parts> {
        if let Some(shard) = self.rounds.shard {
            self.do_share(shard, solve)?;
        }
        loop {
            let missing = match self.found()? {
                None => "all parts are".to_owned(),
                Some(parts) => match parts.missing() {
                    None => return Ok(parts),
                    Some(missing) => missing,
                },
            };
            let dir = self.rounds.dir.display().to_string();
            let error = PtqError::MissingParts { layer: self.layer, missing, dir };
            if !(self.rounds.looks_again)(&error) {
                return Err(error.into());
            }
        }
    }

    /// Solves the units of a shard, unless the folder has its part or needs none.
    fn do_share(&self, shard: Shard, solve: &mut Solve<'_>) -> Result<()> {
        let name = format!("layer-{}.{}-of-{}.part", self.layer, shard.number(), shard.of());
        let part = self.rounds.dir.join(name);
        match self.found()? {
            Some(found) if found.shards() != shard.of() => match found.missing() {
                None => Ok(()),
                Some(_) => {
                    let path = (1..=found.shards()).find_map(|number| found.path_of_shard(number));
                    let path = path.unwrap_or(self.rounds.dir).display().to_string();
                    Err(PtqError::OtherCut { path, found: found.shards(), given: shard.of() }.into())
                }
            },
            Some(found) if found.path_of_shard(shard.number()).is_some() => {
                // A kill at the very end, or a part that was copied here, leaves the folder of a job that has nothing to do.
                if part.with_added_extension("partial").exists() {
                    Job::open(&part, &self.manifest, true)?.discard()?;
                }
                Ok(())
            }
            _ => self.solve_share(shard, part, solve),
        }
    }

    fn solve_share(&self, shard: Shard, part: PathBuf, solve: &mut Solve<'_>) -> Result<()> {
        let mut job = UnitJob::open(&part, &self.manifest, Cut { units: self.units, shard: Some(shard) }, false)?;
        while let Some(unit) = job.next_unit() {
            job.append(&UnitResult { bytes: solve(unit)?, ..UnitResult::default() })?;
        }
        job.finish()?;
        self.rounds.written.borrow_mut().push(part);
        Ok(())
    }

    /// The failure to write a unit.
    pub(super) fn unwritten(&self, error: std::io::Error) -> Error {
        Error::io("write", self.rounds.dir)(error)
    }

    /// The parts of the layer that are in the folder, checked; `None` without any.
    fn found(&self) -> Result<Option<Parts>> {
        let paths = self.rounds.files(self.layer)?;
        let Some(first) = paths.first() else { return Ok(None) };
        let parts = Parts::some(&paths)?;
        ensure_equal(first, parts.manifest(), &self.manifest)?;
        ensure_equal(first, &json!({ "units": parts.units() }), &json!({ "units": self.units }))?;
        Ok(Some(parts))
    }
}

/// The finding that a unit in the part `path` is not that of a network.
pub(super) fn damaged(path: &Path, network: &str) -> Error {
    let error = StoreError::from(PartError::Damaged { what: format!("network {network}") });
    gguf_bitnet::Error::from(error).in_file(path).into()
}

/// Writes the settings to `path` unless a file is there, and checks that the file has these settings.
fn ensure_settings(path: &Path, settings: &Value) -> Result<()> {
    let damaged = || Error::from(PtqError::DamagedRounds { path: path.display().to_string() });
    let read = || match read_text_if_any(path, MAX_SETTINGS_BYTES) {
        Err(error) if matches!(error.root(), gguf_bitnet::Error::Store(StoreError::NotText(_))) => Err(damaged()),
        read => Ok(read?),
    };
    let text = match read()? {
        Some(text) => text,
        None => {
            let mut file = NewFile::create(path)?;
            writeln!(file, "{settings:#}").map_err(Error::io("write", path))?;
            // Another machine may have been faster, so the file is read back in either case.
            file.publish_unless_taken()?;
            read()?.ok_or_else(damaged)?
        }
    };
    let found = serde_json::from_str(&text).ok().filter(Value::is_object).ok_or_else(damaged)?;
    ensure_equal(path, &found, settings)
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
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    fn open(dir: &Path, settings: &Value) -> Result<()> {
        Rounds::share(dir, "1/2".parse().unwrap(), settings.clone(), &|_| false).map(|_| ())
    }

    #[test]
    fn machines_that_start_at_once_in_a_new_folder_all_open_it() {
        const MACHINES: usize = 6;
        let dir = tempfile::tempdir().unwrap();
        let settings = json!({ "job": CALIBRATION_JOB, "recipe": "x".repeat(20_000) });
        for attempt in 0..60 {
            let (folder, barrier) = (dir.path().join(attempt.to_string()), Barrier::new(MACHINES));
            let machine = || {
                barrier.wait();
                open(&folder, &settings).map_err(|error| error.to_string())
            };
            thread::scope(|scope| {
                let machines: Vec<_> = (0..MACHINES).map(|_| scope.spawn(machine)).collect();
                machines.into_iter().for_each(|machine| assert_eq!(machine.join().unwrap(), Ok(())));
            });
            assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing but the settings is left");
        }
    }

    #[test]
    fn settings_that_are_damaged_or_others_are_named_and_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(SETTINGS);
        open(dir.path(), &json!({ "seed": 0 })).unwrap();
        let message = open(dir.path(), &json!({ "seed": 7 })).unwrap_err().to_string();
        assert!(message.contains("rounds.json") && message.contains("`seed` is 0, here it is 7"), "{message}");
        for text in [&b""[..], b"{\"seed\":", b"7", b"\xff\xfe\xfd"] {
            fs::write(&path, text).unwrap();
            let message = open(dir.path(), &json!({ "seed": 0 })).unwrap_err().to_string();
            assert!(message.contains("rounds.json is cut off or damaged: remove it"), "{message}");
            assert_eq!(fs::read(&path).unwrap(), text);
        }
    }

    #[test]
    fn parts_that_are_there_need_no_space() {
        let dir = tempfile::tempdir().unwrap();
        let rounds = Rounds::read(dir.path(), Value::Null);
        let missing = || rounds.missing_bytes([(3, 100), (5, 50)].into_iter()).unwrap();
        assert_eq!(missing(), 150);
        fs::write(dir.path().join("layer-3.1-of-2.part"), [0; 30]).unwrap();
        fs::write(dir.path().join("layer-4.1-of-2.part"), [0; 30]).unwrap();
        assert_eq!(missing(), 120);
        fs::write(dir.path().join("layer-5.1-of-1.part"), [0; 60]).unwrap();
        assert_eq!(missing(), 70);
    }

    #[test]
    fn only_whole_parts_of_the_layer_are_read() {
        assert!(is_part_of("layer-3.2-of-5.part", 3) && is_part_of("layer-3.2-of-5.of-north.part", 3));
        let others = ["layer-31.2-of-5.part", "layer-3.2-of-5.part.partial", ".layer-3.2-of-5.part", "layer-3.part"];
        for other in others {
            assert!(!is_part_of(other, 3), "{other}");
        }
    }
}
