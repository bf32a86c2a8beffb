//! Steps that repeat can be recorded as a CUDA graph: each asks for the same operators on the same memory and lets nothing wait. A graph itself
//! needs a GPU.
#![allow(clippy::unwrap_used)] // a test may panic

#[path = "common/engine.rs"]
mod engine;

use engine::{batch, compose_with, settings};
use hlrp_laq::{LaqModel, LaqTask, Parts};
use hlrp_torch::{
    HostToDevice, Meeting, Store, World, clear_grads,
    count::{OperatorCounts, count},
};
use hlrp_train::{DeviceBatch, Settings, Task, Trainer};
use std::{path::Path, time::Duration};
use tch::{Device, Tensor};

const WITHOUT_NSVQ: &str = "~model.quantizer.nsvq";
const EMA_VQ: &str = "+model.quantizer.ema_vq={decay: 0.95, commitment_weight: 0.25, restart_threshold: 0.02}";

/// The task of a mini model.
fn task(overrides: &[&str]) -> LaqTask {
    let (_, config) = compose_with(Path::new("unused"), overrides);
    tch::manual_seed(1);
    LaqTask::new(LaqModel::new(&config.model, Parts::All, Device::Cpu), &config, World::single())
}

/// Where the state of a model is.
fn places(task: &LaqTask) -> Vec<usize> {
    task.parameters().iter().chain(&task.buffers()).map(|(_, tensor)| tensor.data_ptr() as usize).collect()
}

/// What the forward and backward pass of a step ask for.
fn counts(task: &mut LaqTask, step: u64) -> OperatorCounts {
    let params: Vec<Tensor> = task.parameters().into_iter().map(|(_, tensor)| tensor).collect();
    clear_grads(&params).unwrap();
    let batch = DeviceBatch::from_host(batch(step), &HostToDevice::new(Device::Cpu).unwrap()).unwrap();
    let work = || {
        task.loss(&batch, step)?.loss.backward();
        anyhow::Ok(())
    };
    count(work).unwrap().1
}

/// Every quantizer, a conv net, a forward model, augmentation.
#[test]
fn steps_that_repeat_do_the_same_work_on_the_same_memory() {
    let setups: [&[&str]; 5] = [
        &[],
        &[WITHOUT_NSVQ, EMA_VQ, "model.quantizer.normalization=batch_norm", "model.quantizer.kmeans_start=true"],
        &[WITHOUT_NSVQ, "+model.quantizer.none={}", "model.quantizer.normalization=batch_norm"],
        &["model.decoders.difference.enabled=true", "model.decoders.difference.motion_weight=2.0"],
        &[
            "training.augmentation.shift=0.1",
            "training.augmentation.contrast=0.2",
            "training.augmentation.saturation=0.2",
        ],
    ];
    for overrides in setups {
        let mut task = task(overrides);
        counts(&mut task, 1);
        let before = places(&task);
        let steps = [33, 57];
        assert!(steps.iter().all(|step| task.repeats(*step)), "{overrides:?}");
        let [first, second] = steps.map(|step| counts(&mut task, step));
        assert_eq!(second, first, "{overrides:?}");
        assert_eq!(first.host_waits, 0, "{overrides:?}");
        assert_eq!(places(&task), before, "{overrides:?}");
    }
}

#[test]
fn steps_with_something_of_their_own_do_not_repeat() {
    let schedule = "model.quantizer.nsvq.refresh_schedule=[[40,90]]";
    let task = task(&[
        schedule,
        "training.max_steps=400",
        "model.quantizer.unquantized_steps=3",
        "model.quantizer.kmeans_start=true",
        "model.decoders.pixel.warmup_steps=6",
    ]);
    let own: Vec<u64> = (1..=210).filter(|step| !task.repeats(*step)).collect();
    // Without codes and k-means; the warm-up; refreshes; the watch over the codes.
    assert_eq!(own, [1, 2, 3, 4, 5, 40, 80, 150, 200]);
}

/// A run on the CPU, and one that exchanges numbers: also a process that is connected to itself alone.
#[test]
fn a_run_that_cannot_be_recorded_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (composed, config) = compose_with(&folder.path().join("run"), &["training.cuda_graph=true"]);
    let world = World::open(Meeting {
        rank: 0,
        size: 1,
        store: Store::File(folder.path().join("store")),
        prefix: "test".to_owned(),
        interface: None,
        is_local: true,
        timeout: Duration::from_secs(20),
    })
    .unwrap();
    world.connect().unwrap();
    let cases = [
        (World::single(), Device::Cpu, "only a GPU records graphs"),
        // Refused before anything is asked of the GPU.
        (world, Device::Cuda(0), "exchanges numbers with itself in every step"),
    ];
    for (world, device, reason) in cases {
        let settings = Settings { world, device, ..settings(&composed, &config) };
        let mut task = LaqTask::new(LaqModel::new(&config.model, Parts::All, Device::Cpu), &config, World::single());
        let error = Trainer::new(settings, &mut task, &mut engine::Squares).err().unwrap().to_string();
        assert!(error.contains("training.cuda_graph") && error.contains(reason), "{error}");
    }
}
