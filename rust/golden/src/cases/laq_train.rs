//! Ten optimizer steps through the engine's optimizer, clipping and schedule.

use crate::case::{Case, Tensors};
use crate::compare::{Comparison, Tolerance};
use crate::draws::RecordedDraws;
use anyhow::Context;
use hlrp_laq::from_lightning_names;
use hlrp_laq::{LaqModel, Parts, TrainStep, train_step, unit_frames};
use hlrp_nn::Pass;
use hlrp_schema::{LrScale, OptimizerConfig, SchedulerConfig, SchedulerType};
use hlrp_torch::World;
use hlrp_train::{Optimizer, Schedule, norm_and_clip};
use std::collections::{BTreeMap, BTreeSet};
use tch::{Kind, Tensor};

pub(crate) fn run(case: &Case, comparison: &mut Comparison) -> anyhow::Result<()> {
    let mut model = LaqModel::new(&case.model_config()?, Parts::All, case.device());
    case.load_model(model.store())?;
    let training = Training::new(case)?;
    let optimizer = Optimizer::new(&model.store().parameters(), &training.optimizer)?;
    check_groups(case, &model, &optimizer, comparison);

    let schedule = Schedule::new(&training.scheduler, training.optimizer.lr, training.max_steps);
    let mut history = History::default();
    for index in 0..case.input("frames_u8")?.size()[0] {
        let step = forward(case, &mut model, index)?;
        step.loss.backward();
        let gradients = optimizer.gradients();
        let norm = norm_and_clip(&gradients, training.clip_norm, case.device())?;
        let lr = schedule.lr(index.unsigned_abs());
        history.note(&step, &norm, lr, model.quantizer.codes().context("the model has no codes")?.usage().window());
        // The reference keeps the moments of rewritten rows, so no row is reset here.
        optimizer.step(lr)?;
        optimizer.clear_gradients()?;
        if index == 0 {
            check_parameters("after_first_step", &model, case, comparison);
        }
    }
    history.check(comparison);
    check_moments(&optimizer, comparison);
    check_final_weights(case, &model, comparison)
}

/// Section `training` of a case.
struct Training {
    optimizer: OptimizerConfig,
    scheduler: SchedulerConfig,
    max_steps: u64,
    clip_norm: Option<f64>,
}

impl Training {
    fn new(case: &Case) -> anyhow::Result<Self> {
        let training = &case.config["training"];
        let (optimizer, scheduler) = (&training["optimizer"], &training["scheduler"]);
        let number = |value: &serde_json::Value| value.as_f64().context("config.json lacks a number of `training`");
        Ok(Self {
            optimizer: OptimizerConfig {
                lr: number(&optimizer["lr"])?,
                betas: [number(&optimizer["betas"][0])?, number(&optimizer["betas"][1])?],
                eps: number(&optimizer["eps"])?,
                weight_decay: number(&optimizer["weight_decay"])?,
            },
            scheduler: SchedulerConfig {
                kind: SchedulerType::Cosine,
                warmup_steps: scheduler["warmup_steps"].as_u64().context("config.json lacks warmup_steps")?,
                warmup_start_lr: number(&scheduler["warmup_start_lr"])?,
                min_lr: number(&scheduler["min_lr"])?,
                lr_base_size: None,
                lr_base_scale: LrScale::Sqrt,
            },
            max_steps: training["max_steps"].as_u64().context("config.json lacks max_steps")?,
            clip_norm: training["gradient"]["clip_val"].as_f64(),
        })
    }
}

fn forward(case: &Case, model: &mut LaqModel, index: i64) -> anyhow::Result<TrainStep> {
    let frames = unit_frames(&case.input("frames_u8")?.select(0, index).permute([0, 2, 1, 3, 4]).contiguous());
    let number = index + 1;
    let recorded = |what: &str| case.inputs.get(&format!("replace.step{number:02}.{what}"));
    let noise = case.input("vq_noise")?.select(0, index);
    let mut draws =
        RecordedDraws::default().normal(Some(&noise)).normal(recorded("randn")).permutation(recorded("randperm"));
    let (world, pass) = (World::single(), Pass::plain(true));
    Ok(case.forward_pass(|| train_step(model, &frames, number.unsigned_abs(), &world, &mut draws, &pass))??)
}

/// Numbers of every step, by the name under which they are recorded.
#[derive(Default)]
struct History(BTreeMap<&'static str, Vec<Tensor>>);

impl History {
    fn note(&mut self, step: &TrainStep, grad_norm: &Tensor, lr: f64, usage: &Tensor) {
        let mut push = |name, tensor: &Tensor| self.0.entry(name).or_default().push(tensor.detach().copy());
        push("loss", &step.loss);
        push("grad_norm", grad_norm);
        push("lr", &Tensor::from(lr));
        if let Some(ids_BS) = &step.ids_BS {
            push("indices", ids_BS);
        }
        push("usage", usage);
        for (name, value) in &step.metrics {
            match *name {
                "pixel_loss" | "aux_loss" | "dino_loss" => push(name, value),
                "codebook_replaced" => push("replaced", value),
                _ => {}
            }
        }
    }

    fn check(&self, comparison: &mut Comparison) {
        for (name, steps) in &self.0 {
            let tolerance = if *name == "lr" { Tolerance::Formula } else { Tolerance::Gradient };
            comparison.check(name, &Tensor::stack(steps, 0), tolerance);
        }
    }
}

fn check_parameters(prefix: &str, model: &LaqModel, case: &Case, comparison: &mut Comparison) {
    let parameters: BTreeMap<String, Tensor> = model.store().parameters().into_iter().collect();
    let prefix = format!("{prefix}.");
    for key in case.outputs.keys().filter(|key| key.starts_with(&prefix)) {
        if let Some(parameter) = parameters.get(&key[prefix.len()..]) {
            comparison.check(key, parameter, Tolerance::Gradient);
        }
    }
}

fn check_moments(optimizer: &Optimizer, comparison: &mut Comparison) {
    for (name, tensor) in optimizer.state() {
        if let Some((moment, parameter)) = name.split_once('.') {
            comparison.check(&format!("adam.{parameter}.{moment}"), &tensor, Tolerance::Gradient);
        }
    }
}

/// Which parameters decay. Empty ones and those that no computation reads exist in the reference only.
fn check_groups(case: &Case, model: &LaqModel, optimizer: &Optimizer, comparison: &mut Comparison) {
    let exists: BTreeSet<String> = model.store().parameters().into_iter().map(|(name, _)| name).collect();
    for (group, key) in optimizer.groups().iter().zip(["weight_decay", "no_weight_decay"]) {
        let Some(recorded) = case.config["optimizer_groups"][key].as_array() else { continue };
        let recorded: BTreeSet<String> = recorded
            .iter()
            .filter_map(|name| name.as_str().map(str::to_owned))
            .filter(|name| exists.contains(name))
            .collect();
        let ours: BTreeSet<String> = group.names.iter().cloned().collect();
        comparison.require(&format!("optimizer_groups.{key}"), recorded == ours, "holds other parameters");
    }
}

fn check_final_weights(case: &Case, model: &LaqModel, comparison: &mut Comparison) -> anyhow::Result<()> {
    let state = model.store().state();
    let recorded: Tensors =
        from_lightning_names(case.file("final_weights.safetensors")?.into_iter().collect(), &state)?
            .into_iter()
            .collect();
    let noise_driven = case.scalars["noise_driven"].as_array();
    let is_noise = |name: &str| noise_driven.is_some_and(|names| names.iter().any(|noisy| noisy == name));
    for (name, parameter) in model.store().parameters() {
        let expected = recorded.get(&name).with_context(|| format!("final_weights.safetensors has no `{name}`"))?;
        if is_noise(&name) {
            // Adam turns rounding noise into steps of full size: at most one learning rate per step.
            let moved = (&parameter - expected).abs().max().to_kind(Kind::Double).double_value(&[]);
            let reach =
                2.0 * case.config["training"]["max_steps"].as_f64().unwrap_or(0.0) * Training::new(case)?.optimizer.lr;
            comparison.require(&format!("final.{name}"), moved <= reach, "moved further than Adam can");
        } else {
            let movement = case.scalars["largest_change_by_parameter"][&name].as_f64().unwrap_or(0.0);
            comparison.check_against(&format!("final.{name}"), &parameter, expected, Tolerance::Trained { movement });
        }
    }
    Ok(())
}
