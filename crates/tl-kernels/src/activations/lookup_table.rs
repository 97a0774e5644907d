//! The lookup table of a token: every sum that a small group of its activations can add to a product.
//!
//! A ternary group of two or three columns takes few values, so all products of it with a token's activations fit
//! a table of 16 bytes, and one byte shuffle serves as many rows as a register has bytes. The table is built once per
//! token and column group and shared by all rows of all layers that read the token.
//!
//! ```text
//! group  = 2 neighbouring columns (pairs) or 3 (triples), in the order of the activation codes (activations.rs)
//! entry  = v = sum of w[i] * q[i], kept as two bytes:  v = C * hi + lo
//!
//! pairs    index 3 (w0 + 1) + (w1 + 1), 9 of 16 used; 128 groups per block; C = 23
//! triples  index |9 w0 + 3 w1 + w2|, 14 of 16 used, and a sign; 84 groups of 3 and 2 of 2 (w0 = 0); C = 27
//!
//! entries  [n, blocks, groups, 2 halves (hi, lo), 16 entries] of i8
//! ```
//!
//! **Bounds.** `hi` is v / C rounded and `lo` the rest, so |lo| <= (C - 1) / 2. With |q| <= 127:
//!
//! | | most \|v\| | C | most \|hi\| | most \|lo\| | additions that an i8 holds |
//! |---|---|---|---|---|---|
//! | pairs | 254 | 23 | 11 | 11 | 11 (121) |
//! | triples | 381 | 27 | 14 | 13 | 9 (126) |
//!
//! C is odd, so no v lies half-way between two multiples and the split of -v is that of v with both signs turned:
//! negating both halves negates the value, which is how triples apply their sign.
//!
//! **Invariant:** `C * hi + lo` is the group's exact integer product for every used entry, and unused entries are 0.
//! Source: T-MAC (arXiv 2407.00088) and bitnet.cpp's TL1 and TL2 (arXiv 2410.16144) for the tables; the split is ours.

use std::hint::black_box;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use ternary_core::BLOCK;

use super::quantized::QuantizedRows;
use crate::arch::Level;
use crate::error::{Error, Result};
use crate::memory::AlignedBuffer;
use crate::simd::{Kernel, Simd};

/// Entries of a table: as many as a byte shuffle can address.
pub(crate) const ENTRIES: usize = 16;

/// The `hi` and the `lo` bytes of a group's entries.
pub(crate) type GroupTable = [[i8; ENTRIES]; 2];

/// Largest magnitude of an activation code.
const MAX_CODE: i16 = 127;

/// The number of columns in a group, and the index of a group's entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Grouping {
    /// Two columns, index by value: TL1.
    #[default]
    Pairs,
    /// Three columns, index by magnitude: TL2.
    Triples,
}

/// Groups of a block of triples that have all three columns; the 4 columns left are two groups.
const WHOLE_TRIPLES: usize = 84;

impl Grouping {
    /// Groups of a block.
    pub(crate) const fn groups(self) -> usize {
        match self {
            Grouping::Pairs => BLOCK / 2,
            Grouping::Triples => WHOLE_TRIPLES + (BLOCK - 3 * WHOLE_TRIPLES) / 2,
        }
    }

    /// The constant C of the split.
    pub(crate) const fn split(self) -> i16 {
        match self {
            Grouping::Pairs => 23,
            Grouping::Triples => 27,
        }
    }

    /// Number of `hi` entries, or of `lo` entries, whose sum an i8 holds.
    pub(crate) const fn additions(self) -> usize {
        let columns = if matches!(self, Grouping::Pairs) { 2 } else { 3 };
        let most_hi = (columns * MAX_CODE + self.split() / 2) / self.split();
        let most_lo = self.split() / 2;
        (i8::MAX as i16 / if most_hi > most_lo { most_hi } else { most_lo }) as usize
    }

    /// The values `[q0, q1, q2]` that group `g` holds of a block; a column it lacks is `missing`.
    #[inline(always)]
    pub(crate) fn columns<T: Copy>(self, g: usize, values: &[T; BLOCK], missing: T) -> [T; 3] {
        match self {
            Grouping::Pairs => [values[2 * g], values[2 * g + 1], missing],
            Grouping::Triples if g < WHOLE_TRIPLES => [values[3 * g], values[3 * g + 1], values[3 * g + 2]],
            Grouping::Triples => {
                let first = 3 * WHOLE_TRIPLES + 2 * (g - WHOLE_TRIPLES);
                [missing, values[first], values[first + 1]]
            }
        }
    }

    /// The index of a group of trits, and whether its value is the negative of the entry.
    pub(crate) fn index(self, trits: [i8; 3]) -> (u8, bool) {
        let [a, b, c] = trits;
        match self {
            Grouping::Pairs => ((3 * (a + 1) + b + 1).unsigned_abs(), false),
            Grouping::Triples => {
                let number = 9 * a + 3 * b + c;
                (number.unsigned_abs(), number < 0)
            }
        }
    }

    /// `weights[i][e]`: the trit of column i in entry e; all 0 in an unused entry.
    const fn weights(self) -> [[i16; ENTRIES]; 3] {
        let mut weights = [[0; ENTRIES]; 3];
        let mut e = 0;
        match self {
            Grouping::Pairs => {
                while e < 9 {
                    weights[0][e] = e as i16 / 3 - 1;
                    weights[1][e] = e as i16 % 3 - 1;
                    e += 1;
                }
            }
            // Balanced ternary: e = 9 w0 + 3 w1 + w2.
            Grouping::Triples => {
                while e < 14 {
                    let (number, mut rest, mut i) = (e as i16, e as i16, 3);
                    while i > 0 {
                        i -= 1;
                        weights[i][e] = (rest + 1) % 3 - 1;
                        rest = (rest - weights[i][e]) / 3;
                    }
                    assert!(9 * weights[0][e] + 3 * weights[1][e] + weights[2][e] == number);
                    e += 1;
                }
            }
        }
        weights
    }
}

// The additions of the table at the head of this file.
const _: () = assert!(Grouping::Pairs.additions() == 11 && Grouping::Triples.additions() == 9);
const _: () = assert!(Grouping::Triples.groups() == 86);

/// `v / split`, rounded, for |v| <= 3 * 127, in 16-bit steps that every vector unit has.
///
/// With 16 split + (split - 1) / 2 added, the dividend is positive and below 1024 and the quotient is to be rounded down.
/// The factor is above 2^16 / split by less than 1, which adds less than 1024 / 2^16 = 1/64 to a quotient whose fraction
/// is at most 1 - 1/27.
#[inline(always)]
const fn rounded_quotient(v: i16, split: i16) -> i16 {
    let dividend = (v + 16 * split + split / 2).cast_unsigned();
    let factor = (1 << 16) / split.cast_unsigned() as u32 + 1;
    ((dividend as u32 * factor) >> 16) as i16 - 16
}

/// The tables of all groups of some tokens.
#[derive(Debug, Default)]
pub(crate) struct LookupTable {
    grouping: Grouping,
    blocks: usize,
    entries: AlignedBuffer<i8>,
}

impl LookupTable {
    /// Becomes the tables of all rows of `acts`. Allocates only when there are more tables than ever before.
    pub(crate) fn build(&mut self, level: Level, grouping: Grouping, acts: &QuantizedRows) {
        self.grouping = grouping;
        self.blocks = acts.blocks();
        let codes = acts.all_codes();
        self.entries.resize(codes.len() * grouping.groups() * size_of::<GroupTable>());
        let (entries, _) = self.entries.as_mut_slice().as_chunks_mut::<ENTRIES>();
        level.run(Build { grouping, codes, entries: entries.as_chunks_mut().0 });
    }

    /// The groups of block `b` of row `t`.
    #[inline(always)]
    pub(crate) fn block(&self, t: usize, b: usize) -> &[GroupTable] {
        let groups = self.grouping.groups();
        let first = (t * self.blocks + b) * groups * size_of::<GroupTable>();
        let (entries, _) = self.entries.as_slice()[first..][..groups * size_of::<GroupTable>()].as_chunks();
        entries.as_chunks().0
    }

    /// Lets a test damage an entry of the first token's first block.
    #[cfg(test)]
    pub(crate) fn entry_mut(&mut self, group: usize, half: usize, entry: usize, damage: impl FnOnce(&mut i8)) {
        damage(&mut self.entries.as_mut_slice()[(2 * group + half) * ENTRIES + entry]);
    }

    /// Compares every entry with its definition.
    ///
    /// # Errors
    /// [`Error::TableEntry`] for the first one that differs.
    pub(crate) fn verify(&self, acts: &QuantizedRows) -> Result<()> {
        let (weights, split) = (self.grouping.weights(), i32::from(self.grouping.split()));
        for (i, codes) in acts.all_codes().iter().enumerate() {
            let (token, block) = (i / self.blocks, i % self.blocks);
            for (group, [hi, lo]) in self.block(token, block).iter().enumerate() {
                let q = self.grouping.columns(group, codes, 0);
                for entry in 0..ENTRIES {
                    let expected: i32 = (0..3).map(|c| i32::from(weights[c][entry]) * i32::from(q[c])).sum();
                    let got = split * i32::from(hi[entry]) + i32::from(lo[entry]);
                    // With another split the entry has the right value, but sums of its halves could overflow.
                    if got != expected || i32::from(lo[entry]).abs() > split / 2 {
                        return Err(Error::TableEntry { token, block, group, entry, expected, got });
                    }
                }
            }
        }
        Ok(())
    }
}

/// Fills the tables of some blocks of activation codes.
struct Build<'a> {
    grouping: Grouping,
    codes: &'a [[i8; BLOCK]],
    entries: &'a mut [GroupTable],
}

impl Kernel for Build<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _s: S) {
        // `black_box` hides the weights from the compiler, which would otherwise generate a special case for each of
        // them.
        let weights = |grouping: Grouping| black_box(grouping.weights());
        match self.grouping {
            Grouping::Pairs => fill(Grouping::Pairs, weights(Grouping::Pairs), self.codes, self.entries),
            Grouping::Triples => fill(Grouping::Triples, weights(Grouping::Triples), self.codes, self.entries),
        }
    }
}

/// Plain code over arrays of 16, which the compiler turns into vectors of the level.
#[inline(always)]
fn fill(grouping: Grouping, weights: [[i16; ENTRIES]; 3], codes: &[[i8; BLOCK]], entries: &mut [GroupTable]) {
    let split = grouping.split();
    for (codes, entries) in codes.iter().zip(entries.chunks_exact_mut(grouping.groups())) {
        for (group, [hi, lo]) in entries.iter_mut().enumerate() {
            let [a, b, c] = grouping.columns(group, codes, 0).map(i16::from);
            for e in 0..ENTRIES {
                let v = weights[0][e] * a + weights[1][e] * b + weights[2][e] * c;
                let quotient = rounded_quotient(v, split);
                hi[e] = quotient as i8;
                lo[e] = (v - split * quotient) as i8;
            }
        }
    }
}

/// A table that is built when it is first read.
#[derive(Debug, Default)]
pub(crate) struct TableCell {
    /// Whether the table is that of the present activations.
    valid: bool,
    table: LookupTable,
}

/// The cells of one quantised form: one per grouping.
#[derive(Debug, Default)]
pub(crate) struct LookupTables([RwLock<TableCell>; 2]);

impl LookupTables {
    /// Marks all tables as outdated; their memory is kept.
    pub(crate) fn clear(&mut self) {
        for cell in &mut self.0 {
            cell.get_mut().unwrap_or_else(PoisonError::into_inner).valid = false;
        }
    }

    /// The table of this grouping over `acts`, built now unless it was before.
    pub(crate) fn of(&self, level: Level, grouping: Grouping, acts: &QuantizedRows) -> TableGuard<'_> {
        let cell = &self.0[grouping as usize];
        // A cell is marked valid after it is built, so a table that a panic left half-built is built again.
        let built = cell.read().unwrap_or_else(PoisonError::into_inner);
        if built.valid {
            return TableGuard(built);
        }
        drop(built);
        let mut cell_mut = cell.write().unwrap_or_else(PoisonError::into_inner);
        if !cell_mut.valid {
            cell_mut.table.build(level, grouping, acts);
            cell_mut.valid = true;
        }
        drop(cell_mut);
        TableGuard(cell.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A copy of activations makes its own tables.
impl Clone for LookupTables {
    fn clone(&self) -> LookupTables {
        LookupTables::default()
    }
}

/// Read access to a built table.
pub(crate) struct TableGuard<'a>(RwLockReadGuard<'a, TableCell>);

impl std::ops::Deref for TableGuard<'_> {
    type Target = LookupTable;

    fn deref(&self) -> &LookupTable {
        &self.0.table
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ActivationBuffer, Isa};
    use ternary_core::ActMode;

    const GROUPINGS: [Grouping; 2] = [Grouping::Pairs, Grouping::Triples];

    fn levels() -> impl Iterator<Item = Level> {
        Isa::ALL.into_iter().filter_map(|isa| isa.level().ok())
    }

    /// Two rows of two blocks, one of them with every code at its largest.
    fn activations() -> ActivationBuffer {
        let x: Vec<f32> = (0..1024).map(|i| if i < 256 { 127.0 } else { ((i * 37) % 255) as f32 - 127.0 }).collect();
        let mut acts = ActivationBuffer::new();
        acts.set(&x, 2, 512);
        acts.quantize(ActMode::A8Block);
        acts
    }

    #[test]
    fn the_split_is_exact_bounded_and_odd_symmetric() {
        for (grouping, most, bound) in [(Grouping::Pairs, 254, 11), (Grouping::Triples, 381, 14)] {
            let c = grouping.split();
            for v in -most..=most {
                let hi = rounded_quotient(v, c);
                let lo = v - c * hi;
                assert!(hi.abs() <= bound && lo.abs() <= c / 2, "{v} = {c} * {hi} + {lo}");
                assert_eq!(rounded_quotient(-v, c), -hi);
            }
            assert!(bound * grouping.additions() as i16 <= 127);
            assert!(bound * (grouping.additions() as i16 + 1) > 127, "the bound is the best one");
        }
    }

    #[test]
    fn every_group_of_trits_finds_its_entry() {
        for grouping in GROUPINGS {
            let weights = grouping.weights();
            for code in 0..27i8 {
                let trits = [code / 9 - 1, code / 3 % 3 - 1, code % 3 - 1];
                if grouping == Grouping::Pairs && trits[2] != 0 {
                    continue;
                }
                let (index, negative) = grouping.index(trits);
                let sign = if negative { -1 } else { 1 };
                let entry = weights.map(|w| w[usize::from(index)] * sign);
                assert_eq!(entry, trits.map(i16::from), "{grouping:?}");
            }
        }
    }

    #[test]
    fn every_column_is_in_one_group() {
        let places: [i32; BLOCK] = std::array::from_fn(|i| i as i32);
        for grouping in GROUPINGS {
            let mut seen: Vec<i32> =
                (0..grouping.groups()).flat_map(|g| grouping.columns(g, &places, -1)).filter(|&p| p >= 0).collect();
            seen.sort_unstable();
            assert_eq!(seen, places);
        }
    }

    #[test]
    fn tables_hold_their_definition_on_every_level() {
        let acts = activations();
        let rows = acts.quantized(ActMode::A8Block).unwrap();
        for grouping in GROUPINGS {
            for level in levels() {
                let mut table = LookupTable::default();
                table.build(level, grouping, rows);
                table.verify(rows).unwrap();
            }
        }
    }

    #[test]
    fn every_single_corruption_of_an_entry_is_found() {
        let acts = activations();
        let rows = acts.quantized(ActMode::A8Block).unwrap();
        let mut random = 1u64;
        for grouping in GROUPINGS {
            let mut table = LookupTable::default();
            table.build(Isa::current().level().unwrap(), grouping, rows);
            for _ in 0..100 {
                random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                let entries = table.entries.as_mut_slice();
                let at = (random >> 33) as usize % entries.len();
                let flipped = 1 << ((random >> 28) % 8);
                entries[at] ^= flipped as u8 as i8;
                assert!(matches!(table.verify(rows), Err(Error::TableEntry { .. })), "{grouping:?} entry {at}");
                table.entries.as_mut_slice()[at] ^= flipped as u8 as i8;
            }
            table.verify(rows).unwrap();
        }
    }

    #[test]
    fn a_table_is_built_once_and_forgotten_with_its_activations() {
        let mut acts = activations();
        let level = Isa::current().level().unwrap();
        let first = {
            let table = acts.lookup_table(ActMode::A8Block, level, Grouping::Pairs).unwrap();
            let again = acts.lookup_table(ActMode::A8Block, level, Grouping::Pairs).unwrap();
            assert!(std::ptr::eq(&*table, &*again));
            table.block(0, 0)[0]
        };
        acts.set(&[-1.0; 512], 1, 512);
        acts.quantize(ActMode::A8Block);
        let table = acts.lookup_table(ActMode::A8Block, level, Grouping::Pairs).unwrap();
        assert_ne!(table.block(0, 0)[0], first);
    }
}
