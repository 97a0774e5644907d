//! A share of a student's units in a part; the units of all parts, in order, are the student's file.
//!
//! ```text
//! unit 0       the header
//! unit 1, ...  rows of one tensor, and its padding behind the last of them
//! ```
//! Only rows that are encoded by the weights alone are independent: a calibrated student is made layer by layer, in `rounds`.

use std::path::Path;

use gguf_bitnet::{Cut, GgufFile, GgufWriter, Shard, UnitJob, UnitResult, require_space, verify_source};
use tl_kernels::Pool;

use super::quantizer::{Method, Quantizer};
use super::stage::{OnProgress, Stage};
use crate::error::{Error, Result};
use crate::student::Unit;

impl Quantizer<'_> {
    /// Writes the units of `shard` to the part `part`, or continues an earlier call that was stopped. The whole source is read
    /// once for its identity, which is part of the student's header.
    ///
    /// # Errors
    /// [`Error::NotCut`] for a calibrated student, [`Error::SearchNotCut`] behind a search of types; else as [`Quantizer::run`].
    pub fn run_shard(
        &self,
        pool: &Pool,
        (shard, part): (Shard, &Path),
        force: bool,
        progress: &mut OnProgress<'_>,
    ) -> Result<()> {
        if !matches!(self.options.method, Method::Round(_)) {
            return Err(Error::NotCut);
        }
        if self.precision().is_some() {
            return Err(Error::SearchNotCut);
        }
        let output_bytes = self.output_bytes()?;
        let held_bytes = self.check_out(part, force)?;
        require_space(part, (output_bytes / shard.of() as u64).saturating_sub(held_bytes))?;
        if !self.options.allow_zero {
            self.files.weightless()?.refuse(self.files.path())?;
        }
        let metadata = self.files.gguf().map(GgufFile::metadata);
        let source = self.files.catalog.source();
        let read = verify_source(&**source, metadata, &mut |done, total| progress(Stage::Hash, done, total))?;
        self.missing_weights(&read)?;
        let mut manifest = self.manifest(&read.identity, output_bytes);
        manifest["allow_zero"] = self.options.allow_zero.into();
        let mut writer = self.writer(&read.identity)?;
        let cut = Cut { units: self.units.units.len() + 1, shard: Some(shard) };
        let mut job = UnitJob::open(part, &manifest, cut, force)?;
        while let Some(number) = job.next_unit() {
            let mut bytes = Vec::new();
            match number.checked_sub(1) {
                // A writer of its own: the other one stands somewhere in the data.
                None => self.writer(&read.identity)?.begin(&mut bytes)?,
                Some(index) => {
                    let unit = &self.units.units[index];
                    progress(Stage::Encode, writer.offset(unit.tensor).unwrap_or(0), output_bytes);
                    self.write_unit(pool, &mut writer, unit, &mut bytes)?;
                }
            }
            job.append(&UnitResult { bytes, ..UnitResult::default() })?;
        }
        Ok(job.finish()?)
    }

    /// The bytes of a unit as they stand in the file.
    fn write_unit(&self, pool: &Pool, writer: &mut GgufWriter, unit: &Unit, out: &mut Vec<u8>) -> Result<()> {
        let mut rows = Vec::new();
        self.fill_unit(pool, unit, None, &mut rows)?;
        let row_bytes = (rows.len() / unit.rows.len().max(1)) as u64;
        let start = writer.offset(unit.tensor).unwrap_or(0) + unit.rows.start as u64 * row_bytes;
        writer.resume(start)?;
        Ok(writer.write_tensor(out, unit.tensor, &rows)?)
    }
}
