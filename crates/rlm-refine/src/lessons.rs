//! Lessons of runs: what their reports say about the parts of a student, each finding once.

mod distiller;

pub use distiller::MemoryDistiller;
