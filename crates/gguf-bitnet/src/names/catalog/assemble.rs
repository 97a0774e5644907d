//! Builds the list of canonical tensors from the places of the stored tensors.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::{Catalog, LogicalTensor, Part, RowOrder};
use crate::error::{Error, Result};
use crate::formats::FormatError;
use crate::names::NamesError;
use crate::names::class::TensorClass;
use crate::names::mapper::{Found, SplitDims, TensorNameMapper};
use crate::names::row::Piece;
use crate::source::{SourceError, TensorInfo, TensorSource};

impl Catalog {
    pub(crate) fn assemble(source: Arc<dyn TensorSource>, mapper: &TensorNameMapper) -> Result<Catalog> {
        let mut wanted: BTreeMap<_, Gathered> = BTreeMap::new();
        let (mut unmapped, mut skipped) = (Vec::new(), Vec::new());
        let of_model = |(index, _): &(usize, &TensorInfo)| !source.is_auxiliary(*index);
        for (source, info) in source.tensors().iter().enumerate().filter(of_model) {
            match mapper.find(&info.name) {
                Found::Places(places) => {
                    for place in places {
                        let (name, class) = (place.name, place.class);
                        let tensor =
                            wanted.entry(place.order).or_insert_with(|| Gathered { name, class, stored: Vec::new() });
                        tensor.stored.push(Stored { source, expert: place.expert, piece: place.piece });
                    }
                }
                Found::Skipped => skipped.push(info.name.clone()),
                Found::Unknown => unmapped.push(info.name.clone()),
            }
        }
        let mut tensors = Vec::with_capacity(wanted.len());
        for Gathered { name, class, stored } in wanted.into_values() {
            let (shape, parts) = assemble_tensor(source.tensors(), stored, mapper.dims())
                .map_err(|error| error.in_tensor(&name).in_file(source.path()))?;
            tensors.push(LogicalTensor { name, class, shape, parts });
        }
        let by_name = tensors.iter().enumerate().map(|(index, t)| (t.name.clone(), index)).collect();
        Ok(Catalog { source, tensors, by_name, unmapped, skipped })
    }
}

/// A tensor of the model and the stored tensors that hold parts of it.
struct Gathered {
    name: String,
    class: TensorClass,
    stored: Vec<Stored>,
}

/// A stored tensor and the part of it that belongs to the tensor of the model.
#[derive(Clone, Copy)]
struct Stored {
    /// Index of the stored tensor in the source.
    source: usize,
    expert: Option<usize>,
    piece: Piece,
}

/// The most matrices or heads a fused tensor is cut into: far more than any model has, and few
/// enough that a hostile shape cannot claim the memory for its list of parts.
const MAX_CUTS: usize = 1 << 16;

/// The half that `piece` names of the `rows` rows from `start` on; all of them for a piece that is no half.
fn half_of(piece: Piece, start: usize, rows: usize) -> Range<usize> {
    match piece {
        Piece::FirstHalf => start..start + rows / 2,
        Piece::SecondHalf => start + rows / 2..start + rows,
        _ => start..start + rows,
    }
}

fn assemble_tensor(infos: &[TensorInfo], mut stored: Vec<Stored>, dims: SplitDims) -> Result<(Vec<usize>, Vec<Part>)> {
    for info in stored.iter().map(|part| &infos[part.source]) {
        if let Some(dim) = info.shape.iter().position(|&d| d == 0) {
            return Err(SourceError::ZeroDimension { dim }.into());
        }
    }
    // Experts ascend; a tensor of all experts sorts before them.
    stored.sort_by_key(|part| part.expert);
    let conflict = stored.windows(2).find(|pair| pair[0].expert.is_none() || pair[0].expert == pair[1].expert);
    if let Some(pair) = conflict {
        return Err(NamesError::NameConflict {
            first: infos[pair[0].source].name.clone(),
            second: infos[pair[1].source].name.clone(),
        }
        .into());
    }
    match stored[..] {
        [Stored { source, expert: None, piece }] => {
            let info = &infos[source];
            match piece {
                Piece::Whole => {
                    let shape = if info.shape.is_empty() { vec![1] } else { info.shape.clone() };
                    Ok((shape, vec![Part { source, rows: 0..info.rows(), order: RowOrder::AsStored }]))
                }
                Piece::FirstHalf | Piece::SecondHalf => halves(info, source, piece),
                Piece::HeadKeys => key_value(info, source, dims, true),
                Piece::HeadValues => key_value(info, source, dims, false),
                Piece::HeadPairs => head_pairs(info, source, dims.paired),
            }
        }
        _ => experts(infos, &stored),
    }
}

/// Gate or up half of a matrix `[2 I, H]` or of every matrix of a stack `[E, 2 I, H]`.
fn halves(info: &TensorInfo, source: usize, half: Piece) -> Result<(Vec<usize>, Vec<Part>)> {
    divisible(info)?;
    let rows = match info.shape[..] {
        [rows, _] | [..=MAX_CUTS, rows, _] if rows.is_multiple_of(2) => rows,
        _ => return Err(NamesError::GateUpShape { shape: info.shape.clone() }.into()),
    };
    let mut shape = info.shape.clone();
    let second_last = shape.len() - 2;
    shape[second_last] = rows / 2;
    let parts = (0..info.rows() / rows)
        .map(|m| Part { source, rows: half_of(half, m * rows, rows), order: RowOrder::AsStored })
        .collect();
    Ok((shape, parts))
}

/// Keys (transposed) or values of every head of a fused `kv_b` `[heads (nope + v), latent]`.
fn key_value(info: &TensorInfo, source: usize, dims: SplitDims, keys: bool) -> Result<(Vec<usize>, Vec<Part>)> {
    divisible(info)?;
    let SplitDims { n_heads, qk_nope, v_head, .. } = dims;
    let misfit = || NamesError::KvBShape { shape: info.shape.clone(), n_heads, qk_nope, v_head };
    let per_head = qk_nope.checked_add(v_head).ok_or_else(misfit)?;
    let [rows, latent] = info.shape[..] else { return Err(misfit().into()) };
    if qk_nope == 0 || v_head == 0 || n_heads > MAX_CUTS || per_head.checked_mul(n_heads) != Some(rows) {
        return Err(misfit().into());
    }
    let parts = (0..n_heads)
        .map(|head| {
            let start = head * per_head;
            let rows = if keys { start..start + qk_nope } else { start + qk_nope..start + per_head };
            Part { source, rows, order: if keys { RowOrder::Transposed } else { RowOrder::AsStored } }
        })
        .collect();
    let shape = if keys { vec![n_heads, latent, qk_nope] } else { vec![n_heads, v_head, latent] };
    Ok((shape, parts))
}

/// A matrix whose heads have `head` rows each, the halves of a head in pairs.
fn head_pairs(info: &TensorInfo, source: usize, head: usize) -> Result<(Vec<usize>, Vec<Part>)> {
    match info.shape[..] {
        [rows, _] if head > 0 && head.is_multiple_of(2) && rows.is_multiple_of(head) => {
            Ok((info.shape.clone(), vec![Part { source, rows: 0..rows, order: RowOrder::Pairs { head } }]))
        }
        _ => Err(NamesError::HeadShape { shape: info.shape.clone(), head }.into()),
    }
}

/// A stack `[E, rows, cols]` of experts stored one by one, sorted by number without duplicates.
fn experts(infos: &[TensorInfo], stored: &[Stored]) -> Result<(Vec<usize>, Vec<Part>)> {
    let last = stored.last().and_then(|part| part.expert).unwrap_or(0);
    let mut expected: Option<Vec<usize>> = None;
    let mut parts = Vec::with_capacity(stored.len());
    for (position, &Stored { source, expert, piece }) in stored.iter().enumerate() {
        let Some(expert) = expert.filter(|&expert| expert == position) else {
            return Err(NamesError::ExpertGap { missing: position, last }.into());
        };
        let info = &infos[source];
        let [rows, cols] = info.shape[..] else {
            let expected = expected.unwrap_or_default();
            return Err(NamesError::ExpertShape { expert, expected, got: info.shape.clone() }.into());
        };
        if piece != Piece::Whole {
            if !rows.is_multiple_of(2) {
                return Err(NamesError::GateUpShape { shape: info.shape.clone() }.into());
            }
            divisible(info)?;
        }
        let rows = half_of(piece, 0, rows);
        let got = vec![rows.len(), cols];
        match &expected {
            None => expected = Some(got),
            Some(expected) if *expected != got => {
                return Err(NamesError::ExpertShape { expert, expected: expected.clone(), got }.into());
            }
            Some(_) => {}
        }
        parts.push(Part { source, rows, order: RowOrder::AsStored });
    }
    let mut shape = vec![parts.len()];
    shape.extend(expected.unwrap_or_default());
    Ok((shape, parts))
}

/// Refuses to cut a layout that has no rows.
fn divisible(info: &TensorInfo) -> Result<()> {
    info.ty.row_bytes(info.cols()).map(|_| ()).map_err(|error| match error {
        Error::Format(FormatError::NoRows { ty }) => NamesError::NotDivisible { ty }.into(),
        other => other,
    })
}
