//! The error of a quantised tensor against its source, summed up chunk by chunk.
//!
//! ```
//! use ternary_core::ErrorSums;
//!
//! let mut sums = ErrorSums::default();
//! sums.add(&[1.0, -1.0], &[1.0, -1.0]);
//! sums.add(&[0.5, 2.0], &[0.0, 2.0]);
//! sums.add_scale(1.0);
//! let metrics = sums.metrics();
//! assert_eq!(metrics.relative_mse, 0.25 / 6.25);
//! assert_eq!(metrics.sparsity, 0.25);
//! ```

/// The error of an approximation `v` of weights `w`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ErrorMetrics {
    /// Number of weights compared.
    pub n: u64,
    /// `sum (w - v)^2 / sum w^2`; 0 where both are 0, infinite where only the weights are.
    pub relative_mse: f64,
    /// `sum w v / sqrt(sum w^2 sum v^2)`; 1 where both are all zero, 0 where one is.
    pub cosine: f64,
    /// Share of `v` that is zero; 0 where nothing was compared.
    pub sparsity: f64,
    /// Number of scales added; the statistics below are 0 where it is 0.
    pub n_scales: u64,
    /// Smallest scale of a block.
    pub scale_min: f32,
    /// Mean of the scales.
    pub scale_mean: f64,
    /// Standard deviation of the scales.
    pub scale_std: f64,
    /// Largest scale of a block.
    pub scale_max: f32,
}

/// Sums from which [`ErrorMetrics`] follow; independent of how the weights were cut into chunks up
/// to the rounding of f64.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ErrorSums {
    /// Number of weights compared.
    pub n: u64,
    /// Approximations that are zero.
    pub zeros: u64,
    /// `sum (w - v)^2` over all weights.
    pub error2: f64,
    /// `sum w^2` over all weights.
    pub weight2: f64,
    /// `sum v^2` over all weights.
    pub value2: f64,
    /// `sum w v` over all weights.
    pub product: f64,
    /// Number of scales added.
    pub n_scales: u64,
    /// Smallest scale; 0 where none was added.
    pub scale_min: f32,
    /// Largest scale; 0 where none was added.
    pub scale_max: f32,
    /// Sum of the scales.
    pub scale: f64,
    /// Sum of their squares.
    pub scale2: f64,
}

impl ErrorSums {
    /// Adds a chunk of weights and their approximations.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn add(&mut self, weights: &[f32], values: &[f32]) {
        assert_eq!(weights.len(), values.len(), "one value per weight");
        self.n += weights.len() as u64;
        // Element i goes to lane i mod 8: independent sums run side by side, in an order that never changes.
        let mut lanes = [Lane::default(); LANES];
        for (weights, values) in weights.chunks(LANES).zip(values.chunks(LANES)) {
            for (lane, (&w, &v)) in lanes.iter_mut().zip(weights.iter().zip(values)) {
                lane.add(f64::from(w), f64::from(v));
            }
        }
        for lane in lanes {
            self.zeros += lane.zeros;
            self.error2 += lane.error2;
            self.weight2 += lane.weight2;
            self.value2 += lane.value2;
            self.product += lane.product;
        }
    }

    /// Adds the scale of a block.
    pub fn add_scale(&mut self, scale: f32) {
        let first = self.n_scales == 0;
        self.scale_min = if first { scale } else { self.scale_min.min(scale) };
        self.scale_max = if first { scale } else { self.scale_max.max(scale) };
        self.n_scales += 1;
        self.scale += f64::from(scale);
        self.scale2 += f64::from(scale) * f64::from(scale);
    }

    /// Adds the sums of `other`.
    pub fn merge(&mut self, other: &Self) {
        if other.n_scales > 0 {
            let first = self.n_scales == 0;
            let (min, max) = (other.scale_min, other.scale_max);
            self.scale_min = if first { min } else { self.scale_min.min(min) };
            self.scale_max = if first { max } else { self.scale_max.max(max) };
        }
        self.n += other.n;
        self.zeros += other.zeros;
        self.error2 += other.error2;
        self.weight2 += other.weight2;
        self.value2 += other.value2;
        self.product += other.product;
        self.n_scales += other.n_scales;
        self.scale += other.scale;
        self.scale2 += other.scale2;
    }

    /// The metrics of all that was added.
    #[must_use]
    pub fn metrics(&self) -> ErrorMetrics {
        let n_scales = self.n_scales.max(1) as f64;
        let scale_mean = self.scale / n_scales;
        ErrorMetrics {
            n: self.n,
            relative_mse: if self.error2 == 0.0 { 0.0 } else { self.error2 / self.weight2 },
            cosine: match (self.weight2 == 0.0, self.value2 == 0.0) {
                (true, true) => 1.0,
                (true, false) | (false, true) => 0.0,
                (false, false) => self.product / (sqrt(self.weight2) * sqrt(self.value2)),
            },
            sparsity: self.zeros as f64 / self.n.max(1) as f64,
            n_scales: self.n_scales,
            scale_min: self.scale_min,
            scale_mean,
            scale_std: sqrt((self.scale2 / n_scales - scale_mean * scale_mean).max(0.0)),
            scale_max: self.scale_max,
        }
    }
}

/// Sums that [`ErrorSums::add`] keeps side by side.
const LANES: usize = 8;

#[derive(Clone, Copy, Default)]
struct Lane {
    zeros: u64,
    error2: f64,
    weight2: f64,
    value2: f64,
    product: f64,
}

impl Lane {
    fn add(&mut self, w: f64, v: f64) {
        self.zeros += u64::from(v == 0.0);
        self.error2 += (w - v) * (w - v);
        self.weight2 += w * w;
        self.value2 += v * v;
        self.product += w * v;
    }
}

/// The square root of a non-negative normal number, to the last bit or two, as `core` has no square root.
fn sqrt(x: f64) -> f64 {
    if x == 0.0 || !x.is_finite() {
        return x;
    }
    // Halving the exponent is right within a factor of 1.5; each Newton step doubles the digits.
    let mut root = f64::from_bits((x.to_bits() >> 1) + (1023 << 51));
    for _ in 0..5 {
        root = 0.5 * (root + x / root);
    }
    root
}
