//! Adapters whose files are open: what is checked, added up, hashed and folded is one state of each file, even where another
//! program puts a new file in its place meanwhile.

use std::path::PathBuf;

use gguf_bitnet::GgufFile;

use crate::adapters::file::{AdapterFile, read_pairs};
use crate::adapters::set::{AdapterSet, ScaledAdapter, check_model, check_shapes};
use crate::error::Result;
use crate::load::files::ModelFiles;

impl AdapterSet {
    /// Reads adapters from their files and adds them up in this order; see [`OpenAdapters::set`].
    ///
    /// # Errors
    /// As [`OpenAdapters::open`] and [`OpenAdapters::set`].
    pub fn load(
        files: &ModelFiles,
        adapters: &[ScaledAdapter],
        identity: &mut dyn FnMut() -> Result<String>,
    ) -> Result<AdapterSet> {
        OpenAdapters::open(adapters)?.set(files, identity)
    }
}

/// Adapters with their strengths, each file opened once.
#[derive(Debug)]
pub struct OpenAdapters {
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    path: PathBuf,
    scale: f32,
    file: GgufFile,
}

impl OpenAdapters {
    /// Opens the files of adapters.
    ///
    /// # Errors
    /// A file that is missing or no GGUF.
    pub fn open(adapters: &[ScaledAdapter]) -> Result<Self> {
        let part = |ScaledAdapter { path, scale }: &ScaledAdapter| {
            Ok(Part { path: path.clone(), scale: *scale, file: GgufFile::open(path)? })
        };
        Ok(Self { parts: adapters.iter().map(part).collect::<Result<_>>()? })
    }

    /// Reads all adapters, which must belong to the model, with their strengths. `identity` gives that of the model
    /// ([`ModelFiles::identity`]) and is asked once, if an adapter names the model that it belongs to.
    ///
    /// # Errors
    /// As [`AdapterFile::read`]; an adapter of another model or architecture, and factors that do not fit.
    pub fn read(
        &self,
        files: &ModelFiles,
        identity: &mut dyn FnMut() -> Result<String>,
    ) -> Result<Vec<(AdapterFile, f32)>> {
        let mut all = Vec::new();
        self.each(files, identity, &mut |part, scale| {
            all.push((part, scale));
            Ok(())
        })?;
        Ok(all)
    }

    /// Adds up the adapters in their order, one in memory at a time.
    ///
    /// # Errors
    /// As [`OpenAdapters::read`], and additions to a matrix that takes none.
    pub fn set(&self, files: &ModelFiles, identity: &mut dyn FnMut() -> Result<String>) -> Result<AdapterSet> {
        let mut set = AdapterSet::empty(files);
        self.each(files, identity, &mut |part, scale| set.add(files, &part, scale))?;
        Ok(set)
    }

    /// The identity of the model `identity` with these adapters: two runs of equal identity compute the same.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn identity(&self, identity: &str) -> Result<String> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"craftsman adapted model identity 1\n").update(identity.as_bytes());
        for Part { file, scale, .. } in &self.parts {
            hasher.update(gguf_bitnet::identity(file)?.as_bytes()).update(&scale.to_le_bytes());
        }
        Ok(hasher.finalize().to_string())
    }

    /// Gives each adapter to `take` once it is known to belong to the model; dimensions are checked before numbers are read.
    fn each(
        &self,
        files: &ModelFiles,
        identity: &mut dyn FnMut() -> Result<String>,
        take: &mut dyn FnMut(AdapterFile, f32) -> Result<()>,
    ) -> Result<()> {
        let mut known = None;
        for Part { path, scale, file } in &self.parts {
            let mut read = || {
                let mut part = AdapterFile::without_pairs(file)?;
                check_model(&part, files, identity, &mut known)?;
                part.pairs = read_pairs(file, &mut |tensor, shapes| check_shapes(files, tensor, shapes).map(drop))?;
                take(part, *scale)
            };
            read().map_err(|error| error.in_model(path))?;
        }
        Ok(())
    }
}
