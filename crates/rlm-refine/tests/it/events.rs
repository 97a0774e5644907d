//! The domain events of a thread, with their fields.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Once;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// The events of a thread: name, and fields as text.
type Seen = Vec<(String, BTreeMap<String, String>)>;

thread_local! {
    /// The events of the thread since it began to listen; `None` while it does not.
    static SEEN: RefCell<Option<Seen>> = const { RefCell::new(None) };
}

/// Keeps the events of the threads that listen. It is that of the whole process: a subscriber of one thread would miss events
/// whose place in the code another thread has reached first.
struct Keeper;

impl Subscriber for Keeper {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        SEEN.with_borrow_mut(|seen| {
            let Some(seen) = seen else { return };
            let mut fields = Fields(BTreeMap::new());
            event.record(&mut fields);
            seen.push((event.metadata().name().to_owned(), fields.0));
        });
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

struct Fields(BTreeMap<String, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

/// The events that `run` causes on this thread.
pub(crate) fn events(run: impl FnOnce()) -> Seen {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing::subscriber::set_global_default(Keeper).unwrap());
    SEEN.set(Some(Vec::new()));
    run();
    SEEN.take().unwrap_or_default()
}
