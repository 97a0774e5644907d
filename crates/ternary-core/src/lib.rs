//! Ternary weights: trits, blocks, packings, quantisers, error metrics and the scalar oracle.
