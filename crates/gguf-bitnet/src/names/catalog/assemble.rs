//! From the roles of stored tensors to the list of canonical ones.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::{Catalog, LogicalTensor, Part};
use crate::error::{Error, Result};
use crate::formats::FormatError;
use crate::names::NamesError;
use crate::names::class::TensorClass;
use crate::names::mapper::{Role, SplitDims, TensorNameMapper, order_key};
use crate::source::{SourceError, TensorInfo, TensorSource};

impl Catalog {
    pub(crate) fn assemble(source: Arc<dyn TensorSource>, mapper: &TensorNameMapper) -> Result<Catalog> {
        let mut pieces: BTreeMap<_, (String, Vec<(usize, Piece)>)> = BTreeMap::new();
        let (mut unmapped, mut skipped) = (Vec::new(), Vec::new());
        for (index, info) in source.tensors().iter().enumerate() {
            let mut add = |name: String, piece: Piece| {
                let key = order_key(&name);
                pieces.entry(key).or_insert_with(|| (name, Vec::new())).1.push((index, piece));
            };
            match mapper.role(&info.name) {
                Role::Whole(name) => add(name, Piece::Whole),
                Role::Expert { name, expert } => add(name, Piece::Expert { expert, half: None }),
                Role::ExpertGateUp { gate, up, expert } => {
                    add(gate, Piece::Expert { expert, half: Some(Half::First) });
                    add(up, Piece::Expert { expert, half: Some(Half::Second) });
                }
                Role::GateUp { gate, up } => {
                    add(gate, Piece::Half(Half::First));
                    add(up, Piece::Half(Half::Second));
                }
                Role::KvB { key, value } => {
                    add(key, Piece::Keys);
                    add(value, Piece::Values);
                }
                Role::Skipped => skipped.push(info.name.clone()),
                Role::Unknown => unmapped.push(info.name.clone()),
            }
        }
        let mut tensors = Vec::with_capacity(pieces.len());
        for (name, pieces) in pieces.into_values() {
            let tensor = assemble_tensor(source.tensors(), &name, pieces, mapper.dims())
                .map_err(|error| error.in_tensor(name).in_file(source.path()))?;
            tensors.push(tensor);
        }
        let by_name = tensors.iter().enumerate().map(|(index, t)| (t.name.clone(), index)).collect();
        Ok(Catalog { source, tensors, by_name, unmapped, skipped })
    }
}

/// The most matrices or heads a fused tensor is cut into: far more than any model has, and few
/// enough that a hostile shape cannot claim the memory for its list of parts.
const MAX_CUTS: usize = 1 << 16;

/// Which rows of a stored tensor belong to a logical one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    Whole,
    Expert { expert: usize, half: Option<Half> },
    Half(Half),
    Keys,
    Values,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Half {
    First,
    Second,
}

impl Half {
    /// This half of `rows` rows that start at `start`.
    fn of(self, start: usize, rows: usize) -> Range<usize> {
        match self {
            Half::First => start..start + rows / 2,
            Half::Second => start + rows / 2..start + rows,
        }
    }
}

fn assemble_tensor(
    infos: &[TensorInfo],
    name: &str,
    mut pieces: Vec<(usize, Piece)>,
    dims: SplitDims,
) -> Result<LogicalTensor> {
    for &(index, _) in &pieces {
        if let Some(dim) = infos[index].shape.iter().position(|&d| d == 0) {
            return Err(SourceError::ZeroDimension { dim }.into());
        }
    }
    // Experts ascending; anything else has no number and sorts first.
    pieces.sort_by_key(|(_, piece)| match piece {
        Piece::Expert { expert, .. } => Some(*expert),
        _ => None,
    });
    let conflict = pieces.windows(2).find(|pair| {
        let number = |piece: &Piece| match piece {
            Piece::Expert { expert, .. } => Some(*expert),
            _ => None,
        };
        number(&pair[0].1).is_none() || number(&pair[0].1) == number(&pair[1].1)
    });
    if let Some(pair) = conflict {
        return Err(NamesError::NameConflict {
            first: infos[pair[0].0].name.clone(),
            second: infos[pair[1].0].name.clone(),
        }
        .into());
    }
    let (shape, parts) = match pieces[..] {
        [(index, Piece::Whole)] => {
            let info = &infos[index];
            let shape = if info.shape.is_empty() { vec![1] } else { info.shape.clone() };
            (shape, vec![Part { source: index, rows: 0..info.rows(), transposed: false }])
        }
        [(index, Piece::Half(half))] => halves(&infos[index], index, half)?,
        [(index, Piece::Keys)] => key_value(&infos[index], index, dims, true)?,
        [(index, Piece::Values)] => key_value(&infos[index], index, dims, false)?,
        _ => experts(infos, &pieces)?,
    };
    Ok(LogicalTensor { class: TensorClass::of(name), name: name.to_owned(), shape, parts })
}

/// Gate or up half of a matrix `[2 I, H]` or of every matrix of a stack `[E, 2 I, H]`.
fn halves(info: &TensorInfo, index: usize, half: Half) -> Result<(Vec<usize>, Vec<Part>)> {
    divisible(info)?;
    let rows = match info.shape[..] {
        [rows, _] | [..=MAX_CUTS, rows, _] if rows.is_multiple_of(2) => rows,
        _ => return Err(NamesError::GateUpShape { shape: info.shape.clone() }.into()),
    };
    let mut shape = info.shape.clone();
    let second_last = shape.len() - 2;
    shape[second_last] = rows / 2;
    let parts = (0..info.rows() / rows)
        .map(|m| Part { source: index, rows: half.of(m * rows, rows), transposed: false })
        .collect();
    Ok((shape, parts))
}

/// Keys (transposed) or values of every head of a fused `kv_b` `[heads (nope + v), latent]`.
fn key_value(info: &TensorInfo, index: usize, dims: SplitDims, keys: bool) -> Result<(Vec<usize>, Vec<Part>)> {
    divisible(info)?;
    let SplitDims { n_heads, qk_nope, v_head } = dims;
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
            Part { source: index, rows, transposed: keys }
        })
        .collect();
    let shape = if keys { vec![n_heads, latent, qk_nope] } else { vec![n_heads, v_head, latent] };
    Ok((shape, parts))
}

/// A stack `[E, rows, cols]` of experts stored one by one, sorted by number without duplicates.
fn experts(infos: &[TensorInfo], pieces: &[(usize, Piece)]) -> Result<(Vec<usize>, Vec<Part>)> {
    let last = pieces.iter().fold(0, |last, (_, piece)| match piece {
        Piece::Expert { expert, .. } => *expert,
        _ => last,
    });
    let mut expected: Option<Vec<usize>> = None;
    let mut parts = Vec::with_capacity(pieces.len());
    for (position, &(index, piece)) in pieces.iter().enumerate() {
        let Piece::Expert { expert, half } = piece else { continue };
        if expert != position {
            return Err(NamesError::ExpertGap { missing: position, last }.into());
        }
        let info = &infos[index];
        let [rows, cols] = info.shape[..] else {
            let expected = expected.unwrap_or_default();
            return Err(NamesError::ExpertShape { expert, expected, got: info.shape.clone() }.into());
        };
        let rows = match half {
            None => 0..rows,
            Some(_) if !rows.is_multiple_of(2) => {
                return Err(NamesError::GateUpShape { shape: info.shape.clone() }.into());
            }
            Some(half) => {
                divisible(info)?;
                half.of(0, rows)
            }
        };
        let got = vec![rows.len(), cols];
        match &expected {
            None => expected = Some(got),
            Some(expected) if *expected != got => {
                return Err(NamesError::ExpertShape { expert, expected: expected.clone(), got }.into());
            }
            Some(_) => {}
        }
        parts.push(Part { source: index, rows, transposed: false });
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
