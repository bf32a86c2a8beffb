//! Weights that are stored in bfloat16.

use crate::fixtures::{FixedDraws, distance, expert, observation};
use hlrp_nn::Pass;
use hlrp_torch::{Autocast, AutocastDtype};
use hlrp_vla::{ExpertModel, Mode};
use tch::{Device, Kind, Tensor};

fn sample(model: &ExpertModel) -> Tensor {
    tch::manual_seed(13);
    let observation = observation();
    let _bf16 = Autocast::enter(Device::Cpu, AutocastDtype::Bf16).unwrap();
    let prediction = model.sample(&observation, Mode::Actions, &mut FixedDraws::new(0), &Pass::plain(false));
    prediction.unwrap().actions_BTA.unwrap()
}

#[test]
fn stored_bfloat16_predicts_what_autocast_predicts() {
    tch::manual_seed(12);
    let model = ExpertModel::new(&expert(), Device::Cpu).unwrap();
    let before = sample(&model);
    model.store_matrices_in_bf16();
    assert_eq!(distance(&before, &sample(&model)), 0.0);
    for (name, tensor) in model.store().state() {
        let is_multiplied = tensor.dim() >= 2 && name.contains("vlm_with_expert") && !name.contains("embed");
        if is_multiplied {
            assert_eq!(tensor.kind(), Kind::BFloat16, "{name}");
        } else if !name.contains("patch_embedding.weight") {
            assert_eq!(tensor.kind(), Kind::Float, "{name}");
        }
    }
}
