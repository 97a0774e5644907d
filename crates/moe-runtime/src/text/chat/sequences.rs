//! The sequences of Jinja2 that are no lists: generators, which many filters give, and the views of dicts.
//!
//! A generator is walked once, has no length and no items by index, and is true even when it holds nothing. A view has a
//! length and no items by index.

use std::sync::{Arc, Mutex};

use minijinja::value::{Enumerator, Object, ObjectRepr, Value};

/// Whether a value is a generator.
pub(super) fn is_generator(value: &Value) -> bool {
    value.downcast_object_ref::<Generator>().is_some()
}

/// Items that are walked once.
#[derive(Debug)]
pub(super) struct Generator(pub(super) Mutex<std::vec::IntoIter<Value>>);

impl Object for Generator {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn get_value(self: &Arc<Self>, _: &Value) -> Option<Value> {
        // The engine would walk the items to one of a number.
        Some(Value::UNDEFINED)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let generator = Arc::clone(self);
        let next = move || generator.0.lock().ok().and_then(|mut items| items.next());
        Enumerator::Iter(Box::new(std::iter::from_fn(next)))
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        None
    }
}

/// The keys, values or items of a dict.
#[derive(Debug)]
pub(super) struct View {
    /// Python's name of it.
    pub(super) name: &'static str,
    pub(super) items: Vec<Value>,
}

impl Object for View {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn get_value(self: &Arc<Self>, _: &Value) -> Option<Value> {
        Some(Value::UNDEFINED)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Iter(Box::new(self.items.clone().into_iter()))
    }
}

/// Python's name of a view; none for another value.
pub(super) fn view_name(value: &Value) -> Option<&'static str> {
    value.downcast_object_ref::<View>().map(|view| view.name)
}
