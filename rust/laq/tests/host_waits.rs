//! A training step queues its work and never waits for the device, except where a codebook is refreshed.
#![allow(clippy::unwrap_used)] // a test may panic

mod common;

use common::{config_with, frames, model};
use hlrp_laq::{TorchDraws, train_step};
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

#[test]
fn a_refresh_of_the_codebook_does() {
    assert!(host_waits("[[2,100]]") > 0);
}
