//! The domain events of adaptation, with their fields.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// The events of a thread: name, and fields as text.
type Seen = Arc<Mutex<Vec<(String, BTreeMap<String, String>)>>>;

/// A subscriber that keeps every event of its thread.
struct Keeper(Seen);

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
        let mut fields = Fields(BTreeMap::new());
        event.record(&mut fields);
        self.0.lock().unwrap().push((event.metadata().name().to_owned(), fields.0));
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
pub(crate) fn events(run: impl FnOnce()) -> Vec<(String, BTreeMap<String, String>)> {
    let seen = Seen::default();
    tracing::subscriber::with_default(Keeper(seen.clone()), run);
    let seen = seen.lock().unwrap();
    seen.clone()
}
