//! The tensor tables of the architectures: the loader reads the tensors that they list, and no others.

use std::collections::BTreeSet;
use std::sync::Arc;

use gguf_bitnet::{TensorType, validate};
use moe_runtime::models::{expected_tensors, mapper};
use moe_runtime::{CraftsmanModel, ModelFiles};

use crate::golden::{case, options};
use crate::memory_source::{MemorySource, Recording};

/// The golden cases cover every architecture, latent attention with and without query compression, grouped-query attention
/// with and without norms and biases, and models with and without a head, a selection bias and shared experts.
#[test]
fn the_loader_reads_exactly_the_rows_that_the_model_has() {
    let mut architectures = BTreeSet::new();
    for name in fixtures::golden_cases() {
        let files = ModelFiles::open(&case(&name)).expect("the case opens");
        architectures.insert(files.config.arch.hf_name());
        let source = MemorySource::copy_of(&files.catalog, |_| TensorType::F32);
        let source = Arc::new(Recording::of(source));
        let catalog = mapper(&files.config).map(source.clone()).expect("canonical names are known");
        CraftsmanModel::from_catalog(files.config.clone(), &catalog, &options()).expect("the model loads");
        let read = source.read();
        let stored: BTreeSet<String> = files.catalog.tensors().iter().map(|tensor| tensor.name.clone()).collect();
        assert_eq!(read, stored, "{name}");
        let required = expected_tensors(&files.config).into_iter().filter(|tensor| !tensor.optional);
        for tensor in required {
            assert!(read.contains(&tensor.name), "{name}: {} is not read", tensor.name);
        }
    }
    assert!(architectures.len() >= 3, "{architectures:?}");
}

/// When a row is missing from a table, its tensor is refused as one that the model does not expect.
#[test]
fn a_file_with_a_tensor_that_is_not_expected_is_refused() {
    for name in fixtures::golden_cases() {
        let files = ModelFiles::open(&case(&name)).expect("the case opens");
        let expected = expected_tensors(&files.config);
        for (left_out, tensor) in expected.iter().enumerate() {
            let mut fewer = expected.clone();
            fewer.remove(left_out);
            let report = validate(&files.catalog, &fewer);
            let stored = files.catalog.find(&tensor.name).is_some();
            assert_eq!(report.ensure_exact().is_err(), stored, "{name}: {}", tensor.name);
        }
    }
}

#[test]
fn the_golden_checkpoints_map_without_a_remainder() {
    let cases = fixtures::golden_cases().into_iter().map(|case| format!("goldens/{case}"));
    for case in cases.chain(["craftsman-mini".to_owned()]) {
        let catalog = ModelFiles::open(&fixtures::path(&case)).expect("the case opens").catalog;
        assert!(catalog.unmapped().is_empty(), "{case}: {:?}", catalog.unmapped());
        let source = catalog.source();
        let kept = source.tensors().iter().enumerate().filter(|(_, t)| !catalog.skipped().contains(&t.name));
        let stored: usize = kept.filter(|(index, _)| !source.is_auxiliary(*index)).map(|(_, t)| t.elements()).sum();
        let report = validate(&catalog, &[]);
        assert_eq!(report.params, stored as u64, "{case}");
        for tensor in catalog.tensors() {
            let mut out = vec![0.0; tensor.elements()];
            catalog.read_rows(tensor, 0..tensor.rows(), &mut out).expect("the tensor reads");
            assert!(out.iter().any(|&v| v != 0.0) || tensor.name.ends_with(".bias"), "{case}: {}", tensor.name);
            catalog.release(tensor);
        }
    }
}
