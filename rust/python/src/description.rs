//! Descriptions (of models, processors, configurations): mappings or JSON texts in Python, typed structs in Rust.

use crate::failure::Failure;
use pyo3::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The JSON value of a mapping or of a JSON text; `what` stands in errors.
pub(crate) fn value(what: &str, description: &Bound<'_, PyAny>) -> PyResult<Value> {
    let refuse = |problem: String| Failure::value(format!("{what}: {problem}\nhint: give a mapping, or its JSON text"));
    if let Ok(text) = description.extract::<String>() {
        return serde_json::from_str(&text).map_err(|error| refuse(format!("it is no JSON: {error}")).into());
    }
    pythonize::depythonize(description).map_err(|error| refuse(error.to_string()).into())
}

/// The struct that a JSON value describes, with no key too many or too few.
pub(crate) fn typed<T: DeserializeOwned>(what: &str, value: Value) -> PyResult<T> {
    serde_json::from_value(value).map_err(|error| {
        let hint = "every key must be there, and no other; the manifest.json of an artifact shows them all";
        Failure::value(format!("{what}: {error}\nhint: {hint}")).into()
    })
}

/// The struct that a mapping or JSON text describes.
pub(crate) fn read<T: DeserializeOwned>(what: &str, description: &Bound<'_, PyAny>) -> PyResult<T> {
    typed(what, value(what, description)?)
}

/// The Python object that a struct is.
pub(crate) fn write<'py>(py: Python<'py>, value: &impl Serialize) -> PyResult<Bound<'py, PyAny>> {
    Ok(pythonize::pythonize(py, value)?)
}

/// The JSON text of a struct.
pub(crate) fn text(value: &impl Serialize) -> PyResult<String> {
    serde_json::to_string(value).map_err(|error| Failure::general(error.to_string()).into())
}
