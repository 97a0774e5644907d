//! One part, checked when it is opened.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::PartError;
use super::format::{EndDigest, EndLine, Header, MAX_HEADER_BYTES, MAX_LINE_BYTES, Names, UnitLine, VERSION};
use super::shard::Shard;
use crate::error::{Error, Locate, Result};
use crate::store::StoreError;
use crate::store::read::open_regular;

/// An open file of one shard: where the units of the shard lie in it.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) path: PathBuf,
    file: File,
    pub(super) manifest: Value,
    pub(super) shard: Shard,
    /// Units of the whole job.
    pub(super) units: usize,
    /// The units of this part, ascending, and where their bytes begin.
    pub(super) lines: Vec<(UnitLine, u64)>,
}

impl Part {
    /// Opens a part and checks its lines; the bytes of its units are checked when they are read. Takes memory for the lines
    /// alone, of which there are no more than the file holds.
    pub(super) fn open(path: &Path) -> Result<Part> {
        let file = open_regular(path)?;
        Part::read_lines(path, file).map_err(|error| error.in_file(path))
    }

    fn read_lines(path: &Path, file: File) -> Result<Part> {
        let length = file.metadata().map_err(Error::io("examine", path))?.len();
        let mut reader = BufReader::new(&file);
        let not_a_part = || StoreError::from(PartError::NotAPart);
        let header: Header = read_line(&mut reader, MAX_HEADER_BYTES, path)?.ok_or_else(not_a_part)?;
        if header.part != VERSION {
            return Err(StoreError::from(PartError::Version { found: header.part }).into());
        }
        let shard: Shard = header.shard.parse().map_err(|_| damaged("its shard"))?;
        let names = Names::of(&header.manifest);
        let mut expected = shard.units(header.units);
        let (mut lines, mut digest): (Vec<(UnitLine, u64)>, _) = (Vec::new(), EndDigest::default());
        loop {
            let line: Value =
                read_line(&mut reader, MAX_LINE_BYTES, path)?.ok_or_else(|| damaged("a line is missing"))?;
            if line.get("end").is_some() {
                let end: EndLine = serde_json::from_value(line).map_err(|_| damaged("its last line"))?;
                let position = reader.stream_position().map_err(Error::io("read", path))?;
                let whole = end.end == lines.len() && expected.next().is_none() && position == length;
                if !whole || end.digest != digest.finish() {
                    return Err(damaged("its last line does not fit its units").into());
                }
                break;
            }
            let line: UnitLine = serde_json::from_value(line).map_err(|_| damaged("the line of a unit"))?;
            if expected.next() != Some(line.unit) || line.name != names.name(line.unit) {
                return Err(damaged("a unit does not belong to it").into());
            }
            let start = reader.stream_position().map_err(Error::io("read", path))?;
            let end = start.checked_add(line.bytes).filter(|end| *end <= length);
            let end = end.ok_or_else(|| damaged("a unit is cut off"))?;
            reader.seek(SeekFrom::Start(end)).map_err(Error::io("read", path))?;
            digest.add(&line);
            lines.push((line, start));
        }
        drop(reader);
        Ok(Part { path: path.to_owned(), file, manifest: header.manifest, shard, units: header.units, lines })
    }

    /// The bytes of the unit of a line, checked.
    pub(super) fn read(&self, index: usize) -> Result<Vec<u8>> {
        let (line, start) = &self.lines[index];
        let mut file = &self.file;
        // The unit lay within the file when that was opened, so that no line asks for more memory than the file has bytes.
        let mut bytes = vec![0; usize::try_from(line.bytes).map_err(|_| damaged("the size of a unit"))?];
        file.seek(SeekFrom::Start(*start)).map_err(Error::io("read", &self.path))?;
        file.read_exact(&mut bytes).map_err(Error::io("read", &self.path))?;
        if blake3::hash(&bytes).to_string() != line.digest {
            return Err(damaged(format!("unit {}", line.unit)).in_file(&self.path));
        }
        Ok(bytes)
    }
}

fn damaged(what: impl Into<String>) -> StoreError {
    PartError::Damaged { what: what.into() }.into()
}

/// The next line as JSON; `None` where it is none, or is longer than `most` bytes.
fn read_line<T: DeserializeOwned>(reader: &mut impl BufRead, most: u64, path: &Path) -> Result<Option<T>> {
    let mut line = Vec::new();
    reader.take(most).read_until(b'\n', &mut line).map_err(Error::io("read", path))?;
    Ok(line.strip_suffix(b"\n").and_then(|line| serde_json::from_slice(line).ok()))
}
