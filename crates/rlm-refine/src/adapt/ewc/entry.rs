//! The information about one entry of the registry: all of its numbers, or those that matter most.

use moe_runtime::SplitMix64;
use serde::Serialize;

use crate::train::{Group, Param};

/// The information and the values to stay near.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Before the correction of its start from 0; all of the entry, or its kept numbers.
    pub(super) fisher: Vec<f32>,
    /// The values to stay near, in the same order.
    anchor: Vec<f32>,
    /// Which numbers these are, ascending; `None` for all.
    kept: Option<Vec<u32>>,
}

/// The way of one tensor since the protected texts were measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EwcDrift {
    /// llama.cpp's name of the tensor.
    pub tensor: String,
    /// The group that it was trained in.
    pub group: Group,
    /// Length of the move of the kept numbers over the length of their values then; the length itself where these were 0.
    pub moved: f64,
    /// Half the sum of information times squared move: the share of the tensor in the penalty at `lambda` 1.
    pub penalty: f64,
    /// Mean information of the kept numbers.
    pub fisher: f64,
}

impl Entry {
    pub(super) fn new(param: &Param) -> Self {
        Self { fisher: vec![0.0; param.values.len()], anchor: param.values.clone(), kept: None }
    }

    /// Spreads kept numbers over the whole entry again, and moves the anchor to the values of now.
    pub(super) fn open(&mut self, param: &Param) {
        if let Some(kept) = self.kept.take() {
            let mut fisher = vec![0.0; param.values.len()];
            kept.iter().zip(&self.fisher).for_each(|(&i, &f)| fisher[i as usize] = f);
            self.fisher = fisher;
        }
        self.anchor.clone_from(&param.values);
    }

    /// Adds the squared gradient of the mean of `n` positions.
    pub(super) fn add(&mut self, decay: f32, n: usize, gradient: &[f32]) {
        let factor = (1.0 - f64::from(decay)) * n as f64;
        for (f, &g) in self.fisher.iter_mut().zip(gradient) {
            *f = (f64::from(decay) * f64::from(*f) + factor * f64::from(g) * f64::from(g)) as f32;
        }
    }

    /// The kept numbers of `values`, by information, anchor and place.
    fn moves<'a>(&'a self, values: &'a [f32]) -> impl Iterator<Item = (usize, f64, f64)> + 'a {
        let place = |i: usize| self.kept.as_ref().map_or(i, |kept| kept[i] as usize);
        self.fisher.iter().zip(&self.anchor).enumerate().map(move |(i, (&f, &anchor))| {
            let at = place(i);
            (at, f64::from(f), f64::from(values[at]) - f64::from(anchor))
        })
    }

    /// The sum of information times squared move.
    pub(super) fn squares(&self, values: &[f32]) -> f64 {
        self.moves(values).map(|(_, f, moved)| f * moved * moved).sum()
    }

    pub(super) fn add_gradient(&self, factor: f64, param: &mut Param) {
        let Param { values, gradient, .. } = param;
        self.moves(values).for_each(|(at, f, moved)| gradient[at] += (factor * f * moved) as f32);
    }

    pub(super) fn drift(&self, correction: f64, param: &Param) -> EwcDrift {
        let length = |squares: f64| squares.sqrt();
        let moved = length(self.moves(&param.values).map(|(.., moved)| moved * moved).sum());
        let before = length(self.anchor.iter().map(|&w| f64::from(w) * f64::from(w)).sum());
        let fisher: f64 = self.fisher.iter().map(|&f| f64::from(f)).sum();
        EwcDrift {
            tensor: param.name.clone(),
            group: param.group,
            moved: if before > 0.0 { moved / before } else { moved },
            penalty: 0.5 * correction * self.squares(&param.values),
            fisher: correction * fisher / self.fisher.len().max(1) as f64,
        }
    }
}

/// Gives the information of all entries to numbers in an order that follows from the seed.
pub(super) fn shuffle(entries: &mut [Entry], seed: u64) {
    let mut all: Vec<f32> = entries.iter().flat_map(|entry| entry.fisher.iter().copied()).collect();
    let mut random = SplitMix64::new(seed);
    for i in (1..all.len()).rev() {
        all.swap(i, (random.next_u64() % (i as u64 + 1)) as usize);
    }
    let mut rest = all.into_iter();
    entries.iter_mut().flat_map(|entry| &mut entry.fisher).zip(&mut rest).for_each(|(f, other)| *f = other);
}

/// Gives the mean of the information to every number.
pub(super) fn flatten(entries: &mut [Entry]) {
    let all = || entries.iter().flat_map(|entry| &entry.fisher);
    let mean = (all().map(|&f| f64::from(f)).sum::<f64>() / all().count().max(1) as f64) as f32;
    entries.iter_mut().for_each(|entry| entry.fisher.fill(mean));
}

/// Keeps the `keep` largest numbers of the information over all entries; of equal ones the first.
pub(super) fn keep_largest(entries: &mut [Entry], keep: usize) {
    let mut all: Vec<f32> = entries.iter().flat_map(|entry| entry.fisher.iter().copied()).collect();
    let edge = match keep {
        0 => f32::INFINITY,
        keep if keep >= all.len() => return,
        keep => *all.select_nth_unstable_by(keep - 1, |a, b| b.total_cmp(a)).1,
    };
    let mut at_edge = keep - all.iter().filter(|&&f| f > edge).count().min(keep);
    for entry in entries {
        let mut kept = Vec::new();
        for (i, &f) in entry.fisher.iter().enumerate() {
            let is_kept = f > edge || (f == edge && at_edge > 0);
            at_edge -= usize::from(is_kept && f == edge);
            kept.extend(is_kept.then_some(i as u32));
        }
        let pick = |values: &[f32]| kept.iter().map(|&i| values[i as usize]).collect();
        (entry.fisher, entry.anchor) = (pick(&entry.fisher), pick(&entry.anchor));
        entry.kept = Some(kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::Kind;

    fn param(values: &[f32]) -> Param {
        Param {
            name: "blk.0.attn_norm.weight".to_owned(),
            group: Group::Norms,
            kind: Kind::Weights,
            rows: 1,
            cols: values.len(),
            matrix_rows: 1,
            block_scales: Vec::new(),
            values: values.to_vec(),
            gradient: vec![0.0; values.len()],
        }
    }

    #[test]
    fn information_decays_grows_with_squared_gradients_and_stays_zero_without_any() {
        let mut entry = Entry::new(&param(&[1.0, 2.0, 3.0]));
        entry.add(0.5, 4, &[1.0, -2.0, 0.0]);
        assert_eq!(entry.fisher, [2.0, 8.0, 0.0]);
        entry.add(0.5, 1, &[0.0, 2.0, 0.0]);
        assert_eq!(entry.fisher, [1.0, 6.0, 0.0], "a phase is added to the ones before");
    }

    #[test]
    fn the_largest_numbers_are_kept_with_their_anchors_and_spread_again() {
        let mut entries = [Entry::new(&param(&[1.0, 2.0])), Entry::new(&param(&[3.0, 4.0, 5.0]))];
        entries[0].fisher = vec![0.5, 3.0];
        entries[1].fisher = vec![1.0, 3.0, 0.0];
        keep_largest(&mut entries, 2);
        assert_eq!((&entries[0].kept, &entries[1].kept), (&Some(vec![1]), &Some(vec![1])));
        let moved = param(&[9.0, 9.0, 9.0]);
        assert_eq!(entries[1].squares(&moved.values), 3.0 * 25.0);
        let mut pushed = moved.clone();
        entries[1].add_gradient(2.0, &mut pushed);
        assert_eq!(pushed.gradient, [0.0, 30.0, 0.0]);
        entries[1].open(&moved);
        assert_eq!((entries[1].fisher.as_slice(), entries[1].squares(&moved.values)), (&[0.0, 3.0, 0.0][..], 0.0));
        // Of equal ones the first, and none where none is to be kept.
        let mut entries = [Entry::new(&param(&[1.0, 2.0, 3.0]))];
        entries[0].fisher = vec![1.0, 1.0, 1.0];
        keep_largest(&mut entries, 2);
        assert_eq!(entries[0].kept, Some(vec![0, 1]));
        keep_largest(&mut entries, 0);
        assert_eq!(entries[0].kept, Some(vec![]));
    }

    #[test]
    fn controls_keep_the_sum_and_lose_the_places() {
        let values: Vec<f32> = (0..64).map(|i| i as f32).collect();
        let made = || {
            let mut entries = [Entry::new(&param(&values)), Entry::new(&param(&values))];
            entries[0].fisher = values.clone();
            entries
        };
        let sum = |entries: &[Entry]| entries.iter().flat_map(|entry| &entry.fisher).sum::<f32>();
        let (mut shuffled, mut flat) = (made(), made());
        shuffle(&mut shuffled, 1);
        flatten(&mut flat);
        assert_eq!((sum(&shuffled), sum(&flat)), (sum(&made()), sum(&made())));
        assert!(shuffled[1].fisher.iter().any(|f| *f > 0.0), "numbers go to other entries too");
        assert!(flat.iter().flat_map(|entry| &entry.fisher).all(|f| *f == flat[0].fisher[0]));
    }
}
