//! The exchange of tensors on GPUs, as far as this machine can show it.
#![allow(clippy::unwrap_used)] // a test may panic

use hlrp_torch::{
    Meeting, Store, World,
    cuda::{CudaStatus, libtorch_folder, start_up},
};
use std::{env, process::Command, time::Duration};
use tch::{Device, Tensor};

/// Set in the process that has libtorch's CUDA part.
const HAS_CUDA: &str = "HLRP_TEST_HAS_CUDA";

/// Programs load libtorch's CUDA part only where there is a driver. Here a process of its own loads it in any case: so c10d's constructors are
/// found and called also on a machine without a GPU, where c10d then refuses.
#[test]
fn a_process_alone_sums_through_nccl_or_hears_that_there_is_no_gpu() {
    if env::var_os(HAS_CUDA).is_none() {
        let library = libtorch_folder().unwrap().join("libtorch_cuda.so");
        assert!(library.is_file(), "the libtorch of the project's environment has a CUDA part");
        let mut again = Command::new(env::current_exe().unwrap());
        let output = again.env(HAS_CUDA, "1").env("LD_PRELOAD", library).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let meeting = Meeting {
        rank: 0,
        size: 1,
        store: Store::File(folder.path().join("store")),
        prefix: "test".to_owned(),
        interface: None,
        is_local: true,
        timeout: Duration::from_secs(60),
    };
    let world = World::open(meeting).unwrap();
    world.connect().unwrap();
    world.check().unwrap();
    if !matches!(start_up(), CudaStatus::Ready { .. }) {
        let error = world.prepare(Device::Cuda(0)).unwrap_err().to_string();
        assert!(error.contains("ProcessGroupNCCL") && error.contains("no GPUs found"), "{error}");
        return;
    }
    world.prepare(Device::Cuda(0)).unwrap();
    let numbers = Tensor::from_slice(&[1.5f32, -2.0]);
    let tensor = numbers.to_device(Device::Cuda(0));
    world.all_reduce(&tensor).unwrap();
    world.broadcast(&tensor).unwrap();
    world.check().unwrap();
    assert_eq!(world.all_gather(&tensor).unwrap()[0].to_device(Device::Cpu), numbers);
}
