//! Panics that become exceptions print nothing of their own.

use std::cell::Cell;
use std::panic;

thread_local! {
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Lets the panic hook pass over threads inside of [`quietly`].
pub(crate) fn install() {
    let previous = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !IS_QUIET.get() {
            previous(info);
        }
    }));
}

/// Runs `work`; a panic gives its text.
pub(crate) fn quietly<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let outer = IS_QUIET.replace(true);
    // What a panic leaves half done is dropped with `work`: the classes of this crate keep no state that a computation changes.
    let result = panic::catch_unwind(panic::AssertUnwindSafe(work));
    IS_QUIET.set(outer);
    result.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without text").to_owned()
    })
}
