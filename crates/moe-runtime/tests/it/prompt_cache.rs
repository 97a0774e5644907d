//! Prompts resume from blocks in memory and on disk with the bits of fresh ones; whatever is wrong with a block is a miss.

use std::fs::File;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mla_attention::{CacheType, CompressedMlaCache};
use moe_runtime::adapters::{AdapterSet, AdapterSlot};
use moe_runtime::{
    CraftsmanBackend, CraftsmanModel, DiskOptions, GenerateOptions, InferenceBackend, LoadOptions, LoopConfig,
    ModelFiles, Prompt, PromptCache, PromptCacheOptions, PromptKey, Sampler, SamplerConfig, Session,
};
use ternary_core::ActMode;

use crate::adapters::adapter;
use crate::golden::{case, load_changed, options};

const TYPES: [CacheType; 3] = [CacheType::F32, CacheType::F16, CacheType::I8];

fn key(session: &Session, identity: u8, adapters: Option<&AdapterSet>) -> PromptKey {
    PromptKey::new(&[identity; 32], session.model(), session.cache().layout(), adapters)
}

fn tokens(n: usize, seed: usize) -> Vec<u32> {
    (0..n).map(|i| u32::try_from((i * 31 + i * i % 7 + seed) % 400).expect("a small number")).collect()
}

fn in_memory(bytes: u64) -> PromptCache {
    PromptCache::open(&PromptCacheOptions { memory_bytes: bytes, disk: None }).expect("memory needs no folder")
}

fn on_disk(dir: &Path, bytes: u64) -> PromptCache {
    let disk = Some(DiskOptions { dir: dir.to_owned(), bytes });
    PromptCache::open(&PromptCacheOptions { memory_bytes: 0, disk }).expect("the folder is usable")
}

fn session(model: &Arc<CraftsmanModel>, ty: CacheType) -> Session {
    Session::new(model.clone(), 400, ty).expect("a small cache fits")
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|v| v.to_bits()).collect()
}

/// The files of blocks below `dir`, in the order of their names.
fn block_files(dir: &Path) -> Vec<PathBuf> {
    let list = |dir: &Path| std::fs::read_dir(dir).expect("a folder").map(|e| e.expect("an entry").path()).collect();
    let folders: Vec<PathBuf> = list(dir);
    let mut files: Vec<PathBuf> = folders.iter().flat_map(|folder| -> Vec<PathBuf> { list(folder) }).collect();
    files.sort();
    files
}

#[test]
fn a_resumed_sequence_has_the_bits_of_a_fresh_one() {
    for name in ["glm-tiny", "glm4-moe-gqa"] {
        let model = load_changed(name, |_| {});
        for ty in TYPES {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let (first, second) = ([tokens(150, 1), tokens(60, 2)].concat(), [tokens(150, 1), tokens(30, 3)].concat());
            let mut writer = session(&model, ty);
            let key = key(&writer, 1, None);
            writer.prefill(&first, &mut ()).expect("it fits");
            let mut memory = in_memory(u64::MAX);
            for cache in [&mut memory, &mut on_disk(dir.path(), u64::MAX)] {
                cache.insert(&key, &first, writer.cache().full_blocks());
            }
            let want = bits(session(&model, ty).step(&second, &mut ()).expect("it fits"));
            for (place, cache) in [("memory", &mut memory), ("disk", &mut on_disk(dir.path(), u64::MAX))] {
                let prefix = cache.prefix(&key, &second, &[]);
                assert_eq!((prefix.tokens(), prefix.from_disk), (128, if place == "disk" { 2 } else { 0 }));
                let mut resumed = session(&model, ty);
                resumed.resume(&prefix.blocks).expect("blocks of this model");
                assert_eq!(resumed.len(), 128);
                assert!(bits(resumed.step(&second[128..], &mut ()).expect("it fits")) == want, "{name}, {ty}, {place}");
            }
            // The writer goes on with its own bits although its blocks are shared.
            writer.truncate(150);
            assert!(bits(writer.step(&second[150..], &mut ()).expect("it fits")) == want, "{name}, {ty}, the writer");
        }
    }
}

#[test]
fn the_last_token_is_never_part_of_a_prefix() {
    let model = load_changed("glm-tiny", |_| {});
    let mut session = session(&model, CacheType::F16);
    let (key, tokens, mut cache) = (key(&session, 1, None), tokens(128, 1), in_memory(u64::MAX));
    session.prefill(&tokens, &mut ()).expect("it fits");
    cache.insert(&key, &tokens, session.cache().full_blocks());
    for (n, want) in [(0, 0), (1, 0), (64, 0), (65, 64), (128, 64)] {
        assert_eq!(cache.prefix(&key, &tokens[..n], &[]).tokens(), want, "{n} tokens");
    }
    let own = &session.cache().full_blocks()[..1];
    let mut empty = in_memory(u64::MAX);
    assert_eq!(empty.prefix(&key, &tokens, own).tokens(), 64, "what the caller has counts");
    assert!(Arc::ptr_eq(&empty.prefix(&key, &tokens, own).blocks[0], &own[0]));
}

#[test]
fn another_model_cache_type_activation_or_adapter_is_a_miss() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let model = load_changed("glm-tiny", |_| {});
    let mut writer = session(&model, CacheType::F16);
    let (own, tokens) = (key(&writer, 1, None), tokens(130, 1));
    writer.prefill(&tokens, &mut ()).expect("it fits");
    on_disk(dir.path(), u64::MAX).insert(&own, &tokens, writer.cache().full_blocks());
    let mut cache = on_disk(dir.path(), u64::MAX);
    let int8 = session(&model, CacheType::I8);
    let changed = session(&load_changed("glm-tiny", |config| config.norm_eps *= 2.0), CacheType::F16);
    let files = ModelFiles::open(&case("glm-tiny")).expect("the case opens");
    let loaded = |change: fn(&mut LoadOptions)| {
        let mut options = options();
        change(&mut options);
        let model = Arc::new(CraftsmanModel::from_files(&files, &options).expect("the case loads"));
        session(&model, CacheType::F16)
    };
    let equal = loaded(|_| {});
    assert_eq!(cache.prefix(&key(&equal, 1, None), &tokens, &[]).tokens(), 128, "the same model, loaded once more");
    let set = AdapterSet::new(&files, &[(&adapter(&files, 2, 1), 1.0)]).expect("it fits");
    let stronger = AdapterSet::new(&files, &[(&adapter(&files, 2, 1), 2.0)]).expect("it fits");
    let adapted = key(&writer, 1, Some(&set));
    on_disk(dir.path(), u64::MAX).insert(&adapted, &tokens, &writer.cache().full_blocks()[..1]);
    let mut cache = on_disk(dir.path(), u64::MAX);
    assert_eq!(cache.prefix(&own.clone().with_adapters(Some(&set)), &tokens, &[]).tokens(), 64, "the same adapter");
    assert_eq!(cache.prefix(&adapted.with_adapters(None), &tokens, &[]).tokens(), 128, "no adapter any more");
    let others = [
        ("another model", key(&writer, 2, None)),
        ("another cache type", key(&int8, 1, None)),
        ("another configuration", key(&changed, 1, None)),
        ("another adapter", key(&writer, 1, Some(&stronger))),
        ("other activations", key(&loaded(|options| options.act_mode = Some(ActMode::A8Block)), 1, None)),
        ("products in floating point", key(&loaded(|options| options.float_products = true), 1, None)),
    ];
    for (what, other) in others {
        assert_eq!(cache.prefix(&other, &tokens, &[]).tokens(), 0, "{what}");
    }
    let mut late = tokens.clone();
    late[64] += 1;
    assert_eq!(cache.prefix(&own, &late, &[]).tokens(), 64, "another token in the second block");
    late[0] += 1;
    assert_eq!(cache.prefix(&own, &late, &[]).tokens(), 0, "another token in the first block");
    assert_eq!(cache.prefix(&own, &tokens, &[]).tokens(), 128);
}

/// A folder that leads to itself stands for any failure that passes, such as too many open files.
#[cfg(unix)]
#[test]
fn a_block_that_cannot_be_read_for_a_while_stays() {
    let model = load_changed("glm-tiny", |_| {});
    let mut writer = session(&model, CacheType::I8);
    let (key, tokens) = (key(&writer, 1, None), tokens(100, 1));
    writer.prefill(&tokens, &mut ()).expect("it fits");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut cache = on_disk(dir.path(), u64::MAX);
    cache.insert(&key, &tokens, writer.cache().full_blocks());
    let name = key.names(&tokens).next().expect("a block").to_string();
    let (folder, away) = (dir.path().join(&name[..2]), dir.path().join("away"));
    std::fs::rename(&folder, &away).expect("it is moved");
    std::os::unix::fs::symlink(&folder, &folder).expect("it is linked");
    assert_eq!(cache.prefix(&key, &tokens, &[]).tokens(), 0);
    std::fs::remove_file(&folder).expect("the link goes");
    std::fs::rename(&away, &folder).expect("it is moved back");
    assert_eq!(cache.prefix(&key, &tokens, &[]).tokens(), 64);
    // A file that another process removed is forgotten, and written again.
    std::fs::remove_file(folder.join(format!("{name}.block"))).expect("it goes");
    assert_eq!(cache.prefix(&key, &tokens, &[]).tokens(), 0);
    assert_eq!(cache.bytes(), [0, 0]);
    cache.insert(&key, &tokens, writer.cache().full_blocks());
    assert_eq!(cache.prefix(&key, &tokens, &[]).tokens(), 64);
}

/// A change of the bytes of a file.
type Damage = fn(&mut Vec<u8>);

#[test]
fn a_damaged_or_foreign_file_is_a_miss_and_goes() {
    let model = load_changed("glm-tiny", |_| {});
    let mut writer = session(&model, CacheType::I8);
    let (key, tokens) = (key(&writer, 1, None), tokens(200, 1));
    writer.prefill(&tokens, &mut ()).expect("it fits");
    let damages: [(&str, Damage); 6] = [
        ("a flipped bit of the values", |bytes| bytes[1000] ^= 1),
        ("a flipped bit of the hash", |bytes| *bytes.last_mut().expect("bytes") ^= 0x80),
        ("a flipped bit of the mark", |bytes| bytes[0] ^= 1),
        ("a lost byte", |bytes| bytes.truncate(bytes.len() - 1)),
        ("one byte more", |bytes| bytes.push(0)),
        ("nothing left", |bytes| bytes.clear()),
    ];
    for (what, damage) in damages {
        let dir = tempfile::tempdir().expect("a temporary directory");
        on_disk(dir.path(), u64::MAX).insert(&key, &tokens, writer.cache().full_blocks());
        let names: Vec<String> = key.names(&tokens).map(|name| name.to_string()).collect();
        let second = dir.path().join(&names[1][..2]).join(format!("{}.block", names[1]));
        let mut bytes = std::fs::read(&second).expect("the second block is there");
        damage(&mut bytes);
        std::fs::write(&second, bytes).expect("it is written");
        let mut cache = on_disk(dir.path(), u64::MAX);
        assert_eq!(cache.prefix(&key, &tokens, &[]).tokens(), 64, "{what}: the first block stands");
        assert!(!second.exists(), "{what}");
        cache.insert(&key, &tokens, writer.cache().full_blocks());
        assert_eq!(on_disk(dir.path(), u64::MAX).prefix(&key, &tokens, &[]).tokens(), 192, "{what}: written anew");
    }
    // The file of another block under this name, and files of other kinds.
    let dir = tempfile::tempdir().expect("a temporary directory");
    on_disk(dir.path(), u64::MAX).insert(&key, &tokens, writer.cache().full_blocks());
    let names: Vec<String> = key.names(&tokens).map(|name| name.to_string()).collect();
    let path = |name: &str| dir.path().join(&name[..2]).join(format!("{name}.block"));
    std::fs::copy(path(&names[1]), path(&names[0])).expect("it is copied");
    std::fs::write(dir.path().join("note"), "mine").expect("it is written");
    std::fs::write(dir.path().join(&names[1][..2]).join("other.block"), "mine").expect("it is written");
    let mut cache = on_disk(dir.path(), 0);
    assert_eq!(cache.bytes(), [0, 0], "a bound of 0 keeps nothing");
    assert_eq!(cache.prefix(&key, &tokens, &[]).tokens(), 0);
    assert!(dir.path().join("note").exists() && dir.path().join(&names[1][..2]).join("other.block").exists());
    let nowhere =
        PromptCacheOptions { memory_bytes: 0, disk: Some(DiskOptions { dir: dir.path().join("note"), bytes: 1 }) };
    let error = PromptCache::open(&nowhere).expect_err("a file is no folder").to_string();
    assert!(error.contains("note") && error.contains("give another one"), "{error}");
}

#[test]
fn the_bounds_hold_and_the_least_recently_used_prompt_goes_from_its_end() {
    let model = load_changed("glm-tiny", |_| {});
    let mut writer = session(&model, CacheType::F16);
    let key = key(&writer, 1, None);
    let block = writer.cache().layout().block_bytes() as u64;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = block + 80;
    for (place, cache) in [("memory", &mut in_memory(5 * block)), ("disk", &mut on_disk(dir.path(), 5 * file))] {
        let prompts: Vec<_> = (1..4).map(|seed| tokens(130, seed)).collect();
        let mut insert = |cache: &mut PromptCache, i: usize| {
            writer.reset();
            writer.prefill(&prompts[i], &mut ()).expect("it fits");
            cache.insert(&key, &prompts[i], writer.cache().full_blocks());
        };
        insert(cache, 0);
        insert(cache, 1);
        assert_eq!(cache.prefix(&key, &prompts[0], &[]).tokens(), 128, "{place}: a use");
        insert(cache, 2);
        assert!(cache.bytes()[0] <= 5 * block && cache.bytes()[1] <= 5 * file);
        if place == "disk" {
            assert_eq!(block_files(dir.path()).len(), 5);
            *cache = on_disk(dir.path(), 5 * file);
        }
        let held = |cache: &mut PromptCache, i: usize| cache.prefix(&key, &prompts[i], &[]).tokens();
        assert_eq!([0, 2, 1].map(|i| held(cache, i)), [128, 128, 64], "{place}: the second prompt lost its end");
        let long = tokens(390, 9);
        writer.reset();
        writer.prefill(&long, &mut ()).expect("it fits");
        cache.insert(&key, &long, writer.cache().full_blocks());
        assert_eq!(cache.prefix(&key, &long, &[]).tokens(), 320, "{place}: a beginning of a prompt beyond the bound");
    }
    // The order of use survives the process: the first prompt was used last before the folder was opened anew.
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut cache = on_disk(dir.path(), u64::MAX);
    let prompts: Vec<_> = (1..4).map(|seed| tokens(70, seed)).collect();
    for prompt in &prompts {
        writer.reset();
        writer.prefill(prompt, &mut ()).expect("it fits");
        cache.insert(&key, prompt, writer.cache().full_blocks());
    }
    assert_eq!(cache.prefix(&key, &prompts[0], &[]).tokens(), 64);
    let mut cache = on_disk(dir.path(), 2 * file);
    assert_eq!([0, 1, 2].map(|i| cache.prefix(&key, &prompts[i], &[]).tokens()), [64, 0, 64]);
}

#[test]
fn a_file_from_the_end_of_time_is_used_as_any_other() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let model = load_changed("glm-tiny", |_| {});
    let mut writer = session(&model, CacheType::F16);
    let (key, tokens) = (key(&writer, 1, None), tokens(130, 1));
    writer.prefill(&tokens, &mut ()).expect("it fits");
    on_disk(dir.path(), u64::MAX).insert(&key, &tokens, writer.cache().full_blocks());
    // The largest time that the system has; the file system may cut it down to its own.
    let mut seconds = 1u64 << 62;
    let latest = loop {
        let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
        let file = File::options().append(true).open(&block_files(dir.path())[0]).expect("the file opens");
        if time.is_some_and(|time| file.set_modified(time).is_ok()) {
            break time;
        }
        seconds /= 2;
    };
    assert!(latest > Some(SystemTime::now()));
    let mut cache = on_disk(dir.path(), u64::MAX);
    assert_eq!(cache.prefix(&key, &tokens, &[]).tokens(), 128);
}

/// A backend of the mini teacher with a folder of prompts and adapters.
fn backend(model: &Arc<CraftsmanModel>, dir: Option<&Path>, slot: AdapterSlot) -> CraftsmanBackend {
    let files = ModelFiles::open(&fixtures::path("craftsman-mini")).expect("the model opens");
    let session = Session::new(model.clone(), 600, CacheType::I8).expect("a cache fits").with_adapters(slot);
    let prompts = dir.map(|dir| (on_disk(dir, u64::MAX), key(&session, 7, None)));
    CraftsmanBackend::new(session, files.tokenizer().expect("it has words")).with_prompt_cache(prompts)
}

#[test]
fn prompts_with_an_adapter_are_kept_under_its_name_and_mixed_ones_under_none() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let files = ModelFiles::open(&fixtures::path("craftsman-mini")).expect("the model opens");
    let model = Arc::new(CraftsmanModel::from_files(&files, &LoadOptions::default()).expect("the model loads"));
    let set = || Some(Arc::new(AdapterSet::new(&files, &[(&adapter(&files, 2, 1), 1.0)]).expect("it fits")));
    let loops = LoopConfig { max_period: 0, ..LoopConfig::default() };
    let options = GenerateOptions { max_tokens: 80, loops, ..GenerateOptions::default() };
    let prompt = "Who moved the table by the door, and how long is it? ".repeat(9);
    // The answer to the prompt, and the number of tokens that were computed; `at_first` is called at its first text.
    let answer = |backend: &mut CraftsmanBackend, mut at_first: Option<&mut dyn FnMut()>| {
        let mut greedy = Sampler::new(SamplerConfig::greedy()).expect("greedy settings");
        let mut on_text = |_: &str| {
            at_first.take().into_iter().for_each(|f| f());
            ControlFlow::Continue(())
        };
        let answer = backend.generate(Prompt::Raw(&prompt), &mut greedy, &options, &mut on_text).expect("it fits");
        (answer.tokens, answer.statistics.prompt_tokens)
    };
    let [plain, with] = [None, set()].map(|set| answer(&mut backend(&model, None, AdapterSlot::new(set)), None).0);
    assert_ne!(plain, with);
    // Others are put in behind the first text: from then on the tokens are of neither.
    let slot = AdapterSlot::default();
    let mut mixed = backend(&model, Some(dir.path()), slot.clone());
    let mut swap = || drop(slot.swap(set()));
    let (other, all) = answer(&mut mixed, Some(&mut swap));
    assert!(other != plain && block_files(dir.path()).is_empty(), "tokens of two sets have no name");
    // Taken out again before the next call, the first set finds no token that it may take over.
    slot.swap(None);
    assert_eq!(answer(&mut mixed, None), (plain.clone(), all));
    // Each set finds its own tokens in the folder, in another process too, and no others.
    assert_eq!(answer(&mut backend(&model, Some(dir.path()), AdapterSlot::new(set())), None), (with.clone(), all));
    drop(mixed);
    // All tokens of the prompt were computed the first time.
    let rest = all - (all - 1) / 64 * 64;
    for (set, want) in [(None, plain), (set(), with)] {
        assert_eq!(answer(&mut backend(&model, Some(dir.path()), AdapterSlot::new(set)), None), (want, rest));
    }
}

/// A growing conversation: each turn computes what is new, on a fresh process too.
#[test]
fn twenty_turns_compute_only_what_is_new_and_a_restart_finds_them() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let model_path = fixtures::path("craftsman-mini");
    let files = ModelFiles::open(&model_path).expect("the model opens");
    let model = Arc::new(CraftsmanModel::from_files(&files, &LoadOptions::default()).expect("the model loads"));
    let n_ctx = 1500;
    let backend = |with_cache: bool| {
        let session = Session::new(model.clone(), n_ctx, CacheType::I8).expect("a cache fits");
        let key = key(&session, 7, None);
        let prompts = with_cache.then(|| (on_disk(dir.path(), u64::MAX), key));
        CraftsmanBackend::new(session, files.tokenizer().expect("it has words")).with_prompt_cache(prompts)
    };
    let loops = LoopConfig { max_period: 0, ..LoopConfig::default() };
    let options = GenerateOptions { max_tokens: 3, loops, ..GenerateOptions::default() };
    let answer = |backend: &mut CraftsmanBackend, text: &str| {
        let mut greedy = Sampler::new(SamplerConfig::greedy()).expect("greedy settings");
        let mut ignore = |_: &str| ControlFlow::Continue(());
        backend.generate(Prompt::Raw(text), &mut greedy, &options, &mut ignore).expect("it fits")
    };
    let mut kept = backend(true);
    let mut text = String::new();
    let mut lengths = Vec::new();
    for turn in 0..20 {
        let before = kept.count_tokens(Prompt::Raw(&text)).expect("words");
        text.push_str(&format!(" Question {turn}: how long is the table by the door, and who moved it there?"));
        let length = kept.count_tokens(Prompt::Raw(&text)).expect("words");
        let generation = answer(&mut kept, &text);
        assert!(generation.statistics.prompt_tokens <= length - before + 4, "turn {turn} computes what is new");
        lengths.push(length);
    }
    assert!(lengths[19] > 300, "{lengths:?}");
    let want = answer(&mut backend(false), &text).tokens;
    drop(kept);
    // A process that was killed leaves whole files: a new backend over the same folder reads them.
    let mut restarted = backend(true);
    let generation = answer(&mut restarted, &text);
    let block = CompressedMlaCache::BLOCK;
    assert_eq!(generation.tokens, want);
    assert_eq!(generation.statistics.prompt_tokens, lengths[19] - (lengths[19] - 1) / block * block);
}
