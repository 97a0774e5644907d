//! The wrapper of trait methods whose bodies are vector instructions.

/// Writes trait methods whose bodies may use the vector instructions of the level `Self`.
#[allow(unused_macros, reason = "SIMD128 and the portable level need no wrapper")]
macro_rules! vector_methods {
    ($(fn $name:ident($self:ident $(, $arg:ident : $ty:ty)* $(,)?) $(-> $ret:ty)? $body:block)*) => {$(
        #[inline(always)]
        fn $name($self $(, $arg: $ty)*) $(-> $ret)? {
            // SAFETY: `self` is a token, so this machine has the instructions. Memory is reached only
            // through the array references among the arguments, for as many bytes as the array has, and
            // by instructions that accept any address.
            unsafe { $body }
        }
    )*};
}

#[allow(unused_imports, reason = "SIMD128 and the portable level need no wrapper")]
pub(super) use vector_methods;
