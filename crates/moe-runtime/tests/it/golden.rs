//! Reads a golden file, runs a model the same way and measures how far apart the two are.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use gguf_bitnet::{SafetensorsDir, TensorSource};
use mla_attention::CacheType;
use moe_runtime::forward::{At, RoutingDecision, Taps};
use moe_runtime::models::ModelConfig;
use moe_runtime::{CraftsmanModel, LoadOptions, ModelFiles, Session};
use ternary_core::ActMode;

/// Largest absolute difference of logits.
pub(crate) const LOGITS: f32 = 2e-3;
/// Largest relative L2 difference of the hidden states of a layer.
pub(crate) const HIDDEN: f64 = 1e-4;
/// Largest absolute difference of router weights.
pub(crate) const WEIGHTS: f32 = 1e-4;

/// The numbers of one run, in the layout of `golden.safetensors`.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Run {
    pub(crate) tokens: Vec<u32>,
    /// The logits of all tokens, `[T, vocab]`.
    pub(crate) logits: Vec<f32>,
    /// Per state `[T, hidden]`; the last one is after the final norm.
    pub(crate) hidden: Vec<Vec<f32>>,
    /// Per layer and token: (expert, weight), ascending.
    pub(crate) routing: BTreeMap<usize, Vec<Vec<(u32, f32)>>>,
}

/// The distance of a run from its golden.
#[derive(Debug)]
pub(crate) struct Distance {
    pub(crate) logits: f32,
    pub(crate) hidden: f64,
    pub(crate) same_experts: bool,
    pub(crate) weights: f32,
}

impl Distance {
    pub(crate) fn passes(&self) -> bool {
        self.logits <= LOGITS && self.hidden <= HIDDEN && self.same_experts && self.weights <= WEIGHTS
    }
}

impl Run {
    pub(crate) fn read(path: &Path) -> Run {
        let file = SafetensorsDir::open(path).expect("the golden opens");
        let bytes = |name: &str| {
            let index = file.index_of(name)?;
            Some((file.tensors()[index].shape.clone(), file.bytes(index).expect("the golden is whole")))
        };
        let floats = |name: &str| -> Option<Vec<f32>> {
            let (_, bytes) = bytes(name)?;
            Some(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
        };
        let ids = |name: &str| -> Option<(Vec<usize>, Vec<u32>)> {
            let (shape, bytes) = bytes(name)?;
            let wide = bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b));
            Some((shape, wide.map(|id| u32::try_from(id).expect("ids are small")).collect()))
        };
        let hidden: Vec<_> = (0..).map_while(|i| floats(&format!("hidden.{i}"))).collect();
        let mut routing = BTreeMap::new();
        for layer in 0..hidden.len() {
            let Some((shape, ids)) = ids(&format!("router_ids.{layer}")) else { continue };
            let weights = floats(&format!("router_weights.{layer}")).expect("ids come with weights");
            let pairs: Vec<(u32, f32)> = ids.into_iter().zip(weights).collect();
            let mut rows: Vec<Vec<_>> = pairs.chunks(shape[1]).map(<[_]>::to_vec).collect();
            rows.iter_mut().for_each(|row| row.sort_by_key(|pair| pair.0));
            routing.insert(layer, rows);
        }
        let (_, tokens) = ids("input_ids").expect("a golden has tokens");
        Run { tokens, logits: floats("logits").expect("a golden has logits"), hidden, routing }
    }

    pub(crate) fn distance(&self, golden: &Run) -> Distance {
        assert_eq!((self.logits.len(), self.hidden.len()), (golden.logits.len(), golden.hidden.len()));
        let hidden = self.hidden.iter().zip(&golden.hidden).map(|(got, want)| relative_l2(got, want));
        let (mut same_experts, mut weights) = (true, 0f32);
        for (layer, want) in &golden.routing {
            let got = self.routing.get(layer).expect("the layer routes");
            assert_eq!(got.len(), want.len());
            for (got, want) in got.iter().zip(want) {
                same_experts &= got.iter().map(|p| p.0).eq(want.iter().map(|p| p.0));
                weights = got.iter().zip(want).map(|(g, w)| (g.1 - w.1).abs()).fold(weights, worse);
            }
        }
        Distance {
            logits: max_abs(&self.logits, &golden.logits),
            hidden: hidden.fold(0.0, |a, b| if b <= a { a } else { b }),
            same_experts,
            weights,
        }
    }
}

/// The larger of two numbers, or NaN if there is one.
fn worse(a: f32, b: f32) -> f32 {
    if b <= a { a } else { b }
}

pub(crate) fn max_abs(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    got.iter().zip(want).map(|(g, w)| (g - w).abs()).fold(0.0, worse)
}

pub(crate) fn relative_l2(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let difference: f64 = got.iter().zip(want).map(|(&g, &w)| (f64::from(g) - f64::from(w)).powi(2)).sum();
    let norm: f64 = want.iter().map(|&w| f64::from(w).powi(2)).sum();
    (difference / norm).sqrt()
}

/// Records a run; `inner` may change it.
pub(crate) struct Recorder<'a, T> {
    pub(crate) run: &'a mut Run,
    pub(crate) inner: T,
}

impl<T: Taps> Taps for Recorder<'_, T> {
    fn layer_in(&mut self, at: At, x: &mut [f32]) {
        self.inner.layer_in(at, x);
        self.state(at.layer).extend_from_slice(x);
    }
    fn attention_in(&mut self, at: At, x: &[f32]) {
        self.inner.attention_in(at, x);
    }
    fn attention_out(&mut self, at: At, y: &mut [f32]) {
        self.inner.attention_out(at, y);
    }
    fn router(&mut self, at: At, logits: &[f32], scores: &[f32]) {
        self.inner.router(at, logits, scores);
    }
    fn routing(&mut self, at: At, decision: &mut RoutingDecision) {
        self.inner.routing(at, decision);
        let rows = self.run.routing.entry(at.layer).or_default();
        rows.extend((0..decision.n()).map(|t| decision.token(t).collect::<Vec<_>>()));
    }
    fn layer_out(&mut self, at: At, x: &mut [f32]) {
        self.inner.layer_out(at, x);
        // Overwritten by the next layer's input or by the final norm.
        assert!(x.len().is_multiple_of(at.n));
    }
    fn final_hidden(&mut self, first: usize, x: &[f32]) {
        self.inner.final_hidden(first, x);
        let last = self.run.hidden.len() - 1;
        self.run.hidden[last].extend_from_slice(x);
    }
}

impl<T> Recorder<'_, T> {
    fn state(&mut self, layer: usize) -> &mut Vec<f32> {
        &mut self.run.hidden[layer]
    }
}

/// Reference settings: F32 activations, one thread.
pub(crate) fn options() -> LoadOptions {
    LoadOptions { act_mode: Some(ActMode::F32), ..LoadOptions::default() }
}

pub(crate) fn case(name: &str) -> std::path::PathBuf {
    fixtures::path(format!("goldens/{name}"))
}

pub(crate) fn read_case(name: &str) -> Run {
    Run::read(&case(name).join("golden.safetensors"))
}

/// The model of a case with the configuration as `change` leaves it.
pub(crate) fn load_changed(name: &str, change: impl FnOnce(&mut ModelConfig)) -> Arc<CraftsmanModel> {
    let files = ModelFiles::open(&case(name)).expect("the case opens");
    let mut config = files.config.clone();
    change(&mut config);
    Arc::new(CraftsmanModel::from_catalog(config, &files.catalog, &options()).expect("the case loads"))
}

pub(crate) fn session(model: &Arc<CraftsmanModel>, chunk: usize) -> Session {
    let n_ctx = model.config().n_ctx.min(512);
    Session::new(model.clone(), n_ctx, CacheType::F32).expect("a small cache fits").with_chunk(chunk)
}

/// Runs `tokens` in batches of `chunk` and records everything; `inner` may replace values.
pub(crate) fn run<T: Taps>(model: &Arc<CraftsmanModel>, tokens: &[u32], chunk: usize, inner: T) -> Run {
    let mut recorded = Run { tokens: tokens.to_vec(), ..Run::default() };
    recorded.hidden.resize(model.config().n_layers + 1, Vec::new());
    let mut logits = Vec::new();
    let mut taps = Recorder { run: &mut recorded, inner };
    let mut sink = |position: usize, row: &[f32]| {
        assert_eq!(position * row.len(), logits.len(), "rows come in order");
        logits.extend_from_slice(row);
        Ok(())
    };
    session(model, chunk).step_rows(tokens, 0, &mut taps, &mut sink).expect("the model runs");
    recorded.logits = logits;
    recorded
}
