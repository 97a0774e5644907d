//! The operations of every level of this machine against their portable forms.

mod int8;
mod lookup;
