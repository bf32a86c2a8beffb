//! A training step queues its work and never waits for the device, except where a codebook is refreshed.
#![allow(clippy::unwrap_used)] // a test may panic

mod common;
#[path = "common/engine.rs"]
mod engine;

use common::{config_with, frames, model};
use hlrp_laq::{LaqModel, LaqTask, Parts, TorchDraws, train_step};
use hlrp_nn::Pass;
use hlrp_schema::OptimizerConfig;
use hlrp_torch::{World, count::count};
use hlrp_train::{Optimizer, norm_and_clip};
use tch::Device;

/// Values that the host reads in the second training step, optimizer included.
fn host_waits(refresh_schedule: &str) -> u64 {
    let schedule = format!("model.quantizer.nsvq.refresh_schedule={refresh_schedule}");
    let mut model = model(&config_with(&[&schedule]), 1);
    let frames = frames(4);
    let settings = OptimizerConfig { lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.01 };
    let optimizer = Optimizer::new(&model.store().parameters(), &settings).unwrap();
    let ((), counts) = count(|| {
        let result = train_step(&mut model, &frames, 2, &World::single(), &mut TorchDraws, &Pass::plain(true))?;
        result.loss.backward();
        let _norm = norm_and_clip(&optimizer.gradients(), Some(1.0), Device::Cpu)?;
        optimizer.step(1e-3)?;
        optimizer.clear_gradients()?;
        anyhow::Ok(())
    })
    .unwrap();
    counts.host_waits
}

#[test]
fn a_training_step_reads_no_value_on_the_host() {
    assert_eq!(host_waits("[]"), 0);
}

/// Waits of a run of so many steps, the last of which alone is logged, validated and saved.
fn waits_of_run(num_steps: u64, overrides: &[&str]) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let max_steps = format!("training.max_steps={num_steps}");
    let quiet = [
        "model.quantizer.nsvq.refresh_schedule=[]",
        "training.log_every_n_steps=1000",
        "validation.check_interval=1000",
        "training.checkpoint.every_n_steps=1000",
        &max_steps,
    ];
    let (composed, config) = engine::compose_with(&folder.path().join("run"), &[&quiet, overrides].concat());
    tch::manual_seed(1);
    let mut task = LaqTask::new(LaqModel::new(&config.model, Parts::All, Device::Cpu), &config, World::single());
    count(|| engine::train(&composed, &config, &mut task).map(drop)).unwrap().1.host_waits
}

/// The loop of the engine, with everything that it does after a step.
#[test]
fn a_step_of_the_engine_that_is_not_logged_lets_nothing_wait() {
    // On the CPU the engine looks at the loss of every step; with a GPU it does where it logs.
    const OF_THE_CPU: u64 = 1;
    for overrides in [
        &["training.ema.enabled=true", "training.ema.update_after_step=1"] as &[&str],
        &["training.gradient.accumulate_steps=2"],
    ] {
        let beyond = waits_of_run(6, overrides) - waits_of_run(4, overrides);
        assert_eq!(beyond, 2 * OF_THE_CPU, "{overrides:?}");
    }
}

#[test]
fn a_refresh_of_the_codebook_does() {
    assert!(host_waits("[[2,100]]") > 0);
}
