//! A policy sees frame t and nothing later.

use crate::fixtures::{FixedNoise, batch, distance, expert, processor_spec, tokenizer_folder};
use hlrp_config::with_hint;
use hlrp_nn::Pass;
use hlrp_schema::policy::{Mode, ModelSpec};
use hlrp_train::DeviceBatch;
use hlrp_vla::{Architecture, ExpertModel, Processor, TimeIndices};
use tch::{Device, Tensor};

const PRESENT: TimeIndices = TimeIndices { image: 0, state: 0, action: 0, label: 0 };
const LATER: i64 = 1;

/// Actions that the policy predicts for a batch.
fn predict(model: &ExpertModel, processor: &Processor, batch: &DeviceBatch) -> Tensor {
    let observation = processor.observe(batch, PRESENT).unwrap();
    let prediction =
        model.sample(&observation, Mode::Multitask, None, &mut FixedNoise::new(0), &Pass::plain(false)).unwrap();
    Tensor::cat(&[prediction.actions_BTA.unwrap().flatten(1, 2), prediction.latents_BSD.unwrap().flatten(1, 2)], 1)
}

/// Replaces everything that the batch holds of one moment.
fn disturb(batch: &mut DeviceBatch, moment: i64) {
    for stream in batch.images.values_mut() {
        let _ = stream.pixels_BTCHW.select(1, moment).bitwise_not_();
    }
    let _ = batch.state.as_ref().unwrap().values_BTN.select(1, moment).fill_(9.0);
}

#[test]
fn later_frames_change_no_output() {
    tch::manual_seed(9);
    let model = ExpertModel::new(&expert(), Device::Cpu).unwrap();
    let processor = Processor::new(&expert(), &processor_spec(), &tokenizer_folder()).unwrap();
    let mut batch = batch();
    let before = predict(&model, &processor, &batch);
    disturb(&mut batch, LATER);
    assert_eq!(distance(&before, &predict(&model, &processor, &batch)), 0.0);
    disturb(&mut batch, PRESENT.image);
    assert!(distance(&before, &predict(&model, &processor, &batch)) > 1e-4);
}

#[test]
fn states_and_actions_are_normalised() {
    let processor = Processor::new(&expert(), &processor_spec(), &tokenizer_folder()).unwrap();
    let batch = batch();
    let observation = processor.observe(&batch, PRESENT).unwrap();
    let raw = batch.state.as_ref().unwrap().values_BTN.select(1, 0);
    assert!(distance(&observation.state_BN.unwrap(), &((raw - 0.5) / 2.0)) < 1e-6);
    let actions = processor.actions(&batch).unwrap();
    let back = processor.unnormalize_actions(&actions.chunk_BTA).unwrap();
    assert!(distance(&back, &batch.action.unwrap().values_BTN) < 1e-6);
}

#[test]
fn dimensions_that_a_robot_lacks_are_zero_whatever_the_batch_holds() {
    let processor = Processor::new(&expert(), &processor_spec(), &tokenizer_folder()).unwrap();
    let mut batch = batch();
    for vectors in [batch.state.as_mut().unwrap(), batch.action.as_mut().unwrap()] {
        let width = vectors.values_BTN.size()[2];
        let _ = vectors.is_pad_dim_BN.narrow(1, width - 1, 1).select(0, 1).fill_(1);
        let _ = vectors.values_BTN.narrow(2, width - 1, 1).select(0, 1).fill_(f64::NAN);
    }
    let state_BN = processor.observe(&batch, PRESENT).unwrap().state_BN.unwrap();
    let actions = processor.actions(&batch).unwrap();
    assert_eq!(state_BN.double_value(&[1, 3]), 0.0);
    assert_eq!(actions.chunk_BTA.select(0, 1).select(1, 2).abs().max().double_value(&[]), 0.0);
    let is_supervised: Vec<i64> =
        Vec::try_from(actions.is_supervised_BTA().sum_dim_intlist([1].as_slice(), false, tch::Kind::Int64).view([-1]))
            .unwrap();
    assert_eq!(is_supervised, [5, 5, 5, 5, 5, 0]);
}

#[test]
fn a_batch_without_what_the_model_needs_is_refused() {
    let processor = Processor::new(&expert(), &processor_spec(), &tokenizer_folder()).unwrap();
    let refuse = |change: fn(&mut DeviceBatch), what: &str| {
        let mut batch = batch();
        change(&mut batch);
        let error = processor.observe(&batch, PRESENT).err().or_else(|| processor.actions(&batch).err()).unwrap();
        let error = with_hint(&error);
        assert!(error.contains(what) && error.contains("hint:"), "{error}");
    };
    refuse(|batch| batch.images.clear(), "cameras");
    refuse(|batch| batch.state = None, "state: the batch has none");
    refuse(
        |batch| batch.state.as_mut().unwrap().values_BTN = Tensor::zeros([2, 2, 5], crate::fixtures::FLOAT),
        "state: 5 dimensions where the statistics have 4",
    );
    refuse(|batch| batch.action = None, "actions: the batch has none");
}

#[test]
fn more_absent_cameras_than_allowed_are_refused() {
    let model = ExpertModel::new(&ModelSpec { empty_cameras: 0, ..expert() }, Device::Cpu).unwrap();
    let processor = Processor::new(&expert(), &processor_spec(), &tokenizer_folder()).unwrap();
    let mut batch = batch();
    batch.images.remove("wrist");
    let observation = processor.observe(&batch, PRESENT).unwrap();
    let error = with_hint(&model.prefill(&observation, &Pass::plain(false)).err().unwrap());
    assert!(error.contains("wrist") && error.contains("empty_cameras"), "{error}");
}
