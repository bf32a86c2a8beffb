//! How much of a device a run uses, from the floating-point operations that its model asks for.

use crate::error::Result;
use hlrp_torch::{count::count, cuda};
use tch::Device;

const FLOPS_PER_TFLOPS: f64 = 1e12;

/// The floating-point operations of a step of this process, counted once from the shapes of matrix products, convolutions and attention.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Throughput {
    /// None until a step has been counted.
    flops: Option<u64>,
    /// Of the device, where it is known.
    peak_flops: Option<f64>,
}

impl Throughput {
    pub(crate) fn of(device: Device) -> Self {
        let name = match device {
            Device::Cuda(index) => cuda::device_name(index).ok(),
            _ => None,
        };
        Self { flops: None, peak_flops: name.as_deref().and_then(cuda::peak_flops) }
    }

    /// Computes the gradient of the step after `num_done` steps of this process. The second one is counted: the first may compute more than
    /// those that follow.
    pub(crate) fn observe<R>(&mut self, num_done: u64, gradient: impl FnOnce() -> Result<R>) -> Result<R> {
        if num_done == 0 || self.flops.is_some() {
            return gradient();
        }
        let (gradient, counts) = count(gradient)?;
        self.flops = Some(counts.flops);
        Ok(gradient)
    }

    /// Metrics at a rate: 10^12 operations per second, and their fraction of the device's dense bf16 rate (MFU) where that is known.
    pub(crate) fn metrics(&self, steps_per_sec: f64) -> Vec<(String, f64)> {
        let Some(flops) = self.flops else { return Vec::new() };
        let rate = flops as f64 * steps_per_sec;
        let mfu = self.peak_flops.map(|peak| ("perf/mfu".to_owned(), rate / peak));
        [("perf/tflops_per_sec".to_owned(), rate / FLOPS_PER_TFLOPS)].into_iter().chain(mfu).collect()
    }
}
