//! A sentence in place of a crash when a mapped file loses pages that are still to be read.
//!
//! Reading a page behind the new end of a file that was cut short, or one that the disk cannot give, raises SIGBUS, which
//! ends the process without a word. A program that asks for it ends with a sentence and exit code 1 instead.
//!
//! **Invariant:** the handler calls `write` and `_exit` alone, which POSIX allows in a signal handler, and never returns
//! to the code that could not read.

use std::mem::MaybeUninit;

/// The sentence. Which of the maps was read is not known here.
const SENTENCE: &[u8] =
    b"error: a file of the model can no longer be read: it became shorter while it was in use, or its \
    disk failed; fetch or write it again and repeat the command\n";

/// Makes this process end with a sentence on standard error and exit code 1 when a mapped file becomes unreadable. For
/// programs, once, at their start. On Linux alone: on other systems the same signal may also mean that a stack is full.
pub fn end_on_lost_pages() {
    #[allow(unsafe_code, reason = "the standard library has no signal handlers")]
    // SAFETY: all zeros is a valid `sigaction`, whose fields are integers, a set of signals and an optional pointer. The
    // handler has the signature that goes with `sa_flags` without SA_SIGINFO, and keeps the invariant of this file.
    // SA_ONSTACK lets it run on the alternative stack that the standard library gives to each thread.
    unsafe {
        let mut action: libc::sigaction = MaybeUninit::zeroed().assume_init();
        action.sa_sigaction = on_lost_page as *const () as libc::sighandler_t;
        action.sa_flags = libc::SA_ONSTACK;
        // It fails only for a signal that does not exist; the crash is then as it was.
        libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut());
    }
}

extern "C" fn on_lost_page(_: libc::c_int) {
    #[allow(unsafe_code, reason = "the safe calls of the standard library may take locks, which a handler must not")]
    // SAFETY: the pointer and the length are those of a constant, and `_exit` ends the process.
    unsafe {
        libc::write(libc::STDERR_FILENO, SENTENCE.as_ptr().cast(), SENTENCE.len());
        libc::_exit(1);
    }
}
