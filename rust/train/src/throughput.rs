//! How much of a device a run uses, from the floating-point operations and the bytes that its model asks for.

use crate::error::Result;
use hlrp_torch::{
    count::{OperatorCounts, count},
    cuda,
};
use tch::Device;

const FLOPS_PER_TFLOPS: f64 = 1e12;
const BYTES_PER_GB: f64 = 1e9;

/// What the gradient of a step of this process asks for, counted once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Throughput {
    /// None until a step has been counted.
    counts: Option<OperatorCounts>,
    /// Of the device, where it is known.
    peak_flops: Option<f64>,
}

impl Throughput {
    pub(crate) fn of(device: Device) -> Self {
        let name = match device {
            Device::Cuda(index) => cuda::device_name(index).ok(),
            _ => None,
        };
        Self { counts: None, peak_flops: name.as_deref().and_then(cuda::peak_flops) }
    }

    /// Computes the gradient of the step after `num_done` steps of this process. The second one is counted: the first may compute more than
    /// those that follow.
    pub(crate) fn observe<R>(&mut self, num_done: u64, gradient: impl FnOnce() -> Result<R>) -> Result<R> {
        if num_done == 0 || self.counts.is_some() {
            return gradient();
        }
        let (gradient, counts) = count(gradient)?;
        self.counts = Some(counts);
        Ok(gradient)
    }

    /// Metrics at a rate: 10^12 operations per second, 10^9 bytes per second, and the operations' fraction of the device's dense bf16 rate
    /// (MFU) where that is known.
    pub(crate) fn metrics(&self, steps_per_sec: f64) -> Vec<(String, f64)> {
        let Some(OperatorCounts { flops, bytes, .. }) = self.counts else { return Vec::new() };
        let [flops_per_sec, bytes_per_sec] = [flops, bytes].map(|count| count as f64 * steps_per_sec);
        let rates = [
            ("perf/tflops_per_sec", flops_per_sec / FLOPS_PER_TFLOPS),
            ("perf/gb_per_sec", bytes_per_sec / BYTES_PER_GB),
        ];
        let mfu = self.peak_flops.map(|peak| ("perf/mfu", flops_per_sec / peak));
        rates.into_iter().chain(mfu).map(|(name, rate)| (name.to_owned(), rate)).collect()
    }
}
