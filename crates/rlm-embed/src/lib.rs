//! Holds no code yet: the place of the recursive sentence embedder and its evidence graph.
