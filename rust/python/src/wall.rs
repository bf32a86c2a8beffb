//! How a call crosses from Python to Rust and back: descriptions, the GIL, panics.
//!
//! A description (of a model, a processor, a configuration) is a mapping or a JSON text in Python and a typed struct in Rust.

use crate::failure::Failure;
use hlrp_config::Check;
use pyo3::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::cell::Cell;
use std::panic;

/// The JSON value of a mapping or of a JSON text; `what` is its name in errors.
pub(crate) fn value(what: &str, description: &Bound<'_, PyAny>) -> PyResult<Value> {
    let refuse = |problem: String| Failure::value(format!("{what}: {problem}\nhint: give a mapping, or its JSON text"));
    if let Ok(text) = description.extract::<String>() {
        return serde_json::from_str(&text).map_err(|error| refuse(format!("invalid JSON: {error}")).into());
    }
    pythonize::depythonize(description).map_err(|error| refuse(error.to_string()).into())
}

/// The struct that a JSON value describes, with no key too many or too few.
pub(crate) fn typed<T: DeserializeOwned>(what: &str, value: Value) -> PyResult<T> {
    serde_json::from_value(value).map_err(|error| {
        let hint = "every key must be there, and no other; the artifact.json of an artifact shows them all";
        Failure::value(format!("{what}: {error}\nhint: {hint}")).into()
    })
}

/// As [`typed`], with checked values.
pub(crate) fn checked<T: DeserializeOwned + Check>(what: &str, value: Value) -> PyResult<T> {
    let typed: T = typed(what, value)?;
    typed.check().map_err(|problem| Failure::from(problem.inside(what)))?;
    Ok(typed)
}

/// The struct that a mapping or JSON text describes, checked.
pub(crate) fn read<T: DeserializeOwned + Check>(what: &str, description: &Bound<'_, PyAny>) -> PyResult<T> {
    checked(what, value(what, description)?)
}

/// The Python object of a struct.
pub(crate) fn write<'py>(py: Python<'py>, value: &impl Serialize) -> PyResult<Bound<'py, PyAny>> {
    Ok(pythonize::pythonize(py, value)?)
}

/// The JSON text of a struct.
pub(crate) fn text(value: &impl Serialize) -> PyResult<String> {
    serde_json::to_string(value).map_err(|error| Failure::general(error.to_string()).into())
}

/// Runs `work` without the GIL on the calling thread, whose grad mode and autocast state apply. Errors and panics become exceptions.
pub(crate) fn compute<T: Send>(py: Python<'_>, work: impl FnOnce() -> Result<T, Failure> + Send) -> PyResult<T> {
    let result = py.allow_threads(|| silently(work).unwrap_or_else(|panic| Err(Failure::panic(&panic))));
    Ok(result?)
}

thread_local! {
    static IS_SILENT: Cell<bool> = const { Cell::new(false) };
}

/// Makes the panic hook print nothing for panics that become exceptions.
pub(crate) fn install() {
    let previous = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !IS_SILENT.get() {
            previous(info);
        }
    }));
}

/// Runs `work`; a panic is returned as its text.
fn silently<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let outer = IS_SILENT.replace(true);
    // What a panic leaves unfinished is dropped with `work`: the classes of this crate keep no state that a computation changes.
    let result = panic::catch_unwind(panic::AssertUnwindSafe(work));
    IS_SILENT.set(outer);
    result.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without text").to_owned()
    })
}
