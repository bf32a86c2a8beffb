//! Panics of this process: logged, unless a caller turns them into errors.

use std::{
    any::Any,
    backtrace::Backtrace,
    cell::Cell,
    panic::{self, AssertUnwindSafe},
};

/// Target under which panics are logged.
pub(super) const TARGET: &str = "panic";

/// Whether the panic with this message is one that the caller turns into an error.
pub type IsExpected = fn(&str) -> bool;

thread_local! {
    /// That of the [`catch_panic`] that runs on this thread.
    static IS_EXPECTED: Cell<Option<IsExpected>> = const { Cell::new(None) };
}

/// From now on a panic is logged with its backtrace, unless [`catch_panic`] expects it.
pub(super) fn log_panics() {
    panic::set_hook(Box::new(|info| {
        if IS_EXPECTED.get().is_some_and(|is_expected| is_expected(&panic_text(info.payload()))) {
            return;
        }
        let trace = Backtrace::force_capture();
        tracing::error!(target: TARGET, "{info}\n{trace}");
    }));
}

/// Runs `work`; a panic is returned as its text. One that `is_expected` is not logged.
///
/// After a panic, whatever `work` changed must not be used again, unless it is valid between any two statements.
///
/// # Errors
/// The text of the panic.
pub fn catch_panic<T>(is_expected: IsExpected, work: impl FnOnce() -> T) -> Result<T, String> {
    let outer = IS_EXPECTED.replace(Some(is_expected));
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    IS_EXPECTED.set(outer);
    result.map_err(|panic| panic_text(&*panic))
}

/// The message of a panic.
pub fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panic without text".to_owned())
}
