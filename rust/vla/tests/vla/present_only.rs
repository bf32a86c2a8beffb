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
