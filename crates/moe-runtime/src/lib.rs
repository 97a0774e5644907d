//! The mixture-of-experts decoder: configuration, router, experts, tokenizer, sampling, sessions.
