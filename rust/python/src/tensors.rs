//! Tensors across the border: the same `at::Tensor` on both sides, never a copy.
#![allow(unsafe_code)] // two calls into C++ between libtorch's tensors and Python's

use crate::failure::Failure;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyMapping};
use std::collections::HashMap;
use tch::Tensor;
use torch_sys::C_tensor;

unsafe extern "C" {
    fn hlrp_tensor_of(object: *mut pyo3::ffi::PyObject) -> *mut C_tensor;
    fn hlrp_torch_tensor(tensor: *const C_tensor) -> *mut pyo3::ffi::PyObject;
}

/// A tensor that comes from Python or goes there as a `torch.Tensor`.
pub(crate) struct PyTensor(pub(crate) Tensor);

impl<'py> FromPyObject<'py> for PyTensor {
    fn extract_bound(object: &Bound<'py, PyAny>) -> PyResult<Self> {
        // SAFETY: a live object, and the GIL is held as long as `object` is.
        let tensor = unsafe { hlrp_tensor_of(object.as_ptr()) };
        if tensor.is_null() {
            return Err(PyTypeError::new_err(format!("expected a torch.Tensor, got {}", object.get_type())));
        }
        // SAFETY: an `at::Tensor` from `new`, whose ownership the callee gave up.
        Ok(Self(unsafe { Tensor::from_ptr(tensor) }))
    }
}

impl<'py> IntoPyObject<'py> for PyTensor {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        // SAFETY: a live tensor that the callee takes a further handle to; the result is a new reference, or null with an exception set.
        unsafe { Bound::from_owned_ptr_or_err(py, hlrp_torch_tensor(self.0.as_ptr())) }
    }
}

/// The tensor `value`; `name` is its name in errors.
pub(crate) fn tensor(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Tensor> {
    value.extract::<PyTensor>().map(|tensor| tensor.0).map_err(|_| {
        let found = value.get_type();
        Failure::value(format!("{name}: a torch.Tensor is needed, this is {found}\nhint: see help(hlrp_rs.Policy)"))
            .into()
    })
}

/// Tensors by name, of a mapping; `what` is its name in errors.
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
