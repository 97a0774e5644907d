//! Recursive sentence embedding and the evidence graph.
