//! GGUF files, opened over a memory map: metadata, tensor infos and zero-copy views of the data.
//!
//! **Invariant:** a [`GgufFile`] exists only if every tensor's type, shape and span have been
//! checked against the file, so views never reach outside of it and never overlap. Weights are not
//! read when a file is opened.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use ternary_core::{Bytes, I2sLayout};

use super::craftsman;
use super::error::GgufError;
use super::header::{self, Header};
use super::i2s_layout;
use super::metadata::Metadata;
use super::q2_0;
use super::split::{self, SplitInfo};
use crate::error::{Locate, Result};
use crate::formats::TensorType;
use crate::shown::listed;
use crate::source::{FileKind, SourceError, TensorInfo, TensorSource, ZeroTail, within};
use crate::store::MappedFile;

/// Most missing parts that are looked for.
const MAX_MISSING: usize = 5;

/// Options for the properties that a GGUF file does not state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenOptions {
    /// Layout of I2_S tensors in a file that does not state it. The default is that of the published files, x86.
    pub i2s_layout: I2sLayout,
}

impl Default for OpenOptions {
    fn default() -> OpenOptions {
        OpenOptions { i2s_layout: I2sLayout::X86 }
    }
}

/// A GGUF model: one file, or a split set read as one.
///
/// ```
/// use gguf_bitnet::{GgufFile, GgufWriter, Metadata, TensorInfo, TensorSource, TensorType};
/// use ternary_core::Bytes;
///
/// let info = TensorInfo { name: "w".into(), shape: vec![2, 3], ty: TensorType::F32, bytes: 24 };
/// let mut writer = GgufWriter::new(&Metadata::default(), vec![info.clone()])?;
/// let mut file = Vec::new();
/// writer.begin(&mut file)?;
/// writer.write_tensor(&mut file, 0, &[0; 24])?;
/// writer.finish()?;
///
/// let gguf = GgufFile::from_bytes(Bytes::from(file))?;
/// assert_eq!(gguf.tensors(), [info]);
/// # Ok::<(), gguf_bitnet::Error>(())
/// ```
#[derive(Debug)]
pub struct GgufFile {
    path: PathBuf,
    parts: Vec<Part>,
    version: u32,
    alignment: u64,
    is_craftsman: bool,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    /// The place of each tensor, in the order of `tensors`.
    places: Vec<Place>,
    index: HashMap<String, usize>,
}

/// One file of the set.
#[derive(Debug)]
struct Part {
    /// Empty for a file in memory.
    path: PathBuf,
    bytes: Bytes,
    /// Absent when the bytes are not a map.
    map: Option<MappedFile>,
}

/// The bytes of a tensor in the file of its part.
#[derive(Clone, Debug)]
struct Place {
    part: usize,
    range: Range<usize>,
}

impl GgufFile {
    /// Opens the model at `path`: a file, or any part of a split set whose parts lie beside it.
    ///
    /// # Errors
    /// The defects of [`GgufError`], [`SourceError`] and [`FormatError`](crate::FormatError), with the path.
    pub fn open(path: impl AsRef<Path>) -> Result<GgufFile> {
        GgufFile::open_with(path, OpenOptions::default())
    }

    /// As [`GgufFile::open`], with options.
    ///
    /// # Errors
    /// As [`GgufFile::open`].
    pub fn open_with(path: impl AsRef<Path>, options: OpenOptions) -> Result<GgufFile> {
        let path = path.as_ref();
        let (part, header) = map_part(path)?;
        let split = SplitInfo::read(&header.metadata).map_err(|e| e.in_file(path))?;
        let file = match split {
            None => GgufFile::assemble(path, vec![(path.to_owned(), part, header)], options)?,
            Some(split) => {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                let name = split.name(name).map_err(|e| e.in_file(path))?;
                // Some missing files end the search, so that a false count costs no time.
                let missing =
                    (1..=split.count).map(|no| name.sibling(no)).filter(|part| !path.with_file_name(part).exists());
                let missing: Vec<String> = missing.take(MAX_MISSING).collect();
                if !missing.is_empty() {
                    return Err(GgufError::SplitPartsMissing { files: listed(&missing) }.in_file(path));
                }
                let mut files = Vec::new();
                for no in 0..split.count {
                    let part_path = path.with_file_name(name.sibling(no + 1));
                    let (part, header) = map_part(&part_path)?;
                    SplitInfo::read(&header.metadata)
                        .and_then(|info| split.check_part(info.as_ref(), no))
                        .map_err(|e| e.in_file(&part_path))?;
                    files.push((part_path, part, header));
                }
                let mut file = GgufFile::assemble(path, files, options)?;
                split.check_tensors(file.tensors.len()).map_err(|e| e.in_file(path))?;
                file.metadata.retain(|key, _| !split::is_split_key(key));
                file
            }
        };
        tracing::debug!(path = %path.display(), parts = file.parts.len(), tensors = file.tensors.len(), "opened GGUF");
        Ok(file)
    }

    /// Reads a file that is in memory. [`TensorSource::path`] is empty then.
    ///
    /// # Errors
    /// As [`GgufFile::open`]; [`GgufError::SplitNeedsPath`] for a part of a split set.
    pub fn from_bytes(bytes: Bytes) -> Result<GgufFile> {
        let header = header::parse(&bytes)?;
        if let Some(split) = SplitInfo::read(&header.metadata)? {
            return Err(GgufError::SplitNeedsPath { count: split.count }.into());
        }
        let part = Part { path: PathBuf::new(), bytes, map: None };
        GgufFile::assemble(Path::new(""), vec![(PathBuf::new(), part, header)], OpenOptions::default())
    }

    /// Joins the parts of a model; the first part gives the metadata.
    fn assemble(path: &Path, files: Vec<(PathBuf, Part, Header)>, options: OpenOptions) -> Result<GgufFile> {
        let mut file = GgufFile {
            path: path.to_owned(),
            parts: Vec::with_capacity(files.len()),
            version: 0,
            alignment: 0,
            is_craftsman: false,
            metadata: Metadata::default(),
            tensors: Vec::new(),
            places: Vec::new(),
            index: HashMap::new(),
        };
        // As all metadata, the layout stands in the first part.
        let stated = files.first().map(|(_, _, header)| i2s_layout::stated(&header.metadata));
        let stated = stated.transpose().map_err(|e| e.in_file(path))?.flatten();
        let options = OpenOptions { i2s_layout: stated.unwrap_or(options.i2s_layout) };
        for (part_path, part, header) in files {
            file.add_part(part, header, options).map_err(|e| e.in_file(&part_path))?;
        }
        Ok(file)
    }

    fn add_part(&mut self, part: Part, header: Header, options: OpenOptions) -> Result<()> {
        let layout = layout(&header, part.bytes.len(), options)?;
        for (info, range) in layout.tensors {
            if self.index.insert(info.name.clone(), self.tensors.len()).is_some() {
                return Err(SourceError::DuplicateTensor.in_tensor(info.name));
            }
            self.places.push(Place { part: self.parts.len(), range });
            self.tensors.push(info);
        }
        if self.parts.is_empty() {
            self.version = header.version;
            self.alignment = header.alignment;
            self.metadata = header.metadata;
        }
        self.is_craftsman |= layout.is_craftsman;
        self.parts.push(part);
        Ok(())
    }

    /// The key-value pairs, without the `split.*` ones of a split set.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// GGUF version of the (first) file: 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Alignment of tensor data in bytes.
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// Number of files of the set; 1 for an unsplit model.
    pub fn n_parts(&self) -> usize {
        self.parts.len()
    }

    /// The files of the set, in its order; one empty path for a model in memory.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.parts.iter().map(|part| &*part.path)
    }

    /// Size of all files in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes.len() as u64).sum()
    }

    /// The file system's record of each part when it was opened; `None` for a file in memory.
    pub(crate) fn states(&self) -> Option<Vec<[u64; 6]>> {
        self.parts.iter().map(|part| Some(part.map.as_ref()?.state())).collect()
    }

    /// Whether type ids 29 and 30 have the meanings of RuvLLM's craftsman files.
    pub fn is_craftsman(&self) -> bool {
        self.is_craftsman
    }

    /// The map that holds a tensor, and `range` of its data as a range of the file.
    fn mapped(&self, index: usize, range: Range<usize>) -> Option<(&MappedFile, Range<usize>)> {
        let place = self.places.get(index)?;
        let map = self.parts.get(place.part)?.map.as_ref()?;
        Some((map, within(&place.range, &range)))
    }
}

impl TensorSource for GgufFile {
    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn index_of(&self, name: &str) -> Option<usize> {
        self.index.get(name).copied()
    }

    fn bytes(&self, index: usize) -> Result<Bytes> {
        let place = self.places.get(index).ok_or(SourceError::NoTensor { index, n_tensors: self.tensors.len() })?;
        Ok(self.parts[place.part].bytes.slice(place.range.clone()))
    }

    fn release(&self, index: usize) {
        self.release_range(index, 0..usize::MAX);
    }

    fn prefetch(&self, index: usize) {
        self.prefetch_range(index, 0..usize::MAX);
    }

    fn release_range(&self, index: usize, range: Range<usize>) {
        if let Some((map, range)) = self.mapped(index, range) {
            map.release(range);
        }
    }

    fn prefetch_range(&self, index: usize, range: Range<usize>) {
        if let Some((map, range)) = self.mapped(index, range) {
            map.prefetch(range);
        }
    }

    fn zero_tails(&self) -> Vec<ZeroTail> {
        let tail = |(number, part): (usize, &Part)| {
            let tensors = self.tensors.iter().zip(&self.places).filter(|(_, place)| place.part == number);
            ZeroTail::of_file(&part.path, &part.bytes, tensors.map(|(info, place)| (info, &place.range)))
        };
        self.parts.iter().enumerate().filter_map(tail).collect()
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

fn map_part(path: &Path) -> Result<(Part, Header)> {
    let map = MappedFile::open(path)?;
    let bytes = map.bytes();
    if !bytes.starts_with(&header::MAGIC)
        && let Some(kind) = FileKind::of(&bytes)
    {
        return Err(SourceError::OtherFile { kind }.in_file(path));
    }
    let header = header::parse(&bytes).map_err(|error| match header::unwritten_end(path, &bytes, &error) {
        Some(tail) => SourceError::ZeroTail { tail }.in_file(path),
        None => error.in_file(path),
    })?;
    Ok((Part { path: path.to_owned(), bytes, map: Some(map) }, header))
}

/// The tensors of one file with the range of the file each takes.
struct Layout {
    tensors: Vec<(TensorInfo, Range<usize>)>,
    is_craftsman: bool,
}

/// Decides every tensor's type and checks that the data lie in the file and do not overlap.
fn layout(header: &Header, file_bytes: usize, options: OpenOptions) -> Result<Layout> {
    let data_bytes = (file_bytes as u64).saturating_sub(header.data_start);
    for info in &header.infos {
        let offset = info.offset;
        if !offset.is_multiple_of(header.alignment) {
            return Err(GgufError::MisalignedOffset { offset, alignment: header.alignment }.in_tensor(&info.name));
        }
        if offset >= data_bytes {
            return Err(SourceError::OffsetPastEnd { offset, data_bytes }.in_tensor(&info.name));
        }
    }
    let mut order: Vec<usize> = (0..header.infos.len()).collect();
    order.sort_by_key(|&i| header.infos[i].offset);
    // Bytes up to the next tensor or the end of the file.
    let mut spans = vec![0; order.len()];
    for (at, &i) in order.iter().enumerate() {
        let next = order.get(at + 1).map_or(data_bytes, |&j| header.infos[j].offset);
        spans[i] = next - header.infos[i].offset;
    }

    let is_craftsman = craftsman::is_craftsman(header, |i| spans[i]);
    let q2_0 = q2_0::meaning(header, |i| spans[i])?;
    let mut tensors = Vec::with_capacity(header.infos.len());
    for (info, &span) in header.infos.iter().zip(&spans) {
        let checked = || -> Result<(TensorInfo, Range<usize>)> {
            let ty = if is_craftsman {
                craftsman::tensor_type(info, span, header.alignment)?
            } else {
                TensorType::from_id(info.type_id)?
            };
            let ty = match (ty, options.i2s_layout) {
                (TensorType::I2s, I2sLayout::Arm) => TensorType::I2sArm,
                (TensorType::Q2_0, _) => q2_0,
                (ty, _) => ty,
            };
            let mut shape = info.dims.clone();
            if !is_craftsman {
                shape.reverse();
            }
            let bytes = ty.tensor_bytes(&shape)?;
            let have = data_bytes - info.offset;
            if bytes > have {
                return Err(SourceError::TruncatedData { need: bytes, have }.into());
            }
            // All three numbers are at most the length of the file, which is a usize.
            let start = usize::try_from(header.data_start + info.offset);
            let len = usize::try_from(bytes);
            let (Ok(start), Ok(len)) = (start, len) else {
                return Err(SourceError::TruncatedData { need: bytes, have }.into());
            };
            Ok((TensorInfo { name: info.name.clone(), shape, ty, bytes }, start..start + len))
        };
        tensors.push(checked().map_err(|e| e.in_tensor(&info.name))?);
    }
    for pair in order.windows(2) {
        let (info, other) = (&tensors[pair[0]].0, &tensors[pair[1]].0);
        if info.bytes > spans[pair[0]] {
            return Err(SourceError::Overlap { other: other.name.clone() }.in_tensor(&info.name));
        }
    }
    Ok(Layout { tensors, is_craftsman })
}
