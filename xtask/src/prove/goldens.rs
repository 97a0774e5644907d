//! `prove goldens`: every reference checkpoint of a folder, run by `bitnet dump`, against the numbers of transformers.
//!
//! Tolerances: logits 2e-3 absolute, hidden states 1e-4 relative L2, router sets identical, router weights 1e-4.

use std::path::Path;

use super::proof::Proof;
use crate::bitnet::{self, arg};
use crate::outcome::Outcome;
use crate::repo;
use crate::tensors::{Tensor, Tensors};

const LOGITS: f64 = 2e-3;
const HIDDEN: f64 = 1e-4;
const WEIGHTS: f64 = 1e-4;

pub(super) fn prove(proof: &mut Proof<'_>, binary: &Path) -> Outcome {
    let dir = proof.options.dir.clone().unwrap_or_else(|| repo::root().join("fixtures/goldens"));
    let mut cases: Vec<_> = std::fs::read_dir(&dir)?.filter_map(Result::ok).map(|entry| entry.path()).collect();
    cases.retain(|case| case.join("golden.safetensors").is_file());
    cases.sort();
    if cases.is_empty() {
        return Err(format!("no folder below {} holds a golden.safetensors", dir.display()).into());
    }
    for case in cases {
        let name = case.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match compare_case(proof, binary, &case) {
            Ok(gap) => {
                proof.figure(name, gap.to_string(), "logits 2e-3, hidden 1e-4, same sets, weights 1e-4", gap.passes())
            }
            Err(error) => proof.figure(name, error.to_string(), "runs", false),
        }
    }
    Ok(())
}

fn compare_case(proof: &Proof<'_>, binary: &Path, case: &Path) -> Outcome<Gap> {
    let golden = Tensors::read(&case.join("golden.safetensors"))?;
    let ids: Vec<String> = golden.find("input_ids")?.values.iter().map(f64::to_string).collect();
    let out = proof.work.join("dump.safetensors");
    let _ = std::fs::remove_file(&out);
    bitnet::output(binary, &["dump", "--model", arg(case)?, "--tokens", &ids.join(","), "--out", arg(&out)?])?;
    Ok(Gap::between(&golden, &Tensors::read(&out)?)?)
}

/// The largest differences between a golden and a run.
#[derive(Default)]
pub(super) struct Gap {
    /// The largest absolute difference of two logits.
    logits: f64,
    /// Relative L2 distance of the worst state.
    hidden: f64,
    /// Tokens and layers whose set of experts differs.
    sets: usize,
    /// Largest absolute difference over experts that both chose.
    weights: f64,
}

impl Gap {
    /// Compares every tensor of `want`.
    pub(super) fn between(want: &Tensors, got: &Tensors) -> Result<Self, String> {
        let mut gap = Self::default();
        for a in want.iter() {
            let kind = a.name.split('.').next().unwrap_or_default();
            if !matches!(kind, "logits" | "hidden" | "router_ids") {
                continue;
            }
            let b = same_shape(a, got)?;
            match kind {
                "logits" => gap.logits = max_nan(gap.logits, largest(a, b)),
                "hidden" => gap.hidden = max_nan(gap.hidden, relative(a, b)),
                _ => {
                    let of = |tensors: &Tensors| -> Result<Vec<f64>, String> {
                        tensors.find(&a.name.replace("ids", "weights")).map(|t| t.values.clone())
                    };
                    gap.routing(a, b, &of(want)?, &of(got)?);
                }
            }
        }
        Ok(gap)
    }

    fn routing(&mut self, a: &Tensor, b: &Tensor, a_weights: &[f64], b_weights: &[f64]) {
        let k = a.shape.last().copied().unwrap_or(1).max(1);
        for (row, (want, got)) in a.values.chunks(k).zip(b.values.chunks(k)).enumerate() {
            let mut same = true;
            for (i, id) in want.iter().enumerate() {
                match got.iter().position(|other| other == id) {
                    Some(j) => {
                        self.weights = max_nan(self.weights, (a_weights[row * k + i] - b_weights[row * k + j]).abs())
                    }
                    None => same = false,
                }
            }
            self.sets += usize::from(!same);
        }
    }

    pub(super) fn passes(&self) -> bool {
        self.logits <= LOGITS && self.hidden <= HIDDEN && self.sets == 0 && self.weights <= WEIGHTS
    }
}

impl std::fmt::Display for Gap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { logits, hidden, sets, weights } = self;
        write!(f, "logits {logits:.1e}, hidden {hidden:.1e}, {sets} sets differ, weights {weights:.1e}")
    }
}

fn same_shape<'a>(a: &Tensor, got: &'a Tensors) -> Result<&'a Tensor, String> {
    let b = got.find(&a.name)?;
    if a.shape == b.shape {
        Ok(b)
    } else {
        Err(format!("{} has the shape {:?}, expected {:?}", a.name, b.shape, a.shape))
    }
}

/// The larger number. A NaN counts as the largest, so that a broken run never passes.
fn max_nan(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

fn largest(a: &Tensor, b: &Tensor) -> f64 {
    a.values.iter().zip(&b.values).map(|(x, y)| (x - y).abs()).fold(0.0, max_nan)
}

fn relative(a: &Tensor, b: &Tensor) -> f64 {
    let difference: f64 = a.values.iter().zip(&b.values).map(|(x, y)| (x - y).powi(2)).sum();
    let size: f64 = a.values.iter().map(|x| x * x).sum();
    (difference / size).sqrt()
}

#[cfg(test)]
mod tests {
    use super::{Gap, max_nan};
    use crate::tensors::Tensor;

    fn tensor(values: &[f64]) -> Tensor {
        Tensor { name: String::new(), shape: vec![values.len() / 2, 2], values: values.to_vec() }
    }

    #[test]
    fn routing_ignores_the_order_but_not_the_members() {
        let mut gap = Gap::default();
        gap.routing(&tensor(&[1.0, 2.0]), &tensor(&[2.0, 1.0]), &[0.25, 0.75], &[0.75, 0.25]);
        assert!(gap.passes());
        gap.routing(&tensor(&[1.0, 2.0]), &tensor(&[2.0, 3.0]), &[0.25, 0.75], &[0.75, 0.25]);
        assert_eq!(gap.sets, 1);
        assert!(!gap.passes());
    }

    #[test]
    fn a_nan_is_a_miss() {
        assert!(max_nan(1.0, f64::NAN).is_nan());
        assert!(!Gap { logits: f64::NAN, ..Gap::default() }.passes());
    }
}
