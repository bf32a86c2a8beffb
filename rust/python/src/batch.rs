//! Batches of the data loader as dictionaries of tensors over the loader's own memory.

use crate::failure::Failure;
use crate::tensors::{self, PyTensor};
use hlrp_data::Batch;
use hlrp_torch::HostToDevice;
use hlrp_train::{DeviceBatch, DeviceVectors};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tch::{Device, Tensor};

/// Tensors of a batch on the CPU, without a copy.
///
/// # Errors
/// A buffer that does not match its shape.
pub(crate) fn tensors_of(batch: Batch) -> Result<DeviceBatch, Failure> {
    Ok(DeviceBatch::from_host(batch, &HostToDevice::new(Device::Cpu)?)?)
}

/// The dictionary that `Batch` in `_core.pyi` describes.
pub(crate) fn to_dict<'py>(py: Python<'py>, batch: DeviceBatch) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    let (images, is_real): (Vec<_>, Vec<_>) = batch
        .images
        .into_iter()
        .map(|(role, stream)| ((role.clone(), stream.pixels_BTCHW), (role, stream.is_real_BT)))
        .unzip();
    dict.set_item("images", tensors::dict(py, images)?)?;
    dict.set_item("is_real", tensors::dict(py, is_real)?)?;
    dict.set_item("task", batch.task)?;
    set_vectors(&dict, ["state", "state_is_pad", "state_dim_is_pad"], batch.state)?;
    set_vectors(&dict, ["action", "action_is_pad", "action_dim_is_pad"], batch.action)?;
    let column = |of: fn(&hlrp_data::SampleMeta) -> u64| {
        let values: Vec<i64> = batch.meta.iter().map(|meta| of(meta) as i64).collect();
        PyTensor(Tensor::from_slice(&values))
    };
    dict.set_item("episode", column(|meta| meta.episode))?;
    dict.set_item("frame", column(|meta| meta.frame))?;
    let dt: Vec<f64> = batch.meta.iter().map(|meta| meta.dt_s).collect();
    dict.set_item("dt", PyTensor(Tensor::from_slice(&dt)))?;
    let source: Vec<String> = batch.meta.into_iter().map(|meta| meta.source).collect();
    dict.set_item("source", source)?;
    Ok(dict)
}

fn set_vectors(dict: &Bound<'_, PyDict>, keys: [&str; 3], vectors: Option<DeviceVectors>) -> PyResult<()> {
    let tensors = match vectors {
        Some(vectors) => [vectors.values_BTN, vectors.is_pad_BT, vectors.is_pad_dim_BN].map(Some),
        None => [None, None, None],
    };
    keys.into_iter().zip(tensors).try_for_each(|(key, tensor)| dict.set_item(key, tensor.map(PyTensor)))
}
