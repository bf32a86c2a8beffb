//! Time of one training step and of one action chunk of an expert model, the peer of `tests/bench/smolvla.py`.
//!
//! Reads the description, weights and inputs that `tests/bench/smolvla.py write FOLDER` wrote and prints one JSON object. A step is loss,
//! gradients, clipping and optimizer; a chunk is one observation and all steps of the sampler.
#![allow(non_snake_case, clippy::print_stdout, missing_docs, reason = "a program")]

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use hlrp_nn::smolvlm::pad_resize;
use hlrp_nn::{Pass, Store, read_tensors};
use hlrp_schema::OptimizerConfig;
use hlrp_schema::policy::{Mode, ModelSpec, ObjectiveSpec};
use hlrp_torch::count::count;
use hlrp_torch::profile::{KernelTime, profile};
use hlrp_torch::{Autocast, AutocastDtype, CudaGraph, cuda};
use hlrp_train::{Optimizer, norm_and_clip};
use hlrp_vla::{ActionTarget, CameraImages, Language, Observation, Targets, TorchNoise, VlaModel, freeze};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor};

/// LeRobot's preset for SmolVLA.
const OPTIMIZER: OptimizerConfig = OptimizerConfig { lr: 1e-4, betas: [0.9, 0.95], eps: 1e-8, weight_decay: 1e-10 };
const CLIP_NORM: f64 = 10.0;
const OBJECTIVE: ObjectiveSpec =
    ObjectiveSpec { mode: Mode::Actions, latent_loss_weight: 0.0, action_loss_weight: 1.0 };

#[derive(Parser)]
struct Args {
    /// What `tests/bench/smolvla.py write` wrote.
    folder: PathBuf,
    /// What is timed.
    work: Work,
    /// Number format: float32 throughout, or bf16 autocast over a backbone and an expert held in bfloat16.
    precision: Precision,
    /// CPU threads.
    threads: i32,
    /// Timed repetitions, after warm-up.
    repeats: usize,
    /// Where to compute: cpu, cuda or cuda:N.
    #[arg(long, default_value = "cpu")]
    device: hlrp_schema::Device,
    /// Record the work as a CUDA graph and replay it.
    #[arg(long)]
    graph: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Work {
    Step,
    Chunk,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Precision {
    Float32,
    Bf16,
}

fn main() -> Result<()> {
    let args = Args::parse();
    tch::set_num_threads(args.threads);
    let device = hlrp_train::select_device(args.device)?;
    cuda::allow_tf32(false)?;
    hlrp_torch::rng::seed(device, 0)?;
    let bench = Bench::new(&args, device)?;
    let warm_up = if device.is_cuda() { 3 } else { 1 };
    let ((), counts) = count(|| bench.run())?;
    let mut graph = args.graph.then(|| bench.capture()).transpose()?;
    let mut run = || match &mut graph {
        Some(graph) => {
            graph.replay()?;
            Ok(cuda::synchronize(device)?)
        }
        None => bench.run(),
    };
    let mut times = Vec::new();
    for repeat in 0..warm_up + args.repeats {
        let start = (Instant::now(), cpu_time()?);
        run()?;
        if repeat >= warm_up {
            times.push((start.0.elapsed(), cpu_time()? - start.1));
        }
    }
    let peak = hlrp_torch::memory::peak(device).context("the system counts no memory")?;
    let ((), kernels) = profile(run)?;
    let mut wall: Vec<f64> = times.iter().map(|time| time.0.as_secs_f64()).collect();
    wall.sort_by(f64::total_cmp);
    let quantile = |q: f64| wall[((wall.len() - 1) as f64 * q).round() as usize];
    let cpu_s = times.iter().map(|time| time.1).min().unwrap_or_default().as_secs_f64();
    println!(
        "{}",
        json!({
            "wall_s": wall[0],
            "p50_s": quantile(0.5),
            "p99_s": quantile(0.99),
            "cpu_s": cpu_s,
            "peak_gb": peak as f64 / 1e9,
            "flops": counts.flops,
            "operators": counts.operators,
            "host_waits": counts.host_waits,
            "kernels": seconds_of(&kernels),
        })
    );
    Ok(())
}

/// Name, executions and seconds of each kernel.
fn seconds_of(kernels: &[KernelTime]) -> Vec<Value> {
    kernels.iter().map(|kernel| json!([kernel.name, kernel.calls, kernel.time.as_secs_f64()])).collect()
}

/// A model and what it is run on.
struct Bench {
    work: Work,
    is_bf16: bool,
    device: Device,
    model: VlaModel,
    inputs: BTreeMap<String, Tensor>,
    optimizer: Optimizer,
}

impl Bench {
    fn new(args: &Args, device: Device) -> Result<Self> {
        let folder = &args.folder;
        let case: Value = serde_json::from_reader(std::fs::File::open(folder.join("case.json"))?)?;
        let spec: ModelSpec = serde_json::from_value(case["model"].clone())?;
        let inputs = if args.work == Work::Step { "batch.safetensors" } else { "observation.safetensors" };
        let inputs = read_tensors(&folder.join(inputs))?;
        let model = VlaModel::new(&spec, device)?;
        model.init_from_smolvla(&folder.join("weights.safetensors"))?;
        freeze(model.store(), &model.frozen())?;
        let trained = if args.work == Work::Step { model.store().parameters() } else { Vec::new() };
        let is_bf16 = args.precision == Precision::Bf16;
        Ok(Self {
            work: args.work,
            is_bf16,
            device,
            model: if is_bf16 { hold_in_bfloat16(model, &trained)? } else { model },
            inputs: inputs.into_iter().map(|(name, tensor)| (name, tensor.to_device(device))).collect(),
            optimizer: Optimizer::new(&trained, &OPTIMIZER)?,
        })
    }

    /// One step or one chunk, complete on the device.
    fn run(&self) -> Result<()> {
        match self.work {
            Work::Step => self.train()?,
            Work::Chunk => self.sample()?,
        }
        Ok(cuda::synchronize(self.device)?)
    }

    /// The same, recorded.
    fn capture(&self) -> Result<CudaGraph> {
        for _ in 0..2 {
            self.run()?;
        }
        let (graph, ()) = CudaGraph::capture(self.device, || match self.work {
            Work::Step => self.train(),
            Work::Chunk => self.sample(),
        })?;
        Ok(graph)
    }

    fn autocast(&self) -> Result<Option<Autocast>> {
        Ok(self.is_bf16.then(|| Autocast::enter(self.device, AutocastDtype::Bf16)).transpose()?)
    }

    fn train(&self) -> Result<()> {
        let observation = self.observation()?;
        let targets = Targets {
            action: Some(ActionTarget {
                chunk_BTA: self.input("actions")?,
                is_pad_BT: self.input("actions.is_pad")?.to_kind(Kind::Bool),
                is_pad_dim_BA: None,
            }),
            latent: None,
        };
        let loss = {
            let _autocast = self.autocast()?;
            self.model.loss(&observation, &targets, &OBJECTIVE, &mut TorchNoise, &Pass::plain(true))?
        };
        loss.total.backward();
        let _norm = norm_and_clip(&self.optimizer.gradients(), Some(CLIP_NORM), self.device)?;
        self.optimizer.step(OPTIMIZER.lr)?;
        self.optimizer.clear_gradients()?;
        Ok(())
    }

    fn sample(&self) -> Result<()> {
        let _autocast = self.autocast()?;
        let observation = self.observation()?;
        let prediction = self.model.sample(&observation, Mode::Actions, None, &mut TorchNoise, &Pass::plain(false))?;
        prediction.actions_BTA.context("no actions were sampled").map(drop)
    }

    /// What the policy sees, images prepared from their recorded size.
    fn observation(&self) -> Result<Observation> {
        let spec = self.model.spec();
        let [height, width] = spec.image_size();
        let camera = |role: &String| -> Result<Option<CameraImages>> {
            let images_BCHW = self.input(&format!("camera.{role}"))?;
            let is_real_B = Tensor::ones([images_BCHW.size()[0]], (Kind::Bool, self.device));
            Ok(Some(CameraImages { pixels_BCHW: pad_resize(&images_BCHW, height, width), is_real_B }))
        };
        Ok(Observation {
            cameras: spec.cameras.iter().map(camera).collect::<Result<_>>()?,
            language: Language {
                ids_BL: self.input("language.ids")?,
                is_valid_BL: self.input("language.is_valid")?.to_kind(Kind::Bool),
            },
            state_BN: Some(self.input("state")?),
        })
    }

    fn input(&self, name: &str) -> Result<Tensor> {
        self.inputs.get(name).map(Tensor::shallow_clone).with_context(|| format!("the inputs hold no `{name}`"))
    }
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

/// CPU time that this process has used, all threads.
fn cpu_time() -> Result<Duration> {
    let text = std::fs::read_to_string("/proc/self/stat").context("the kernel counts no CPU time")?;
    let fields: Vec<&str> = text.rsplit_once(')').context("no such file format")?.1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Duration::from_millis(10 * ticks))
}
