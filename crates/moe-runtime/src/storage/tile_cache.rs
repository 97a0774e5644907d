//! Tiles kept in a file beside the model, so that the next start maps them instead of packing again.
//!
//! ```text
//!   0  "bitnet-tiles-1\n\0"
//!  16  key      BLAKE3 of the layout's name, the state of the model file, and the shape of every matrix below
//!  48  check    BLAKE3 of the digests
//!  80  digests  BLAKE3 of each matrix, 32 bytes each, layer by layer
//!      tiles    of each matrix, from a multiple of 64
//! ```
//!
//! **Invariant:** no length or place is read from the file: all follow from the model, and the file must be exactly as
//! long as the model requires.
//!
//! **Invariant:** a matrix is computed with only after its tiles have matched the digest that was written when they were
//! packed: a routed expert is hashed before its first use, every other matrix at the start. At each start the self-test
//! also compares some rows of every layer with the rows of the model.

use std::io::{Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use blake3::Hash;
use gguf_bitnet::{GgufFile, MappedFile, NewFile, local_state, require_space};
use ternary_core::Bytes;
use tl_kernels::{KernelKind, LAYOUT_ID, Linear, Pool};

use crate::error::{Error, Result};
use crate::forward::layer::DecoderLayer;
use crate::storage::error::{StorageError, TileCacheDefect};
use crate::storage::packing::{Packed, Packer, release};
use crate::storage::tile_digests::TileDigests;

const MAGIC: [u8; 16] = *b"bitnet-tiles-1\n\0";
const KEY: Range<usize> = 16..48;
const CHECK: Range<usize> = 48..80;
const DIGESTS: usize = 80;
const DIGEST_BYTES: usize = 32;
/// Matrices begin on a cache line.
const ALIGNMENT: usize = 64;

/// The outcome of a load that asked for a cache of tiles.
#[derive(Debug)]
pub enum TileCache {
    /// The file was there, and the model computes from its tiles.
    Found,
    /// The file was made, and the model computes from its tiles.
    Made {
        /// Size of the file.
        bytes: u64,
        /// The defect of the file that it replaces.
        replaced: Option<Error>,
    },
    /// No file could be used, and the weights were packed in memory.
    None {
        /// The reason why no file could be used.
        reason: Error,
    },
}

impl Packer<'_> {
    /// As [`Packer::pack`], but over tiles in the file `path`: found there, or made and left there for the next start of
    /// the model, which was loaded from `file`. `progress` gets the bytes written and their total while the file is made.
    ///
    /// # Errors
    /// As [`Packer::pack`].
    pub(crate) fn pack_cached(
        &mut self,
        path: &Path,
        file: Option<&GgufFile>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(Packed, TileCache)> {
        let Some(state) = file.and_then(local_state) else {
            return self.pack_in_memory(TileCacheDefect::NoFile.at(path).into());
        };
        let plan = Plan::new(self.layers, state);
        if plan.layers.iter().all(Vec::is_empty) {
            return self.pack_in_memory(TileCacheDefect::NoTiles.at(path).into());
        }
        let replaced = match self.map_tiles(path, &plan) {
            Ok(packed) => return Ok((packed, TileCache::Found)),
            Err(reason @ Error::Storage(StorageError::TileCache { defect: TileCacheDefect::Foreign, .. })) => {
                return self.pack_in_memory(reason);
            }
            Err(reason) => path.exists().then_some(reason),
        };
        let made = self.make_tiles(path, &plan, progress);
        match made.and_then(|()| self.map_tiles(path, &plan)) {
            Ok(packed) => Ok((packed, TileCache::Made { bytes: plan.bytes as u64, replaced })),
            Err(reason) => {
                self.unpack()?;
                self.pack_in_memory(reason)
            }
        }
    }

    fn pack_in_memory(&mut self, reason: Error) -> Result<(Packed, TileCache)> {
        Ok((self.pack()?, TileCache::None { reason }))
    }

    /// Lets the layers compute from the tiles of a file; after an error they are in the layout of the model's file again.
    fn map_tiles(&mut self, path: &Path, plan: &Plan) -> Result<Packed> {
        let tiles = MappedTiles::open(path, plan)?;
        let packed = self.pack_with(|layer| tiles.attach(layer, plan).map(|()| true));
        if packed.is_err() {
            self.unpack()?;
        }
        packed
    }

    /// Returns all layers to the layout of the file.
    fn unpack(&mut self) -> Result<()> {
        self.layers.iter_mut().try_for_each(unpack)
    }

    /// Packs layer by layer into a new file; the layers stay as they were.
    fn make_tiles(&mut self, path: &Path, plan: &Plan, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
        require_space(path, plan.bytes as u64)?;
        let not_written = |source| gguf_bitnet::Error::io("write", path)(source);
        let mut file = NewFile::create(path)?;
        let mut digests = Vec::with_capacity(plan.n_matrices() * DIGEST_BYTES);
        for layer in &mut *self.layers {
            let places = &plan.layers[layer.index()];
            let matrices = pack_layer(layer, self.pool)?;
            let mut hashes = vec![[0; DIGEST_BYTES]; matrices.len()];
            self.pool.chunks_mut(&mut hashes, 1, |i, hash| hash[0] = blake3::hash(&matrices[i]).into());
            digests.extend(hashes.iter().flatten());
            for (matrix, place) in matrices.iter().zip(places) {
                file.seek(SeekFrom::Start(place.start as u64)).map_err(not_written)?;
                file.write_all(matrix).map_err(not_written)?;
                progress(place.end as u64, plan.bytes as u64);
            }
            drop(matrices);
            unpack(layer)?;
            release(self.catalog, layer.index());
        }
        let head = [&MAGIC[..], plan.key.as_bytes(), blake3::hash(&digests).as_bytes(), &digests].concat();
        file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(&head)).map_err(not_written)?;
        Ok(file.publish()?)
    }
}

/// Packs a layer and returns the tiles of each matrix.
fn pack_layer(layer: &mut DecoderLayer, pool: &Pool) -> Result<Vec<Bytes>> {
    let chosen: Vec<bool> = layer.linears_mut().iter().map(|linear| linear.packable().is_some()).collect();
    if !chosen.contains(&true) {
        return Ok(Vec::new());
    }
    if !layer.pack(pool)? {
        return Err(Error::Storage(StorageError::UntestedTiles { layer: layer.index() }));
    }
    let linears = layer.linears_mut().into_iter().zip(chosen);
    Ok(linears.filter(|(_, chosen)| *chosen).map(|(linear, _)| linear.bytes().clone()).collect())
}

/// Returns a layer to the layout of the file.
fn unpack(layer: &mut DecoderLayer) -> Result<()> {
    let (_, routed) = layer.parts_mut();
    routed.iter_mut().for_each(|network| network.set_tile_digests(None));
    for linear in layer.linears_mut().into_iter().filter(|linear| linear.kernel() == KernelKind::Tiles) {
        *linear = linear.clone().with_kernel(KernelKind::I2s)?;
    }
    Ok(())
}

/// Where the tiles of a model's matrices lie in its cache.
struct Plan {
    key: Hash,
    /// By layer, in the order of [`DecoderLayer::linears_mut`].
    layers: Vec<Vec<Range<usize>>>,
    /// Length of the file.
    bytes: usize,
}

impl Plan {
    fn new(layers: &mut [DecoderLayer], state: Hash) -> Plan {
        let mut key = blake3::Hasher::new();
        key.update(LAYOUT_ID.as_bytes()).update(&[0]).update(state.as_bytes());
        let mut sizes = Vec::with_capacity(layers.len());
        for layer in layers {
            let linears = layer.linears_mut();
            let matrices: Vec<_> = linears.iter().filter_map(|linear| linear.packable()).collect();
            key.update(&(matrices.len() as u64).to_le_bytes());
            for matrix in &matrices {
                for number in [matrix.rows(), matrix.cols(), matrix.packed_bytes()] {
                    key.update(&(number as u64).to_le_bytes());
                }
            }
            sizes.push(matrices.iter().map(|matrix| matrix.packed_bytes()).collect::<Vec<_>>());
        }
        let mut bytes = DIGESTS + DIGEST_BYTES * sizes.iter().map(Vec::len).sum::<usize>();
        let mut place = |size: usize| {
            let start = bytes.next_multiple_of(ALIGNMENT);
            bytes = start.saturating_add(size);
            start..bytes
        };
        let layers = sizes.into_iter().map(|sizes| sizes.into_iter().map(&mut place).collect()).collect();
        Plan { key: key.finalize(), layers, bytes }
    }

    fn n_matrices(&self) -> usize {
        self.layers.iter().map(Vec::len).sum()
    }
}

/// A cache whose key is that of the model and whose digests are undamaged.
struct MappedTiles {
    path: Arc<Path>,
    bytes: Bytes,
}

impl MappedTiles {
    fn open(path: &Path, plan: &Plan) -> Result<MappedTiles> {
        let bytes = MappedFile::open(path)?.bytes();
        let refuse = |defect: TileCacheDefect| Err(defect.at(path).into());
        if !MAGIC.starts_with(&bytes[..MAGIC.len().min(bytes.len())]) {
            return refuse(TileCacheDefect::Foreign);
        }
        let digests = DIGESTS..DIGESTS + DIGEST_BYTES * plan.n_matrices();
        if bytes.len() < digests.end {
            return refuse(TileCacheDefect::Length { expected: plan.bytes as u64, got: bytes.len() as u64 });
        }
        if bytes[KEY] != *plan.key.as_bytes() {
            return refuse(TileCacheDefect::OtherModel);
        }
        if bytes.len() != plan.bytes {
            return refuse(TileCacheDefect::Length { expected: plan.bytes as u64, got: bytes.len() as u64 });
        }
        if bytes[CHECK] != *blake3::hash(&bytes[digests]).as_bytes() {
            return refuse(TileCacheDefect::Damaged);
        }
        Ok(MappedTiles { path: path.into(), bytes })
    }

    /// Gives a layer its tiles. Tiles of routed experts are hashed before their first use, all others here.
    fn attach(&self, layer: &mut DecoderLayer, plan: &Plan) -> Result<()> {
        let first: usize = plan.layers[..layer.index()].iter().map(Vec::len).sum();
        let mut places = plan.layers[layer.index()].iter().zip(first..);
        let mut attach = |linear: &mut Linear| -> Result<Option<Hash>> {
            let Some(matrix) = linear.packable() else { return Ok(None) };
            let (place, index) = places.next().expect("one place for each matrix");
            let digest =
                self.bytes[DIGESTS + index * DIGEST_BYTES..].first_chunk().expect("one digest for each matrix");
            *linear = Linear::Ternary(matrix.clone().with_packed(self.bytes.slice(place.clone()))?);
            Ok(Some(Hash::from_bytes(*digest)))
        };
        let (always, routed) = layer.parts_mut();
        for linear in always {
            if attach(linear)?.is_some_and(|digest| digest != blake3::hash(linear.bytes())) {
                return Err(TileCacheDefect::Damaged.at(&self.path).into());
            }
        }
        for network in routed {
            let mut digests = [None; 3];
            for (linear, digest) in network.linears_mut().into_iter().zip(&mut digests) {
                *digest = attach(linear)?;
            }
            network.set_tile_digests(Some(TileDigests { cache: self.path.clone(), digests }));
        }
        if layer.tiles_pass() { Ok(()) } else { Err(TileCacheDefect::OtherRows.at(&self.path).into()) }
    }
}
