//! What must hold of the quantizers, encoders and decoders that a model can have.
#![allow(clippy::unwrap_used, non_snake_case)] // a test may panic

mod common;

use common::{config_with, frames, model, same};
use hlrp_laq::{CODEBOOK, LaqModel, TorchDraws, TrainStep, eval_step, train_step};
use hlrp_nn::Pass;
use hlrp_torch::World;
use tch::{Kind, Tensor, no_grad};

/// A short way to write what every model here has: no NSVQ, which the mini model otherwise has.
const WITHOUT_NSVQ: &str = "~model.quantizer.nsvq";
const EMA_VQ: &str = "+model.quantizer.ema_vq={decay: 0.95, commitment_weight: 0.25, restart_threshold: 0.02}";
const BATCH_NORM: &str = "model.quantizer.normalization=batch_norm";
const CONV: [&str; 4] =
    ["+model.encoder.conv={width: 8}", "model.decoder_network=conv", "model.spatial_depth=0", "model.temporal_depth=0"];
const DIFFERENCE: [&str; 2] = ["model.decoders.difference.enabled=true", "model.decoders.difference.depth=1"];

fn step(model: &mut LaqModel, frames: &Tensor, step: u64) -> TrainStep {
    train_step(model, frames, step, &World::single(), &mut TorchDraws, &Pass::plain(true)).unwrap()
}

fn tensor(model: &LaqModel, name: &str) -> Tensor {
    let name = format!("{}.{name}", LaqModel::QUANTIZER);
    model.store().state().into_iter().find(|(entry, _)| *entry == name).unwrap_or_else(|| panic!("no {name}")).1
}

fn metric(step: &TrainStep, name: &str) -> f64 {
    step.metrics.iter().find(|(entry, _)| *entry == name).unwrap_or_else(|| panic!("no {name}")).1.double_value(&[])
}

fn with_gradient(model: &LaqModel) -> Vec<String> {
    let has_gradient = |tensor: &Tensor| tensor.grad().defined() && tensor.grad().abs().max().double_value(&[]) > 0.0;
    model.store().parameters().into_iter().filter(|(_, tensor)| has_gradient(tensor)).map(|(name, _)| name).collect()
}

/// Every quantizer, by the overrides that choose it.
fn quantizers() -> Vec<Vec<&'static str>> {
    vec![
        vec![],
        vec![WITHOUT_NSVQ, EMA_VQ, BATCH_NORM],
        vec![
            WITHOUT_NSVQ,
            "+model.quantizer.fsq={levels: [4,3]}",
            "model.quantizer.codebook_size=12",
            "model.quantizer.code_dim=2",
            BATCH_NORM,
        ],
        vec![WITHOUT_NSVQ, "+model.quantizer.none={}", BATCH_NORM],
    ]
}

#[test]
fn every_quantizer_trains_the_encoder_and_evaluates_without_noise() {
    for overrides in quantizers() {
        let mut model = model(&config_with(&overrides), 1);
        let frames = frames(4);
        step(&mut model, &frames, 1).loss.backward();
        let with = with_gradient(&model);
        assert!(with.iter().any(|name| name.starts_with("enc_spatial_transformer.")), "{overrides:?}");
        let (first, second) = (eval_step(&model, &frames), eval_step(&model, &frames));
        assert!(same(&first.latent.vectors_BSQ, &second.latent.vectors_BSQ), "{overrides:?}");
        match (model.quantizer.codes(), &first.latent.ids_BS) {
            (Some(codes), Some(ids)) => {
                assert!(codes.vectors(ids).allclose(&first.latent.vectors_BSQ, 1e-6, 1e-6, false), "{overrides:?}");
            }
            (None, None) => {
                let normalised = model.quantizer.normalised(&first.encoded.change_BSQ);
                assert!(same(&normalised, &first.latent.vectors_BSQ));
            }
            _ => panic!("{overrides:?}: codes with ids, or neither"),
        }
    }
}

#[test]
fn standardised_vectors_are_nearest_to_their_own_codes() {
    for overrides in quantizers() {
        let model = model(&config_with(&overrides), 12);
        let Some(codes) = model.quantizer.codes() else { continue };
        let ids = Tensor::arange(codes.num_codes(), (Kind::Int64, tch::Device::Cpu)).view([-1, 4]);
        let scale = no_grad(|| model.quantizer.scale());
        let vectors = no_grad(|| scale.standardise(&codes.vectors(&ids)));
        let over_codes = [0, 1].as_slice();
        let mean = vectors.mean_dim(over_codes, false, Kind::Float);
        let std = vectors.std_dim(over_codes, false, false);
        assert!(mean.abs().max().double_value(&[]) < 1e-5, "{overrides:?}: {mean:?}");
        assert!((std - 1.0).abs().max().double_value(&[]) < 1e-5, "{overrides:?}");
        assert!(same(&codes.nearest(&vectors, &scale), &ids), "{overrides:?}");
    }
}

#[test]
fn all_that_a_quantizer_learns_is_in_the_state_of_the_model() {
    for mut overrides in quantizers() {
        if overrides.is_empty() {
            overrides = vec![BATCH_NORM, "model.quantizer.unquantized_steps=2", "model.quantizer.kmeans_start=true"];
        }
        overrides.extend(DIFFERENCE);
        let config = config_with(&overrides);
        let mut original = model(&config, 1);
        let frames = frames(4);
        step(&mut original, &frames, 1);
        step(&mut original, &frames, 2);
        let state: Vec<(String, Tensor)> =
            original.store().state().into_iter().map(|(name, tensor)| (name, tensor.copy())).collect();
        let mut resumed = model(&config, 2);
        resumed.store().load_strict(&state).unwrap();
        for number in 3..5 {
            tch::manual_seed(7);
            let expected = step(&mut original, &frames, number);
            tch::manual_seed(7);
            let found = step(&mut resumed, &frames, number);
            assert!(same(&found.loss, &expected.loss), "{overrides:?}: step {number}");
        }
        for ((name, found), (_, expected)) in resumed.store().state().iter().zip(original.store().state()) {
            assert!(same(found, &expected), "{overrides:?}: {name}");
        }
    }
}

#[test]
fn batch_norm_gives_each_dimension_of_each_slot_unit_variance() {
    let mut model = model(&config_with(&[WITHOUT_NSVQ, "+model.quantizer.none={}", BATCH_NORM]), 3);
    let frames = frames(64);
    for number in 1..=60 {
        step(&mut model, &frames, number);
    }
    let vectors = eval_step(&model, &frames).latent.vectors_BSQ;
    let over_batch = [0].as_slice();
    assert!(vectors.mean_dim(over_batch, false, Kind::Float).abs().max().double_value(&[]) < 1e-3);
    assert!((vectors.std_dim(over_batch, false, false) - 1.0).abs().max().double_value(&[]) < 1e-2);
    let alone = eval_step(&model, &frames.narrow(0, 0, 1)).latent.vectors_BSQ;
    assert!(alone.allclose(&vectors.narrow(0, 0, 1), 1e-4, 1e-4, false), "a pair's latent depends on it alone");
}

#[test]
fn the_first_steps_are_not_quantized_and_codes_start_where_the_changes_are() {
    let start = ["model.quantizer.unquantized_steps=2", "model.quantizer.kmeans_start=true", BATCH_NORM];
    for method in [vec![], vec![WITHOUT_NSVQ, EMA_VQ]] {
        let overrides: Vec<&str> = start.into_iter().chain(method).collect();
        let mut model = model(&config_with(&overrides), 4);
        let frames = frames(16);
        let before = tensor(&model, CODEBOOK).copy();
        for number in 1..=2 {
            assert!(step(&mut model, &frames, number).ids_BS.is_none(), "{overrides:?}: step {number}");
            assert!(same(&tensor(&model, CODEBOOK), &before), "{overrides:?}: step {number}");
        }
        let third = step(&mut model, &frames, 3);
        assert!(third.ids_BS.is_some());
        assert!(!same(&tensor(&model, CODEBOOK), &before), "{overrides:?}");
        // Trained rows have moments, which describe the rows of before; running means have none.
        assert_eq!(third.row_resets.len(), usize::from(overrides.len() == start.len()), "{overrides:?}");
        assert!(metric(&third, "num_unique_codes") >= 6.0, "{overrides:?}");
        let after = tensor(&model, CODEBOOK).copy();
        let again = step(&mut model, &frames, 3);
        assert!(again.row_resets.is_empty(), "another micro-batch of the same step");
        assert!(overrides.len() > start.len() || same(&tensor(&model, CODEBOOK), &after));
    }
}

#[test]
fn a_code_that_is_hardly_used_restarts_at_a_change_of_the_batch() {
    let mut model = model(&config_with(&[WITHOUT_NSVQ, EMA_VQ, BATCH_NORM]), 5);
    let frames = frames(16);
    let (codebook, used) = (tensor(&model, CODEBOOK), tensor(&model, "code_use"));
    let _ = no_grad(|| codebook.narrow(0, 5, 3).fill_(1e3));
    let _ = no_grad(|| tensor(&model, "code_sums").narrow(0, 5, 3).fill_(1.0));
    let _ = no_grad(|| used.narrow(0, 5, 3).fill_(1e-3));
    let first = step(&mut model, &frames, 1);
    assert!(metric(&first, "codebook_restarted_count") >= 3.0);
    assert!(codebook.narrow(0, 5, 3).abs().max().double_value(&[]) < 10.0, "{codebook:?}");
}

#[test]
fn the_loss_has_the_commitment_to_the_codes() {
    let of_weight = |weight: &str| {
        let ema_vq =
            format!("+model.quantizer.ema_vq={{decay: 0.95, commitment_weight: {weight}, restart_threshold: 0}}");
        let mut model = model(&config_with(&[WITHOUT_NSVQ, &ema_vq, BATCH_NORM]), 6);
        tch::manual_seed(8);
        let result = step(&mut model, &frames(4), 1);
        (result.loss.double_value(&[]), metric(&result, "commitment_loss"))
    };
    let ((without, commitment), (with, _)) = (of_weight("0"), of_weight("2"));
    assert!(commitment > 0.0);
    assert!((with - without - 2.0 * commitment).abs() < 1e-4, "{with} {without} {commitment}");
}

#[test]
fn slots_have_identities_of_their_own() {
    let model = model(&config_with(&["model.quantizer.slot_embedding=true"]), 7);
    let same_code = Tensor::zeros([1, 4], (Kind::Int64, tch::Device::Cpu));
    let vectors = model.quantizer.codes().unwrap().vectors(&same_code);
    let tokens = no_grad(|| model.bottleneck.action_tokens(&vectors));
    assert!(!same(&tokens.select(1, 0), &tokens.select(1, 1)));
}

#[test]
fn a_wider_grid_encoder_has_as_wide_codes() {
    let wide = model(&config_with(&["model.quantizer.grid_width=24"]), 7);
    assert_eq!(tensor(&wide, "project_in.weight").size(), [24, 32]);
    assert_eq!(tensor(&wide, "cnn_encoder.0.weight").size(), [24, 24, 3, 3]);
    assert_eq!(tensor(&wide, "cnn_encoder.2.weight").size(), [8, 24, 3, 3]);
    assert_eq!(eval_step(&wide, &frames(2)).latent.vectors_BSQ.size(), [2, 4, 8]);
}

#[test]
fn a_convolutional_model_sees_no_change_where_nothing_moves() {
    let model = model(&config_with(&CONV), 8);
    let frames = frames(2);
    let still = Tensor::stack(&[frames.select(1, 0), frames.select(1, 0)], 1);
    let of = |frames: &Tensor| no_grad(|| model.encode(frames, &Pass::plain(false)));
    let (moving, still) = (of(&frames), of(&still));
    assert_eq!(still.change_BSQ.abs().max().double_value(&[]), 0.0);
    assert!(moving.change_BSQ.abs().max().double_value(&[]) > 0.0);
    let first = |encoded: &hlrp_laq::Encoded| encoded.tokens_BTHWD.select(1, 0);
    assert!(same(&first(&moving), &first(&still)), "the canvas depends on frame t alone");
    assert_eq!(moving.tokens_BTHWD.size(), [2, 2, 8, 8, 32]);
}

#[test]
fn a_convolutional_model_has_a_gradient_everywhere_and_predicts_from_frame_t_alone() {
    let overrides: Vec<&str> = CONV.into_iter().chain(DIFFERENCE).collect();
    let mut model = model(&config_with(&overrides), 9);
    let frames = frames(4);
    step(&mut model, &frames, 1).loss.backward();
    let with = with_gradient(&model);
    for (name, _) in model.store().parameters() {
        // One of 8 codes need not be used by 16 changes, but the codebook as a whole is.
        assert!(with.contains(&name), "{name} gets no gradient");
    }
    let result = eval_step(&model, &frames);
    let alone = no_grad(|| model.predict(&frames.narrow(1, 0, 1), &result.action_tokens_BSD, &Pass::plain(false)));
    for (name, prediction) in result.predictions.iter() {
        assert!(prediction.allclose(alone.get(name).unwrap(), 1e-5, 1e-5, false), "{name}");
    }
}

#[test]
fn the_difference_is_in_units_of_its_root_mean_square() {
    let mut model = model(&config_with(&DIFFERENCE), 10);
    let frames = frames(4);
    step(&mut model, &frames, 1);
    let encoded = no_grad(|| model.encode(&frames, &Pass::plain(false)));
    let target = model.target(&frames, &encoded);
    let losses = model.decoders.losses(&model.decoders.no_change(&target), &target);
    assert!((losses.get("difference").unwrap().double_value(&[]) - 1.0).abs() < 1e-5, "no change costs 1");
    let decoder = model.decoders.get("difference").unwrap();
    let earlier = frames.select(1, 0);
    let image = |prediction: &Tensor| decoder.image(prediction, &earlier).unwrap().1;
    assert!(same(&image(&earlier.zeros_like()), &earlier));
    let difference = frames.select(1, 1) - &earlier;
    let unit = difference.square().mean(Kind::Float).sqrt();
    assert!(image(&(difference / unit)).allclose(&frames.select(1, 1), 1e-5, 1e-5, false));
}

#[test]
fn a_decoder_from_latents_alone_does_not_see_frame_t() {
    for network in ["transformer", "conv"] {
        let network = format!("model.decoder_network={network}");
        let names = ["token", "pixel", "difference", "aux"];
        let blind = names.map(|name| format!("model.decoders.{name}.from_latent_only=true"));
        let overrides: Vec<&str> =
            blind.iter().map(String::as_str).chain(DIFFERENCE).chain([network.as_str()]).collect();
        let model = model(&config_with(&overrides), 11);
        let frames = frames(2);
        let tokens = eval_step(&model, &frames).action_tokens_BSD;
        let predict = |frame: &Tensor| no_grad(|| model.predict(frame, &tokens, &Pass::plain(false)));
        let (first, second) = (predict(&frames.narrow(1, 0, 1)), predict(&frames.narrow(1, 1, 1)));
        for name in names {
            assert!(same(first.get(name).unwrap(), second.get(name).unwrap()), "{name} sees frame t");
        }
    }
}

#[test]
fn the_canvas_of_a_decoder_that_does_not_see_frame_t_is_trained() {
    let blind = ["token", "pixel", "aux"].map(|name| format!("model.decoders.{name}.from_latent_only=true"));
    let overrides: Vec<&str> = blind.iter().map(String::as_str).collect();
    let mut model = model(&config_with(&overrides), 14);
    step(&mut model, &frames(3), 1).loss.backward();
    let with = with_gradient(&model);
    for name in ["blank_canvas.token", "blank_canvas.pixel", "blank_canvas.aux"] {
        assert!(with.iter().any(|entry| entry == name), "{name} gets no gradient");
    }
    assert!(!with.iter().any(|name| name.starts_with("aux_context_projection.")), "it has no second canvas");
}

#[test]
fn a_detached_decoder_sends_no_gradient_outside() {
    let detached = ["model.decoders.difference.detached=true"];
    let overrides: Vec<&str> = DIFFERENCE.into_iter().chain(detached).collect();
    let mut model = model(&config_with(&overrides), 12);
    let result = step(&mut model, &frames(3), 1);
    result.losses.get("difference").unwrap().backward();
    let names = with_gradient(&model);
    assert!(!names.is_empty());
    for name in names {
        assert!(name.starts_with("difference_"), "{name} gets a gradient from a detached decoder");
    }
}

#[test]
fn the_use_of_codes_is_known_by_slot() {
    let mut model = model(&config_with(&[]), 13);
    let result = step(&mut model, &frames(8), 1);
    let ids = result.ids_BS.as_ref().unwrap();
    let slots: Vec<f64> = (0..4)
        .map(|slot| {
            let counts = ids.select(1, slot).bincount::<Tensor>(None, 8);
            hlrp_laq::perplexity(&counts).double_value(&[])
        })
        .collect();
    let least = slots.iter().copied().fold(f64::INFINITY, f64::min);
    assert!((metric(&result, "slot_perplexity_min") - least).abs() < 1e-5, "{slots:?}");
}

#[test]
fn changes_of_triplets_add_up_in_units_of_their_variance() {
    let weights = ["model.triplets.additivity_weight=2", "model.triplets.reversal_weight=3"];
    let overrides = [&[WITHOUT_NSVQ, "+model.quantizer.none={}", BATCH_NORM], weights.as_slice()].concat();
    let frames = Tensor::rand([6, 3, 3, 32, 32], (Kind::Float, tch::Device::Cpu));
    let pairs = frames.narrow(1, 0, 2);
    let (mut with, mut without) = (model(&config_with(&overrides), 5), model(&config_with(&overrides[..3]), 5));

    let change = |from: i64, to: i64| {
        let pair = frames.index_select(1, &Tensor::from_slice(&[from, to]));
        no_grad(|| with.encode(&pair, &Pass::plain(false)).change_BSQ.to_kind(Kind::Double))
    };
    let there = change(0, 1);
    let variance = there.var_dim([0].as_slice(), false, true);
    let in_units = |error: Tensor| (error.square() / &variance).mean(Kind::Double).double_value(&[]);
    let additivity = in_units(change(0, 2) - &there - change(1, 2));
    let reversal = in_units(&there + change(1, 0));

    let (result, plain) = (step(&mut with, &frames, 1), step(&mut without, &pairs, 1));
    let near = |found: f64, expected: f64| assert!((found / expected - 1.0).abs() < 1e-4, "{found} {expected}");
    near(metric(&result, "additivity_loss"), additivity);
    near(metric(&result, "reversal_loss"), reversal);
    near(result.loss.double_value(&[]), plain.loss.double_value(&[]) + 2.0 * additivity + 3.0 * reversal);

    // They do not fall when all changes shrink: the last layer of the grid encoder scales them.
    let mut scaled = model(&config_with(&overrides), 5);
    no_grad(|| {
        for (name, mut tensor) in scaled.store().parameters() {
            if name.starts_with("vq.cnn_encoder.2.") {
                let _ = tensor.g_mul_scalar_(0.1);
            }
        }
    });
    near(metric(&step(&mut scaled, &frames, 1), "additivity_loss"), additivity);
}
