//! A request from elsewhere to end an answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A flag that ends answers, shared with another thread. It is looked at between the layers of a forward
/// pass.
///
/// The default is never raised.
///
/// ```
/// use moe_runtime::Interrupt;
/// let interrupt = Interrupt::new();
/// let elsewhere = interrupt.clone();
/// std::thread::spawn(move || elsewhere.raise()).join().unwrap();
/// assert!(interrupt.is_raised());
/// interrupt.lower();
/// assert!(!interrupt.is_raised() && !Interrupt::default().is_raised());
/// ```
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Option<Arc<AtomicBool>>);

impl Interrupt {
    /// An interrupt that can be raised; its clones are the same interrupt.
    #[must_use]
    pub fn new() -> Interrupt {
        Interrupt(Some(Arc::default()))
    }

    /// Asks the answer to end.
    pub fn raise(&self) {
        self.set(true);
    }

    /// Takes the request back, before the next answer.
    pub fn lower(&self) {
        self.set(false);
    }

    /// Whether the answer has to end.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.0.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed))
    }

    fn set(&self, raised: bool) {
        if let Some(flag) = &self.0 {
            flag.store(raised, Ordering::Relaxed);
        }
    }
}
