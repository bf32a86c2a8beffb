//! Tensors across the border: the same `at::Tensor` on both sides, never a copy.

use crate::failure::Failure;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyMapping};
pub(crate) use pyo3_tch::PyTensor;
use std::collections::HashMap;
use tch::Tensor;

/// The tensor that `value` is; `name` stands in errors.
pub(crate) fn tensor(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Tensor> {
    value.extract::<PyTensor>().map(|tensor| tensor.0).map_err(|_| {
        let found = value.get_type();
        Failure::value(format!("{name}: a torch.Tensor is needed, this is {found}\nhint: see help(hlrp_rs.Policy)"))
            .into()
    })
}

/// Tensors by name, of a mapping; `what` stands in errors.
pub(crate) fn named(what: &str, mapping: &Bound<'_, PyAny>) -> PyResult<HashMap<String, Tensor>> {
    let one = |name: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>| -> PyResult<(String, Tensor)> {
        let name: String = name.extract()?;
        let tensor =
            value.extract::<PyTensor>().or_else(|_| tensor(&format!("{what} `{name}`"), value).map(PyTensor))?;
        Ok((name, tensor.0))
    };
    if let Ok(dict) = mapping.downcast::<PyDict>() {
        return dict.iter().map(|(name, value)| one(&name, &value)).collect();
    }
    let Ok(mapping) = mapping.downcast::<PyMapping>() else {
        let text = format!("{what}: a mapping from names to tensors is needed, this is {}", mapping.get_type());
        return Err(Failure::value(format!("{text}\nhint: give dict(module.named_parameters())")).into());
    };
    let pair = |item: Bound<'_, PyAny>| {
        let (name, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = item.extract()?;
        one(&name, &value)
    };
    mapping.items()?.iter().map(pair).collect()
}

/// A dictionary of tensors.
pub(crate) fn dict<'py, K: AsRef<str>>(
    py: Python<'py>,
    tensors: impl IntoIterator<Item = (K, Tensor)>,
) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (name, tensor) in tensors {
        dict.set_item(name.as_ref(), PyTensor(tensor))?;
    }
    Ok(dict)
}
