//! A model whose tensors lie in memory, so that tests can store them in any type or damage them.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;

use gguf_bitnet::{Catalog, LogicalTensor, TensorInfo, TensorSource, TensorType};
use ternary_core::Bytes;

/// Canonical tensors with their bytes.
#[derive(Clone, Default)]
pub(crate) struct MemorySource {
    infos: Vec<TensorInfo>,
    data: Vec<Bytes>,
}

impl TensorSource for MemorySource {
    fn tensors(&self) -> &[TensorInfo] {
        &self.infos
    }
    fn index_of(&self, name: &str) -> Option<usize> {
        self.infos.iter().position(|info| info.name == name)
    }
    fn bytes(&self, index: usize) -> gguf_bitnet::Result<Bytes> {
        Ok(self.data[index].clone())
    }
    fn release(&self, _: usize) {}
    fn prefetch(&self, _: usize) {}
    fn path(&self) -> &Path {
        Path::new("memory")
    }
}

impl MemorySource {
    /// All tensors of `catalog`, each stored in the type that `choose` returns.
    pub(crate) fn copy_of(catalog: &Catalog, choose: impl Fn(&LogicalTensor) -> TensorType) -> MemorySource {
        let mut source = MemorySource::default();
        for tensor in catalog.tensors() {
            let mut values = vec![0.0; tensor.elements()];
            catalog.read_rows(tensor, 0..tensor.rows(), &mut values).expect("the tensor reads");
            source.push(&tensor.name, &tensor.shape, choose(tensor), &values);
        }
        source
    }

    /// All tensors of `source` as they are stored.
    pub(crate) fn stored_in(source: &dyn TensorSource) -> MemorySource {
        let bytes = |index| source.bytes(index).expect("the tensor exists");
        MemorySource { infos: source.tensors().to_vec(), data: (0..source.tensors().len()).map(bytes).collect() }
    }

    /// Leaves the first `rows` rows of a matrix.
    pub(crate) fn cut(&mut self, name: &str, rows: usize) {
        let index = self.index_of(name).expect("the tensor exists");
        let (info, data) = (&mut self.infos[index], &mut self.data[index]);
        *data = data.slice(0..data.len() / info.shape[0] * rows);
        info.shape[0] = rows;
        info.bytes = data.len() as u64;
    }

    pub(crate) fn push(&mut self, name: &str, shape: &[usize], ty: TensorType, values: &[f32]) {
        let bytes: Vec<u8> = match ty {
            TensorType::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            TensorType::F64 => values.iter().flat_map(|v| f64::from(*v).to_le_bytes()).collect(),
            TensorType::F16 => values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect(),
            TensorType::Bf16 => values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect(),
            other => panic!("tests do not store {other:?}"),
        };
        self.push_stored(name, shape, ty, bytes);
    }

    pub(crate) fn push_stored(&mut self, name: &str, shape: &[usize], ty: TensorType, bytes: Vec<u8>) {
        let len = bytes.len() as u64;
        self.infos.push(TensorInfo { name: name.to_owned(), shape: shape.to_vec(), ty, bytes: len });
        self.data.push(Bytes::from(bytes));
    }

    /// Stores the matrices of a stack one by one, as `stem.N.weight`; a tensor that is not there stays so.
    pub(crate) fn take_apart(&mut self, name: &str, stem: &str) {
        let Some(index) = self.index_of(name) else { return };
        let (info, data) = (self.infos.remove(index), self.data.remove(index));
        let [n, shape @ ..] = &info.shape[..] else { panic!("{name} is no stack") };
        let bytes = data.len() / n;
        for e in 0..*n {
            let name = format!("{stem}.{e}.weight");
            self.infos.push(TensorInfo { name, shape: shape.to_vec(), ty: info.ty, bytes: bytes as u64 });
            self.data.push(data.slice(e * bytes..(e + 1) * bytes));
        }
    }

    /// Gives a tensor another name; one that is not there stays so.
    pub(crate) fn rename(&mut self, from: &str, to: &str) {
        if let Some(index) = self.index_of(from) {
            self.infos[index].name = to.to_owned();
        }
    }

    pub(crate) fn remove(&mut self, name: &str) {
        let index = self.index_of(name).expect("the tensor exists");
        self.infos.remove(index);
        self.data.remove(index);
    }

    /// The raw tensors, to write them to a file.
    pub(crate) fn into_parts(self) -> (Vec<TensorInfo>, Vec<Bytes>) {
        (self.infos, self.data)
    }
}

/// A source that remembers the tensors whose bytes were asked for, and those whose pages were given back.
pub(crate) struct Recording {
    source: MemorySource,
    read: Mutex<BTreeSet<String>>,
    released: Mutex<Vec<String>>,
}

impl Recording {
    pub(crate) fn of(source: MemorySource) -> Recording {
        Recording { source, read: Mutex::default(), released: Mutex::default() }
    }

    /// The tensors that were read.
    pub(crate) fn read(&self) -> BTreeSet<String> {
        self.read.lock().expect("no reader panics").clone()
    }

    /// How often a tensor was given back.
    pub(crate) fn releases(&self, name: &str) -> usize {
        self.released.lock().expect("no reader panics").iter().filter(|released| *released == name).count()
    }

    fn name(&self, index: usize) -> String {
        self.tensors()[index].name.clone()
    }
}

impl TensorSource for Recording {
    fn tensors(&self) -> &[TensorInfo] {
        self.source.tensors()
    }
    fn index_of(&self, name: &str) -> Option<usize> {
        self.source.index_of(name)
    }
    fn bytes(&self, index: usize) -> gguf_bitnet::Result<Bytes> {
        self.read.lock().expect("no reader panics").insert(self.name(index));
        self.source.bytes(index)
    }
    fn release(&self, index: usize) {
        self.released.lock().expect("no reader panics").push(self.name(index));
    }
    fn prefetch(&self, _: usize) {}
    fn path(&self) -> &Path {
        self.source.path()
    }
}
