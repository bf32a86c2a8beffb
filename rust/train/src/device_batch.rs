//! A batch on the device.

use crate::Result;
use hlrp_data::{Batch, ImageStream, SampleMeta, VectorStream};
use hlrp_torch::{HostToDevice, tensor_from_vec};
use std::collections::BTreeMap;
use tch::Tensor;

/// Images of one role on the device.
pub struct DeviceImages {
    /// `uint8 [B,T,C,H,W]`.
    pub pixels_BTCHW: Tensor,
    /// `bool [B,T]`, true = real.
    pub is_real_BT: Tensor,
}

/// Vectors over time on the device.
pub struct DeviceVectors {
    /// `float32 [B,T,N]`.
    pub values_BTN: Tensor,
    /// `bool [B,T]`, true = padded.
    pub is_pad_BT: Tensor,
}

/// [`hlrp_data::Batch`] on the device.
pub struct DeviceBatch {
    /// Role to images.
    pub images: BTreeMap<String, DeviceImages>,
    /// `[B]` instructions.
    pub task: Vec<String>,
    /// States.
    pub state: Option<DeviceVectors>,
    /// Actions.
    pub action: Option<DeviceVectors>,
    /// `[B]` origins.
    pub meta: Vec<SampleMeta>,
}

impl DeviceBatch {
    /// Brings a batch to the device. On the CPU its tensors take over the batch's memory without a copy.
    ///
    /// # Errors
    /// A buffer that does not match its shape; no memory on the device.
    pub fn from_host(batch: Batch, transfer: &HostToDevice) -> Result<Self> {
        let images = batch.images.into_iter().map(|(role, stream)| Ok((role, images(stream, transfer)?)));
        Ok(Self {
            images: images.collect::<Result<_>>()?,
            task: batch.task,
            state: batch.state.map(|stream| vectors(stream, transfer)).transpose()?,
            action: batch.action.map(|stream| vectors(stream, transfer)).transpose()?,
            meta: batch.meta,
        })
    }

    /// Samples in the batch.
    pub fn num_samples(&self) -> usize {
        self.meta.len()
    }
}

fn images(stream: ImageStream, transfer: &HostToDevice) -> Result<DeviceImages> {
    let pixels_BTCHW = tensor_from_vec(Vec::<u8>::from(stream.pixels_BTCHW), &stream.shape)?;
    let is_real_BT = tensor_from_vec(stream.is_real_BT, &stream.shape[..2])?;
    let [pixels_BTCHW, is_real_BT] = pair(pixels_BTCHW, is_real_BT, transfer)?;
    Ok(DeviceImages { pixels_BTCHW, is_real_BT })
}

fn vectors(stream: VectorStream, transfer: &HostToDevice) -> Result<DeviceVectors> {
    let values_BTN = tensor_from_vec(stream.values_BTN, &stream.shape)?;
    let is_pad_BT = tensor_from_vec(stream.is_pad_BT, &stream.shape[..2])?;
    let [values_BTN, is_pad_BT] = pair(values_BTN, is_pad_BT, transfer)?;
    Ok(DeviceVectors { values_BTN, is_pad_BT })
}

fn pair(values: Tensor, mask: Tensor, transfer: &HostToDevice) -> Result<[Tensor; 2]> {
    let mut copies = transfer.copy(vec![values, mask])?.into_iter();
    Ok([(); 2].map(|()| copies.next().unwrap_or_default()))
}
