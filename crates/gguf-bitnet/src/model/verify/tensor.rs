//! The findings of one tensor, which follow from that tensor alone.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use super::super::defect::{Defect, DefectKind};
use super::super::identity::chunks_of;
use super::super::scan;
use super::super::zeros::{ZeroFindings, ZeroScan};
use crate::error::Result;
use crate::formats::TensorType;
use crate::source::{TensorSource, ZeroTail};

/// Bytes that are scanned at a time, in parallel.
const CHUNK_BYTES: usize = 32 << 20;

/// The facts and findings of a tensor.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TensorFindings {
    /// The name of the tensor.
    pub(super) tensor: String,
    #[serde(rename = "type")]
    pub(super) ty: TensorType,
    pub(super) elements: u64,
    /// Codes, scales and weights that are invalid.
    pub(super) defects: Vec<Defect>,
    pub(super) zeros: ZeroFindings,
}

/// Reads tensors of one source, in any order.
pub(super) struct Scanner<'a> {
    source: &'a dyn TensorSource,
    /// Tensors that are the scales of others.
    scales: HashSet<&'a str>,
    /// Tensors whose zeros the end of a file explains.
    explained: HashSet<&'a str>,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(source: &'a dyn TensorSource, tails: &'a [ZeroTail]) -> Scanner<'a> {
        let infos = source.tensors();
        Scanner {
            source,
            scales: (0..infos.len()).filter_map(|index| Some(&*infos[source.scales(index)?.tensor].name)).collect(),
            explained: tails.iter().flat_map(|tail| &tail.tensors).map(String::as_str).collect(),
        }
    }

    /// Reads a tensor; `visit` gets its bytes in order.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn tensor(&self, index: usize, visit: &mut dyn FnMut(&[u8])) -> Result<TensorFindings> {
        let info = &self.source.tensors()[index];
        let is_scales = self.scales.contains(&*info.name);
        let looks_for_zeros = !is_scales && !self.explained.contains(&*info.name);
        let (mut found, mut zeros) = (BTreeMap::<DefectKind, Defect>::new(), ZeroScan::default());
        chunks_of(self.source, index, CHUNK_BYTES, &mut |offset, chunk| {
            visit(chunk);
            let findings =
                if is_scales { scan::scales(info, offset, chunk)? } else { scan::chunk(info, offset, chunk) };
            for (kind, finding) in findings {
                let defect = found.entry(kind).or_insert_with(|| Defect {
                    tensor: info.name.clone(),
                    ty: info.ty,
                    kind,
                    count: 0,
                    of: scan::total(info, kind),
                    first_row: finding.first_element / (info.cols().max(1) as u64),
                });
                defect.count += finding.count;
            }
            if looks_for_zeros { zeros.chunk(self.source, index, (offset, chunk)) } else { Ok(()) }
        })?;
        Ok(TensorFindings {
            tensor: info.name.clone(),
            ty: info.ty,
            elements: info.elements() as u64,
            defects: found.into_values().collect(),
            zeros: zeros.findings(),
        })
    }
}
