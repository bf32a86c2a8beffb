//! Noise and times that a caller gives instead of drawing them.

use hlrp_vla::{FlowConfig, FlowDraws, TorchFlowDraws};
use std::collections::VecDeque;
use tch::{Device, Tensor};

/// The caller's tensors in the order in which the heads ask for them; a gap is drawn from torch's generator.
pub(crate) struct GivenDraws {
    pub(crate) noise: VecDeque<Option<Tensor>>,
    pub(crate) time: VecDeque<Option<Tensor>>,
}

impl FlowDraws for GivenDraws {
    fn noise(&mut self, shape: &[i64], device: Device) -> Tensor {
        match self.noise.pop_front().flatten() {
            // The pooled architecture asks for slots and numbers as one flat vector.
            Some(noise) => noise.reshape(shape),
            None => TorchFlowDraws.noise(shape, device),
        }
    }

    fn time(&mut self, num_samples: i64, flow: &FlowConfig, device: Device) -> Tensor {
        match self.time.pop_front().flatten() {
            Some(time_B) => time_B,
            None => TorchFlowDraws.time(num_samples, flow, device),
        }
    }
}
