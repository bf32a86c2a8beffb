//! A small model on made-up data, trained by the real engine with the real configuration tree.

mod data;
mod model;

pub use data::Numbers;
pub use model::{Regression, description};

use hlrp_config::Composed;
use hlrp_schema::{LaqConfig, TrainingRun};
use hlrp_torch::{World, rng};
use hlrp_track::{
    RunDir,
    metrics::read_metrics,
    run::{RunInfo, RunStatus},
};
use hlrp_train::{Outcome, Result, Settings, StopRequest, Trainer, TrainingData};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};
use tch::{Device, Tensor};

/// A run of seconds: 12 steps, a checkpoint every 4, a validation every 5.
pub const SHORT: &[&str] = &[
    "experiment=laq_tiny",
    "training.max_steps=12",
    "training.log_every_n_steps=1",
    "training.scheduler.warmup_steps=3",
    "training.checkpoint.every_n_steps=4",
    "validation.check_interval=5",
    "logging.min_free_gb=0.0",
];

/// libtorch has one random generator for the process: a test that trains keeps this to itself.
pub fn alone() -> MutexGuard<'static, ()> {
    static GENERATOR: Mutex<()> = Mutex::new(());
    let guard = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    tch::set_num_threads(1);
    guard
}

/// Settings of [`SHORT`] with further overrides.
pub fn settings(run_dir: &Path, words: &[&str]) -> Settings {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config");
    let mut overrides: Vec<String> = SHORT.iter().chain(words).map(ToString::to_string).collect();
    overrides.push(format!("logging.run_dir={}", run_dir.display()));
    settings_of(hlrp_config::compose(&hlrp_schema::PROJECT, &tree, "config", &overrides).unwrap(), run_dir)
}

/// Settings of a finished configuration with further overrides.
pub fn settings_from(config: &Path, run_dir: &Path, words: &[&str]) -> Settings {
    let overrides: Vec<String> = words.iter().map(ToString::to_string).collect();
    settings_of(hlrp_config::from_resolved(&hlrp_schema::PROJECT, config, &overrides).unwrap(), run_dir)
}

fn settings_of(config: Composed, run_dir: &Path) -> Settings {
    let typed: LaqConfig = config.extract().unwrap();
    Settings::new(&typed.run(), config, run_dir, Device::Cpu, World::single())
}

/// Trains [`Regression`] on [`Numbers`] from seed 1, or as `settings` continues.
pub fn train(settings: Settings) -> Result<Outcome> {
    train_until(settings, &StopRequest::default(), &mut Regression::default(), &mut Numbers::default())
}

/// Trains `task` on `data` until `stop`.
pub fn train_until(
    settings: Settings,
    stop: &StopRequest,
    task: &mut Regression,
    data: &mut dyn TrainingData,
) -> Result<Outcome> {
    let run_dir = settings.logging.run_dir.clone();
    let config_yaml = settings.config.to_yaml();
    rng::seed(Device::Cpu, 1)?;
    let trainer = Trainer::new(settings, task, data)?;
    let info = RunInfo::new("engine-test", "short", &config_yaml);
    let run = if run_dir.exists() {
        RunDir::resume(&run_dir, trainer.step(), &info)?
    } else {
        RunDir::create(&run_dir, &info)?
    };
    let outcome = trainer.run(&run, stop)?;
    run.finish(RunStatus::Finished)?;
    Ok(outcome)
}

/// The rows of `metrics.jsonl` without what depends on the clock, as bits.
pub fn metrics(run_dir: &Path) -> Vec<(u64, Vec<(String, u64)>)> {
    let rows = read_metrics(&run_dir.join("metrics.jsonl")).unwrap();
    let own = |row: &hlrp_track::metrics::MetricsRow| {
        let (step, values) = row.deterministic();
        (step, values.into_iter().map(|(name, bits)| (name.to_owned(), bits)).collect())
    };
    rows.iter().map(own).collect()
}

/// Folder of the checkpoint of `step`.
pub fn checkpoint(run_dir: &Path, step: u64) -> PathBuf {
    run_dir.join("checkpoints").join(hlrp_train::checkpoint::checkpoint_name(step))
}

/// The tensors of one file of a checkpoint, by name.
pub fn tensors(run_dir: &Path, step: u64, file: &str) -> BTreeMap<String, Tensor> {
    Tensor::read_safetensors(checkpoint(run_dir, step).join(file)).unwrap().into_iter().collect()
}

/// Fails unless both runs logged the same numbers and ended with the same bits.
pub fn assert_same_run(ours: &Path, theirs: &Path, last_step: u64) {
    assert_eq!(metrics(ours), metrics(theirs));
    for file in ["model.safetensors", "optimizer.safetensors"] {
        assert_eq!(tensors(ours, last_step, file), tensors(theirs, last_step, file), "{file}");
    }
}
