//! The expert architecture against LeRobot's SmolVLA.

use super::smolvlm::backbone_sizes;
use super::vla::{RecordedFlow, backbone, by_name, check_gradients, integer, number, pair, truth};
use crate::case::Case;
use crate::compare::{Comparison, Tolerance};
use anyhow::Context;
use hlrp_golden::joint::joint_velocity;
use hlrp_nn::smolvlm::pad_resize;
use hlrp_nn::{Pass, Trace};
use hlrp_schema::policy::{
    ArchSpec, BackboneSpec, ExpertSpec, FlowSpec, ImageSpecialTokens, LatentHead, Mode, ModelSpec, ObjectiveSpec,
};
use hlrp_vla::{
    ActionTarget, Architecture, CameraImages, ExpertModel, FlowPoint, HeadKind, Language, Observation, Targets, freeze,
};
use serde_json::Value;
use std::collections::BTreeSet;
use tch::{Kind, Tensor, no_grad};

/// Actions alone, as LeRobot trains.
const OBJECTIVE: ObjectiveSpec =
    ObjectiveSpec { mode: Mode::Actions, latent_loss_weight: 0.0, action_loss_weight: 1.0 };

pub(crate) fn run(case: &Case, comparison: &mut Comparison) -> anyhow::Result<()> {
    let model = ExpertModel::new(&config(case)?, case.device())?;
    let initialised = model.init_from_smolvla(&case.dir().join("weights.safetensors"))?;
    comparison.require("weights", initialised.fresh.is_empty(), "the checkpoint must fill the whole model");
    check_freezing(case, &model, comparison)?;

    let observation = observation(case, &model)?;
    let targets = targets(case)?;
    check_training(case, &model, &observation, &targets, comparison)?;
    check_joint_form(case, &model, &observation, comparison)?;
    check_sampling(case, &model, &observation, comparison)
}

fn config(case: &Case) -> anyhow::Result<ModelSpec> {
    let policy = &case.config["policy"];
    let special = &case.config["special_ids"];
    let positive = |key: &str| integer(policy, key).map(|value| (value > 0).then_some(value));
    let num_layers = integer(policy, "num_vlm_layers")?;
    let cameras = case.config["cameras"].as_object().context("config.json has no `cameras`")?;
    let mut sizes = backbone_sizes(&case.config)?;
    sizes.text.num_hidden_layers = num_layers;
    let special_tokens = || -> anyhow::Result<_> {
        let ids = (integer(special, "fake_image_token_id")?, integer(special, "global_image_token_id")?);
        Ok(ImageSpecialTokens { fake_id: ids.0, global_id: ids.1 })
    };
    let has_special_tokens = policy["add_image_special_tokens"] == true;
    Ok(ModelSpec {
        backbone: BackboneSpec {
            train_expert_only: policy["train_expert_only"] == true,
            freeze_vision_encoder: policy["freeze_vision_encoder"] == true,
            ..backbone(sizes)
        },
        cameras: cameras.keys().cloned().collect(),
        empty_cameras: usize::try_from(integer(policy, "empty_cameras")?)?,
        resize_imgs_with_padding: pair(policy, "resize_imgs_with_padding")?,
        action_dim: Some(integer(&case.config, "action_dim")?),
        latent: None,
        flow: FlowSpec {
            num_steps: integer(policy, "num_steps")?,
            min_period: number(policy, "min_period")?,
            max_period: number(policy, "max_period")?,
            // LeRobot 0.6 has no keys for these two.
            time_beta_alpha: policy["time_beta_alpha"].as_f64().unwrap_or(1.5),
            time_beta_beta: policy["time_beta_beta"].as_f64().unwrap_or(1.0),
        },
        arch: ArchSpec::Expert(ExpertSpec {
            smolvla_checkpoint: None,
            num_expert_layers: positive("num_expert_layers")?,
            expert_width_multiplier: number(policy, "expert_width_multiplier")?,
            self_attn_every_n_layers: integer(policy, "self_attn_every_n_layers")?,
            prefix_length: positive("prefix_length")?,
            add_image_special_tokens: has_special_tokens,
            image_special_tokens: has_special_tokens.then(special_tokens).transpose()?,
            max_state_dim: integer(policy, "max_state_dim")?,
            max_action_dim: integer(policy, "max_action_dim")?,
            chunk_size: integer(policy, "chunk_size")?,
            train_state_proj: policy["train_state_proj"] != false,
            latent_head: LatentHead::VectorFlow,
            latent_dropout: 0.0,
        }),
    })
}

/// Freezes as the case says; the trainable parameters must be LeRobot's.
fn check_freezing(case: &Case, model: &ExpertModel, comparison: &mut Comparison) -> anyhow::Result<()> {
    freeze(model.store(), &model.frozen())?;
    let trainable: BTreeSet<String> = model.store().parameters().into_iter().map(|(name, _)| name).collect();
    let expected: BTreeSet<String> = serde_json::from_value(case.config["trainable"].clone())?;
    comparison.require("trainable", trainable == expected, "the parameters that train must be those of the reference");
    Ok(())
}

fn observation(case: &Case, model: &ExpertModel) -> anyhow::Result<Observation> {
    let [height, width] = model.spec().image_size();
    let camera = |role: &String| {
        let name = format!("batch.observation.images.{role}");
        let images_BCHW = case.inputs.get(&name)?;
        let all_real = || Tensor::ones([images_BCHW.size()[0]], (Kind::Bool, case.device()));
        Some(CameraImages {
            pixels_BCHW: pad_resize(images_BCHW, height, width),
            is_real_B: case.inputs.get(&format!("{name}_padding_mask")).map_or_else(all_real, truth),
        })
    };
    Ok(Observation {
        cameras: model.spec().cameras.iter().map(camera).collect(),
        language: Language {
            ids_BL: case.input("batch.observation.language.tokens")?.shallow_clone(),
            is_valid_BL: truth(case.input("batch.observation.language.attention_mask")?),
        },
        state_BN: Some(case.input("batch.observation.state")?.shallow_clone()),
    })
}

fn targets(case: &Case) -> anyhow::Result<Targets> {
    let chunk_BTA = case.input("batch.action")?.shallow_clone();
    let none_padded = || chunk_BTA.select(2, 0).zeros_like().to_kind(Kind::Bool);
    let is_pad_BT = case.inputs.get("batch.action_is_pad").map_or_else(none_padded, truth);
    Ok(Targets { action: Some(ActionTarget { chunk_BTA, is_pad_BT, is_pad_dim_BA: None }), latent: None })
}

fn training_noise(case: &Case) -> anyhow::Result<RecordedFlow> {
    Ok(RecordedFlow::noise(case.input("noise")?).at(case.input("time")?))
}

/// The loss and its gradients as training computes them, then once more with every intermediate result.
fn check_training(
    case: &Case,
    model: &ExpertModel,
    observation: &Observation,
    targets: &Targets,
    comparison: &mut Comparison,
) -> anyhow::Result<()> {
    let mut noise = training_noise(case)?;
    let plain = Pass::plain(true);
    let loss = case.forward_pass(|| model.loss(observation, targets, &OBJECTIVE, &mut noise, &plain))??;
    loss.total.backward();
    comparison.check("train.loss", &loss.total, Tolerance::Forward);
    let action = loss.action.as_ref().context("the action loss is missing")?;
    comparison.check("train.loss_per_sample", &action.per_sample_B, Tolerance::Forward);
    check_reported_loss(&case.scalars["loss_info"], &loss.total, comparison);
    check_reported_loss(&case.scalars["loss_info_reduction_none"], &action.per_sample_B.mean(Kind::Float), comparison);
    check_gradients(case, model.store(), comparison)?;

    let trace = Trace::default();
    let watched = Pass { train: true, trace: Some(&trace) };
    let mut noise = training_noise(case)?;
    case.forward_pass(|| no_grad(|| model.loss(observation, targets, &OBJECTIVE, &mut noise, &watched)))??;
    for (name, tensor) in by_name(trace) {
        match name.as_str() {
            "state" | "actions" => comparison.check(&format!("prepared.{name}"), &tensor, Tolerance::Forward),
            image if image.starts_with("image") => {
                comparison.check(&format!("prepared.{name}"), &tensor, Tolerance::Forward)
            }
            _ => comparison.check(&format!("train.{name}"), &tensor, Tolerance::Forward),
        }
    }
    Ok(())
}

fn check_reported_loss(info: &Value, ours: &Tensor, comparison: &mut Comparison) {
    comparison.check_number(
        "loss_info",
        ours.double_value(&[]),
        info["loss"].as_f64().unwrap_or(f64::NAN),
        Tolerance::Forward,
    );
}

/// Both streams layer by layer in the reference's own form.
fn check_joint_form(
    case: &Case,
    model: &ExpertModel,
    observation: &Observation,
    comparison: &mut Comparison,
) -> anyhow::Result<()> {
    let padded_BTA = case.outputs.get("prepared.actions").context("outputs.safetensors has no `prepared.actions`")?;
    let point = FlowPoint::new(padded_BTA, case.input("noise")?, case.input("time")?);
    let trace = Trace::default();
    let watched = Pass { train: false, trace: Some(&trace) };
    let velocity = case.forward_pass(|| {
        no_grad(|| joint_velocity(model, observation, HeadKind::Action, &point.x, &point.time_B, &watched))
    })??;
    comparison.check("train.velocity", &velocity, Tolerance::Forward);
    for (name, tensor) in by_name(trace) {
        comparison.check(&format!("train.{name}"), &tensor, Tolerance::Forward);
    }
    Ok(())
}

/// The sampler over the cached prefix, and its first step against the joint form.
fn check_sampling(
    case: &Case,
    model: &ExpertModel,
    observation: &Observation,
    comparison: &mut Comparison,
) -> anyhow::Result<()> {
    let noise = case.input("sample_noise")?;
    let trace = Trace::default();
    let watched = Pass { train: false, trace: Some(&trace) };
    let mut draws = RecordedFlow::noise(noise);
    let prediction = case.forward_pass(|| model.sample(observation, Mode::Actions, None, &mut draws, &watched))??;
    let chunk_BTA = prediction.actions_BTA.context("no actions were predicted")?;
    comparison.check("sample.action_chunk", &chunk_BTA, Tolerance::Forward);
    let num_executed = integer(&case.config["policy"], "n_action_steps")?;
    comparison.check("sample.select_action", &chunk_BTA.narrow(1, 0, num_executed), Tolerance::Forward);
    for (name, tensor) in by_name(trace) {
        match name.as_str() {
            "sample" => comparison.check("sample.padded_chunk", &tensor, Tolerance::Forward),
            "step.time" => comparison.check("sample.time", &tensor.select(1, 0), Tolerance::Forward),
            "step.x" => comparison.check("sample.x", &tensor, Tolerance::Forward),
            "step.velocity" => {
                comparison.check("sample.velocity", &tensor, Tolerance::Forward);
                let time_B = Tensor::ones([noise.size()[0]], (Kind::Float, case.device()));
                let plain = Pass::plain(false);
                let joint = case.forward_pass(|| {
                    no_grad(|| joint_velocity(model, observation, HeadKind::Action, noise, &time_B, &plain))
                })??;
                comparison.check_against(
                    "first velocity, cached and joint",
                    &tensor.select(0, 0),
                    &joint,
                    Tolerance::Forward,
                );
            }
            cache if cache.starts_with("cache.") => {
                comparison.check(&format!("sample.{name}"), &tensor, Tolerance::Forward)
            }
            _ => {}
        }
    }
    Ok(())
}
