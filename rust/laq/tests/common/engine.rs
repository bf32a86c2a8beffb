//! The engine around a mini model, with synthetic data: a bright square that moves.
#![allow(dead_code)] // each test file uses its part

use hlrp_config::{Composed, compose};
use hlrp_data::{Batch, FrameSize, ImageStream, Position, SampleMeta};
use hlrp_schema::{LaqConfig, TrainingRun};
use hlrp_torch::World;
use hlrp_track::RunDir;
use hlrp_track::run::{RunInfo, RunStatus};
use hlrp_train::{
    BatchStream, Outcome, Settings, SourceRecord, StopRequest, Task, Trainer, TrainingData, ValidationBatches,
};
use std::collections::BTreeMap;
use std::path::Path;
use tch::Device;

const SIDE: usize = 32;
const NUM_SAMPLES: usize = 4;

/// The configuration of a mini run in `run_dir`.
pub(crate) fn compose_mini(run_dir: &Path) -> (Composed, LaqConfig) {
    compose_with(run_dir, &[])
}

/// The same with `overrides`.
pub(crate) fn compose_with(run_dir: &Path, overrides: &[&str]) -> (Composed, LaqConfig) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config");
    let words = [
        "experiment=laq_tiny",
        "model=laq_pixel_tiny",
        "model.image_size=32",
        "model.patch_size=4",
        "model.dim=32",
        "model.heads=2",
        "model.dim_head=16",
        "training.max_steps=4",
        "training.scheduler.warmup_steps=1",
        "training.checkpoint.every_n_steps=2",
        "validation.check_interval=2",
        "validation.num_fixed_samples=3",
        "logging.min_free_gb=0.0",
    ];
    let mut words: Vec<String> = words.map(str::to_owned).into();
    words.push(format!("logging.run_dir={}", run_dir.display()));
    words.extend(overrides.iter().map(|text| (*text).to_owned()));
    let composed = compose(&hlrp_schema::PROJECT, &root, "config", &words).unwrap();
    let config = composed.extract().unwrap();
    (composed, config)
}

pub(crate) fn settings(composed: &Composed, config: &LaqConfig) -> Settings {
    Settings::new(&config.run(), composed.clone(), &config.logging.run_dir, Device::Cpu, World::single())
}

/// Trains `task` on squares as a configuration says.
pub(crate) fn train(composed: &Composed, config: &LaqConfig, task: &mut dyn Task) -> anyhow::Result<Outcome> {
    let mut data = Squares;
    let trainer = Trainer::new(settings(composed, config), task, &mut data)?;
    let yaml = composed.to_yaml();
    let info = RunInfo::new("test", "squares", &yaml);
    let run = RunDir::create(&config.logging.run_dir, &info)?;
    let outcome = trainer.run(&run, &StopRequest::default())?;
    run.finish(RunStatus::Finished)?;
    Ok(outcome)
}

/// A batch whose squares start at a place that depends on `index` and move down.
pub(crate) fn batch(index: u64) -> Batch {
    let mut pixels = vec![30_u8; NUM_SAMPLES * 2 * 3 * SIDE * SIDE];
    let mut meta = Vec::new();
    for sample in 0..NUM_SAMPLES {
        let left = (index as usize * 7 + sample * 5) % (SIDE - 8);
        for time in 0..2 {
            let top = 4 + time * (4 + sample * 3);
            for channel in 0..3 {
                let plane = ((sample * 2 + time) * 3 + channel) * SIDE * SIDE;
                for row in top..top + 8 {
                    pixels[plane + row * SIDE + left..plane + row * SIDE + left + 8].fill(220);
                }
            }
        }
        meta.push(SampleMeta { source: "squares".into(), episode: index, frame: sample as u64, dt_s: 0.1 });
    }
    let stream = ImageStream {
        pixels_BTCHW: pixels.into(),
        shape: [NUM_SAMPLES, 2, 3, SIDE, SIDE],
        size: FrameSize { height: SIDE, width: SIDE },
        is_real_BT: vec![true; NUM_SAMPLES * 2],
    };
    Batch {
        images: BTreeMap::from([("primary".to_owned(), stream)]),
        task: vec![String::new(); NUM_SAMPLES],
        state: None,
        action: None,
        labels: BTreeMap::new(),
        meta,
    }
}

/// Endless training batches and three validation batches.
pub(crate) struct Squares;

struct Stream(u64);

impl BatchStream for Stream {
    fn next_batch(&mut self) -> anyhow::Result<Batch> {
        self.0 += 1;
        Ok(batch(self.0))
    }

    fn position(&self) -> Position {
        Position { epoch: 0, sample: self.0 * NUM_SAMPLES as u64, num_bad_samples: 0 }
    }
}

impl TrainingData for Squares {
    fn sources(&self) -> BTreeMap<String, SourceRecord> {
        BTreeMap::new()
    }

    fn train(&mut self, position: Position, _: &World) -> anyhow::Result<Box<dyn BatchStream>> {
        Ok(Box::new(Stream(position.sample / NUM_SAMPLES as u64)))
    }

    fn validation(&mut self, _limit_batches: Option<usize>, _: &World) -> anyhow::Result<ValidationBatches> {
        Ok(Box::new((100..103).map(|index| Ok(batch(index)))))
    }
}
