//! Runs an expert model on recorded inputs, for comparison with LeRobot's SmolVLA.
//!
//! `expert_pass FOLDER` reads `case.json` (description, whether to freeze, and loss weights), `weights.safetensors` and `inputs.safetensors` of a folder
//! and writes `outputs.safetensors`: per mode the losses and all gradients, every intermediate result of training, of the joint form and of
//! the sampler, and the samples.
#![allow(non_snake_case)] // shape suffixes

use anyhow::{Context, Result};
use hlrp_golden::joint::joint_velocity;
use hlrp_nn::smolvlm::pad_resize;
use hlrp_nn::{Pass, Trace, read_tensors};
use hlrp_schema::policy::{ArchSpec, FlowSpec, Mode, ModelSpec, ObjectiveSpec};
use hlrp_vla::{
    ActionTarget, Architecture, CameraImages, ExpertModel, FlowNoise, FlowPoint, HeadKind, Language, LatentTarget,
    Observation, Targets, freeze,
};
use serde::Deserialize;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use tch::{Device, Kind, Tensor, no_grad};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    model: ModelSpec,
    freezes: bool,
    latent_loss_weight: f64,
    action_loss_weight: f64,
}

struct Inputs(BTreeMap<String, Tensor>);

impl Inputs {
    fn get(&self, name: &str) -> Result<Tensor> {
        self.0.get(name).map(Tensor::shallow_clone).with_context(|| format!("the inputs hold no `{name}`"))
    }

    fn mask(&self, name: &str) -> Result<Tensor> {
        Ok(self.get(name)?.to_kind(Kind::Bool))
    }

    fn observation(&self, config: &ModelSpec) -> Result<Observation> {
        let [height, width] = config.image_size();
        let camera = |role: &String| -> Result<Option<CameraImages>> {
            let Some(images_BCHW) = self.0.get(&format!("camera.{role}")) else { return Ok(None) };
            let is_real_B = self.mask(&format!("camera.{role}.is_real"))?;
            Ok(Some(CameraImages { pixels_BCHW: pad_resize(images_BCHW, height, width), is_real_B }))
        };
        Ok(Observation {
            cameras: config.cameras.iter().map(camera).collect::<Result<_>>()?,
            language: Language { ids_BL: self.get("language.ids")?, is_valid_BL: self.mask("language.is_valid")? },
            state_BN: Some(self.get("state")?),
        })
    }

    fn targets(&self) -> Result<Targets> {
        Ok(Targets {
            action: Some(ActionTarget {
                chunk_BTA: self.get("actions")?,
                is_pad_BT: self.mask("actions.is_pad")?,
                is_pad_dim_BA: None,
            }),
            latent: Some(LatentTarget {
                vectors_BSD: Some(self.get("latents")?),
                codes_BS: None,
                is_valid_B: self.mask("latents.is_valid")?,
            }),
        })
    }

    /// What the losses of `mode` draw, or, when sampling, its samples.
    fn draws(&self, mode: Mode, prefix: &str) -> Result<GivenDraws> {
        let mut draws = GivenDraws::default();
        for (kind, is_drawn) in [("latent", mode.with_latents()), ("action", mode.with_actions())] {
            if is_drawn {
                draws.noise.push_back(self.get(&format!("{prefix}noise.{kind}"))?);
                draws.time.push_back(self.get(&format!("time.{kind}"))?);
            }
        }
        Ok(draws)
    }
}

/// Recorded noise and times, in order.
#[derive(Default)]
struct GivenDraws {
    noise: VecDeque<Tensor>,
    time: VecDeque<Tensor>,
}

impl FlowNoise for GivenDraws {
    fn normal(&mut self, _shape: &[i64], _device: Device) -> Tensor {
        self.noise.pop_front().expect("noise is drawn once per loss or sample")
    }

    fn time(&mut self, _num_samples: i64, _flow: &FlowSpec, _device: Device) -> Tensor {
        self.time.pop_front().expect("times are drawn once per loss")
    }
}

fn main() -> Result<()> {
    let folder = std::env::args().nth(1).context("usage: expert_pass FOLDER")?;
    let folder = Path::new(&folder);
    let case: Case = serde_json::from_reader(std::fs::File::open(folder.join("case.json"))?)?;
    let inputs = Inputs(read_tensors(&folder.join("inputs.safetensors"))?.into_iter().collect());
    let model = ExpertModel::new(&case.model, Device::Cpu)?;
    model.store().load_strict(&read_tensors(&folder.join("weights.safetensors"))?)?;
    if case.freezes {
        freeze(model.store(), &model.frozen())?;
    }

    let (observation, targets) = (inputs.observation(&case.model)?, inputs.targets()?);
    let mut results = Vec::new();
    for (name, mode) in [("actions", Mode::Actions), ("latent", Mode::Latent), ("multitask", Mode::Multitask)] {
        let objective = ObjectiveSpec {
            mode,
            latent_loss_weight: case.latent_loss_weight,
            action_loss_weight: case.action_loss_weight,
        };
        let draws = &mut inputs.draws(mode, "")?;
        let loss = model.loss(&observation, &targets, &objective, draws, &Pass::plain(true))?;
        loss.total.backward();
        results.push((format!("{name}.loss"), loss.total));
        for (kind, loss) in [("latent", loss.latent), ("action", loss.action)] {
            results.extend(loss.map(|loss| (format!("{name}.{kind}.per_sample"), loss.per_sample_B)));
        }
        for (parameter, mut tensor) in model.store().state() {
            if tensor.grad().defined() {
                results.push((format!("{name}.grad.{parameter}"), tensor.grad().copy()));
                tensor.zero_grad();
            }
        }
    }

    for (kind, name) in [(HeadKind::Action, "action"), (HeadKind::Latent, "latent")] {
        let point = point(&inputs, name, &case.model)?;
        let trace = Trace::default();
        let pass = Pass { train: true, trace: Some(&trace) };
        let velocity_BSD = no_grad(|| joint_velocity(&model, &observation, kind, &point.x, &point.time_B, &pass))?;
        results.push((format!("joint.{name}.velocity"), velocity_BSD));
        results.extend(named(&format!("joint.{name}"), trace));
    }

    let trace = Trace::default();
    let pass = Pass { train: false, trace: Some(&trace) };
    let draws = &mut inputs.draws(Mode::Multitask, "sample.")?;
    let prediction = model.sample(&observation, Mode::Multitask, None, draws, &pass)?;
    results.push(("sample.actions".to_owned(), prediction.actions_BTA.context("no actions were sampled")?));
    results.push(("sample.latents".to_owned(), prediction.latents_BSD.context("no latents were sampled")?));
    results.extend(named("sample", trace).into_iter().filter(|(name, _)| name.starts_with("sample.cache.")));

    let results: Vec<_> = results.into_iter().map(|(name, tensor)| (name, plain(&tensor))).collect();
    Tensor::write_safetensors(&results, folder.join("outputs.safetensors"))?;
    Ok(())
}

/// The point of the flow of `name` that its loss looks at.
fn point(inputs: &Inputs, name: &str, config: &ModelSpec) -> Result<FlowPoint> {
    let target_BSD = match name {
        "latent" => inputs.get("latents")?,
        _ => {
            let chunk_BTA = inputs.get("actions")?;
            let ArchSpec::Expert(own) = &config.arch else { anyhow::bail!("the case is not an expert") };
            chunk_BTA.constant_pad_nd([0, own.max_action_dim - config.action_dim.unwrap_or_default()])
        }
    };
    let (noise_BSD, time_B) = (inputs.get(&format!("noise.{name}"))?, inputs.get(&format!("time.{name}"))?);
    Ok(FlowPoint::new(&target_BSD, &noise_BSD, &time_B))
}

fn named(prefix: &str, trace: Trace) -> Vec<(String, Tensor)> {
    trace.into_records().into_iter().map(|(name, tensor)| (format!("{prefix}.{name}"), tensor)).collect()
}

/// A tensor as safetensors hold it.
fn plain(tensor: &Tensor) -> Tensor {
    let tensor = tensor.detach().contiguous();
    if tensor.kind() == Kind::Bool { tensor.to_kind(Kind::Int64) } else { tensor }
}
