//! A training step queues its work and never waits for the device: in the loop of the engine, with teacher, optimizer and averages.

use crate::stage_1::{info, run_of_stage_1};
use hlrp_config::compose;
use hlrp_schema::{TrainingRun, VlaConfig};
use hlrp_torch::{World, count::count};
use hlrp_track::{RunDir, run::RunStatus};
use hlrp_train::{Settings, StopRequest, Trainer, program::Setup};
use std::path::Path;
use tch::Device;

/// Waits of a run of so many steps with the teacher in `teacher`; the last step alone is logged, validated and saved.
fn waits_of_run(num_steps: u64, teacher: &Path, overrides: &[&str]) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let run_dir = folder.path().join("run");
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = |key: &str, path: &Path| format!("{key}={}", path.display());
    let mut words = vec![
        path("policy.teacher.checkpoint", teacher),
        path("policy.processor.tokenizer", &repository.join("tests/golden/tokenizer")),
        path("data.sources.metaworld_mt5.root", &repository.join("tests/data/embedded_images")),
        path("logging.run_dir", &run_dir),
        format!("training.max_steps={num_steps}"),
    ];
    let short = [
        "experiment=vla_tiny",
        "data.sources.metaworld_mt5.cameras.primary=observation.images.front",
        "data.sources.metaworld_mt5.num_val_episodes=1",
        "data.loader.batch_size=2",
        "training.scheduler.warmup_steps=1",
        "training.log_every_n_steps=1000",
        "training.checkpoint.every_n_steps=1000",
        "validation.check_interval=1000",
        "validation.limit_batches=1",
        "logging.min_free_gb=0.0",
        "logging.sinks.png=false",
    ];
    words.extend(short.iter().chain(overrides).map(|word| (*word).to_owned()));
    let composed = compose(&hlrp_schema::PROJECT, &repository.join("config"), "config", &words).unwrap();
    let config: VlaConfig = composed.extract().unwrap();
    tch::manual_seed(1);
    let setup = Setup { device: Device::Cpu, world: World::single(), overwrites_weights: false, resumed: None };
    let (mut task, mut data) = hlrp_vla::prepare(&config, &setup, &|_, _, _, _| {}).unwrap();
    let settings = Settings::new(&config.run(), composed, &run_dir, Device::Cpu, World::single());
    let trainer = Trainer::new(settings, &mut task, &mut data).unwrap();
    let run = RunDir::create(&run_dir, &info()).unwrap();
    let work = || trainer.run(&run, &StopRequest::default()).map(drop).map_err(anyhow::Error::from);
    let ((), counts) = count(work).unwrap();
    run.finish(RunStatus::Finished).unwrap();
    counts.host_waits
}

#[test]
fn a_step_of_the_engine_that_is_not_logged_lets_nothing_wait() {
    // On the CPU the engine looks at the loss of every step; with a GPU it does where it logs.
    const OF_THE_CPU: u64 = 1;
    let folder = tempfile::tempdir().unwrap();
    let teacher = run_of_stage_1(folder.path());
    for overrides in [
        &["training.ema.enabled=true", "training.ema.update_after_step=1"] as &[&str],
        // Its masked means are weighted by the supervised values of both batches.
        &["training.gradient.accumulate_steps=2"],
    ] {
        let beyond = waits_of_run(6, &teacher, overrides) - waits_of_run(4, &teacher, overrides);
        assert_eq!(beyond, 2 * OF_THE_CPU, "{overrides:?}");
    }
}
