//! Time of one training step and of one action chunk of an expert model, the peer of `tests/bench/smolvla.py`.
//!
//! `bench_policy FOLDER step|chunk float32|bf16 THREADS REPEATS` reads what `tests/bench/smolvla.py write FOLDER` wrote and prints one JSON
//! object. A step is loss, gradients, clipping and optimizer; a chunk is one observation and all steps of the sampler.
#![allow(non_snake_case, clippy::print_stdout, missing_docs, reason = "a program")]

use anyhow::{Context, Result};
use hlrp_nn::smolvlm::pad_resize;
use hlrp_nn::{Pass, Store, read_tensors};
use hlrp_schema::OptimizerConfig;
use hlrp_schema::policy::{Mode, ModelSpec, ObjectiveSpec};
use hlrp_torch::{Autocast, AutocastDtype};
use hlrp_train::{Optimizer, norm_and_clip};
use hlrp_vla::{ActionTarget, CameraImages, Language, Observation, Targets, TorchNoise, VlaModel, freeze};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor};

/// LeRobot's preset for SmolVLA.
const OPTIMIZER: OptimizerConfig = OptimizerConfig { lr: 1e-4, betas: [0.9, 0.95], eps: 1e-8, weight_decay: 1e-10 };
const CLIP_NORM: f64 = 10.0;
const OBJECTIVE: ObjectiveSpec =
    ObjectiveSpec { mode: Mode::Actions, latent_loss_weight: 0.0, action_loss_weight: 1.0 };

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, work, precision, threads, repeats] = arguments.as_slice() else {
        anyhow::bail!("usage: bench_policy FOLDER step|chunk float32|bf16 THREADS REPEATS");
    };
    let (folder, bf16, repeats) = (Path::new(folder), precision == "bf16", repeats.parse::<usize>()?);
    tch::set_num_threads(threads.parse()?);
    let case: Value = serde_json::from_reader(std::fs::File::open(folder.join("case.json"))?)?;
    let spec: ModelSpec = serde_json::from_value(case["model"].clone())?;
    let inputs = if work == "step" { "batch.safetensors" } else { "observation.safetensors" };
    let inputs: BTreeMap<String, Tensor> = read_tensors(&folder.join(inputs))?.into_iter().collect();
    let model = VlaModel::new(&spec, Device::Cpu)?;
    model.init_from_smolvla(&folder.join("weights.safetensors"))?;
    freeze(model.store(), &model.frozen())?;
    let trained = if work == "step" { model.store().parameters() } else { Vec::new() };
    let model = if bf16 { hold_in_bfloat16(model, &trained)? } else { model };
    let optimizer = Optimizer::new(&trained, &OPTIMIZER)?;
    let mut seconds = Vec::new();
    for _ in 0..=repeats {
        let start = (Instant::now(), cpu_time()?);
        match work.as_str() {
            "step" => train(&model, &inputs, &optimizer, bf16)?,
            "chunk" => sample(&model, &inputs, bf16)?,
            _ => anyhow::bail!("there is no work `{work}`"),
        }
        seconds.push((start.0.elapsed(), cpu_time()? - start.1));
    }
    let timed = &seconds[1..];
    let least = |pick: fn(&(Duration, Duration)) -> Duration| timed.iter().map(pick).min().unwrap_or_default();
    println!(
        "{}",
        json!({
            "wall_s": least(|times| times.0).as_secs_f64(),
            "cpu_s": least(|times| times.1).as_secs_f64(),
            "peak_gb": hlrp_torch::memory::peak(Device::Cpu).context("the system counts no memory")? as f64 / 1e9,
        })
    );
    Ok(())
}

/// The same model with what is not trained in bfloat16, as the policy inside LeRobot holds it.
fn hold_in_bfloat16(model: VlaModel, trained: &[(String, Tensor)]) -> Result<VlaModel> {
    let trained: HashSet<&str> = trained.iter().map(|(name, _)| name.as_str()).collect();
    let castable: HashSet<String> = model.store().castable().into_iter().collect();
    let hold = |(name, tensor): (String, Tensor)| {
        let is_held = castable.contains(&name) && !trained.contains(name.as_str());
        let tensor = if is_held { tensor.detach().to_kind(Kind::BFloat16) } else { tensor };
        (name, tensor)
    };
    let tensors = model.store().state().into_iter().map(hold).collect();
    Ok(VlaModel::over(model.spec(), Store::over(tensors))?)
}

fn train(model: &VlaModel, inputs: &BTreeMap<String, Tensor>, optimizer: &Optimizer, bf16: bool) -> Result<()> {
    let observation = observation(model.spec(), inputs)?;
    let targets = Targets {
        action: Some(ActionTarget {
            chunk_BTA: input(inputs, "actions")?,
            is_pad_BT: input(inputs, "actions.is_pad")?.to_kind(Kind::Bool),
        }),
        latent: None,
    };
    let loss = {
        let _autocast = bf16.then(|| Autocast::enter(Device::Cpu, AutocastDtype::Bf16)).transpose()?;
        model.loss(&observation, &targets, &OBJECTIVE, &mut TorchNoise, &Pass::plain(true))?
    };
    loss.total.backward();
    let _norm = norm_and_clip(&optimizer.gradients(), Some(CLIP_NORM), Device::Cpu)?;
    optimizer.step(OPTIMIZER.lr)?;
    optimizer.clear_gradients()?;
    Ok(())
}

fn sample(model: &VlaModel, inputs: &BTreeMap<String, Tensor>, bf16: bool) -> Result<()> {
    let _autocast = bf16.then(|| Autocast::enter(Device::Cpu, AutocastDtype::Bf16)).transpose()?;
    let observation = observation(model.spec(), inputs)?;
    let prediction = model.sample(&observation, Mode::Actions, &mut TorchNoise, &Pass::plain(false))?;
    let chunk_BTA = prediction.actions_BTA.context("no actions were sampled")?;
    anyhow::ensure!(chunk_BTA.isfinite().all().int64_value(&[]) == 1, "the chunk is not finite");
    Ok(())
}

/// What the policy sees, images prepared from their recorded size.
fn observation(spec: &ModelSpec, inputs: &BTreeMap<String, Tensor>) -> Result<Observation> {
    let [height, width] = spec.image_size();
    let camera = |role: &String| -> Result<Option<CameraImages>> {
        let images_BCHW = input(inputs, &format!("camera.{role}"))?;
        let is_real_B = Tensor::ones([images_BCHW.size()[0]], (Kind::Bool, Device::Cpu));
        Ok(Some(CameraImages { pixels_BCHW: pad_resize(&images_BCHW, height, width), is_real_B }))
    };
    Ok(Observation {
        cameras: spec.cameras.iter().map(camera).collect::<Result<_>>()?,
        language: Language {
            ids_BL: input(inputs, "language.ids")?,
            is_valid_BL: input(inputs, "language.is_valid")?.to_kind(Kind::Bool),
        },
        state_BN: Some(input(inputs, "state")?),
    })
}

fn input(inputs: &BTreeMap<String, Tensor>, name: &str) -> Result<Tensor> {
    inputs.get(name).map(Tensor::shallow_clone).with_context(|| format!("the inputs hold no `{name}`"))
}

/// CPU time that this process has used, all threads.
fn cpu_time() -> Result<Duration> {
    let text = std::fs::read_to_string("/proc/self/stat").context("the kernel counts no CPU time")?;
    let fields: Vec<&str> = text.rsplit_once(')').context("no such file format")?.1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Duration::from_millis(10 * ticks))
}
