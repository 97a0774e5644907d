//! The mini teacher of the fixtures and a student of it, for the tests of this room and of `adapt`.

use std::path::Path;

use moe_runtime::ModelFiles;
use ternary_core::Rounding;
use tl_kernels::Pool;

use crate::{Method, Preset, QuantizeOptions, Quantizer, Recipe};

/// The teacher, and its coarse student by least squares, which is written below `dir`.
pub(crate) fn teacher_and_student(dir: &Path, pool: &Pool) -> [ModelFiles; 2] {
    let path = dir.join("student.gguf");
    let teacher = ModelFiles::open(&fixtures::path("craftsman-mini")).unwrap();
    let options = QuantizeOptions {
        recipe: Recipe { preset: Preset::Quality, ..Recipe::default() },
        method: Method::Round(Rounding::LeastSquares),
        max_memory_bytes: None,
        allow_zero: false,
    };
    Quantizer::new(&teacher, options, 2).unwrap().run(pool, &path, false, &mut |_, _, _| {}).unwrap();
    let student = ModelFiles::open(&path).unwrap();
    [teacher, student]
}
