//! Fidelity metrics and behavioural gates over any language model.
