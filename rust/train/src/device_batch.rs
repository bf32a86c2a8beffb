//! A batch on the device.

use hlrp_data::SampleMeta;
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
