//! A small ternary student for the tests of training.

use std::path::{Path, PathBuf};

use moe_runtime::ModelFiles;
use rlm_refine::{Method, QuantizeOptions, Quantizer, Recipe};
use ternary_core::Rounding;
use tl_kernels::Pool;

/// Writes the student of the tiny checkpoint, by least squares, into `dir`.
pub(crate) fn student(dir: &Path) -> PathBuf {
    let files = ModelFiles::open(&fixtures::path("goldens/glm-tiny")).unwrap();
    let out = dir.join("student.gguf");
    let options = QuantizeOptions {
        recipe: Recipe::default(),
        method: Method::Round(Rounding::LeastSquares),
        max_memory_bytes: None,
        allow_zero: false,
    };
    let quantizer = Quantizer::new(&files, options, 1).unwrap();
    quantizer.run(&Pool::serial(), &out, false, &mut |_, _, _| {}).unwrap();
    out
}
