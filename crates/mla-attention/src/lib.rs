//! Multi-head latent attention and grouped-query attention with their caches.
