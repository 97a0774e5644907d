//! From the layout of the file to tiles in arenas: layer by layer, each giving back the pages that it was packed from.
//!
//! **Invariant:** packed weights replace mapped pages: at most one layer is in memory twice. Results stay the same to the
//! bit.
//!
//! **Invariant:** packed weights were validated before, and one packed matrix of each shape in a layer has passed the
//! self-test; a layer that fails it keeps the layout of the file.

use gguf_bitnet::{Catalog, TensorType};
use tl_kernels::{KernelKind, Pool, pack_layers, selftest};

use crate::error::Result;
use crate::forward::layer::DecoderLayer;

/// How much of a model was packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// Layers with ternary weights that are now packed.
    pub layers: usize,
    /// Layers with ternary weights that keep the layout of the file.
    pub layers_left: usize,
    /// Bytes of the tiles of all packed layers.
    pub bytes: u64,
    /// Bytes by which the tiles exceed the mapped weights that they replace.
    pub growth_bytes: u64,
}

/// Packs the layers of a model that is being loaded.
pub(crate) struct Packer<'a> {
    pub(crate) layers: &'a mut [DecoderLayer],
    /// The tensors that the layers were loaded from.
    pub(crate) catalog: &'a Catalog,
    pub(crate) pool: &'a Pool,
    /// Most bytes by which tiles may exceed the mapped weights they replace.
    pub(crate) growth_bytes: u64,
}

impl Packer<'_> {
    /// Packs in memory. Reads and validates all ternary weights.
    ///
    /// # Errors
    /// [`LoadError::Weight`](crate::LoadError::Weight) for damaged weights; no memory for an arena.
    pub(crate) fn pack(&mut self) -> Result<Packed> {
        let pool = self.pool;
        self.pack_with(|layer| layer.pack(pool))
    }

    /// Packs by `pack`, which returns whether it packed the layer.
    pub(crate) fn pack_with(&mut self, mut pack: impl FnMut(&mut DecoderLayer) -> Result<bool>) -> Result<Packed> {
        let mut done = Packed::default();
        for layer in &mut *self.layers {
            let (mapped, packed) = layer.packing_bytes();
            if packed == 0 {
                continue;
            }
            let growth = done.growth_bytes.saturating_add(packed.saturating_sub(mapped));
            if growth > self.growth_bytes || !pack(layer)? {
                done.layers_left += 1;
                continue;
            }
            release(self.catalog, layer.index());
            done.layers += 1;
            done.bytes += packed;
            done.growth_bytes = growth;
        }
        Ok(done)
    }
}

impl DecoderLayer {
    /// Bytes of the matrices that can be packed: as they are mapped, and as tiles.
    fn packing_bytes(&mut self) -> (u64, u64) {
        let (mut mapped, mut packed) = (0, 0);
        for w in self.linears_mut().iter().filter_map(|linear| linear.packable()) {
            mapped += w.bytes().len() as u64;
            packed += w.packed_bytes() as u64;
        }
        (mapped, packed)
    }

    /// Packs all ternary matrices; `false` where the self-test refused the result and the layer stays as it was.
    pub(crate) fn pack(&mut self, pool: &Pool) -> Result<bool> {
        self.validate(pool)?;
        pack_layers(&mut self.linears_mut(), pool)?;
        let passed = self.tiles_pass();
        if !passed {
            for linear in self.linears_mut().into_iter().filter(|linear| linear.kernel() == KernelKind::Tiles) {
                *linear = linear.clone().with_kernel(KernelKind::I2s)?;
            }
        }
        Ok(passed)
    }

    /// Whether one packed matrix of each shape passes the self-test against the rows of the file.
    pub(crate) fn tiles_pass(&mut self) -> bool {
        let mut tested = Vec::new();
        for linear in self.linears_mut() {
            let shape = (linear.type_name(), linear.rows(), linear.cols());
            if linear.kernel() != KernelKind::Tiles || tested.contains(&shape) {
                continue;
            }
            if let Err(error) = selftest::check(linear) {
                tracing::warn!(%error, "packed weights failed their self-test; the layer keeps the layout of the file");
                return false;
            }
            tested.push(shape);
        }
        true
    }
}

/// Gives back the pages of a layer's ternary tensors.
pub(crate) fn release(catalog: &Catalog, layer: usize) {
    let prefix = format!("blk.{layer}.");
    let is_ternary = |ty: &TensorType| {
        matches!(ty, TensorType::Tq1_0 | TensorType::Tq2_0 | TensorType::BitnetT158 | TensorType::BitnetT158Flat)
    };
    for tensor in catalog.tensors().iter().filter(|tensor| tensor.name.starts_with(&prefix)) {
        if catalog.storage(tensor).keys().all(is_ternary) {
            catalog.release(tensor);
        }
    }
}
