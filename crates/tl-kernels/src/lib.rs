//! CPU kernels for ternary and dense matrix products, activation quantisation and the thread pool.
