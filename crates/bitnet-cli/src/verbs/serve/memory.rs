//! The memory of a server: slots, contexts and the prompt cache, chosen so that the sum with the weights and an encoder stays within
//! a limit.

use anyhow::{Result, bail};
use moe_runtime::MemoryPlan;

use crate::output::{self, size};

/// Context of a slot when nothing else is asked for.
const DEFAULT_CONTEXT: usize = 8192;
/// Fewer tokens are of little use to a client, so that a smaller context has to be asked for.
const LEAST_CONTEXT: usize = 2048;
/// Bytes of the prompt cache in memory when nothing else is asked for.
const DEFAULT_CACHE_BYTES: u64 = 512 << 20;

/// The sizes that the command line names.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) slots: Option<usize>,
    pub(crate) context: Option<usize>,
    pub(crate) cache_bytes: Option<u64>,
}

/// The sizes of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) slots: usize,
    /// Tokens of each slot.
    pub(crate) context: usize,
    /// Most bytes of the prompt cache in memory.
    pub(crate) cache_bytes: u64,
}

impl Sizes {
    /// The sizes that were asked for, and defaults for the others on a machine with so many cores.
    pub(crate) fn wanted(asked: Asked, cores: usize, made_for: usize) -> Sizes {
        Sizes {
            slots: asked.slots.unwrap_or(if cores <= 4 { 2 } else { 4 }),
            context: asked.context.unwrap_or(DEFAULT_CONTEXT.min(made_for)),
            cache_bytes: asked.cache_bytes.unwrap_or(DEFAULT_CACHE_BYTES),
        }
    }

    /// These sizes, or smaller ones in place of those that were not asked for: first a smaller prompt cache, then smaller
    /// contexts, then one slot. `need` is the sum of the memory with some sizes.
    ///
    /// # Errors
    /// A sentence with the sum and the options to lower, where even the smallest sizes do not fit `allowed`.
    pub(crate) fn within(self, allowed: u64, asked: Asked, need: impl Fn(&Sizes) -> Result<u64>) -> Result<Sizes> {
        let mut sizes = self;
        loop {
            if need(&sizes)? <= allowed {
                return Ok(sizes);
            }
            if asked.cache_bytes.is_none() && sizes.cache_bytes > 0 {
                sizes.cache_bytes = if sizes.cache_bytes > 32 << 20 { sizes.cache_bytes / 2 } else { 0 };
            } else if asked.context.is_none() && sizes.context > LEAST_CONTEXT {
                sizes.context = (sizes.context / 2).max(LEAST_CONTEXT);
            } else if asked.slots.is_none() && sizes.slots > 1 {
                sizes.slots = 1;
            } else {
                let Sizes { slots, context, cache_bytes } = sizes;
                bail!(
                    "the server needs {} and may take {}: lower --slots ({slots}), -c ({context}) or --prompt-cache-ram \
                     ({}), choose --kv i8 or --expert-memory, or raise --memory",
                    size(need(&sizes)?),
                    size(allowed),
                    size(cache_bytes),
                );
            }
        }
    }

    /// The sum of the model's `plan`, the prompt cache and an encoder.
    pub(crate) fn total_bytes(&self, plan: &MemoryPlan, encoder_bytes: u64) -> u64 {
        plan.total_bytes().saturating_add(self.cache_bytes).saturating_add(encoder_bytes)
    }

    /// Prints the sum and its parts.
    pub(crate) fn note(&self, plan: &MemoryPlan, encoder_bytes: u64) {
        let Sizes { slots, context, cache_bytes } = self;
        let if_any = |what: &str, bytes| if bytes == 0 { String::new() } else { format!(" + {what} {}", size(bytes)) };
        let (adapters, encoder) = (if_any("adapters", plan.adapter_bytes), if_any("encoder", encoder_bytes));
        output::note(format_args!(
            "memory: weights {}{adapters} + {slots} slots of {context} tokens {} + buffers {} + prompt cache {}{encoder} = {}",
            size(plan.mapped_weights_bytes + plan.converted_weights_bytes),
            size(plan.cache_bytes),
            size(plan.scratch_bytes),
            size(*cache_bytes),
            size(self.total_bytes(plan, encoder_bytes)),
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A token takes 10 bytes, the weights 100.
    fn need(sizes: &Sizes) -> Result<u64> {
        Ok(100 + (sizes.slots * sizes.context * 10) as u64 + sizes.cache_bytes)
    }

    #[test]
    fn what_was_not_asked_for_gives_way_in_order() {
        let wanted = Sizes::wanted(Asked::default(), 8, 1 << 20);
        assert_eq!(wanted, Sizes { slots: 4, context: 8192, cache_bytes: 512 << 20 });
        assert_eq!(Sizes::wanted(Asked::default(), 4, 4096).slots, 2);
        let fit = |allowed| wanted.within(allowed, Asked::default(), need).unwrap();
        assert_eq!(fit(1 << 30), wanted);
        assert_eq!(fit(300 << 20), Sizes { cache_bytes: 256 << 20, ..wanted });
        assert_eq!(fit(330_000), Sizes { cache_bytes: 0, ..wanted });
        assert_eq!(fit(170_000), Sizes { slots: 4, context: 4096, cache_bytes: 0 });
        assert_eq!(fit(30_000), Sizes { slots: 1, context: 2048, cache_bytes: 0 });
        let error = wanted.within(20_000, Asked::default(), need).unwrap_err().to_string();
        assert!(error.contains("--slots (1)") && error.contains("-c (2048)"), "{error}");
    }

    #[test]
    fn what_was_asked_for_stays() {
        let asked = Asked { slots: Some(3), context: None, cache_bytes: Some(50_000) };
        let wanted = Sizes::wanted(asked, 8, 1 << 20);
        let fit = wanted.within(120_000, asked, need).unwrap();
        assert_eq!(fit, Sizes { slots: 3, context: 2048, cache_bytes: 50_000 });
        assert!(wanted.within(110_000, asked, need).is_err());
    }
}
