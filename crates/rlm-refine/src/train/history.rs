//! The figures of a run: its log as JSON lines, and its curve.
//!
//! **Invariant:** no line holds a time, so the log of a run that was killed and resumed is that of a run that was not.

use std::path::Path;

use behavior_eval::report::{Plot, Series, svg};
use gguf_bitnet::write_atomic;
use serde::{Deserialize, Serialize};

use crate::adapt::GrpoFigures;
use crate::error::Result;

/// The figures of one step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The number of steps behind the figures.
    pub step: usize,
    /// Tokens trained on so far.
    pub tokens: u64,
    /// The loss of the step's windows.
    pub loss: f64,
    /// Their mean divergence from the teacher.
    pub kl: f64,
    /// The length of the gradient before it was bounded.
    pub gradient: f64,
    /// The rate of the step.
    pub lr: f64,
    /// The mean divergence on the windows that are held out, where it was measured.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub held_out_kl: Option<f64>,
    /// The penalty on moves away from protected values, where there is one; no part of `loss`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ewc: Option<f64>,
    /// The rewards of an update, where answers are rewarded; `loss` and `kl` are then 0.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub grpo: Option<GrpoFigures>,
}

impl Point {
    /// The divergence of a step towards a teacher.
    fn kl_of_step(&self) -> Option<f64> {
        (self.step > 0 && self.grpo.is_none()).then_some(self.kl)
    }
}

/// The points of a run, in order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// One per step, behind that of the held-out windows in front of all steps, where there are such windows.
    pub points: Vec<Point>,
}

impl History {
    /// The points as JSON lines.
    #[must_use]
    pub fn json_lines(&self) -> String {
        let lines = self.points.iter().filter_map(|point| serde_json::to_string(point).ok());
        lines.map(|line| line + "\n").collect()
    }

    /// The curves of both divergences over steps, as SVG. A step on rewards measures none on its windows.
    #[must_use]
    pub fn curve(&self) -> String {
        let points = |value: &dyn Fn(&Point) -> Option<f64>| {
            self.points.iter().filter_map(|point| Some((point.step as f64, value(point)?))).collect()
        };
        let series = vec![
            Series { name: "training windows", points: points(&|point| point.kl_of_step()) },
            Series { name: "held-out windows", points: points(&|point| point.held_out_kl) },
        ];
        let title = "KL divergence from the teacher over steps".to_owned();
        svg(&Plot { title, x: "step", y: "nats", series, line: None })
    }

    /// Writes the log to `path`, and the curve beside it with the ending `svg`.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        write_atomic(path, self.json_lines().as_bytes())?;
        Ok(write_atomic(&path.with_extension("svg"), self.curve().as_bytes())?)
    }

    /// The share of groups of answers that were dropped; `None` where no answers were rewarded.
    #[must_use]
    pub fn dropped_groups(&self) -> Option<f64> {
        let updates = || self.points.iter().filter_map(|point| point.grpo);
        let groups: usize = updates().map(|update| update.groups).sum();
        (groups > 0).then(|| updates().map(|update| update.dropped).sum::<usize>() as f64 / groups as f64)
    }

    /// The last divergence that was measured on held-out windows.
    #[must_use]
    pub fn held_out_kl(&self) -> Option<f64> {
        self.points.iter().rev().find_map(|point| point.held_out_kl)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_on_rewards_have_no_divergence_in_the_curve() {
        let towards = |step, kl| Point { step, kl, ..Point::default() };
        let grpo = Some(GrpoFigures::default());
        let points = vec![towards(0, 0.5), towards(1, 0.4), Point { grpo, ..towards(2, 0.0) }, towards(3, 0.2)];
        let kl: Vec<Option<f64>> = points.iter().map(Point::kl_of_step).collect();
        assert_eq!(kl, [None, Some(0.4), None, Some(0.2)]);
        let curve = |points: &[Point]| History { points: points.to_vec() }.curve();
        assert_eq!(curve(&points), curve(&[points[0].clone(), points[1].clone(), points[3].clone()]));
    }
}
