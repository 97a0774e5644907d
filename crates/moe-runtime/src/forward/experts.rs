//! The experts of one layer, and the order in which their outputs are added.
//!
//! A batch is sorted by expert, so that the weights of an expert are read once for all tokens that chose it. It is computed
//! as two work lists; all threads finish a list before the next one begins:
//!
//! ```text
//! list 1   pieces of rows of gate and up, of every expert:   product = silu(gate x) * up x
//! list 2   pieces of rows of down: one thread computes them for all experts and adds them up
//! ```
//!
//! An adapter adds to gate and up before the function between them, and to down before the outputs are added up.
//!
//! For each token, outputs are added in ascending expert id, `y = fma(weight, output, y)` from 0, and the shared expert
//! comes last.
//!
//! **Invariant:** experts are views of the file's stacked tensors (or of one tensor per expert); nothing is copied unless
//! the model is packed (storage/packing.rs).
//!
//! **Invariant:** the codes and scales of an expert are checked once, before its first use; a damaged expert is never
//! computed with.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tl_kernels::{ActivationBuffer, Grid, LowRank, Pool, dense};

use crate::adapters::layer::{AdaptedRows, FfnAdapter, LayerAdapter, RankRows};
use crate::error::{Error, Result};
use crate::forward::batch::MoeBatchScheduler;
use crate::forward::ffn::{SwiGlu, Workers};
use crate::forward::router::RoutingDecision;
use crate::forward::taps::{At, ExpertId, Taps};

/// Rows added to the limit on gathered buffers, so that small batches keep theirs.
const SPARE_ROWS: usize = 64;

/// Rows that the buffers of a part have room for from the start, where the batch has as many. An expert gets another
/// number of rows in every step, and without this room a buffer would grow at each new largest number.
const PART_ROWS: usize = 8;

/// Called with the layer and the ascending ids of a batch's experts, before their weights are read.
pub type ResidencyHook = Arc<dyn Fn(usize, &[u32]) + Send + Sync>;

/// All experts of one layer.
#[derive(Clone)]
pub struct ExpertBank {
    routed: Vec<SwiGlu>,
    shared: Option<SwiGlu>,
    residency: Option<ResidencyHook>,
    /// Which routed experts have passed their check, by id.
    validated: Arc<[AtomicBool]>,
}

impl fmt::Debug for ExpertBank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExpertBank")
            .field("routed", &self.routed.len())
            .field("shared", &self.shared.is_some())
            .field("residency", &self.residency.is_some())
            .finish()
    }
}

/// The tokens of a batch and the experts that were chosen for them.
#[derive(Debug)]
pub struct RoutedBatch<'a> {
    /// The threads that compute.
    pub pool: &'a Pool,
    /// Layer and positions, for the taps and the residency hook.
    pub at: At,
    /// The normed input, `[n, hidden]`; the codes that experts read are added to it.
    pub x: &'a mut ActivationBuffer,
    /// The experts of each token.
    pub decision: &'a RoutingDecision,
    /// The additions to the experts' matrices, which read the input in F32.
    pub adapter: Option<&'a LayerAdapter>,
}

/// Buffers of [`ExpertBank::forward`], reused from batch to batch.
#[derive(Debug, Default)]
pub struct ExpertScratch {
    batch: MoeBatchScheduler,
    /// The input of each part that does not read the whole batch.
    gathered: Vec<ActivationBuffer>,
    /// Whether a part reads the batch itself.
    whole: Vec<bool>,
    /// All tokens of the batch, for the taps of the shared expert.
    all: Vec<u32>,
    /// `[rows of all parts, ff]` and `[n, shared ff]`: `silu(gate) * up`.
    product: Vec<f32>,
    shared_product: Vec<f32>,
    /// The same as codes for `down`, part by part.
    hidden: Vec<ActivationBuffer>,
    shared_hidden: ActivationBuffer,
    /// `[n + rows of all parts + n, hidden]`: the sums, the outputs of the routed experts, the outputs of the
    /// shared one.
    out: Vec<f32>,
    /// The ranks of an adapter's additions, of the rows of all parts and of the shared expert.
    ranks: RankRows,
    workers: Workers,
}

impl ExpertBank {
    /// A bank of routed experts and perhaps a shared one.
    ///
    /// # Panics
    /// When the routed experts are not of one shape, the shared one has another input or output, or one has a norm inside.
    #[must_use]
    pub fn new(routed: Vec<SwiGlu>, shared: Option<SwiGlu>) -> ExpertBank {
        let shapes = |f: &SwiGlu| (f.gate().rows(), f.gate().cols());
        assert!(routed.windows(2).all(|pair| shapes(&pair[0]) == shapes(&pair[1])), "experts of one shape");
        let fits = |s: &SwiGlu| routed.first().is_none_or(|r| r.gate().cols() == s.gate().cols());
        assert!(shared.as_ref().is_none_or(fits), "a shared expert for the same tokens");
        assert!(!routed.iter().chain(&shared).any(SwiGlu::has_norm), "experts have no norm inside");
        let validated = routed.iter().map(|_| AtomicBool::new(false)).collect();
        ExpertBank { routed, shared, residency: None, validated }
    }

    /// The routed experts by id.
    #[must_use]
    pub fn routed(&self) -> &[SwiGlu] {
        &self.routed
    }

    /// The expert that all tokens pass through.
    #[must_use]
    pub fn shared(&self) -> Option<&SwiGlu> {
        self.shared.as_ref()
    }

    /// The routed experts and the shared one.
    pub(crate) fn parts_mut(&mut self) -> (&mut [SwiGlu], Option<&mut SwiGlu>) {
        (&mut self.routed, self.shared.as_mut())
    }

    /// Checks all routed experts that were never used before.
    ///
    /// # Errors
    /// [`LoadError::Weight`](crate::LoadError::Weight) for the first damaged one.
    pub(crate) fn validate(&self, pool: &Pool, layer: usize) -> Result<()> {
        let all: Vec<u32> = (0..).take(self.routed.len()).collect();
        self.ensure_validated(pool, layer, &all)
    }

    /// Calls `hook` before experts are read.
    pub fn set_residency_hook(&mut self, hook: ResidencyHook) {
        self.residency = Some(hook);
    }

    /// Returns the weighted sum of each token's experts plus the shared expert, `[n, hidden]`, from the buffers.
    ///
    /// # Errors
    /// [`ForwardError::Routing`](crate::forward::ForwardError::Routing) when the decision names an expert that does not exist or covers another number of tokens,
    /// [`LoadError::Weight`](crate::LoadError::Weight) for an expert with damaged codes or scales.
    pub fn forward<'s, T: Taps>(
        &self,
        batch: RoutedBatch<'_>,
        scratch: &'s mut ExpertScratch,
        taps: &mut T,
    ) -> Result<&'s [f32]> {
        let RoutedBatch { pool, at, x, decision, adapter } = batch;
        let (n, hidden) = (x.n(), x.cols());
        scratch.batch.schedule(decision, n, self.routed.len())?;
        if let Some(hook) = &self.residency {
            hook(at.layer, scratch.batch.experts());
        }
        self.ensure_validated(pool, at.layer, scratch.batch.experts())?;
        self.quantize(x, scratch);
        self.gather(pool, x, scratch);
        let ExpertScratch { batch, all, .. } = &*scratch;
        for (expert, rows) in batch.parts() {
            taps.expert_in(at, ExpertId::Routed(expert), &batch.tokens()[rows], x);
        }
        if self.shared.is_some() {
            taps.expert_in(at, ExpertId::Shared, all, x);
        }
        self.gate_and_up(pool, x, adapter, scratch);
        let ExpertScratch { batch, product, shared_product, all, .. } = &*scratch;
        for (expert, rows) in batch.parts() {
            let ff = self.routed[expert].gate().rows();
            let product = &product[rows.start * ff..rows.end * ff];
            taps.expert_hidden(at, ExpertId::Routed(expert), &batch.tokens()[rows], product);
        }
        if self.shared.is_some() {
            taps.expert_hidden(at, ExpertId::Shared, all, shared_product);
        }
        self.quantize_hidden(pool, n, scratch);
        self.down_and_add(pool, [n, hidden], adapter, scratch);
        let ExpertScratch { batch, out, all, .. } = &*scratch;
        let (sums, outs) = out.split_at(n * hidden);
        for (expert, rows) in batch.parts() {
            let outs = &outs[rows.start * hidden..rows.end * hidden];
            taps.expert_out(at, ExpertId::Routed(expert), &batch.tokens()[rows], outs);
        }
        if self.shared.is_some() {
            taps.expert_out(at, ExpertId::Shared, all, &outs[batch.n_rows() * hidden..]);
        }
        Ok(sums)
    }
}

/// The two work lists of a batch, and the steps between them.
impl ExpertBank {
    fn part(&self, batch: &MoeBatchScheduler, part: usize) -> &SwiGlu {
        &self.routed[batch.experts()[part] as usize]
    }

    /// Makes the codes that the experts of this batch read, once for all of them.
    fn quantize(&self, x: &mut ActivationBuffer, scratch: &mut ExpertScratch) {
        let parts = scratch.batch.experts().len();
        let routed = (0..parts).map(|part| self.part(&scratch.batch, part));
        for network in routed.chain(&self.shared) {
            x.quantize(network.gate().act_mode());
            x.quantize(network.up().act_mode());
        }
    }

    /// The first list: pieces of `silu(gate(x)) * up(x)` of every routed expert, then of the shared one.
    fn gate_and_up(
        &self,
        pool: &Pool,
        x: &ActivationBuffer,
        adapter: Option<&LayerAdapter>,
        scratch: &mut ExpertScratch,
    ) {
        let ExpertScratch { batch, gathered, whole, product, shared_product, ranks, workers, .. } = scratch;
        if let Some(layer) = adapter {
            make_ranks(pool, layer, batch, (x.n(), ranks), FfnAdapter::input_ranks, |adapter, row, out| {
                let token = if row < batch.n_rows() { batch.tokens()[row] as usize } else { row - batch.n_rows() };
                RankRows::of_input(adapter, x.row(token), out);
            });
        }
        let (n, threads) = (x.n(), pool.threads());
        let ff = self.routed.first().map_or(1, |f| f.gate().rows());
        let piece = self.routed.first().map_or(1, |f| {
            let parts = batch.experts().len().max(1);
            f.gate().rows_per_piece(parts * ff, batch.n_rows().div_ceil(parts), threads).min(ff)
        });
        let most = (0..batch.experts().len()).map(|part| batch.rows(part).len()).max().unwrap_or(0);
        let (shared_ff, shared_piece) = self.shared.as_ref().map_or((1, 1), |shared| {
            let ff = shared.gate().rows();
            (ff, shared.gate().rows_per_piece(ff, n, threads).min(ff))
        });
        product.resize(batch.n_rows() * ff, 0.0);
        shared_product.resize(if self.shared.is_some() { n * shared_ff } else { 0 }, 0.0);
        let shared_cuts = [0, shared_product.len() / shared_ff];
        let list = Grid::new(product, ff, batch.cuts(), piece);
        let shared_list = Grid::new(shared_product, shared_ff, &shared_cuts, shared_piece);
        let workers = workers.sized(pool, (most * piece).max(n * shared_piece));
        pool.chunks_mut(workers, 1, |_, up| {
            while let Some((part, out)) = list.take() {
                let rows = if whole[part] { x } else { &gathered[part] };
                let additions = adapter.and_then(|layer| layer.routed(batch.experts()[part] as usize));
                let first = batch.rows(part).start;
                let additions = additions.map(|adapter| AdaptedRows { adapter, ranks, first });
                self.part(batch, part).hidden_block(rows, additions, out, &mut up[0]);
            }
            if let Some(shared) = &self.shared {
                let first = batch.n_rows();
                let additions = adapter.map(|layer| AdaptedRows { adapter: &layer.always, ranks, first });
                while let Some((_, out)) = shared_list.take() {
                    shared.hidden_block(x, additions, out, &mut up[0]);
                }
            }
        });
    }

    /// Makes the codes that the down projections read, once per expert.
    fn quantize_hidden(&self, pool: &Pool, n: usize, scratch: &mut ExpertScratch) {
        let ExpertScratch { batch, product, shared_product, hidden, shared_hidden, .. } = scratch;
        let parts = batch.experts().len();
        if hidden.len() < parts {
            hidden.resize_with(parts, ActivationBuffer::new);
        }
        let make = |part: usize, hidden: &mut ActivationBuffer| {
            let (network, rows) = (self.part(batch, part), batch.rows(part));
            let (ff, mode, room) = (network.gate().rows(), network.down().act_mode(), n.min(PART_ROWS));
            if hidden.capacity_rows() < room {
                hidden.set_in(mode, &product[..room * ff], room, ff);
            }
            hidden.set_in(mode, &product[rows.start * ff..rows.end * ff], rows.len(), ff);
        };
        if n == 1 {
            // For so few rows, waking the threads would take longer than the work.
            hidden[..parts].iter_mut().enumerate().for_each(|(part, hidden)| make(part, hidden));
        } else {
            pool.chunks_mut(&mut hidden[..parts], 1, |part, hidden| make(part, &mut hidden[0]));
        }
        if let Some(shared) = &self.shared {
            shared_hidden.set_in(shared.down().act_mode(), shared_product, n, shared.gate().rows());
        }
    }

    /// The second list: a piece is some outputs of all experts, added up by one thread in ascending order.
    fn down_and_add(
        &self,
        pool: &Pool,
        [n, width]: [usize; 2],
        adapter: Option<&LayerAdapter>,
        scratch: &mut ExpertScratch,
    ) {
        let ExpertScratch { batch, product, shared_product, hidden, shared_hidden, out, ranks, .. } = scratch;
        let rows = batch.n_rows();
        if let Some(layer) = adapter {
            make_ranks(pool, layer, batch, (n, ranks), down_ranks, |adapter, row, out| {
                let Some(down) = &adapter.down else { return };
                let ff = down.inputs();
                let (product, row) = if row < rows { (&*product, row) } else { (&*shared_product, row - rows) };
                down.ranks(&product[row * ff..][..ff], &mut out[..down.rank()]);
            });
        }
        let total = n + rows + if self.shared.is_some() { n } else { 0 };
        out.resize(total * width, 0.0);
        let down = self.routed.first().or(self.shared.as_ref()).map(SwiGlu::down);
        let piece = down.map_or(width, |down| down.rows_per_piece(width, total, pool.threads()));
        let cuts = [0, total];
        let list = Grid::new(out, width, &cuts, piece);
        pool.run(list.n_cells().min(pool.threads()), &|_| {
            while let Some((_, piece)) = list.take() {
                let (mut sums, mut outs) = piece.split_at_row(n);
                (0..n).for_each(|t| sums.row_mut(t).fill(0.0));
                for part in 0..batch.experts().len() {
                    let rows = batch.rows(part);
                    self.part(batch, part).down().forward_block(&hidden[part], outs.rows_mut(rows.clone()));
                    if let Some(expert) = adapter.and_then(|layer| layer.routed(batch.experts()[part] as usize)) {
                        ranks.add(&expert.down, [rows.start, 0], &mut outs.rows_mut(rows.clone()));
                    }
                    for row in rows {
                        let token = batch.tokens()[row] as usize;
                        dense::axpy_f32(batch.weights()[row], outs.row_mut(row), sums.row_mut(token));
                    }
                }
                if let Some(shared) = &self.shared {
                    shared.down().forward_block(shared_hidden, outs.rows_mut(rows..rows + n));
                    if let Some(layer) = adapter {
                        ranks.add(&layer.always.down, [rows, 0], &mut outs.rows_mut(rows..rows + n));
                    }
                    for t in 0..n {
                        for (sum, out) in sums.row_mut(t).iter_mut().zip(outs.row_mut(rows + t)) {
                            *sum += *out;
                        }
                    }
                }
            }
        });
    }

    /// Checks the experts of `experts` that were never used before.
    fn ensure_validated(&self, pool: &Pool, layer: usize, experts: &[u32]) -> Result<()> {
        let known = |e: u32| self.validated[e as usize].load(Ordering::Relaxed);
        if experts.iter().all(|&e| known(e)) {
            return Ok(());
        }
        let first_defect: Mutex<Option<(u32, Error)>> = Mutex::new(None);
        pool.run(experts.len(), &|i| {
            let e = experts[i];
            if known(e) {
                return;
            }
            match self.routed[e as usize].validate(|name| format!("blk.{layer}.ffn_{name}_exps.weight[{e}]")) {
                Ok(()) => self.validated[e as usize].store(true, Ordering::Relaxed),
                Err(error) => {
                    // The error names the lowest id, in whatever order the threads find the defects.
                    let mut first = first_defect.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    if first.as_ref().is_none_or(|(id, _)| e < *id) {
                        *first = Some((e, error));
                    }
                }
            }
        });
        let first_defect = first_defect.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        first_defect.map_or(Ok(()), |(_, error)| Err(error))
    }

    /// Copies the rows of each part that does not read the whole batch, as its products read them.
    fn gather(&self, pool: &Pool, x: &ActivationBuffer, scratch: &mut ExpertScratch) {
        let ExpertScratch { batch, gathered, whole, all, hidden, .. } = scratch;
        let parts = batch.experts().len();
        whole.clear();
        whole.extend((0..parts).map(|part| batch.is_whole_batch(part)));
        all.clear();
        all.extend((0u32..).take(x.n()));
        // Each buffer grows to the largest part that it ever held; without a limit, the sum of all buffers would grow
        // far beyond the batch.
        for buffers in [&mut *gathered, hidden] {
            if buffers.iter().map(ActivationBuffer::capacity_rows).sum::<usize>() > 4 * (batch.n_rows() + SPARE_ROWS) {
                buffers.clear();
            }
        }
        if gathered.len() < parts {
            gathered.resize_with(parts, ActivationBuffer::new);
        }
        if whole.iter().all(|&whole| whole) {
            return;
        }
        pool.chunks_mut(&mut gathered[..parts], 1, |part, rows| {
            if !whole[part] {
                let network = self.part(batch, part);
                let modes = [network.gate().act_mode(), network.up().act_mode()];
                let room = x.n().min(PART_ROWS);
                if rows[0].capacity_rows() < room {
                    rows[0].gather(x, &[0; PART_ROWS][..room], &modes);
                }
                rows[0].gather(x, &batch.tokens()[batch.rows(part)], &modes);
            }
        });
    }
}

/// Ranks of the addition to down.
fn down_ranks(adapter: &FfnAdapter) -> usize {
    adapter.down.as_ref().map_or(0, LowRank::rank)
}

/// Makes the ranks of all rows of a batch, then of `n` rows of the shared expert. `width` is the number of ranks of a
/// network; `fill` gets its additions and the number of the row.
fn make_ranks(
    pool: &Pool,
    layer: &LayerAdapter,
    batch: &MoeBatchScheduler,
    ranks: (usize, &mut RankRows),
    width: impl Fn(&FfnAdapter) -> usize,
    fill: impl Fn(&FfnAdapter, usize, &mut [f32]) + Sync,
) {
    let (n, ranks) = ranks;
    let routed = |part: usize| layer.routed(batch.experts()[part] as usize);
    let widths = (0..batch.experts().len()).filter_map(routed).chain([&layer.always]).map(width);
    let widest = widths.max().unwrap_or(0);
    ranks.make(pool, [batch.n_rows() + n, widest], |row, out| {
        let adapter = match row < batch.n_rows() {
            true => routed(batch.cuts().partition_point(|&cut| cut <= row) - 1),
            false => Some(&layer.always),
        };
        if let Some(adapter) = adapter {
            fill(adapter, row, out);
        }
    });
}
