//! The pooled architecture.

use super::smolvlm::backbone_sizes;
use super::vla::{RecordedFlow, backbone, by_name, check_gradients, integer, number, pair, truth};
use crate::case::Case;
use crate::compare::{Comparison, Tolerance};
use anyhow::Context;
use hlrp_nn::smolvlm::{pad_resize, with_system_prompt};
use hlrp_nn::{Pass, Trace};
use hlrp_schema::policy::{ArchSpec, FlowSpec, LatentShape, Mode, ModelSpec, ObjectiveSpec, PooledSpec};
use hlrp_vla::{
    ActionTarget, Architecture, CameraImages, Language, LatentTarget, Observation, PooledModel, Targets, VlaLoss,
};
use tch::{Kind, Tensor, no_grad};

pub(crate) fn run(case: &Case, comparison: &mut Comparison) -> anyhow::Result<()> {
    let model = PooledModel::new(&config(case)?, case.device())?;
    let weights: Vec<(String, Tensor)> = case.file("weights.safetensors")?.into_iter().collect();
    model.store().load_strict(&weights)?;
    check_prompts(case, comparison)?;

    let observation = observation(case, &model)?;
    let targets = targets(case)?;
    comparison.check(
        "pixel_values",
        &observation.cameras[0].as_ref().context("no camera")?.pixels_BCHW,
        Tolerance::Forward,
    );
    check_latent_loss(case, &model, &observation, &targets, comparison)?;
    check_action_loss(case, &model, &observation, &targets, comparison)?;
    check_modes(case, &model, &observation, &targets, comparison)?;
    check_sampling(case, &model, &observation, comparison)
}

fn config(case: &Case) -> anyhow::Result<ModelSpec> {
    let backend = &case.config["backend"];
    let code_seq_len = integer(backend, "code_seq_len")?;
    let [height, width] = pair(backend, "image_size")?;
    Ok(ModelSpec {
        backbone: backbone(backbone_sizes(&case.config)?),
        cameras: vec!["front".to_owned()],
        empty_cameras: 0,
        resize_imgs_with_padding: [width, height],
        action_dim: Some(integer(backend, "action_dim")?),
        latent: Some(LatentShape {
            code_seq_len,
            code_dim: integer(backend, "latent_vector_dim")? / code_seq_len,
            codebook_size: None,
        }),
        flow: FlowSpec {
            num_steps: integer(backend, "flow_steps")?,
            min_period: number(backend, "min_period")?,
            max_period: number(backend, "max_period")?,
            time_beta_alpha: number(backend, "time_beta_alpha")?,
            time_beta_beta: number(backend, "time_beta_beta")?,
        },
        arch: ArchSpec::Pooled(PooledSpec {}),
    })
}

fn check_prompts(case: &Case, comparison: &mut Comparison) -> anyhow::Result<()> {
    // A case without one has instructions alone.
    let system_prompt = case.config["backend"]["system_prompt"].as_str().unwrap_or_default();
    let instructions: Vec<String> = serde_json::from_value(case.config["instructions"].clone())?;
    let expected: Vec<String> = serde_json::from_value(case.scalars["prompt_strings"].clone())?;
    let ours: Vec<String> = instructions.iter().map(|text| with_system_prompt(system_prompt, text)).collect();
    comparison.require("prompt_strings", ours == expected, "the prompts must be those of the reference");
    Ok(())
}

fn observation(case: &Case, model: &PooledModel) -> anyhow::Result<Observation> {
    let [height, width] = model.spec().image_size();
    let pixels_BCHW = case.input("frames_u8")?.select(1, 0).permute([0, 3, 1, 2]);
    let num_samples = pixels_BCHW.size()[0];
    Ok(Observation {
        cameras: vec![Some(CameraImages {
            pixels_BCHW: pad_resize(&pixels_BCHW, height, width),
            is_real_B: Tensor::ones([num_samples], (Kind::Bool, case.device())),
        })],
        language: Language {
            ids_BL: case.input("input_ids")?.shallow_clone(),
            is_valid_BL: truth(case.input("text_attention_mask")?),
        },
        state_BN: None,
    })
}

fn targets(case: &Case) -> anyhow::Result<Targets> {
    let vectors_BSD = case.input("target_latent_vectors")?.shallow_clone();
    let num_samples = vectors_BSD.size()[0];
    Ok(Targets {
        latent: Some(LatentTarget {
            vectors_BSD: Some(vectors_BSD),
            codes_BS: None,
            is_valid_B: Tensor::ones([num_samples], (Kind::Bool, case.device())),
        }),
        action: Some(ActionTarget {
            chunk_BTA: case.input("target_actions")?.unsqueeze(1),
            is_pad_BT: Tensor::zeros([num_samples, 1], (Kind::Bool, case.device())),
            is_pad_dim_BA: None,
        }),
    })
}

fn objective(case: &Case, mode: Mode) -> anyhow::Result<ObjectiveSpec> {
    let backend = &case.config["backend"];
    Ok(ObjectiveSpec {
        mode,
        latent_loss_weight: number(backend, "latent_loss_weight")?,
        action_loss_weight: number(backend, "action_loss_weight")?,
    })
}

/// The latent flow loss, its gradients and every intermediate result.
fn check_latent_loss(
    case: &Case,
    model: &PooledModel,
    observation: &Observation,
    targets: &Targets,
    comparison: &mut Comparison,
) -> anyhow::Result<()> {
    let trace = Trace::default();
    let watched = Pass { train: true, trace: Some(&trace) };
    let mut noise = RecordedFlow::noise(case.input("noise")?).at(case.input("time")?);
    let objective = objective(case, Mode::Latent)?;
    let loss = case.forward_pass(|| model.loss(observation, targets, &objective, &mut noise, &watched))??;
    // The recorded gradients are those of the loss without its weight.
    let mean = &loss.latent.as_ref().context("the latent loss is missing")?.mean;
    comparison.check("latent_flow_loss", mean, Tolerance::Forward);
    mean.backward();
    check_gradients(case, model.store(), comparison)?;
    for (name, tensor) in by_name(trace) {
        let recorded = match name.as_str() {
            "vision.post_layernorm" => "vision".to_owned(),
            layer if layer.starts_with("layer") => format!("text.{layer}"),
            other => other.to_owned(),
        };
        comparison.check(&recorded, &tensor, Tolerance::Forward);
    }
    Ok(())
}

/// The gradient of the weighted action loss at the action head.
fn check_action_loss(
    case: &Case,
    model: &PooledModel,
    observation: &Observation,
    targets: &Targets,
    comparison: &mut Comparison,
) -> anyhow::Result<()> {
    clear_gradients(model);
    let (objective, mut noise) = (objective(case, Mode::Actions)?, RecordedFlow::default());
    let pass = Pass::plain(true);
    let loss = case.forward_pass(|| model.loss(observation, targets, &objective, &mut noise, &pass))??;
    loss.total.backward();
    for (name, tensor) in model.store().parameters() {
        if tensor.grad().defined() {
            comparison.check(&format!("grad_actions.{name}"), &tensor.grad(), Tolerance::Gradient);
        }
    }
    clear_gradients(model);
    Ok(())
}

fn clear_gradients(model: &PooledModel) {
    for (_, mut tensor) in model.store().parameters() {
        tensor.zero_grad();
    }
}

fn check_modes(
    case: &Case,
    model: &PooledModel,
    observation: &Observation,
    targets: &Targets,
    comparison: &mut Comparison,
) -> anyhow::Result<()> {
    for (name, mode) in [("latent_flow", Mode::Latent), ("actions", Mode::Actions), ("multitask", Mode::Multitask)] {
        let mut noise = RecordedFlow::default();
        if mode.with_latents() {
            let recorded = |what: &str| case.input(&format!("mode.{name}.{what}"));
            noise = RecordedFlow::noise(recorded("noise")?).at(recorded("time")?);
        }
        let objective = objective(case, mode)?;
        let pass = Pass::plain(true);
        let VlaLoss { total, latent, action } =
            case.forward_pass(|| no_grad(|| model.loss(observation, targets, &objective, &mut noise, &pass)))??;
        comparison.check(&format!("mode.{name}.total"), &total, Tolerance::Forward);
        comparison.check(&format!("mode.{name}.metric.loss"), &total, Tolerance::Forward);
        for (metric, loss) in [("latent_loss", latent), ("action_loss", action)] {
            if let Some(loss) = loss {
                comparison.check(&format!("mode.{name}.metric.{metric}"), &loss.mean, Tolerance::Forward);
            }
        }
    }
    Ok(())
}

fn check_sampling(
    case: &Case,
    model: &PooledModel,
    observation: &Observation,
    comparison: &mut Comparison,
) -> anyhow::Result<()> {
    let trace = Trace::default();
    let watched = Pass { train: false, trace: Some(&trace) };
    let mut noise = RecordedFlow::noise(case.input("sample_noise")?);
    let prediction = case.forward_pass(|| model.sample(observation, Mode::Multitask, None, &mut noise, &watched))??;
    comparison.check(
        "sampled_latents",
        &prediction.latents_BSD.context("no latents were predicted")?,
        Tolerance::Forward,
    );
    comparison.check(
        "predicted_actions",
        &prediction.actions_BTA.context("no actions were predicted")?,
        Tolerance::Forward,
    );
    for (name, tensor) in by_name(trace) {
        match name.as_str() {
            "step.time" => comparison.check("sample.time", &tensor.select(1, 0), Tolerance::Forward),
            "step.x" => comparison.check("sample.x", &tensor, Tolerance::Forward),
            "step.velocity" => comparison.check("sample.velocity", &tensor, Tolerance::Forward),
            _ => {}
        }
    }
    Ok(())
}
