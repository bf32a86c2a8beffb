//! What libtorch executes is counted from its own operators; a GPU's kernels and graphs need a GPU.
#![allow(clippy::unwrap_used)]

use hlrp_torch::{
    CudaGraph, TorchError,
    count::{OperatorCounts, count},
    profile::profile,
};
use tch::{Device, Kind, Tensor};

const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

fn counts_of(body: impl FnOnce()) -> OperatorCounts {
    let ((), counts) = count(|| {
        body();
        Ok::<_, TorchError>(())
    })
    .unwrap();
    counts
}

#[test]
fn operations_are_counted_from_shapes() {
    let (a, b) = (Tensor::randn([5, 7], FLOAT), Tensor::randn([7, 11], FLOAT));
    assert_eq!(counts_of(|| drop(a.matmul(&b))).flops, 2 * 5 * 7 * 11);

    let weight = Tensor::randn([11, 7], FLOAT).set_requires_grad(true);
    let x = Tensor::randn([5, 7], FLOAT).set_requires_grad(true);
    // One product forward, one each for the gradients of input and weight.
    let train = || x.linear::<&Tensor>(&weight, None).sum(Kind::Float).backward();
    assert_eq!(counts_of(train).flops, 3 * 2 * 5 * 7 * 11);

    let [q, k, v] = [[2, 3, 4, 8], [2, 3, 6, 8], [2, 3, 6, 8]].map(|shape| Tensor::randn(shape, FLOAT));
    let attend = || drop(Tensor::scaled_dot_product_attention(&q, &k, &v, None::<Tensor>, 0.0, false, None, false));
    assert_eq!(counts_of(attend).flops, 2 * (2 * 2 * 3 * 4 * 6 * 8));

    let (image, kernel) = (Tensor::randn([2, 3, 8, 8], FLOAT), Tensor::randn([5, 3, 2, 2], FLOAT));
    let convolve = || drop(image.conv2d::<&Tensor>(&kernel, None, [2, 2], [0, 0], [1, 1], 1));
    assert_eq!(counts_of(convolve).flops, 2 * (2 * 5 * 4 * 4) * (3 * 2 * 2));
}

#[test]
fn bytes_are_those_of_inputs_and_results() {
    let (a, b) = (Tensor::randn([5, 7], FLOAT), Tensor::randn([7, 11], FLOAT));
    let product = 4 * (5 * 7 + 7 * 11 + 5 * 11);
    assert_eq!(counts_of(|| drop(a.matmul(&b))).bytes, product);
    assert_eq!(counts_of(|| drop(a.view([35]).expand([4, 35], false))).bytes, 0, "views move nothing");
    assert_eq!(counts_of(|| drop(a.tr().reshape([35]))).bytes, 2 * 4 * 35, "this one is a copy");
    let whole = Tensor::zeros([100], FLOAT);
    assert_eq!(counts_of(|| drop(whole.shallow_clone().g_add_(&Tensor::ones([100], FLOAT)))).bytes, 4 * (100 + 300));
    let expanded = Tensor::ones([1], FLOAT).expand([100], false);
    assert_eq!(counts_of(|| drop(&whole + &expanded)).bytes, 4 * (100 + 1 + 100), "what is behind an expanded tensor");
}

#[test]
fn a_part_of_what_is_counted_is_counted_by_itself() {
    let (a, b) = (Tensor::randn([5, 7], FLOAT), Tensor::randn([7, 11], FLOAT));
    let mut part = 0;
    let whole = counts_of(|| {
        drop(a.matmul(&b));
        part = counts_of(|| drop(a.matmul(&b))).flops;
        drop(a.matmul(&b));
    });
    assert_eq!((part, whole.flops), (770, 3 * 770));
}

#[test]
fn a_value_that_the_host_reads_is_a_wait() {
    let x = Tensor::randn([4], FLOAT);
    let counts = counts_of(|| drop(&x + 1.0));
    assert_eq!(counts.host_waits, 0);
    assert!(counts.operators > 0);
    assert_eq!(counts_of(|| assert!(x.sum(Kind::Float).double_value(&[]).is_finite())).host_waits, 1);
    assert_eq!(counts_of(|| drop(x.gt(0.0).nonzero())).host_waits, 1);
}

/// On the CPU nothing is copied for it; on a GPU the host would wait.
#[test]
fn a_tensor_that_is_fetched_is_a_wait() {
    let x = Tensor::randn([4], FLOAT);
    assert_eq!(counts_of(|| drop(Vec::<f32>::try_from(x.to_device(Device::Cpu)))).host_waits, 1);
    let weight = Tensor::randn([4], FLOAT).set_requires_grad(true);
    let cast = || weight.to_kind(Kind::BFloat16).sum(Kind::Float).backward();
    assert_eq!(counts_of(cast).host_waits, 0, "a cast and its gradient");
}

#[test]
fn a_machine_without_a_gpu_executes_no_kernels() {
    let run = || Ok::<_, TorchError>(Tensor::randn([64, 64], FLOAT).matmul(&Tensor::randn([64, 64], FLOAT)));
    assert!(profile(run).unwrap().1.is_empty());
}

#[test]
fn the_cpu_records_no_graph() {
    let error = CudaGraph::capture(Device::Cpu, || Ok::<_, TorchError>(())).err().unwrap();
    assert!(error.to_string().contains("CUDA graph"), "{error}");
}
