//! A student of 8-bit floating-point weights is the student of the same weights in BF16, whatever the convention of scales.

use std::path::Path;

use gguf_bitnet::{GgufFile, TensorInfo, TensorSource};
use rlm_refine::Preset;
use ternary_core::Bytes;

use crate::sources::{Settings, preset, quantize};

/// The tensors of a student.
fn student(source: &Path, settings: &Settings) -> Vec<(TensorInfo, Bytes)> {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("student.gguf");
    quantize(source, &out, settings).unwrap();
    let file = GgufFile::open(&out).unwrap();
    let tensors = file.tensors().iter().enumerate();
    tensors.map(|(index, info)| (info.clone(), file.bytes(index).unwrap())).collect()
}

#[test]
fn every_convention_of_scales_gives_the_student_of_the_same_weights() {
    for settings in [preset(Preset::EightGigabytes), preset(Preset::Phase1)] {
        let plain = student(&fixtures::path("goldens/fp8/plain"), &settings);
        assert!(plain.iter().any(|(info, _)| info.ty.is_ternary()));
        for case in ["tensor", "row", "block", "stacked"] {
            let ours = student(&fixtures::path("goldens/fp8").join(case), &settings);
            assert_eq!(ours.len(), plain.len(), "{case}");
            for (ours, plain) in ours.iter().zip(&plain) {
                assert!(ours == plain, "{case}: {:?} is not {:?}", ours.0, plain.0);
            }
        }
    }
}
