//! Larger steps for the experts that lessons name.
//!
//! AdamW divides each gradient by its own size, so a larger loss of some tokens moves their experts no faster. The movement of a
//! step is multiplied instead, of the entries that belong to the named experts.

use serde::Serialize;

use super::params::{Group, Params};

/// Experts that take larger steps.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Focus {
    /// Layers and experts, ascending.
    pub experts: Vec<(usize, usize)>,
    /// The factor of their steps.
    pub factor: f32,
    /// Experts of a layer.
    pub n_experts: usize,
}

/// The values of the named experts in front of a step: entry, first number, numbers.
pub(super) struct Before(Vec<(usize, usize, Vec<f32>)>);

impl Focus {
    /// Keeps the values of the named experts.
    pub(super) fn before(&self, params: &Params) -> Before {
        let mut kept = Vec::new();
        for (entry, param) in params.list().iter().enumerate() {
            if !matches!(param.group, Group::Scales | Group::LatentTrits) || !param.name.contains("_exps.") {
                continue;
            }
            let len = param.values.len() / self.n_experts.max(1);
            for &(layer, expert) in &self.experts {
                if expert < self.n_experts && param.name.starts_with(&format!("blk.{layer}.")) {
                    let first = expert * len;
                    kept.push((entry, first, param.values[first..first + len].to_vec()));
                }
            }
        }
        Before(kept)
    }

    /// Multiplies what the step behind `before` moved.
    pub(super) fn lengthen(&self, before: Before, params: &mut Params) {
        for (entry, first, old) in before.0 {
            let values = &mut params.list_mut()[entry].values[first..first + old.len()];
            values.iter_mut().zip(old).for_each(|(value, old)| *value = old + self.factor * (*value - old));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::params::{Kind, Param};

    #[test]
    fn only_named_experts_take_larger_steps() {
        let mut params = Params::default();
        for (name, group) in [
            ("blk.2.ffn_up_exps.weight", Group::Scales),
            ("blk.3.ffn_up_exps.weight", Group::Scales),
            ("blk.2.ffn_norm.weight", Group::Norms),
        ] {
            params.add(Param {
                name: name.to_owned(),
                group,
                kind: Kind::LogScales,
                rows: 4,
                cols: 2,
                matrix_rows: 1,
                block_scales: Vec::new(),
                values: vec![1.0; 8],
                gradient: vec![0.0; 8],
            });
        }
        let focus = Focus { experts: vec![(2, 1), (2, 9)], factor: 3.0, n_experts: 4 };
        let before = focus.before(&params);
        params.list_mut().iter_mut().for_each(|param| param.values.fill(2.0));
        focus.lengthen(before, &mut params);
        let values: Vec<&[f32]> = params.list().iter().map(|param| &param.values[..]).collect();
        assert_eq!(values[0], [2.0, 2.0, 4.0, 4.0, 2.0, 2.0, 2.0, 2.0]);
        assert!(values[1] == [2.0; 8] && values[2] == [2.0; 8]);
    }
}
