//! The configuration's device names, on machines with and without a GPU.
#![allow(clippy::unwrap_used)]

use hlrp_config::with_hint;
use hlrp_torch::{
    cuda::{self, CudaStatus},
    memory, select_device,
};
use tch::Device;

fn num_gpus() -> usize {
    match cuda::start_up() {
        CudaStatus::Ready { num_devices } => *num_devices,
        _ => 0,
    }
}

#[test]
fn auto_is_the_first_gpu_or_else_the_cpu() {
    let expected = if num_gpus() > 0 { Device::Cuda(0) } else { Device::Cpu };
    assert_eq!(select_device(None).unwrap(), expected);
    assert_eq!(select_device(Some(Device::Cpu)).unwrap(), Device::Cpu);
}

#[test]
fn a_gpu_that_is_not_available_is_refused_with_a_hint() {
    let wanted = format!("cuda:{}", num_gpus());
    let error = with_hint(&select_device(Some(Device::Cuda(num_gpus()))).unwrap_err());
    assert!(error.contains(&wanted) && error.contains("hint: "), "{error}");
}

#[test]
fn the_folder_of_libtorch_holds_libtorch() {
    assert!(cuda::libtorch_folder().unwrap().join("libtorch_cpu.so").is_file());
}

#[test]
fn the_cpu_reports_its_peak_memory_and_needs_no_synchronisation() {
    assert!(memory::peak(Device::Cpu).unwrap() > 1 << 20);
    cuda::synchronize(Device::Cpu).unwrap();
}

#[test]
fn the_rate_of_a_gpu_is_that_of_its_datasheet() {
    let rate = |name| hlrp_torch::cuda::peak_flops(name);
    assert_eq!(rate("NVIDIA H100 PCIe"), Some(756e12));
    assert_eq!(rate("NVIDIA H100 80GB HBM3"), Some(989e12));
    assert_eq!(rate("NVIDIA H100 NVL"), Some(835e12));
    assert_eq!(rate("NVIDIA H200"), Some(989e12));
    assert_eq!(rate("NVIDIA H200 NVL"), Some(835e12));
    assert_eq!(rate("NVIDIA B200"), Some(2250e12));
    assert_eq!(rate("NVIDIA GB200"), Some(2500e12));
    assert_eq!(rate("NVIDIA A100-SXM4-40GB"), Some(312e12));
    assert_eq!(rate("NVIDIA L40S"), Some(362e12));
    assert_eq!(rate("NVIDIA RTX 6000 Ada Generation"), Some(364e12));
    assert_eq!(rate("Some other device"), None);
}
