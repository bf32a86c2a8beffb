//! What must hold of every latent action model, whatever its weights.
#![allow(clippy::unwrap_used, non_snake_case)] // a test may panic

mod common;

use common::{config, config_with, frames, model, same};
use hlrp_laq::{CODEBOOK, Decoders, LaqModel, Parts, TorchDraws, TrainStep, eval_step, train_step};
use hlrp_nn::{Pass, Trace};
use hlrp_torch::World;
use tch::{Kind, Tensor, no_grad};

fn step_number(model: &mut LaqModel, frames: &Tensor, step: u64) -> TrainStep {
    train_step(model, frames, step, &World::single(), &mut TorchDraws, &Pass::plain(true)).unwrap()
}

fn step(model: &mut LaqModel, frames: &Tensor) -> TrainStep {
    step_number(model, frames, 1)
}

/// Tokens of codes.
fn tokens_of(model: &LaqModel, ids: &Tensor) -> Tensor {
    no_grad(|| model.bottleneck.action_tokens(&model.quantizer.codes().unwrap().vectors(ids)))
}

/// Assignments in the window of the code use.
fn num_counted(model: &LaqModel) -> i64 {
    model.quantizer.codes().unwrap().usage().window().sum(Kind::Int64).int64_value(&[])
}

/// Names of parameters with a gradient that is not all zero.
fn with_gradient(model: &LaqModel) -> Vec<String> {
    let has_gradient = |tensor: &Tensor| {
        let gradient = tensor.grad();
        gradient.defined() && gradient.abs().max().double_value(&[]) > 0.0
    };
    model.store().parameters().into_iter().filter(|(_, tensor)| has_gradient(tensor)).map(|(name, _)| name).collect()
}

#[test]
fn decoding_looked_up_codes_gives_the_tokens_that_evaluation_uses() {
    let model = model(&config(), 1);
    let result = eval_step(&model, &frames(3));
    let tokens = tokens_of(&model, result.latent.ids_BS.as_ref().unwrap());
    assert!(same(&tokens, &result.action_tokens_BSD));
}

#[test]
fn each_slot_of_the_action_tokens_depends_on_its_own_code_alone() {
    let model = model(&config(), 1);
    let ids = Tensor::from_slice(&[0_i64, 1, 2, 3]).unsqueeze(0);
    let changed = Tensor::from_slice(&[0_i64, 1, 7, 3]).unsqueeze(0);
    let difference = (tokens_of(&model, &ids) - tokens_of(&model, &changed)).abs().amax([0, 2], false);
    let moved: Vec<bool> = Vec::<f32>::try_from(difference).unwrap().iter().map(|d| *d > 0.0).collect();
    assert_eq!(moved, [false, false, true, false]);
}

#[test]
fn evaluation_is_deterministic_and_changes_nothing() {
    let model = model(&config(), 2);
    let frames = frames(3);
    let before: Vec<Tensor> = model.store().state().iter().map(|(_, tensor)| tensor.copy()).collect();
    let (first, second) = (eval_step(&model, &frames), eval_step(&model, &frames));
    assert!(same(&model.decoders.total(&first.losses, None), &model.decoders.total(&second.losses, None)));
    assert!(same(first.predictions.get("pixel").unwrap(), second.predictions.get("pixel").unwrap()));
    for ((name, tensor), before) in model.store().state().iter().zip(&before) {
        assert!(same(tensor, before), "{name} changed");
    }
}

#[test]
fn training_draws_noise_that_evaluation_does_not() {
    let mut model = model(&config(), 2);
    let frames = frames(3);
    let (first, second) = (step(&mut model, &frames), step(&mut model, &frames));
    assert!(!same(&first.loss, &second.loss));
}

#[test]
fn only_training_counts_code_use() {
    let mut model = model(&config(), 3);
    let frames = frames(5);
    eval_step(&model, &frames);
    assert_eq!(num_counted(&model), 0);
    step(&mut model, &frames);
    eval_step(&model, &frames);
    assert_eq!(num_counted(&model), 5 * 4);
}

#[test]
fn the_aux_decoder_sends_no_gradient_outside() {
    let mut model = model(&config(), 4);
    let result = step(&mut model, &frames(3));
    result.losses.get("aux").unwrap().backward();
    let names = with_gradient(&model);
    assert!(!names.is_empty());
    for name in names {
        assert!(name.starts_with("aux_"), "{name} gets a gradient from the aux decoder");
    }
}

#[test]
fn the_other_decoders_send_no_gradient_into_the_aux_decoder() {
    let mut model = model(&config(), 4);
    let result = step(&mut model, &frames(3));
    (result.losses.get("pixel").unwrap() + result.losses.get("token").unwrap()).backward();
    assert!(with_gradient(&model).iter().all(|name| !name.starts_with("aux_")));
}

#[test]
fn nearly_every_parameter_gets_a_gradient() {
    let mut model = model(&config(), 5);
    step(&mut model, &frames(8)).loss.backward();
    let with = with_gradient(&model);
    let parameters = model.store().parameters();
    let without: Vec<&String> = parameters.iter().map(|(name, _)| name).filter(|name| !with.contains(name)).collect();
    assert!(with.len() * 100 >= parameters.len() * 95, "no gradient: {without:?}");
}

#[test]
fn frame_t_is_encoded_without_knowledge_of_frame_t_plus_k_up_to_the_temporal_attention() {
    let model = model(&config(), 6);
    let frames = frames(2);
    let changed = Tensor::stack(&[frames.select(1, 0), Tensor::rand_like(&frames.select(1, 1))], 1);
    let records = |frames: &Tensor| {
        let trace = Trace::default();
        no_grad(|| model.encode(frames, &Pass { train: false, trace: Some(&trace) }));
        trace.into_records()
    };
    let mut num_checked = 0;
    for ((name, ours), (_, theirs)) in records(&frames).iter().zip(&records(&changed)) {
        // The spatial transformer and the first position convolution of the temporal one are causal; attention over
        // time is not.
        if name.starts_with("enc_spatial") || name == "enc_temporal.l0.peg" {
            assert!(same(&ours.select(1, 0), &theirs.select(1, 0)), "{name}: frame t sees frame t+k");
            assert!(!same(&ours.select(1, 1), &theirs.select(1, 1)), "{name}: frame t+k has no effect on itself");
            num_checked += 1;
        }
    }
    assert_eq!(num_checked, 2 * 3 + 1 + 1);
}

#[test]
fn the_prediction_depends_on_frame_t_and_the_codes_alone() {
    let model = model(&config(), 7);
    let frames = frames(2);
    let result = eval_step(&model, &frames);
    let alone = no_grad(|| model.predict(&frames.narrow(1, 0, 1), &result.action_tokens_BSD, &Pass::plain(false)));
    for (name, prediction) in result.predictions.iter() {
        assert!(prediction.allclose(alone.get(name).unwrap(), 1e-6, 1e-6, false), "{name}");
    }
}

#[test]
fn a_refresh_rewrites_unused_rows_and_reports_them() {
    let mut model = model(&config_with(&["model.quantizer.nsvq.refresh_schedule=[[2,100]]"]), 8);
    let name = format!("{}.{}", LaqModel::QUANTIZER, CODEBOOK);
    let codebook = model.store().parameters().into_iter().find(|(entry, _)| *entry == name).unwrap().1;
    // Codes far away from everything are never chosen.
    let _ = no_grad(|| codebook.narrow(0, 5, 3).fill_(1e3));
    let before = codebook.copy();
    let frames = frames(8);
    let first = step_number(&mut model, &frames, 1);
    assert!(first.row_resets.is_empty() && same(&codebook, &before), "step 1 is not due");
    let second = step_number(&mut model, &frames, 2);
    let [reset] = &second.row_resets[..] else { panic!("one parameter was rewritten") };
    assert_eq!(reset.parameter, name);
    let rewritten = Vec::<i64>::try_from(&reset.rows).unwrap();
    assert!([5, 6, 7].iter().all(|row| rewritten.contains(row)), "{rewritten:?}");
    assert!(codebook.narrow(0, 5, 3).abs().max().double_value(&[]) < 10.0);
    for row in (0..8).filter(|row| !rewritten.contains(row)) {
        assert!(same(&codebook.select(0, row), &before.select(0, row)), "row {row} was in use");
    }
    assert!(step_number(&mut model, &frames, 2).row_resets.is_empty(), "another micro-batch of the same step");
}

#[test]
fn weights_survive_a_file_and_refuse_another_model() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    let original = model(&config(), 9);
    Tensor::write_safetensors(&original.store().state(), &path).unwrap();
    let tensors = hlrp_nn::read_tensors(&path).unwrap();

    let copy = model(&config(), 10);
    let frames = frames(2);
    assert!(!same(&eval_step(&copy, &frames).encoded.change_BSQ, &eval_step(&original, &frames).encoded.change_BSQ));
    copy.store().load_strict(&tensors).unwrap();
    assert!(same(&eval_step(&copy, &frames).encoded.change_BSQ, &eval_step(&original, &frames).encoded.change_BSQ));

    let wider = model(&config_with(&["model.quantizer.code_dim=16"]), 11);
    let error = wider.store().load_strict(&tensors).unwrap_err().to_string();
    assert!(error.contains("vq.codebooks") && error.contains("[8, 16]"), "{error}");
}

#[test]
fn a_model_without_decoders_has_the_names_that_no_decoder_owns() {
    let names = |parts| {
        let model = LaqModel::new(&config(), parts, tch::Device::Cpu);
        model.store().state().into_iter().map(|(name, _)| name).collect::<Vec<String>>()
    };
    let mut whole = names(Parts::All);
    whole.retain(|name| !Decoders::owns(name));
    assert_eq!(names(Parts::Encoder), whole);
}

#[test]
fn standardised_vectors_are_nearest_to_their_own_codes() {
    let model = model(&config(), 12);
    let (codes, scale) = (model.quantizer.codes().unwrap(), no_grad(|| model.quantizer.scale()));
    let ids = Tensor::arange(codes.num_codes(), (Kind::Int64, tch::Device::Cpu)).view([2, 4]);
    let vectors = no_grad(|| scale.standardise(&codes.vectors(&ids)));
    assert!(vectors.mean_dim([0, 1].as_slice(), false, Kind::Float).abs().max().double_value(&[]) < 1e-6);
    assert!(same(&codes.nearest(&vectors, &scale), &ids));
}
