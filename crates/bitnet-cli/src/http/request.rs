//! A request: its body, its sender, and the fields of its JSON objects.

mod asked;
mod body;
mod fields;

pub(crate) use asked::Asked;
pub(crate) use fields::Fields;
