//! The rate of each step: it rises in a line, then falls along a cosine.

use tl_kernels::math;

/// The steps of a run and the shape of its rate.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// The number of steps of the run.
    pub steps: usize,
    /// Steps that the rate rises over.
    pub warmup: usize,
    /// The share of the highest rate that is left at the end.
    pub floor: f32,
}

impl Schedule {
    /// The share of the highest rate in step `step`, counted from 0.
    #[must_use]
    pub fn share(&self, step: usize) -> f32 {
        if step < self.warmup {
            return (step + 1) as f32 / (self.warmup + 1) as f32;
        }
        let left = self.steps.saturating_sub(self.warmup).max(1);
        let done = (step - self.warmup).min(left) as f32 / left as f32;
        let (_, cosine) = math::sin_cos(std::f32::consts::PI * done);
        self.floor + (1.0 - self.floor) * 0.5 * (1.0 + cosine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_then_falls_to_its_floor() {
        let schedule = Schedule { steps: 100, warmup: 9, floor: 0.1 };
        let shares: Vec<f32> = (0..=100).map(|step| schedule.share(step)).collect();
        assert!(shares[..9].windows(2).all(|w| w[0] < w[1]) && (shares[9] - 1.0).abs() < 1e-6);
        assert!(shares[9..].windows(2).all(|w| w[0] > w[1]) && (shares[100] - 0.1).abs() < 1e-6);
        assert!((Schedule { steps: 1, warmup: 0, floor: 0.0 }.share(0) - 1.0).abs() < 1e-6);
    }
}
