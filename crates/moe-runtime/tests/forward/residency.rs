//! Experts in less memory than they take: the same numbers, and exactly the loads that the routing asks for.

use std::sync::{Arc, Mutex};

use mla_attention::CacheType;
use moe_runtime::{
    CachePolicy, CraftsmanModel, ExpertKey, FeedForward, LoadOptions, ModelFiles, Prefetcher, Residency,
    ResidencyOptions, Session,
};

use crate::golden::case;

const OPTIONS: ResidencyOptions = ResidencyOptions { bytes: 1, policy: CachePolicy::Lru, ahead: 0, shuffled: None };

fn tokens() -> Vec<u32> {
    (0..60).map(|i| i * 7 % 29).collect()
}

/// The logits of every token, fed one by one.
fn decode(model: CraftsmanModel) -> Vec<u32> {
    let mut session = Session::new(Arc::new(model), 64, CacheType::F16).expect("a session");
    let mut step =
        |t: u32| session.step(&[t], &mut ()).expect("a step").iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    tokens().into_iter().flat_map(&mut step).collect()
}

fn load() -> (CraftsmanModel, ModelFiles) {
    let files = ModelFiles::open(&case("ternary-forward").join("model.gguf")).expect("the model opens");
    (CraftsmanModel::from_files(&files, &LoadOptions::default()).expect("the model loads"), files)
}

#[test]
fn a_model_within_little_memory_gives_the_same_bits() {
    let want = decode(load().0);
    for policy in [CachePolicy::Lru, CachePolicy::Lfu, CachePolicy::Adaptive] {
        for (ahead, shuffled) in [(0, None), (2, None), (2, Some(1))] {
            let (mut model, files) = load();
            let options = ResidencyOptions { policy, ahead, shuffled, ..OPTIONS };
            let residency = Residency::attach(&mut model, &files.catalog, &options).expect("one byte is too little");
            assert!(decode(model) == want, "{options:?}");
            let counted = residency.statistics();
            assert!(counted.requests >= 60 && counted.loads > 0 && counted.evictions > 0, "{counted:?}");
        }
    }
    let (mut model, files) = load();
    let plenty = ResidencyOptions { bytes: 1 << 40, ..OPTIONS };
    assert!(Residency::attach(&mut model, &files.catalog, &plenty).is_none(), "there is nothing to watch over");
}

/// Writes down what it is asked for.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<Vec<(&'static str, ExpertKey)>>>);

impl Prefetcher for Script {
    fn load(&self, expert: ExpertKey) {
        self.0.lock().expect("no panic holds it").push(("load", expert));
    }
    fn release(&self, expert: ExpertKey) {
        self.0.lock().expect("no panic holds it").push(("release", expert));
    }
}

#[test]
fn every_needed_expert_is_loaded_before_use_and_none_while_it_is_held() {
    let (mut model, _) = load();
    let router = model.config().moe.as_ref().expect("experts").router.clone();
    let script = Script::default();
    let n_layers = model.layers().len();
    let residency = Arc::new(Residency::new(Box::new(script.clone()), n_layers, &router, 3, &OPTIONS));
    let log = script.0.clone();
    for layer in model.layers_mut() {
        if let FeedForward::Moe { experts, .. } = layer.ffn_mut() {
            let (hook, log) = (residency.hook(), log.clone());
            experts.set_residency(Some(Arc::new(move |layer, ids: &[u32]| {
                hook(layer, ids);
                let keys = ids.iter().map(|&e| ("use", ExpertKey { layer, expert: e as usize }));
                log.lock().expect("no panic holds it").extend(keys);
            })));
        }
    }
    decode(model);
    let mut held = Vec::new();
    let log = log.lock().expect("no panic holds it");
    for &(what, key) in log.iter() {
        match what {
            "load" => {
                assert!(!held.contains(&key), "{key:?} is held");
                held.push(key);
            }
            "release" => held.retain(|&k| k != key),
            _ => assert!(held.contains(&key), "{key:?} is used without having been loaded"),
        }
    }
    let loads = log.iter().filter(|(what, _)| *what == "load").count() as u64;
    assert_eq!(residency.statistics().loads, loads);
    assert!(loads > 3, "more experts than fit were used");
}
