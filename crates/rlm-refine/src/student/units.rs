//! The units of work in which a file is written: runs of rows of one tensor, small enough to be redone.

use std::io;
use std::ops::Range;

use gguf_bitnet::GgufWriter;
use gguf_bitnet::Job;
use serde_json::{Value, json};

use super::plan::StudentPlan;
use crate::encode::TASK_WEIGHTS;
use crate::error::{Error, Result};

/// Weights per unit where memory allows: 64 MiB of F32 rows.
const UNIT_WEIGHTS: u64 = 16 << 20;
/// Memory per weight of the unit at work: at the most 8 bytes of mapped source (F64) and 4 of output.
const BYTES_PER_WEIGHT: u64 = 12;
/// Memory that the process needs besides: program, metadata, tokenizer, thread stacks.
const FIXED_BYTES: u64 = 128 << 20;

/// Some rows of one tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unit {
    /// Index of the tensor in the plan.
    pub(crate) tensor: usize,
    /// Rows of the tensor flattened to `[rows, cols]`.
    pub(crate) rows: Range<usize>,
}

/// All units of a plan, in file order, and the memory they need.
#[derive(Clone, Debug)]
pub(crate) struct Units {
    /// The units in file order.
    pub(crate) units: Vec<Unit>,
    /// Most weights in a unit.
    pub(crate) unit_weights: u64,
    /// Upper bound of the resident memory while they are worked on, mapped pages included.
    pub(crate) memory_bytes: u64,
}

impl Units {
    /// Cuts a plan so that no more than `max_memory_bytes` are needed (with `None`: units of [`UNIT_WEIGHTS`]), when
    /// every thread of `n_threads` holds some rows in F32.
    ///
    /// # Errors
    /// [`Error::Memory`] when the largest row alone does not fit.
    pub(crate) fn cut(plan: &StudentPlan, max_memory_bytes: Option<u64>, n_threads: usize) -> Result<Self> {
        let Some(widest) = plan.tensors.iter().max_by_key(|tensor| tensor.cols()) else {
            return Ok(Self { units: Vec::new(), unit_weights: 0, memory_bytes: FIXED_BYTES });
        };
        let row_buffers = n_threads as u64 * 8 * (widest.cols() as u64).max(TASK_WEIGHTS as u64);
        let fixed = FIXED_BYTES + row_buffers;
        let needed = fixed + widest.cols() as u64 * BYTES_PER_WEIGHT;
        let unit_weights = match max_memory_bytes {
            None => UNIT_WEIGHTS.max(widest.cols() as u64),
            Some(limit) if limit < needed => {
                return Err(Error::Memory { limit, needed, tensor: widest.name.clone() });
            }
            Some(limit) => ((limit - fixed) / BYTES_PER_WEIGHT).min(UNIT_WEIGHTS.max(widest.cols() as u64)),
        };
        let mut units = Vec::new();
        for (index, tensor) in plan.tensors.iter().enumerate() {
            let rows_per_unit = (unit_weights / tensor.cols().max(1) as u64).max(1) as usize;
            let starts = (0..tensor.rows()).step_by(rows_per_unit);
            units.extend(
                starts.map(|start| Unit { tensor: index, rows: start..tensor.rows().min(start + rows_per_unit) }),
            );
        }
        Ok(Self { units, unit_weights, memory_bytes: fixed + unit_weights * BYTES_PER_WEIGHT })
    }

    /// Appends to `job` the part that it lacks of the file that `writer` lays out: first the header, then the units.
    /// `make` puts a unit's bytes into the buffer and returns the unit's entry in the journal; `progress` gets the bytes
    /// of the file, done and in all.
    ///
    /// # Errors
    /// The first error of `make`, or of the disk; the units appended before it stay.
    pub(crate) fn write(
        &self,
        job: &mut Job,
        writer: &mut GgufWriter,
        progress: &mut dyn FnMut(u64, u64),
        make: &mut dyn FnMut(&Unit, &mut Vec<u8>) -> Result<Value>,
    ) -> Result<()> {
        let total = writer.file_bytes();
        if job.units().is_empty() {
            job.append(json!({ "header": true }), |out| writer.begin(out).map_err(io::Error::other))?;
        } else {
            writer.resume(job.data_len())?;
        }
        let mut bytes = Vec::new();
        // The job's first unit is the header.
        for unit in self.units.iter().skip(job.units().len() - 1) {
            progress(job.data_len(), total);
            let payload = make(unit, &mut bytes)?;
            job.append(payload, |out| writer.write_tensor(out, unit.tensor, &bytes).map_err(io::Error::other))?;
        }
        progress(total, total);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Recipe;
    use crate::synth::Shape;

    fn plan() -> StudentPlan {
        let config = Shape::open("mini", None).unwrap().config;
        let tensors = moe_runtime::models::expected_tensors(&config);
        StudentPlan::new(&config, tensors.iter().map(|t| (&*t.name, &*t.shape)), &Recipe::default()).unwrap()
    }

    #[test]
    fn units_cover_every_row_once_and_stay_below_the_limit() {
        let plan = plan();
        let tight = Units::cut(&plan, Some(FIXED_BYTES + (4 << 20)), 2).unwrap();
        assert!(tight.memory_bytes <= FIXED_BYTES + (4 << 20));
        for units in [tight, Units::cut(&plan, None, 2).unwrap()] {
            let mut at = (0, 0);
            for unit in &units.units {
                assert_eq!((unit.tensor, unit.rows.start), at);
                assert!((unit.rows.len() * plan.tensors[unit.tensor].cols()) as u64 <= units.unit_weights);
                at = if unit.rows.end == plan.tensors[unit.tensor].rows() {
                    (unit.tensor + 1, 0)
                } else {
                    (unit.tensor, unit.rows.end)
                };
            }
            assert_eq!(at, (plan.tensors.len(), 0));
        }
    }

    #[test]
    fn too_little_memory_is_refused_with_both_numbers() {
        let refused = Units::cut(&plan(), Some(1000), 2);
        assert!(matches!(refused, Err(Error::Memory { limit: 1000, needed, .. }) if needed > 1000));
    }
}
