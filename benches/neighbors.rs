//! How much do the nearest rows of an index cost, exactly and by a graph, and how many of them does the graph miss?
//!
//! 20,000 vectors of 384 values, as MiniLM has, in 400 groups around random directions; queries lie in the same groups. The recall
//! of ten neighbours and the time of the construction are printed before the search times.
#![allow(clippy::print_stdout, reason = "the recall belongs beside the times that criterion prints")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use moe_runtime::SplitMix64;
use rlm_embed::encoder::normalise;
use rlm_embed::store::{FlatNeighborStore, HnswNeighborStore, NeighborRetriever, NewChunk};
use tl_kernels::Pool;

const ROWS: usize = 20_000;
const DIMS: usize = 384;
const GROUPS: usize = 400;
const QUERIES: usize = 500;
const K: usize = 10;

/// `n` vectors of unit length `[n, DIMS]`: the direction of a group plus as much noise.
fn vectors(n: usize, random: &mut SplitMix64, directions: &[f32]) -> Vec<f32> {
    let mut all = Vec::with_capacity(n * DIMS);
    for _ in 0..n {
        let group = random.next_u64() as usize % GROUPS;
        let mut vector: Vec<f32> = match directions {
            [] => vec![0.0; DIMS],
            _ => directions[group * DIMS..][..DIMS].to_vec(),
        };
        let scale = 1.0 / (DIMS as f32).sqrt();
        vector.iter_mut().for_each(|x| *x += scale * normal(random));
        normalise(&mut vector);
        all.extend(vector);
    }
    all
}

/// Nearly normal: the sum of twelve uniform numbers.
fn normal(random: &mut SplitMix64) -> f32 {
    (0..12).map(|_| (random.next_u64() >> 40) as f32 / (1u64 << 24) as f32).sum::<f32>() - 6.0
}

fn store(rows: &[f32], pool: Pool) -> FlatNeighborStore {
    let mut store = FlatNeighborStore::in_memory(DIMS, [0; 32], Arc::new(pool));
    let ids: Vec<String> = (0..ROWS).map(|row| row.to_string()).collect();
    let chunks: Vec<NewChunk<'_>> = ids.iter().map(|id| NewChunk { id, source: "", text: "" }).collect();
    store.add(&chunks, rows).expect("rows that fit");
    store
}

fn search(c: &mut Criterion) {
    let mut random = SplitMix64::new(18);
    let directions = vectors(GROUPS, &mut random, &[]);
    let rows = vectors(ROWS, &mut random, &directions);
    let queries = vectors(QUERIES, &mut random, &directions);
    let start = Instant::now();
    let graph = HnswNeighborStore::build(store(&rows, Pool::serial()));
    println!("construction of the graph: {:.1} s", start.elapsed().as_secs_f64());
    let hits = queries.chunks_exact(DIMS).map(|query| {
        let exact = graph.flat().nearest(query, K);
        graph.nearest(query, K).iter().filter(|found| exact.iter().any(|near| near.row == found.row)).count()
    });
    println!("recall@{K} of {QUERIES} queries: {:.4}", hits.sum::<usize>() as f64 / (QUERIES * K) as f64);
    let mut group = c.benchmark_group("neighbors");
    group.sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(2));
    let mut query = queries.chunks_exact(DIMS).cycle();
    group.bench_function(BenchmarkId::new("graph", ROWS), |b| {
        b.iter(|| graph.nearest(query.next().expect("queries"), K));
    });
    for pool in benches::pools() {
        let threads = pool.threads();
        let flat = store(&rows, pool);
        group.bench_function(BenchmarkId::new(format!("exact/{threads}"), ROWS), |b| {
            b.iter(|| flat.nearest(query.next().expect("queries"), K));
        });
    }
    group.finish();
}

criterion_group!(benches, search);
criterion_main!(benches);
