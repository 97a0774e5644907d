//! Causal attention over expanded queries, keys and values, window by window.
//!
//! ```text
//! S = scale Q K'      P = softmax(S), row t over columns 0..=t      O = P V
//! dV += P' dO    dP = dO V'    dS = P (dP - sum(P dP))    dQ += scale dS K    dK += scale dS' Q
//! ```
//!
//! Groups of query heads may share a head of keys and values. The weights `P` are computed again in the backward pass.
//!
//! Rows are computed in blocks, each over the columns up to its last row, because `P` is 0 behind them.
//!
//! **Invariant:** a window is one task, so sums do not depend on the number of threads.

use std::ops::Range;

use tl_kernels::strided::{Mat, Out, multiply};
use tl_kernels::{Pool, math};

/// Rows of a block.
const BLOCK_ROWS: usize = 64;

/// The blocks of a window of `n` tokens.
fn blocks(n: usize) -> impl Iterator<Item = Range<usize>> {
    (0..n).step_by(BLOCK_ROWS).map(move |first| first..(first + BLOCK_ROWS).min(n))
}

/// The heads of an attention.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    /// The number of heads of queries.
    pub n: usize,
    /// Heads of keys and values, a divisor of `n`.
    pub n_kv: usize,
    /// Width of a query and of a key.
    pub key: usize,
    /// Width of a value.
    pub value: usize,
    /// Factor of the scores.
    pub scale: f32,
}

/// Queries `[n, heads, key]`, keys `[n, kv heads, key]` and values `[n, kv heads, value]` of all windows.
#[derive(Clone, Debug, Default)]
pub struct Qkv {
    /// The queries, already turned by position.
    pub q: Vec<f32>,
    /// The keys, already turned by position.
    pub k: Vec<f32>,
    /// The values that are summed up.
    pub v: Vec<f32>,
}

impl Qkv {
    /// Zeros for `n` tokens.
    #[must_use]
    pub fn zeros(heads: Heads, n: usize) -> Self {
        let Heads { n: n_heads, n_kv, key, value, .. } = heads;
        Self { q: vec![0.0; n * n_heads * key], k: vec![0.0; n * n_kv * key], v: vec![0.0; n * n_kv * value] }
    }
}

/// The attended values `[n, heads, value]`; `windows` are the lengths of the windows.
#[must_use]
pub fn attend(pool: &Pool, heads: Heads, windows: &[usize], qkv: &Qkv) -> Vec<f32> {
    let width = heads.n * heads.value;
    let mut out = vec![0.0; windows.iter().sum::<usize>() * width];
    let mut tasks = Vec::new();
    let mut rest = &mut out[..];
    for window in cut(heads, windows, qkv) {
        let (head, tail) = rest.split_at_mut(window.n * width);
        tasks.push((window, head));
        rest = tail;
    }
    pool.chunks_mut(&mut tasks, 1, |_, task| {
        let (window, out) = &mut task[0];
        for head in 0..heads.n {
            let p = window.weights(heads, head);
            let columns = head * heads.value..(head + 1) * heads.value;
            let (p, values) = (Mat::new(&p, window.n, window.n), window.values(heads, head));
            for rows in blocks(window.n) {
                let seen = 0..rows.end;
                let out = Out::to(&mut out[rows.start * width..rows.end * width], width).columns(columns.clone());
                multiply(pool, out, p.rows(rows).columns(seen.clone()), values.rows(seen));
            }
        }
    });
    out
}

/// The gradients of queries, keys and values for the gradient `d_out` `[n, heads, value]` of [`attend`].
#[must_use]
pub fn attend_backward(pool: &Pool, heads: Heads, windows: &[usize], qkv: &Qkv, d_out: &[f32]) -> Qkv {
    let mut grads = Qkv::zeros(heads, windows.iter().sum());
    let mut tasks = Vec::new();
    let (mut d_q, mut d_k, mut d_v, mut d_o) = (&mut grads.q[..], &mut grads.k[..], &mut grads.v[..], d_out);
    for window in cut(heads, windows, qkv) {
        let q = d_q.split_at_mut(window.q.len());
        let k = d_k.split_at_mut(window.k.len());
        let v = d_v.split_at_mut(window.v.len());
        let o = d_o.split_at(window.n * heads.n * heads.value);
        tasks.push((window, [q.0, k.0, v.0], o.0));
        (d_q, d_k, d_v, d_o) = (q.1, k.1, v.1, o.1);
    }
    pool.chunks_mut(&mut tasks, 1, |_, task| {
        let (window, grads, d_out) = &mut task[0];
        (0..heads.n).for_each(|head| window.backward(heads, head, d_out, grads));
    });
    grads
}

/// The queries, keys and values of one window.
#[derive(Clone, Copy)]
struct Window<'a> {
    n: usize,
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
}

fn cut<'a>(heads: Heads, windows: &[usize], qkv: &'a Qkv) -> Vec<Window<'a>> {
    let Heads { n: n_heads, n_kv, key, value, .. } = heads;
    let mut first = 0;
    let mut part = |n: usize| {
        let run = |data: &'a [f32], width: usize| &data[first * width..(first + n) * width];
        let window =
            Window { n, q: run(&qkv.q, n_heads * key), k: run(&qkv.k, n_kv * key), v: run(&qkv.v, n_kv * value) };
        first += n;
        window
    };
    windows.iter().map(|&n| part(n)).collect()
}

impl<'a> Window<'a> {
    fn queries(&self, heads: Heads, head: usize) -> Mat<'a> {
        Mat::new(self.q, self.n, heads.n * heads.key).columns(head * heads.key..(head + 1) * heads.key)
    }

    fn keys(&self, heads: Heads, head: usize) -> Mat<'a> {
        Mat::new(self.k, self.n, heads.n_kv * heads.key).columns(kv_columns(heads, head, heads.key))
    }

    fn values(&self, heads: Heads, head: usize) -> Mat<'a> {
        Mat::new(self.v, self.n, heads.n_kv * heads.value).columns(kv_columns(heads, head, heads.value))
    }

    /// `P` of a head, `[n, n]`.
    fn weights(&self, heads: Heads, head: usize) -> Vec<f32> {
        let n = self.n;
        let mut p = vec![0.0; n * n];
        let (queries, keys) = (self.queries(heads, head), self.keys(heads, head));
        for rows in blocks(n) {
            let out = Out::to(&mut p[rows.start * n..rows.end * n], n).columns(0..rows.end);
            multiply(&Pool::serial(), out, queries.rows(rows.clone()), keys.rows(0..rows.end).t());
        }
        for (t, row) in p.chunks_exact_mut(n).enumerate() {
            let (seen, later) = row.split_at_mut(t + 1);
            math::scale_in_place(seen, heads.scale);
            math::softmax_in_place(seen);
            later.fill(0.0);
        }
        p
    }

    fn backward(&self, heads: Heads, head: usize, d_out: &[f32], [d_q, d_k, d_v]: &mut [&mut [f32]; 3]) {
        let (n, serial) = (self.n, Pool::serial());
        let p = self.weights(heads, head);
        let columns = head * heads.value..(head + 1) * heads.value;
        let d_o = Mat::new(d_out, n, heads.n * heads.value).columns(columns);
        let [of_keys, of_values] = [heads.key, heads.value].map(|width| kv_columns(heads, head, width));
        let mut d_s = vec![0.0; n * n];
        for rows in blocks(n) {
            let out = Out::to(&mut d_s[rows.start * n..rows.end * n], n).columns(0..rows.end);
            multiply(&serial, out, d_o.rows(rows.clone()), self.values(heads, head).rows(0..rows.end).t());
        }
        for (d_s, p) in d_s.chunks_exact_mut(n).zip(p.chunks_exact(n)) {
            let mean = d_s.iter().zip(p).map(|(d, p)| d * p).sum::<f32>();
            d_s.iter_mut().zip(p).for_each(|(d, p)| *d = heads.scale * p * (*d - mean));
        }
        let (p, d_s) = (Mat::new(&p, n, n), Mat::new(&d_s, n, n));
        let (keys, queries) = (self.keys(heads, head), self.queries(heads, head));
        let place = |rows: &Range<usize>, width: usize| rows.start * width..rows.end * width;
        for rows in blocks(n) {
            let (seen, width) = (0..rows.end, heads.n * heads.key);
            let out = Out::onto(&mut d_q[place(&rows, width)], width).columns(head * heads.key..(head + 1) * heads.key);
            multiply(&serial, out, d_s.rows(rows.clone()).columns(seen.clone()), keys.rows(seen));
            // The rows of keys and values are seen by their own block and by those behind it.
            let (later, width) = (rows.start..n, heads.n_kv * heads.key);
            let out = Out::onto(&mut d_k[place(&rows, width)], width).columns(of_keys.clone());
            multiply(&serial, out, d_s.rows(later.clone()).columns(rows.clone()).t(), queries.rows(later.clone()));
            let width = heads.n_kv * heads.value;
            let out = Out::onto(&mut d_v[place(&rows, width)], width).columns(of_values.clone());
            multiply(&serial, out, p.rows(later.clone()).columns(rows).t(), d_o.rows(later));
        }
    }
}

/// The columns of keys or values, `width` wide, that a head of queries reads.
fn kv_columns(heads: Heads, head: usize, width: usize) -> std::ops::Range<usize> {
    let kv = head / (heads.n / heads.n_kv);
    kv * width..(kv + 1) * width
}
