//! Experts in less memory than they take: the same numbers, and exactly the loads that the routing asks for.

use std::sync::{Arc, Mutex};

use mla_attention::CacheType;
use moe_runtime::forward::ResidencyHook;
use moe_runtime::storage::{
    CachePolicy, ExpertKey, ExpertMemory, ExpertMemoryOptions, Prefetcher, StorageReport, WeightStorage,
};
use moe_runtime::{CraftsmanModel, LoadOptions, Session};

use crate::golden::case;

const OPTIONS: ExpertMemoryOptions =
    ExpertMemoryOptions { bytes: 1, policy: CachePolicy::Lru, ahead: 0, shuffled: None };

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

fn load(storage: WeightStorage) -> CraftsmanModel {
    let path = case("ternary-forward").join("model.gguf");
    CraftsmanModel::load(&path, &LoadOptions { storage, ..LoadOptions::default() }).expect("the model loads")
}

#[test]
fn a_model_within_little_memory_gives_the_same_bits() {
    let want = decode(load(WeightStorage::File));
    for policy in [CachePolicy::Lru, CachePolicy::Lfu, CachePolicy::Adaptive] {
        for (ahead, shuffled) in [(0, None), (2, None), (2, Some(1))] {
            let options = ExpertMemoryOptions { policy, ahead, shuffled, ..OPTIONS };
            let model = load(WeightStorage::Experts(options));
            let StorageReport::Experts(memory) = model.storage() else { panic!("one byte is too little") };
            let memory = memory.clone();
            assert!(decode(model) == want, "{options:?}");
            let counted = memory.statistics();
            assert!(counted.requests >= 60 && counted.loads > 0 && counted.evictions > 0, "{counted:?}");
        }
    }
    let plenty = ExpertMemoryOptions { bytes: 1 << 40, ..OPTIONS };
    let model = load(WeightStorage::Experts(plenty));
    assert!(matches!(model.storage(), StorageReport::File), "all experts fit");
}

/// A prefetcher that records every call.
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
    let model = load(WeightStorage::File);
    let router = model.config().moe.as_ref().expect("experts").router.clone();
    let script = Script::default();
    let n_layers = model.layers().len();
    let memory = Arc::new(ExpertMemory::new(Box::new(script.clone()), n_layers, &router, 3, &OPTIONS));
    let log = script.0.clone();
    let (hook, uses) = (memory.hook(), log.clone());
    let hook: ResidencyHook = Arc::new(move |layer, ids: &[u32]| {
        hook(layer, ids);
        let keys = ids.iter().map(|&e| ("use", ExpertKey { layer, expert: e as usize }));
        uses.lock().expect("no panic holds it").extend(keys);
    });
    decode(model.with_residency_hook(&hook));
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
    assert_eq!(memory.statistics().loads, loads);
    assert!(loads > 3, "more experts than fit were used");
}
