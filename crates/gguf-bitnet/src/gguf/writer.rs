//! Writing GGUF version 3: the layout is fixed, and its exact size known, before any data exist.
//!
//! ```text
//! header | pad | tensor 0 | pad | tensor 1 | pad | ...        each pad to `general.alignment`
//! ```
//! **Invariant:** tensors lie in the order of their infos without gaps, the last one padded too, so
//! the file's size and every offset follow from the infos alone. Data arrive in chunks of any size and are written
//! at once.

use std::collections::HashSet;
use std::io::{BufWriter, Write};
use std::path::Path;

use ternary_core::Bytes;

use super::error::GgufError;
use super::header::{MAGIC, MAX_DIMS, alignment};
use super::i2s_layout;
use super::metadata::Metadata;
use super::value::encode_str;
use crate::error::{Error, Locate, Result};
use crate::formats::{FormatError, TensorType};
use crate::source::SourceError;
use crate::source::TensorInfo;
use crate::store::{NewFile, link_target};

/// The GGUF version that is written.
const VERSION: u32 = 3;
/// Longest tensor name in bytes that other readers accept.
const MAX_NAME_BYTES: usize = 63;

/// A GGUF file that is being written as a stream.
///
/// ```
/// use gguf_bitnet::{GgufWriter, Metadata, TensorInfo, TensorType};
///
/// let info = TensorInfo { name: "w".into(), shape: vec![8], ty: TensorType::F32, bytes: 32 };
/// let mut writer = GgufWriter::new(&Metadata::default(), vec![info])?;
/// let mut out = Vec::new();
/// writer.begin(&mut out)?;
/// writer.write_tensor(&mut out, 0, &[0; 20])?;
/// writer.write_tensor(&mut out, 0, &[0; 12])?;
/// assert_eq!(writer.file_bytes(), out.len() as u64);
/// writer.finish()?;
/// # Ok::<(), gguf_bitnet::Error>(())
/// ```
#[derive(Debug)]
pub struct GgufWriter {
    header: Vec<u8>,
    infos: Vec<TensorInfo>,
    /// Offset of each tensor in the file.
    offsets: Vec<u64>,
    alignment: u64,
    file_bytes: u64,
    /// Bytes of the file written so far.
    written: u64,
    /// The tensor whose data come next; the length of `infos` at the end.
    next: usize,
}

impl GgufWriter {
    /// Lays out a file of `metadata` and tensors, aligned to `general.alignment` of the metadata.
    ///
    /// # Errors
    /// When the alignment is invalid, a key is empty, a name is empty, too long or taken, a shape
    /// does not have 1 to 4 dimensions of at least 1, a type cannot be stored, or
    /// [`TensorInfo::bytes`] is not the size of shape and type.
    pub fn new(metadata: &Metadata, infos: Vec<TensorInfo>) -> Result<GgufWriter> {
        let alignment = u64::from(alignment(metadata)?);
        if metadata.contains_key("") {
            return Err(GgufError::EmptyKey.into());
        }
        let i2s_layout = i2s_layout::stated(metadata)?;
        let mut names = HashSet::with_capacity(infos.len());
        for info in &infos {
            check_info(info)
                .and_then(|()| i2s_layout::check(i2s_layout, info.ty))
                .map_err(|e| e.in_tensor(&info.name))?;
            if !names.insert(info.name.as_str()) {
                return Err(SourceError::DuplicateTensor.in_tensor(&info.name));
            }
        }
        // Offsets count from the start of the data.
        let mut offsets = Vec::with_capacity(infos.len());
        let mut end = 0u64;
        for info in &infos {
            offsets.push(end);
            end = info
                .bytes
                .checked_next_multiple_of(alignment)
                .and_then(|padded| end.checked_add(padded))
                .filter(|&end| i64::try_from(end).is_ok())
                .ok_or_else(|| shape_overflow(info).in_tensor(&info.name))?;
        }

        let mut header = MAGIC.to_vec();
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&(infos.len() as u64).to_le_bytes());
        header.extend_from_slice(&(metadata.len() as u64).to_le_bytes());
        metadata.encode(&mut header);
        for (info, offset) in infos.iter().zip(&offsets) {
            encode_str(&info.name, &mut header);
            // The check above allows at most four dimensions.
            header.extend_from_slice(&(info.shape.len() as u32).to_le_bytes());
            for &dim in info.shape.iter().rev() {
                header.extend_from_slice(&(dim as u64).to_le_bytes());
            }
            let id = info.ty.id().ok_or_else(|| FormatError::NotWritable { ty: info.ty }.in_tensor(&info.name))?;
            header.extend_from_slice(&id.to_le_bytes());
            header.extend_from_slice(&offset.to_le_bytes());
        }
        let data_start = (header.len() as u64).next_multiple_of(alignment);
        header.extend(std::iter::repeat_n(0, (data_start - header.len() as u64) as usize));
        for offset in &mut offsets {
            *offset += data_start;
        }
        Ok(GgufWriter { header, infos, offsets, alignment, file_bytes: data_start + end, written: 0, next: 0 })
    }

    /// Exact size of the finished file.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Size of the header with its padding: where the data of the first tensor start.
    pub fn header_bytes(&self) -> u64 {
        self.header.len() as u64
    }

    /// The header with its padding.
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// The tensors, in the order in which their data are written.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.infos
    }

    /// Where the data of a tensor start in the file.
    pub fn offset(&self, index: usize) -> Option<u64> {
        self.offsets.get(index).copied()
    }

    /// Writes the header.
    ///
    /// # Errors
    /// When something has been written already, or writing to `out` fails.
    pub fn begin<W: Write + ?Sized>(&mut self, out: &mut W) -> Result<()> {
        if self.written != 0 {
            return Err(GgufError::WrongAmount { expected: 0, got: self.written }.into());
        }
        out.write_all(&self.header)?;
        self.written = self.header.len() as u64;
        Ok(())
    }

    /// Continues a file whose first `written` bytes exist: the header and any number of data bytes.
    ///
    /// # Errors
    /// When `written` lies inside the header, inside padding, or past the end of the layout.
    pub fn resume(&mut self, written: u64) -> Result<()> {
        let first = self.header.len() as u64;
        if written < first || written > self.file_bytes {
            return Err(GgufError::WrongAmount { expected: first, got: written }.into());
        }
        let next = self.offsets.partition_point(|&start| start <= written).saturating_sub(1);
        if written == self.file_bytes {
            self.next = self.infos.len();
        } else {
            let end = self.offsets[next] + self.infos[next].bytes;
            if written >= end {
                return Err(GgufError::WrongAmount { expected: end, got: written }.into());
            }
            self.next = next;
        }
        self.written = written;
        Ok(())
    }

    /// Writes the next bytes of tensor `index`, and its padding once they are all there.
    ///
    /// # Errors
    /// When another tensor is next, the tensor would become too long, or writing to `out` fails.
    pub fn write_tensor<W: Write + ?Sized>(&mut self, out: &mut W, index: usize, chunk: &[u8]) -> Result<()> {
        if self.written < self.header.len() as u64 {
            return Err(GgufError::WrongAmount { expected: self.header.len() as u64, got: self.written }.into());
        }
        let Some(info) = self.infos.get(index) else {
            return Err(SourceError::NoTensor { index, n_tensors: self.infos.len() }.into());
        };
        if index != self.next {
            return Err(GgufError::WrongOrder { expected: self.next, got: index }.in_tensor(&info.name));
        }
        let end = self.offsets[index] + info.bytes;
        let left = end - self.written;
        if chunk.len() as u64 > left {
            let got = info.bytes - left + chunk.len() as u64;
            return Err(GgufError::WrongAmount { expected: info.bytes, got }.in_tensor(&info.name));
        }
        out.write_all(chunk)?;
        self.written += chunk.len() as u64;
        if self.written == end {
            let padded = end.next_multiple_of(self.alignment);
            std::io::copy(&mut std::io::Read::take(std::io::repeat(0), padded - end), out)?;
            self.written = padded;
            self.next += 1;
        }
        Ok(())
    }

    /// Checks that every tensor was written.
    ///
    /// # Errors
    /// [`GgufError::WrongAmount`] when data are missing.
    pub fn finish(self) -> Result<()> {
        if self.written != self.file_bytes {
            return Err(GgufError::WrongAmount { expected: self.file_bytes, got: self.written }.into());
        }
        Ok(())
    }

    /// Writes a whole file from tensors in memory or mapped, as a [`NewFile`]: `path` never holds a half-written model.
    ///
    /// # Errors
    /// As [`GgufWriter::new`] and [`GgufWriter::write_tensor`], and when writing to the disk fails.
    pub fn write_file(path: &Path, metadata: &Metadata, tensors: &[(TensorInfo, Bytes)]) -> Result<()> {
        let infos = tensors.iter().map(|(info, _)| info.clone()).collect();
        let write = || {
            let mut writer = GgufWriter::new(metadata, infos)?;
            let mut out = BufWriter::new(NewFile::create(&link_target(path)?)?);
            writer.begin(&mut out)?;
            for (index, (_, data)) in tensors.iter().enumerate() {
                writer.write_tensor(&mut out, index, data)?;
            }
            writer.finish()?;
            out.into_inner().map_err(|e| Error::io("write", path)(e.into_error()))?.publish()
        };
        write().map_err(|e: Error| e.in_file(path))
    }
}

fn check_info(info: &TensorInfo) -> Result<()> {
    if info.name.is_empty() {
        return Err(GgufError::EmptyTensorName.into());
    }
    if info.name.len() > MAX_NAME_BYTES {
        return Err(GgufError::NameTooLong { len: info.name.len() }.into());
    }
    if !(1..=MAX_DIMS).contains(&info.shape.len()) {
        return Err(GgufError::DimensionCount { n: info.shape.len() as u64 }.into());
    }
    if let Some(dim) = info.shape.iter().rev().position(|&d| d == 0) {
        return Err(SourceError::ZeroDimension { dim }.into());
    }
    if info.ty == TensorType::BitnetT158Flat {
        // Every other reader takes its id for another layout and would read wrong weights.
        return Err(FormatError::NotWritable { ty: info.ty }.into());
    }
    let expected = info.ty.tensor_bytes(&info.shape)?;
    if info.bytes != expected {
        return Err(
            FormatError::DataLength { ty: info.ty, elements: info.elements(), expected, got: info.bytes }.into()
        );
    }
    Ok(())
}

fn shape_overflow(info: &TensorInfo) -> FormatError {
    FormatError::ShapeOverflow { shape: info.shape.iter().map(|&d| d as u64).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(name: &str, shape: &[usize], ty: TensorType) -> TensorInfo {
        TensorInfo { name: name.into(), shape: shape.to_vec(), ty, bytes: ty.tensor_bytes(shape).unwrap_or(0) }
    }

    fn refused(infos: Vec<TensorInfo>) -> Error {
        GgufWriter::new(&Metadata::default(), infos).unwrap_err()
    }

    #[test]
    fn layouts_that_no_reader_accepts_are_refused() {
        let f32s = |name: &str| info(name, &[4], TensorType::F32);
        assert!(matches!(refused(vec![f32s("")]).root(), Error::Gguf(GgufError::EmptyTensorName)));
        assert!(matches!(refused(vec![f32s(&"x".repeat(64))]).root(), Error::Gguf(GgufError::NameTooLong { len: 64 })));
        assert!(GgufWriter::new(&Metadata::default(), vec![f32s(&"x".repeat(63))]).is_ok());
        assert!(matches!(refused(vec![f32s("a"), f32s("a")]).root(), Error::Source(SourceError::DuplicateTensor)));
        assert!(matches!(
            refused(vec![info("a", &[], TensorType::F32)]).root(),
            Error::Gguf(GgufError::DimensionCount { n: 0 })
        ));
        assert!(matches!(
            refused(vec![info("a", &[1; 5], TensorType::F32)]).root(),
            Error::Gguf(GgufError::DimensionCount { n: 5 })
        ));
        assert!(matches!(
            refused(vec![info("a", &[3, 0], TensorType::F32)]).root(),
            Error::Source(SourceError::ZeroDimension { dim: 0 })
        ));
        assert!(matches!(
            refused(vec![info("a", &[2, 192], TensorType::Tq2_0)]).root(),
            Error::Format(FormatError::RowNotBlocks { .. })
        ));
        for ty in [TensorType::BitnetT158Flat, TensorType::F8E4M3] {
            assert!(matches!(
                refused(vec![info("a", &[256], ty)]).root(),
                Error::Format(FormatError::NotWritable { .. })
            ));
        }
        let mut short = f32s("a");
        short.bytes = 15;
        assert!(matches!(
            refused(vec![short]).root(),
            Error::Format(FormatError::DataLength { expected: 16, got: 15, .. })
        ));
        let huge = TensorInfo { name: "a".into(), shape: vec![usize::MAX / 8], ty: TensorType::I8, bytes: 0 };
        let huge = TensorInfo { bytes: huge.ty.tensor_bytes(&huge.shape).unwrap(), ..huge };
        let infos = (0..9).map(|i| TensorInfo { name: i.to_string(), ..huge.clone() }).collect();
        assert!(matches!(refused(infos).root(), Error::Format(FormatError::ShapeOverflow { .. })));

        let mut metadata = Metadata::default();
        metadata.insert("general.alignment", 48u32);
        assert!(matches!(
            GgufWriter::new(&metadata, vec![]),
            Err(Error::Gguf(GgufError::BadAlignment { alignment: 48 }))
        ));
        metadata.insert("general.alignment", 64u64);
        assert!(matches!(
            GgufWriter::new(&metadata, vec![]),
            Err(Error::Gguf(GgufError::AlignmentType { got: "u64" }))
        ));
        let mut metadata = Metadata::default();
        metadata.insert("", 1u8);
        assert!(matches!(GgufWriter::new(&metadata, vec![]), Err(Error::Gguf(GgufError::EmptyKey))));
    }

    #[test]
    fn data_out_of_order_too_long_or_missing_are_refused() {
        let infos = vec![info("a", &[3], TensorType::F32), info("b", &[8], TensorType::F32)];
        let mut writer = GgufWriter::new(&Metadata::default(), infos).unwrap();
        let mut out = Vec::new();
        assert!(matches!(writer.write_tensor(&mut out, 0, &[0; 4]), Err(Error::Gguf(GgufError::WrongAmount { .. }))));
        writer.begin(&mut out).unwrap();
        assert!(writer.begin(&mut out).is_err());
        assert!(matches!(
            writer.write_tensor(&mut out, 1, &[0; 4]).unwrap_err().root(),
            Error::Gguf(GgufError::WrongOrder { .. })
        ));
        assert!(matches!(writer.write_tensor(&mut out, 2, &[0; 4]), Err(Error::Source(SourceError::NoTensor { .. }))));
        writer.write_tensor(&mut out, 0, &[1; 8]).unwrap();
        let long = writer.write_tensor(&mut out, 0, &[1; 5]).unwrap_err();
        assert!(matches!(long.root(), Error::Gguf(GgufError::WrongAmount { expected: 12, got: 13 })), "{long}");
        writer.write_tensor(&mut out, 0, &[1; 4]).unwrap();
        assert_eq!(out.len() as u64, writer.offset(1).unwrap());
        writer.write_tensor(&mut out, 1, &[2; 31]).unwrap();
        assert!(matches!(writer.finish(), Err(Error::Gguf(GgufError::WrongAmount { .. }))));
    }

    #[test]
    fn a_resumed_file_equals_one_written_at_once() {
        let infos = vec![info("a", &[3], TensorType::F32), info("b", &[9], TensorType::F32)];
        let data = [vec![1u8; 12], (0..36).collect()];
        let write = |writer: &mut GgufWriter, out: &mut Vec<u8>, done: u64| {
            for (i, data) in data.iter().enumerate() {
                let start = writer.offset(i).unwrap();
                let skip = done.saturating_sub(start).min(data.len() as u64) as usize;
                if skip < data.len() {
                    writer.write_tensor(out, i, &data[skip..]).unwrap();
                }
            }
        };
        let mut whole = Vec::new();
        let mut writer = GgufWriter::new(&Metadata::default(), infos.clone()).unwrap();
        writer.begin(&mut whole).unwrap();
        write(&mut writer, &mut whole, 0);
        writer.finish().unwrap();
        assert!(whole.len().is_multiple_of(32));

        for cut in 0..=whole.len() as u64 + 1 {
            let mut writer = GgufWriter::new(&Metadata::default(), infos.clone()).unwrap();
            let in_padding = (0..2).any(|i| {
                let end = writer.offset(i).unwrap() + infos[i].bytes;
                (end..end.next_multiple_of(32)).contains(&cut)
            });
            let inside = (writer.header_bytes()..=writer.file_bytes()).contains(&cut) && !in_padding;
            assert_eq!(writer.resume(cut).is_ok(), inside, "{cut}");
            if inside {
                let mut out = whole[..cut as usize].to_vec();
                write(&mut writer, &mut out, cut);
                writer.finish().unwrap();
                assert_eq!(out, whole, "{cut}");
            }
        }
    }

    #[test]
    fn a_failed_file_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.gguf");
        let tensors = vec![(info("a", &[4], TensorType::F32), Bytes::from(vec![0; 15]))];
        let error = GgufWriter::write_file(&path, &Metadata::default(), &tensors).unwrap_err();
        assert!(error.to_string().contains("m.gguf"), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
