//! The wishes of a client: the bytes of a body, and fields of JSON objects.

mod asked;
mod body;
mod fields;

pub(crate) use asked::Asked;
pub(crate) use fields::Fields;
