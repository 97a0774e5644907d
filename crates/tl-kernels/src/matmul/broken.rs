//! A kernel that is broken on purpose, so that tests can check that the self-test detects it.
//!
//! **Invariant:** no build that ships has this module: it exists in tests of this crate and under the feature
//! `broken-kernel`, for which only the test dependencies of other crates ask. Even then a kernel is broken within
//! [`with`] alone, and on the calling thread alone.

use std::cell::Cell;

use super::kind::KernelKind;
use crate::arch::Isa;
use crate::pool::ColumnBlock;

thread_local! {
    static BROKEN: Cell<Option<(KernelKind, Isa)>> = const { Cell::new(None) };
}

/// Calls `f` while this kernel gives wrong numbers on this level.
pub fn with<R>(kernel: KernelKind, isa: Isa, f: impl FnOnce() -> R) -> R {
    struct Mend;
    impl Drop for Mend {
        fn drop(&mut self) {
            BROKEN.set(None);
        }
    }
    BROKEN.set(Some((kernel, isa)));
    let _mend = Mend;
    f()
}

/// Whether the kernel is broken on this level now.
pub(crate) fn is_broken(kernel: KernelKind, isa: Isa) -> bool {
    BROKEN.get() == Some((kernel, isa))
}

/// Writes the result of a broken kernel: finite numbers, so that a comparison alone can tell.
pub(crate) fn product(mut out: ColumnBlock<'_, f32>) {
    for t in 0..out.n_rows() {
        out.row_mut(t).iter_mut().enumerate().for_each(|(i, y)| *y = i as f32);
    }
}
