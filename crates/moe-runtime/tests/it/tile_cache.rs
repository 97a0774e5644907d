//! Tiles from a file: the same logits, the file found again, and stale, damaged or foreign files refused.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use moe_runtime::storage::StorageError;
use moe_runtime::storage::{Packed, StorageReport, TileCache, TileCacheDefect, Tiles, WeightStorage};
use moe_runtime::{CraftsmanModel, Error, LoadOptions, ModelFiles, Session};
use ternary_core::ActMode;
use tl_kernels::Pool;

use crate::golden::{case, run};
use crate::ternary::damaged;

const TOKENS: [u32; 7] = [1, 5, 9, 2, 40, 17, 3];
const KEY: std::ops::Range<usize> = 16..48;

/// A model file of its own with a place for its cache.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::copy(case("ternary-forward").join("model.gguf"), dir.path().join("model.gguf")).expect("a copy");
        Place { dir }
    }

    fn model(&self) -> PathBuf {
        self.dir.path().join("model.gguf")
    }

    fn cache(&self) -> PathBuf {
        self.dir.path().join("model.gguf.tiles")
    }

    fn start(&self) -> Start {
        start(&self.model(), &self.cache())
    }

    /// The bytes of an undamaged cache.
    fn made(&self) -> Vec<u8> {
        assert!(matches!(self.start().cache(), TileCache::Made { replaced: None, .. }));
        fs::read(self.cache()).expect("the cache is there")
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path()).expect("the directory");
        let mut names: Vec<String> =
            entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

/// The outcome of a start with a cache.
struct Start {
    model: Arc<CraftsmanModel>,
}

impl Start {
    fn of(model: CraftsmanModel) -> Start {
        Start { model: Arc::new(model) }
    }

    fn packed(&self) -> Packed {
        match self.model.storage() {
            StorageReport::Tiles { packed, .. } => *packed,
            other => panic!("{other:?}"),
        }
    }

    fn cache(&self) -> &TileCache {
        match self.model.storage() {
            StorageReport::Tiles { cache: Some(cache), .. } => cache,
            other => panic!("{other:?}"),
        }
    }

    fn defect(&self) -> Option<TileCacheDefect> {
        match self.cache() {
            TileCache::Made { replaced: Some(Error::Storage(StorageError::TileCache { defect, .. })), .. }
            | TileCache::None { reason: Error::Storage(StorageError::TileCache { defect, .. }) } => Some(*defect),
            _ => None,
        }
    }

    fn logits(&self) -> Vec<f32> {
        run(&self.model, &TOKENS, 64, ()).logits
    }
}

fn options(storage: WeightStorage) -> LoadOptions {
    LoadOptions { pool: Arc::new(Pool::new(2).expect("threads start")), storage, ..LoadOptions::default() }
}

fn tiles(cache: &Path) -> WeightStorage {
    WeightStorage::Tiles(Tiles { growth_bytes: u64::MAX, cache: Some(cache.to_owned()) })
}

fn start(model: &Path, cache: &Path) -> Start {
    Start::of(CraftsmanModel::load(model, &options(tiles(cache))).expect("undamaged weights are packed"))
}

/// The logits of the model without any packing.
fn expected() -> Vec<f32> {
    let path = case("ternary-forward").join("model.gguf");
    let model = CraftsmanModel::load(&path, &options(WeightStorage::File)).expect("the model loads");
    run(&Arc::new(model), &TOKENS, 64, ()).logits
}

#[test]
fn the_second_start_finds_what_the_first_has_made() {
    let (place, expected) = (Place::new(), expected());
    let mut progress = Vec::new();
    let files = ModelFiles::open(&place.model()).expect("the model opens");
    let mut report = |done, total| progress.push((done, total));
    let first = CraftsmanModel::from_files_with_progress(&files, &options(tiles(&place.cache())), &mut report);
    let first = Start::of(first.expect("packed"));
    let &TileCache::Made { bytes, replaced: None } = first.cache() else { panic!("{:?}", first.cache()) };
    assert_eq!(bytes, fs::metadata(place.cache()).expect("the cache is there").len());
    assert_eq!(progress.last(), Some(&(bytes, bytes)));
    assert_eq!(first.logits(), expected);

    for _ in 0..2 {
        let again = place.start();
        assert!(matches!(again.cache(), TileCache::Found), "{:?}", again.cache());
        assert_eq!(again.packed(), first.packed());
        assert_eq!(again.logits(), expected);
    }
    assert_eq!(place.names(), ["model.gguf", "model.gguf.tiles"]);
}

#[test]
fn a_cut_or_grown_file_is_made_anew() {
    let (place, expected) = (Place::new(), expected());
    let intact = place.made();
    let data = intact.len() - 1;
    for len in [0, 15, 16, 47, 48, 79, 80, 112, 4096, data - 2112, data] {
        fs::write(place.cache(), &intact[..len]).expect("written");
        let again = place.start();
        assert!(matches!(again.defect(), Some(TileCacheDefect::Length { .. })), "{len}: {:?}", again.cache());
        assert_eq!(fs::read(place.cache()).expect("the cache is there"), intact, "{len}");
    }
    fs::write(place.cache(), [&intact[..], &[0]].concat()).expect("written");
    let again = place.start();
    assert!(matches!(again.defect(), Some(TileCacheDefect::Length { .. })), "{:?}", again.cache());
    assert_eq!(again.logits(), expected);
}

#[test]
fn a_flipped_byte_before_the_tiles_is_noticed() {
    let place = Place::new();
    let intact = place.made();
    for at in [0, 7, 15, 16, 30, 47, 48, 70, 79, 80, 111, 112, 300] {
        let mut bytes = intact.clone();
        bytes[at] ^= 0x10;
        fs::write(place.cache(), &bytes).expect("written");
        let again = place.start();
        let defect = match at {
            0..16 => TileCacheDefect::Foreign,
            16..48 => TileCacheDefect::OtherModel,
            _ => TileCacheDefect::Damaged,
        };
        assert_eq!(again.defect(), Some(defect), "{at}");
        let kept = fs::read(place.cache()).expect("the cache is there");
        // A file that does not begin as a cache may be any file of the user: it is kept.
        assert_eq!(kept, if at < 16 { bytes } else { intact.clone() }, "{at}");
    }
}

#[test]
fn damaged_tiles_are_never_computed_with() {
    let (place, expected) = (Place::new(), expected());
    let intact = place.made();
    let (mut at_start, mut at_use) = (0, 0);
    // Attention and shared experts are hashed at the start, a routed expert before its first use.
    for part in 1..=12 {
        let at = 4096 + (intact.len() - 4096) / 12 * part - 100;
        let mut bytes = intact.clone();
        bytes[at] ^= 1;
        fs::write(place.cache(), bytes).expect("written");
        let again = place.start();
        if again.defect() == Some(TileCacheDefect::Damaged) || again.defect() == Some(TileCacheDefect::OtherRows) {
            at_start += 1;
            assert_eq!(again.logits(), expected, "{at}");
            continue;
        }
        assert!(matches!(again.cache(), TileCache::Found), "{at}: {:?}", again.cache());
        let all: Vec<u32> = (0..60).collect();
        let mut session = Session::new(again.model.clone(), 64, mla_attention::CacheType::F16).expect("a session");
        match session.step(&all, &mut ()) {
            Err(Error::Storage(StorageError::DamagedTiles { tensor, cache })) => {
                at_use += 1;
                assert!(tensor.contains("_exps.weight[") && cache == place.cache(), "{tensor}");
            }
            // No token chose the expert.
            Ok(_) => assert_eq!(again.logits(), expected, "{at}"),
            Err(other) => panic!("{at}: {other}"),
        }
    }
    assert!(at_start > 2 && at_use > 2, "{at_start} noticed at the start, {at_use} at first use");
}

#[test]
fn a_cache_of_another_state_of_the_file_is_made_anew() {
    let (place, expected) = (Place::new(), expected());
    place.made();
    let older = SystemTime::now() - Duration::from_secs(3600);
    File::options().write(true).open(place.model()).and_then(|f| f.set_modified(older)).expect("the time is set");
    let again = place.start();
    assert_eq!(again.defect(), Some(TileCacheDefect::OtherModel));
    assert_eq!(again.logits(), expected);
    assert!(matches!(place.start().cache(), TileCache::Found));

    // A copy counts as another file, even with equal content and times.
    let copy = place.dir.path().join("copy.gguf");
    fs::copy(place.model(), &copy).expect("a copy");
    File::options().write(true).open(&copy).and_then(|f| f.set_modified(older)).expect("the time is set");
    assert_eq!(start(&copy, &place.cache()).defect(), Some(TileCacheDefect::OtherModel));
}

/// If two states of a file look the same, the comparison of some rows of each layer still finds the difference.
#[test]
fn tiles_of_other_weights_under_the_right_key_are_noticed() {
    let (place, other) = (Place::new(), Place::new());
    let mut bytes = fs::read(other.model()).expect("the model is read");
    let files = ModelFiles::open(&other.model()).expect("the model opens");
    let tensor = files.catalog.find("blk.1.ffn_down_exps.weight").expect("a tensor");
    let matrix = files.catalog.matrix(tensor, 0).expect("a matrix").bytes;
    let at = bytes.windows(matrix.len()).position(|window| window == &matrix[..]).expect("its place");
    // Another code in the first block: 1 instead of 0 or 2, 2 instead of 1.
    bytes[at] = if bytes[at] & 3 == 1 { bytes[at] + 1 } else { bytes[at] & !3 | 1 };
    fs::write(other.model(), bytes).expect("written");
    let right = place.made()[KEY].to_vec();
    let mut forged = other.made();
    forged[KEY].copy_from_slice(&right);
    fs::write(place.cache(), forged).expect("written");
    let again = place.start();
    assert_eq!(again.defect(), Some(TileCacheDefect::OtherRows));
    assert_eq!(again.logits(), expected());
}

#[test]
fn where_no_cache_can_be_made_weights_are_packed_in_memory() {
    let (place, expected) = (Place::new(), expected());
    fs::create_dir(place.cache()).expect("a directory");
    let text = place.dir.path().join("notes.txt");
    fs::write(&text, "not a cache").expect("written");
    for cache in [place.cache(), place.dir.path().join("none/model.tiles"), text.clone(), place.model()] {
        let start = start(&place.model(), &cache);
        assert!(matches!(start.cache(), TileCache::None { .. }), "{:?}", start.cache());
        assert!(start.packed().layers > 0 && start.packed().layers_left == 0, "{:?}", start.packed());
        assert_eq!(start.logits(), expected);
    }
    assert_eq!(fs::read(&text).expect("kept"), b"not a cache");
    assert_eq!(place.names(), ["model.gguf", "model.gguf.tiles", "notes.txt"]);

    let options = LoadOptions { act_mode: Some(ActMode::F32), ..options(tiles(&text)) };
    let start = Start::of(CraftsmanModel::load(&place.model(), &options).expect("nothing to pack"));
    assert!(matches!(
        start.cache(),
        TileCache::None { reason: Error::Storage(StorageError::TileCache { defect: TileCacheDefect::NoTiles, .. }) }
    ));
}

#[test]
fn a_damaged_model_gets_no_cache() {
    let dir = damaged("blk.1.ffn_down_exps.weight", 3);
    let cache = dir.path().join("model.gguf.tiles");
    let model = dir.path().join("model.gguf");
    let error = CraftsmanModel::load(&model, &options(tiles(&cache))).expect_err("packing is a use");
    assert!(error.to_string().contains("blk.1.ffn_down_exps.weight[3]"), "{error}");
    assert!(!cache.exists());
}

#[test]
fn two_starts_at_once_leave_one_good_cache() {
    let (place, expected) = (Place::new(), expected());
    std::thread::scope(|scope| {
        let starts = [(); 3].map(|()| scope.spawn(|| place.start()));
        for start in starts {
            let start = start.join().expect("no panic");
            assert!(!matches!(start.cache(), TileCache::None { .. }), "{:?}", start.cache());
            assert_eq!(start.logits(), expected);
        }
    });
    assert_eq!(place.names(), ["model.gguf", "model.gguf.tiles"]);
    assert!(matches!(place.start().cache(), TileCache::Found));
}
