//! Benchmarks: each is a question about speed.
