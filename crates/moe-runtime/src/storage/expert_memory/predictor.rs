//! Prediction of the experts that the next layer needs from the experts that this layer uses.
//!
//! ```text
//! counts[l][e][f]   how often a token that used expert e in layer l used expert f in layer l + 1
//! p(f | e)        = (counts[l][e][f] + 1) / (sum over f of counts[l][e][f] + n_experts)        Laplace smoothing
//! score(f)        = sum of p(f | e) over the experts e of this layer
//! ```
//!
//! **Invariant:** predictions come from the table as of its last rebuild; it is rebuilt from the counts every 16 tokens.

use crate::rng::SplitMix64;

/// Tokens between two rebuilds of the table.
const REBUILD_TOKENS: usize = 16;

/// Learns transitions between experts of neighbouring layers, and predicts by them.
#[derive(Debug)]
pub(super) struct ExpertPredictor {
    n_layers: usize,
    n_experts: usize,
    /// Transitions seen, `[n_layers, n_experts, n_experts]`.
    counts: Vec<u32>,
    /// The same as probabilities, as of the last rebuild.
    table: Vec<f32>,
    /// The layer observed last, and its experts.
    last: Option<usize>,
    last_experts: Vec<u32>,
    /// Tokens since the last rebuild.
    tokens: usize,
    scores: Vec<(f32, usize)>,
    /// Draws instead of predicting.
    shuffled: Option<SplitMix64>,
}

impl ExpertPredictor {
    /// A predictor without observations. With a seed its predictions are drawn at random: the control.
    #[must_use]
    pub(super) fn new(n_layers: usize, n_experts: usize, shuffled: Option<u64>) -> ExpertPredictor {
        let cells = n_layers.saturating_mul(n_experts).saturating_mul(n_experts);
        let even = 1.0 / n_experts.max(1) as f32;
        ExpertPredictor {
            n_layers,
            n_experts,
            counts: vec![0; cells],
            table: vec![even; cells],
            last: None,
            last_experts: Vec::with_capacity(n_experts),
            tokens: 0,
            scores: Vec::with_capacity(n_experts),
            shuffled: shuffled.map(SplitMix64::new),
        }
    }

    /// Records that a token used `experts` in `layer`. Layers of a token come in order; a lower layer begins the next token.
    ///
    /// Callers leave out batches of many tokens, because such a list does not show which token used which expert.
    pub(super) fn observe(&mut self, layer: usize, experts: &[u32]) {
        if layer >= self.n_layers || experts.iter().any(|&e| e as usize >= self.n_experts) {
            return;
        }
        match self.last {
            Some(last) if last + 1 == layer => {
                for &from in &self.last_experts {
                    for &to in experts {
                        let row = self.row(last, from as usize);
                        let count = &mut self.counts[row + to as usize];
                        *count = count.saturating_add(1);
                    }
                }
            }
            Some(last) if last >= layer => {
                self.tokens += 1;
                if self.tokens >= REBUILD_TOKENS {
                    self.rebuild();
                }
            }
            _ => {}
        }
        self.last = Some(layer);
        self.last_experts.clear();
        self.last_experts.extend_from_slice(experts);
    }

    /// Writes the `n` experts of layer `layer + 1` that `experts` of `layer` make most likely, the likeliest first; none
    /// behind the last layer.
    pub(super) fn predict(&mut self, layer: usize, experts: &[u32], n: usize, predicted: &mut Vec<usize>) {
        predicted.clear();
        if layer + 1 >= self.n_layers || experts.iter().any(|&e| e as usize >= self.n_experts) {
            return;
        }
        self.scores.clear();
        for to in 0..self.n_experts {
            let score = match &mut self.shuffled {
                Some(random) => random.next_f64() as f32,
                None => experts.iter().map(|&from| self.table[self.row(layer, from as usize) + to]).sum(),
            };
            self.scores.push((score, to));
        }
        self.scores.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        predicted.extend(self.scores.iter().take(n).map(|&(_, expert)| expert));
    }

    fn rebuild(&mut self) {
        self.tokens = 0;
        let width = self.n_experts.max(1);
        for (counts, table) in self.counts.chunks(width).zip(self.table.chunks_mut(width)) {
            let total = counts.iter().map(|&c| u64::from(c)).sum::<u64>() + width as u64;
            for (count, p) in counts.iter().zip(table) {
                *p = (u64::from(*count) + 1) as f32 / total as f32;
            }
        }
    }

    fn row(&self, layer: usize, expert: usize) -> usize {
        (layer * self.n_experts + expert) * self.n_experts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The share of right predictions where expert e of layer 0 leads to 3 e + 1 in layer 1, seven times of eight.
    fn hit_rate(shuffled: Option<u64>, tokens: usize) -> f64 {
        let (n, mut random) = (16, SplitMix64::new(1));
        let mut predictor = ExpertPredictor::new(2, n, shuffled);
        let (mut predicted, mut hits) = (Vec::new(), 0);
        for token in 0..tokens {
            let from = (random.next_f64() * n as f64) as usize;
            let to = if token % 8 == 0 { (random.next_f64() * n as f64) as usize } else { (3 * from + 1) % n };
            predictor.observe(0, &[from as u32]);
            predictor.predict(0, &[from as u32], 2, &mut predicted);
            assert_eq!(predicted.len(), 2);
            hits += usize::from(predicted.contains(&to));
            predictor.observe(1, &[to as u32]);
        }
        hits as f64 / tokens as f64
    }

    #[test]
    fn transitions_are_learned_and_beat_the_shuffled_control() {
        let (learned, control) = (hit_rate(None, 2000), hit_rate(Some(9), 2000));
        assert!(learned > 0.8, "{learned}");
        assert!(control < 0.25, "{control}");
    }

    #[test]
    fn the_table_is_rebuilt_every_sixteen_tokens_and_smoothed() {
        let mut predictor = ExpertPredictor::new(2, 4, None);
        let mut predicted = Vec::new();
        for token in 0..17 {
            predictor.observe(0, &[2]);
            predictor.predict(0, &[2], 1, &mut predicted);
            assert_eq!(predicted, [if token < 16 { 0 } else { 3 }], "token {token}");
            predictor.observe(1, &[3]);
        }
        // 16 transitions 2 -> 3, none to the three others: (16 + 1) / (16 + 4) and 1 / 20.
        assert_eq!(predictor.table[2 * 4..3 * 4], [0.05, 0.05, 0.05, 0.85]);
        predictor.predict(1, &[0], 4, &mut predicted);
        assert!(predicted.is_empty(), "there is no layer 2");
        predictor.observe(7, &[0]);
        predictor.predict(0, &[9], 4, &mut predicted);
        assert!(predicted.is_empty(), "there is no expert 9");
    }
}
