//! Layers with seeded random weights, and the measures of error that the tests take on them.

use mla_attention::{
    Attention, AttentionScratch, CacheType, CompressedMlaCache, Error, GqaAttention, GqaConfig, GqaWeights,
    MlaAttention, MlaConfig, MlaWeights, QueryProjection, Rope, RopeStyle, Segments, Sequences,
};
use tl_kernels::{Linear, Pool};

/// SplitMix64 (Steele, Lea, Flood 2014).
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// `n` values, uniform in `center - spread .. center + spread`.
    pub(crate) fn values(&mut self, n: usize, center: f32, spread: f32) -> Vec<f32> {
        let unit = |bits: u64| (bits >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
        (0..n).map(|_| center + spread * unit(self.next())).collect()
    }

    /// A random matrix whose outputs have the standard deviation of its inputs, times `gain`.
    pub(crate) fn matrix(&mut self, rows: usize, cols: usize, gain: f32) -> Vec<f32> {
        self.values(rows * cols, 0.0, gain * (3.0 / cols as f32).sqrt())
    }

    pub(crate) fn linear(&mut self, rows: usize, cols: usize, gain: f32) -> Linear {
        Linear::from_f32(rows, cols, self.matrix(rows, cols, gain)).expect("a matrix of the right length")
    }
}

pub(crate) fn mla_config(hidden: usize, n_heads: usize, q_lora: Option<usize>, widths: [usize; 4]) -> MlaConfig {
    let [kv_lora, qk_nope, qk_rope, v_head] = widths;
    MlaConfig {
        hidden,
        n_heads,
        q_lora,
        kv_lora,
        qk_nope,
        qk_rope,
        v_head,
        latent_norm_eps: 1e-6,
        rope: Rope::new(1e4, qk_rope, RopeStyle::Interleaved).expect("an even width"),
    }
}

/// Sizes that are no multiples of a vector's width: 3 heads, nope 5, rope 6, v 7, latent 40.
pub(crate) fn odd_mla() -> MlaConfig {
    mla_config(50, 3, Some(21), [40, 5, 6, 7])
}

/// Query weights are large, so that the softmax is far from uniform.
pub(crate) fn mla_weights(c: &MlaConfig, seed: u64) -> MlaWeights {
    let mut rng = Rng(seed);
    let q_width = c.n_heads * (c.qk_nope + c.qk_rope);
    MlaWeights {
        q: match c.q_lora {
            None => QueryProjection::Direct(rng.linear(q_width, c.hidden, 2.0)),
            Some(rank) => QueryProjection::LowRank {
                a: rng.linear(rank, c.hidden, 1.0),
                a_norm: rng.values(rank, 1.0, 0.3),
                b: rng.linear(q_width, rank, 2.0),
            },
        },
        kv_a: rng.linear(c.kv_lora + c.qk_rope, c.hidden, 1.0),
        kv_a_norm: rng.values(c.kv_lora, 1.0, 0.3),
        // A key is made from the latent, so the gain follows from the rows of `k_b`, not from its columns.
        k_b: (0..c.n_heads)
            .map(|_| {
                let gain = (c.qk_nope as f32 / c.kv_lora as f32).sqrt();
                rng.linear(c.kv_lora, c.qk_nope, gain)
            })
            .collect(),
        v_b: (0..c.n_heads).map(|_| rng.linear(c.v_head, c.kv_lora, 1.0)).collect(),
        out: rng.linear(c.hidden, c.n_heads * c.v_head, 1.0),
    }
}

pub(crate) fn mla(c: &MlaConfig, seed: u64) -> Attention {
    Attention::Mla(MlaAttention::new(c.clone(), mla_weights(c, seed)).expect("weights that fit"))
}

pub(crate) fn gqa_config(n_heads: usize, n_kv_heads: usize, head_dim: usize, rotary_dims: usize) -> GqaConfig {
    GqaConfig {
        hidden: 45,
        n_heads,
        n_kv_heads,
        head_dim,
        rotary_dims,
        norm_eps: 1e-5,
        rope: Rope::new(1e4, rotary_dims, RopeStyle::Halves).expect("an even width"),
    }
}

pub(crate) fn gqa_weights(c: &GqaConfig, bias: bool, norm: bool, seed: u64) -> GqaWeights {
    let mut rng = Rng(seed);
    let (q_width, kv_width) = (c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim);
    GqaWeights {
        q: rng.linear(q_width, c.hidden, 2.0),
        k: rng.linear(kv_width, c.hidden, 1.0),
        v: rng.linear(kv_width, c.hidden, 1.0),
        out: rng.linear(c.hidden, q_width, 1.0),
        q_bias: bias.then(|| rng.values(q_width, 0.2, 0.5)),
        k_bias: bias.then(|| rng.values(kv_width, -0.1, 0.5)),
        v_bias: bias.then(|| rng.values(kv_width, 0.3, 0.5)),
        q_norm: norm.then(|| rng.values(c.head_dim, 1.5, 0.5)),
        k_norm: norm.then(|| rng.values(c.head_dim, 1.0, 0.5)),
        out_norm: norm.then(|| rng.values(q_width, 1.0, 0.5)),
    }
}

pub(crate) fn gqa(c: &GqaConfig, bias: bool, norm: bool, seed: u64) -> Attention {
    Attention::Gqa(GqaAttention::new(c.clone(), gqa_weights(c, bias, norm, seed)).expect("weights that fit"))
}

/// `n` tokens of the normed residual stream.
pub(crate) fn tokens(layer: &Attention, n: usize, seed: u64) -> Vec<f32> {
    Rng(seed).values(n * layer.hidden(), 0.0, 3f32.sqrt())
}

/// One forward pass of all of `x` `[n, hidden]`, appended to `cache`.
pub(crate) fn forward(
    layer: &Attention,
    pool: &Pool,
    x: &[f32],
    cache: &mut CompressedMlaCache,
    (scratch, out): (&mut AttentionScratch, &mut [f32]),
) -> Result<(), Error> {
    let segments = Segments::one(cache, x.len() / layer.hidden());
    let mut sequences = Sequences { segments: &segments, caches: std::slice::from_mut(cache), layer: 0 };
    layer.forward(pool, x, &mut sequences, scratch, out)
}

/// The output of one forward pass of all of `x`, appended to `cache`.
pub(crate) fn step(layer: &Attention, pool: &Pool, x: &[f32], cache: &mut CompressedMlaCache) -> Vec<f32> {
    let mut out = vec![f32::NAN; x.len()];
    forward(layer, pool, x, cache, (&mut AttentionScratch::new(), &mut out)).expect("room in the cache");
    out
}

/// `x` in chunks of `chunk` tokens from an empty cache, with one scratch.
pub(crate) fn run(layer: &Attention, pool: &Pool, ty: CacheType, x: &[f32], chunk: usize) -> Vec<f32> {
    let mut cache = layer.new_cache(x.len() / layer.hidden(), ty).expect("a small cache");
    let mut scratch = AttentionScratch::new();
    let mut out = vec![f32::NAN; x.len()];
    for (x, out) in x.chunks(chunk * layer.hidden()).zip(out.chunks_mut(chunk * layer.hidden())) {
        forward(layer, pool, x, &mut cache, (&mut scratch, out)).expect("room in the cache");
    }
    out
}

/// `|got - wanted|` of the worst token of `width` values, over the root mean square of all `|wanted|`, so
/// that a token whose terms cancel is not measured against its own small norm.
pub(crate) fn relative_error(got: &[f32], wanted: &[f64], width: usize) -> f64 {
    assert_eq!(got.len(), wanted.len());
    let square = |(got, wanted): (&f32, &f64)| (f64::from(*got) - wanted).powi(2);
    let of_token = |(got, wanted): (&[f32], &[f64])| got.iter().zip(wanted).map(square).sum::<f64>();
    let errors = got.chunks_exact(width).zip(wanted.chunks_exact(width)).map(of_token);
    // Not `f64::max`, which ignores NaN: a NaN must fail the test.
    let worst = errors.fold(0.0, |worst, error| if error <= worst { worst } else { error });
    let mean = wanted.iter().map(|w| w * w).sum::<f64>() * width as f64 / wanted.len() as f64;
    (worst / mean).sqrt()
}

/// As [`relative_error`] between two runs.
pub(crate) fn distance(a: &[f32], b: &[f32], width: usize) -> f64 {
    let b: Vec<f64> = b.iter().copied().map(f64::from).collect();
    relative_error(a, &b, width)
}

pub(crate) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}
