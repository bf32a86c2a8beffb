//! A run of stage 1, small enough to be trained within a test.

use hlrp_config::compose;
use hlrp_data::{Batch, FrameSize, ImageStream, Position, SampleMeta};
use hlrp_laq::{LaqModel, LaqTask, Parts};
use hlrp_schema::{LaqConfig, TrainingRun};
use hlrp_torch::World;
use hlrp_track::RunDir;
use hlrp_track::run::{RunInfo, RunStatus};
use hlrp_train::{BatchStream, Settings, SourceRecord, StopRequest, Task, Trainer, TrainingData, ValidationBatches};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

const SIDE: usize = 32;
const NUM_PAIRS: usize = 4;

/// Trains two steps and gives the run directory below `parent`.
pub(crate) fn run_of_stage_1(parent: &Path) -> PathBuf {
    train_stage_1(&parent.join("run"), &["training.max_steps=2"]).run_dir
}

/// A run of stage 1 and the model as its last step left it.
pub(crate) struct StageOne {
    pub(crate) run_dir: PathBuf,
    /// Parameters and buffers.
    pub(crate) tensors: Vec<(String, Tensor)>,
}

/// Trains in `run_dir` with further overrides, or continues there.
pub(crate) fn train_stage_1(run_dir: &Path, further: &[&str]) -> StageOne {
    let overrides = [
        "experiment=laq_tiny",
        "model=laq_pixel_tiny",
        "model.image_size=32",
        "model.patch_size=4",
        "model.dim=32",
        "model.heads=2",
        "model.dim_head=16",
        "training.scheduler.warmup_steps=0",
        "logging.min_free_gb=0.0",
    ];
    let overrides = [&overrides[..], further].concat().into_iter().map(str::to_owned).collect::<Vec<_>>();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config");
    let composed = compose(&hlrp_schema::PROJECT, &root, "config", &overrides).unwrap();
    let config: LaqConfig = composed.extract().unwrap();
    tch::manual_seed(1);
    let mut task = LaqTask::new(LaqModel::new(&config.model, Parts::All, Device::Cpu), &config, World::single());
    let settings = Settings::new(&config.run(), composed, run_dir, Device::Cpu, World::single());
    let mut data = Noise;
    let trainer = Trainer::new(settings, &mut task, &mut data).unwrap();
    let run = match run_dir.exists() {
        true => RunDir::resume(run_dir, trainer.step(), &info()).unwrap(),
        false => RunDir::create(run_dir, &info()).unwrap(),
    };
    trainer.run(&run, &StopRequest::default()).unwrap();
    run.finish(RunStatus::Finished).unwrap();
    let tensors = task.parameters().into_iter().chain(task.buffers());
    let tensors = tensors.map(|(name, tensor)| (name, tensor.detach().copy())).collect();
    StageOne { run_dir: run_dir.to_path_buf(), tensors }
}

/// What a run directory of a test says of its run.
pub(crate) fn info() -> RunInfo<'static> {
    RunInfo::new("test", "noise", "")
}

/// Frame pairs of random pixels, `uint8 [4,2,3,32,32]`.
pub(crate) fn pairs() -> Tensor {
    let side = SIDE as i64;
    Tensor::randint(256, [NUM_PAIRS as i64, 2, 3, side, side], (Kind::Uint8, Device::Cpu))
}

/// Batches of random pixels.
struct Noise;

fn batch() -> Batch {
    let meta = |frame| SampleMeta { source: "noise".into(), episode: 0, frame, dt_s: 0.1 };
    let pixels: Vec<u8> = (0..NUM_PAIRS * 2 * 3 * SIDE * SIDE).map(|at| (at * at % 251) as u8).collect();
    let stream = ImageStream {
        pixels_BTCHW: pixels.into(),
        shape: [NUM_PAIRS, 2, 3, SIDE, SIDE],
        size: FrameSize { height: SIDE, width: SIDE },
        is_real_BT: vec![true; NUM_PAIRS * 2],
    };
    Batch {
        images: BTreeMap::from([("primary".to_owned(), stream)]),
        task: vec![String::new(); NUM_PAIRS],
        state: None,
        action: None,
        labels: BTreeMap::new(),
        meta: (0..NUM_PAIRS as u64).map(meta).collect(),
    }
}

impl BatchStream for Noise {
    fn next_batch(&mut self) -> anyhow::Result<Batch> {
        Ok(batch())
    }

    fn position(&self) -> Position {
        Position::default()
    }
}

impl TrainingData for Noise {
    fn sources(&self) -> BTreeMap<String, SourceRecord> {
        BTreeMap::new()
    }

    fn train(&mut self, _position: Position, _: &World) -> anyhow::Result<Box<dyn BatchStream>> {
        Ok(Box::new(Noise))
    }

    fn validation(&mut self, _limit_batches: Option<usize>, _: &World) -> anyhow::Result<ValidationBatches> {
        Ok(Box::new(std::iter::once(Ok(batch()))))
    }
}
